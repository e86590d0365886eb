"""One training at a time is at work in a folder."""

import errno
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest
from repository import ROOT

from genprior.core.errors import SettingError
from genprior.training import lock
from genprior.training.lock import exclusive_run

HOLD = """
import sys
from pathlib import Path

from genprior.training.lock import exclusive_run

with exclusive_run(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_locked_until_its_process_ends_however_that_ends(tmp_path: Path) -> None:
    root = str(ROOT)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)],
                              env={"PYTHONPATH": root}, stdin=-1, stdout=-1)
    with holder:
        assert holder.stdout.readline().strip() == b"locked"
        with pytest.raises(SettingError, match="has a training at work: wait for its end"):
            with exclusive_run(tmp_path):
                pass
        holder.send_signal(signal.SIGTERM)
    with exclusive_run(tmp_path), pytest.raises(SettingError, match="at work"):
        with exclusive_run(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, files = lock._lock, []

    def late(file: BinaryIO) -> None:
        files.append(file)
        if len(files) == 1:
            (tmp_path / lock.LOCK).unlink()
        original(file)

    monkeypatch.setattr(lock, "_lock", late)
    with exclusive_run(tmp_path):
        with pytest.raises(SettingError, match="at work"), exclusive_run(tmp_path):
            pass
    assert len(files) == 3 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    asked = []

    def refuse(file: BinaryIO) -> None:
        asked.append(file)
        raise OSError(number, "No locks available")

    monkeypatch.setattr(lock, "_lock", refuse)
    with exclusive_run(tmp_path):
        assert len(asked) == 1
    with exclusive_run(tmp_path / "none"):
        assert not (tmp_path / "none").exists()
