"""Atomic writing: a file is written completely or not at all."""

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from genprior.core.atomic_files import write_atomic


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomic(path, lambda file: file.write(b"old and long"))
    write_atomic(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt(), SystemExit(1)])
def test_a_failure_midway_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, failure: BaseException
) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(file: BinaryIO) -> None:
        file.write(b"half of the ne")
        file.flush()
        raise failure

    with pytest.raises(type(failure)):
        write_atomic(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_readers_see_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    seen = []

    def write(file: BinaryIO) -> None:
        file.write(b"new")
        file.flush()
        seen.append(path.read_bytes())

    write_atomic(path, write)
    assert seen == [b"old"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.bin", tmp_path / "plain.bin"
    plain.write_bytes(b"")
    write_atomic(path, lambda file: file.write(b"x"))
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.skipif(os.name != "posix", reason="folders are not synced")
@pytest.mark.parametrize("refuses", ["open", "fsync"])
def test_a_folder_that_cannot_be_synced_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: str
) -> None:
    path, asked = tmp_path / "a.bin", []
    original = getattr(os, refuses)

    def refuse(what: object, *rest: object, **more: object) -> object:
        if not os.path.isdir(what):  # takes descriptors, too
            return original(what, *rest, **more)
        asked.append(what)
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, refuses, refuse)
    write_atomic(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new" and len(asked) == 1
