"""Resumable store of evaluation results: fixed settings, and one line of JSON per result.

    settings.json           settings on which every result depends
    results.jsonl           results, one line each
    results.RANK.jsonl      results of one process that are not merged yet

Lines are written and synced to disk before the next unit of work begins. An incomplete line, left
by a killed process, is dropped, and that unit is computed again.
"""

import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from genprior.core.atomic_files import write_atomic
from genprior.core.errors import SettingError
from genprior.core.records import parse_json, read_json, read_regular

SETTINGS, RESULTS = "settings.json", "results.jsonl"
KEYS = ("index", "task", "seed", "method")
# A line has about 500 bytes: eight million results.
MAX_RESULTS_BYTES = 2**32
Record = dict[str, Any]
Count = Annotated[int, msgspec.Meta(ge=0)]
Score = float | None | UnsetType


class Result(msgspec.Struct):
    """Schema of a line of results; a failed measurement has no scores."""

    index: Count
    image: str
    task: str
    seed: Count
    method: str
    prior: str | None
    baseline: bool
    device: str
    machine: str
    failed: str | UnsetType = UNSET
    solver: str | None = None
    psnr: Score = UNSET
    psnr_best: Score = UNSET
    ssim: Score = UNSET
    lpips: Score = UNSET
    misfit: Score = UNSET
    coverage: Score = UNSET
    coverage50: Score = UNSET
    coverage80: Score = UNSET
    coverage95: Score = UNSET
    width: Score = UNSET
    crps: Score = UNSET
    hole_psnr: Score = UNSET
    patch_distance: Score = UNSET
    gradient: Score = UNSET
    jump: Score = UNSET
    ranks: list[float] | None | UnsetType = UNSET
    bias: Score = UNSET
    std: Score = UNSET
    w2: Score = UNSET
    seconds: Score = UNSET
    nfe: Score = UNSET
    products: Score = UNSET
    memory: Score = UNSET

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"`{name}` is {value}, not a finite number")
        if not all(map(math.isfinite, self.ranks or ())):
            raise ValueError("`ranks` holds numbers that are not finite")
        if self.failed is UNSET and self.psnr is UNSET:
            raise ValueError("neither `failed` nor `psnr` is there")
        if self.failed is UNSET and not self.baseline and self.solver is None:
            raise ValueError("`solver` is missing")


class ResultsStore:
    """Evaluation results in a folder.

    Arguments:
        folder: The folder.
        keys: Names of the fields that identify a result.
        kind: Schema of a result, which has these fields.
    """

    def __init__(self, folder: Path, keys: Sequence[str], kind: type) -> None:
        self.folder, self.keys, self.kind = folder, tuple(keys), kind

    def open(self, settings: Mapping[str, Any]) -> None:
        """Creates the store, or resumes it if its settings are the same.

        Arguments:
            settings: JSON types. A setting that is a dictionary may get new entries.

        Raises:
            SettingError: A setting has changed, a file is damaged, or there are results without
                settings.
        """
        path = self.folder / SETTINGS
        settings = json.loads(json.dumps(dict(settings)))
        if path.exists():
            with self._readable(path):
                before = read_json(path, dict[str, Any])
            for name in before.keys() | settings.keys():
                self._compare(name, before.get(name), settings.get(name))
            settings = _merged(before, settings)
            self.read()  # damaged results are found before the settings are written
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
        """Returns all results so far, by key.

        Raises:
            SettingError: A file of results is damaged, or not a regular file.
        """
        records = {}
        for path in sorted(self.folder.glob("results*.jsonl")):
            with self._readable(path):
                # What follows the last line end is an incomplete line of a killed process.
                lines = read_regular(path, MAX_RESULTS_BYTES).split(b"\n")[:-1]
            for number, line in enumerate(lines, 1):
                with self._readable(path, f"line {number}: "):
                    parse_json(line, self.kind)
                    record = parse_json(line, Record)
                records[self.key(record)] = record
        return records

    @contextmanager
    def _readable(self, path: Path, place: str = "") -> Iterator[None]:
        """Names the file, and what to do, in the error of a damaged file."""
        try:
            yield
        except ValueError as error:
            raise SettingError(
                f"{path}: {place}{error}: restore this file, choose another folder, or add "
                f"--overwrite"
            ) from error

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

    def clear(self, others: Iterable[Path] = ()) -> None:
        """Deletes all results, other files that were made of them, and the settings.

        A process that is killed meanwhile leaves neither results without these files nor files
        without settings, which tell who wrote them.
        """
        for path in (*self.folder.glob("results*.jsonl"), *others, self.folder / SETTINGS):
            path.unlink(missing_ok=True)


def holds(path: Path, names: Collection[str]) -> bool:
    """Returns whether a file holds a JSON object with at least these keys."""
    try:
        return set(names) <= read_json(path, dict[str, Any]).keys()
    except (OSError, ValueError):
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
