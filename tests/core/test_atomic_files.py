"""Atomic writing: a file is written completely or not at all."""

import os
from pathlib import Path
from typing import BinaryIO

import pytest

from genprior.core.atomic_files import AtomicFiles, new_folder, sweep, write_atomic


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


@pytest.mark.skipif(os.name != "posix", reason="other permissions")
def test_a_replaced_file_passes_its_permissions_on(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    for mode in (0o600, 0o640, 0o444, 0o755):
        path.chmod(mode)
        write_atomic(path, lambda file: file.write(b"new"))
        assert path.stat().st_mode & 0o7777 == mode
    if os.geteuid() == 0:
        os.chown(path, 12345, 23456)
        write_atomic(path, lambda file: file.write(b"new"))
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_a_link(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "b.bin"
    if exists:
        target.write_bytes(b"old")
    link = tmp_path / "a.bin"
    link.symlink_to(Path("there") / "b.bin")
    (tmp_path / "chain.bin").symlink_to(link)
    with AtomicFiles() as files:
        files.write(tmp_path / "chain.bin", lambda file: file.write(b"new"))
        assert files.read(tmp_path / "chain.bin") == b"new"
        assert target.exists() == exists
    assert link.is_symlink() and (tmp_path / "chain.bin").is_symlink()
    assert target.read_bytes() == b"new" and not target.is_symlink()
    assert os.listdir(tmp_path / "there") == ["b.bin"]


def test_devices_and_pipes_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "link"):
        before = (tmp_path / name).stat().st_mode
        with pytest.raises(OSError, match="Not a regular file"):
            write_atomic(tmp_path / name, lambda file: file.write(b"new"))
        assert (tmp_path / name).stat().st_mode == before
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


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


def write_all(folder: Path, names: str, data: bytes, exclusive: bool) -> None:
    with AtomicFiles(exclusive) as files:
        for name in names:
            files.write(folder / name, lambda file: file.write(data))


@pytest.mark.parametrize("links", [True, False])
def test_exclusive_files_replace_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(*paths: object) -> None:
        raise OSError(95, "Operation not supported")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    write_all(tmp_path, "ab", b"mine", exclusive=True)
    for names in ("abc", "cba", "xcb"):
        with pytest.raises(FileExistsError) as caught:
            write_all(tmp_path, names, b"yours", exclusive=True)
        taken = next(name for name in names if name in "ab")
        assert caught.value.filename == str(tmp_path / taken)
        assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert {(tmp_path / name).read_bytes() for name in "ab"} == {b"mine"}
    write_all(tmp_path, "abc", b"new", exclusive=False)
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"new"}


def test_a_dangling_link_is_a_name_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "nothing")
    with pytest.raises(FileExistsError):
        write_all(tmp_path, "a", b"x", exclusive=True)
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_file_that_cannot_be_renamed_leaves_all_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException
) -> None:
    write_all(tmp_path, "bc", b"old", exclusive=False)
    calls, replace = [], os.replace

    def failing(*paths: object) -> None:
        calls.append(paths)
        if len(calls) == number + 1:
            raise error
        replace(*paths)

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(type(error)):
        write_all(tmp_path, "abc", b"new", exclusive=False)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"b": b"old", "c": b"old"}


@pytest.mark.skipif(os.name != "posix", reason="another limit")
def test_errors_name_the_file_and_not_its_temporary_file(tmp_path: Path) -> None:
    for path in (tmp_path / ("a" * 300), tmp_path / "none" / "a"):
        with pytest.raises(OSError) as caught:
            write_atomic(path, lambda file: file.write(b"x"))
        assert caught.value.filename == str(path) and ".genprior-" not in str(caught.value)
    assert not os.listdir(tmp_path)


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with new_folder(tmp_path / "parent" / "new") as folder:
        (folder / "a").write_bytes(b"a")
        assert not (tmp_path / "parent" / "new").exists()
    assert os.listdir(tmp_path / "parent") == ["new"]
    assert os.listdir(tmp_path / "parent" / "new") == ["a"]


def test_a_folder_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "new") as folder:
        (folder / "a").write_bytes(b"a")
        raise KeyboardInterrupt
    assert not os.listdir(tmp_path)


def test_a_new_folder_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").touch()
    with pytest.raises(OSError) as caught, new_folder(tmp_path / "new") as folder:
        (folder / "a").write_bytes(b"a")
    assert caught.value.filename == str(tmp_path / "new")
    assert os.listdir(tmp_path) == ["new"] and os.listdir(tmp_path / "new") == ["mine"]


def test_links_in_the_place_of_temporary_files_are_removed_and_not_followed(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").touch()
    os.utime(tmp_path / "mine", (0, 0))
    (tmp_path / ".genprior-0123456789abcdef").symlink_to(tmp_path / "mine")
    sweep(tmp_path)
    assert os.listdir(tmp_path) == ["mine"] and os.listdir(tmp_path / "mine") == ["a"]
