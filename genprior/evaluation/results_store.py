"""A measurement in progress: settings that stay, and one line of JSON for every result.

    settings.json           what every result depends on
    results.jsonl           results, one line each
    results.RANK.jsonl      results of a process that were not yet put in there

A line is written whole and synced before the next piece of work begins. What a killed process
left of a line is dropped, and that piece of work done again.
"""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from genprior.core.atomic_files import write_atomic
from genprior.core.errors import SettingError

SETTINGS, RESULTS = "settings.json", "results.jsonl"
Record = dict[str, Any]


class ResultsStore:
    """The results in a folder.

    Arguments:
        folder: Where they are.
        keys: Names of the fields that tell two results apart.
    """

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self.folder, self.keys = folder, tuple(keys)

    def open(self, settings: Mapping[str, Any]) -> None:
        """Begins, or goes on with the settings that it was begun with.

        Arguments:
            settings: JSON types. Of a setting that is a dictionary, entries may be added.

        Raises:
            SettingError: A setting is another one than before.
        """
        path = self.folder / SETTINGS
        settings = json.loads(json.dumps(dict(settings)))
        if path.exists():
            before = json.loads(path.read_text())
            for name in before.keys() | settings.keys():
                self._compare(name, before.get(name), settings.get(name))
            settings = _joined(before, settings)
        elif any(self.folder.glob("results*.jsonl")):
            raise SettingError(f"{self.folder} holds results without {SETTINGS}: choose another")
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(settings, indent=1) + "\n")

    def _compare(self, name: str, before: Any, now: Any) -> None:
        if isinstance(before, dict) and isinstance(now, dict):
            for key in before.keys() & now.keys():
                self._compare(f"{name} {key}", before[key], now[key])
        elif before != now:
            raise SettingError(
                f"{self.folder} holds results with {name} = {_short(before)}, now it is "
                f"{_short(now)}: give the old value, another folder, or --overwrite"
            )

    def key(self, record: Record) -> tuple:
        """What tells a result from the others."""
        return tuple(record[name] for name in self.keys)

    def read(self) -> dict[tuple, Record]:
        """All results so far, by key."""
        records = {}
        for path in sorted(self.folder.glob("results*.jsonl")):
            # A line without an end is what a killed process left.
            for line in path.read_bytes().split(b"\n")[:-1]:
                record = json.loads(line)
                records[self.key(record)] = record
        return records

    def append(self, records: Sequence[Record], rank: int) -> None:
        """Adds results of one process."""
        path = self.folder / f"results.{rank}.jsonl"
        with open(path, "ab+") as file:
            whole = _whole(file.seek(0) or file.read())
            file.truncate(whole)
            text = "".join(json.dumps(r, allow_nan=False) + "\n" for r in records)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def merge(self) -> None:
        """Puts the results of all processes into one file, in the order of their keys."""
        records = self.read()
        lines = [json.dumps(records[key], allow_nan=False) + "\n" for key in sorted(records)]
        _write(self.folder / RESULTS, "".join(lines))
        for path in self.folder.glob("results.*.jsonl"):
            path.unlink()

    def clear(self) -> None:
        """Forgets everything."""
        for path in (*self.folder.glob("results*.jsonl"), self.folder / SETTINGS):
            path.unlink(missing_ok=True)


def holds(path: Path, names: Collection[str]) -> bool:
    """Whether a file is a JSON object with these names, among others."""
    try:
        return set(names) <= json.loads(path.read_text()).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Entries of both, at every depth."""
    both = {**before, **now}
    for name, value in before.items():
        if isinstance(value, dict) and isinstance(now.get(name), dict):
            both[name] = _joined(value, now[name])
    return both


def _whole(data: bytes) -> int:
    """Length of the whole lines."""
    return data.rfind(b"\n") + 1


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."
