"""Resumable store of evaluation results: fixed settings, and one line of JSON per result.

    settings.json           settings on which every result depends
    results.jsonl           results, one line each
    results.RANK.jsonl      results of one process that are not merged yet

Lines are written and synced to disk before the next unit of work begins. An incomplete line, left
by a killed process, is dropped, and that unit is computed again.
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
    """Evaluation results in a folder.

    Arguments:
        folder: The folder.
        keys: Names of the fields that identify a result.
    """

    def __init__(self, folder: Path, keys: Sequence[str]) -> None:
        self.folder, self.keys = folder, tuple(keys)

    def open(self, settings: Mapping[str, Any]) -> None:
        """Creates the store, or resumes it if its settings are the same.

        Arguments:
            settings: JSON types. A setting that is a dictionary may get new entries.

        Raises:
            SettingError: A setting has changed, or there are results without settings.
        """
        path = self.folder / SETTINGS
        settings = json.loads(json.dumps(dict(settings)))
        if path.exists():
            before = json.loads(path.read_text())
            for name in before.keys() | settings.keys():
                self._compare(name, before.get(name), settings.get(name))
            settings = _merged(before, settings)
        elif any(self.folder.glob("results*.jsonl")):
            raise SettingError(
                f"{self.folder} holds results without {SETTINGS}: choose another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(path, json.dumps(settings, indent=1) + "\n")

    def _compare(self, name: str, before: Any, now: Any) -> None:
        if isinstance(before, dict) and isinstance(now, dict):
            for key in before.keys() & now.keys():
                self._compare(f"{name} {key}", before[key], now[key])
        elif before != now:
            raise SettingError(
                f"{self.folder} holds results with {name} = {_abbreviated(before)}, now it is "
                f"{_abbreviated(now)}: give the old value, another folder, or --overwrite"
            )

    def key(self, record: Record) -> tuple:
        """Returns the key that identifies a result."""
        return tuple(record[name] for name in self.keys)

    def read(self) -> dict[tuple, Record]:
        """Returns all results so far, by key."""
        records = {}
        for path in sorted(self.folder.glob("results*.jsonl")):
            # The part after the last line end is empty, or an incomplete line of a killed process.
            for line in path.read_bytes().split(b"\n")[:-1]:
                record = json.loads(line)
                records[self.key(record)] = record
        return records

    def append(self, records: Sequence[Record], rank: int) -> None:
        """Appends results to the file of one process."""
        path = self.folder / f"results.{rank}.jsonl"
        with open(path, "ab+") as file:
            length = _complete_length(file.seek(0) or file.read())
            file.truncate(length)
            text = "".join(json.dumps(r, allow_nan=False) + "\n" for r in records)
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def merge(self) -> None:
        """Merges the results of all processes into one file, sorted by key."""
        records = self.read()
        lines = [json.dumps(records[key], allow_nan=False) + "\n" for key in sorted(records)]
        _write(self.folder / RESULTS, "".join(lines))
        for path in self.folder.glob("results.*.jsonl"):
            path.unlink()

    def clear(self) -> None:
        """Deletes all results and the settings."""
        for path in (*self.folder.glob("results*.jsonl"), self.folder / SETTINGS):
            path.unlink(missing_ok=True)


def holds(path: Path, names: Collection[str]) -> bool:
    """Returns whether a file holds a JSON object with at least these keys."""
    try:
        return set(names) <= json.loads(path.read_text()).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _merged(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Merges nested dictionaries; values of `now` take precedence."""
    both = {**before, **now}
    for name, value in before.items():
        if isinstance(value, dict) and isinstance(now.get(name), dict):
            both[name] = _merged(value, now[name])
    return both


def _complete_length(data: bytes) -> int:
    """Returns the number of bytes in complete lines."""
    return data.rfind(b"\n") + 1


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def _abbreviated(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else f"{text[:57]}..."
