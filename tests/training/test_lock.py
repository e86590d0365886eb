"""One training at a time runs in a folder."""

import errno
import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

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
        with pytest.raises(SettingError, match="a training is running in .*: wait for its end"):
            with exclusive_run(tmp_path):
                pass
        holder.send_signal(signal.SIGTERM)
    with exclusive_run(tmp_path), pytest.raises(SettingError, match="is running"):
        with exclusive_run(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


def test_a_second_training_is_refused_at_once(tmp_path: Path) -> None:
    with exclusive_run(tmp_path):
        started = time.monotonic()
        with pytest.raises(SettingError, match="is running"), exclusive_run(tmp_path):
            pass
        assert time.monotonic() - started < 0.5


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, files = fcntl.flock, []

    def late(file: int, operation: int) -> None:
        files.append(file)
        if len(files) == 1:
            (tmp_path / lock.LOCK).unlink()
        original(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with exclusive_run(tmp_path):
        assert len(files) == 2
        with pytest.raises(SettingError, match="is running"), exclusive_run(tmp_path):
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_a_file_system_without_locks_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    asked = []

    def refuse(file: int, operation: int) -> None:
        asked.append(file)
        raise OSError(number, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with exclusive_run(tmp_path):
        assert len(asked) == 1
    with exclusive_run(tmp_path / "none"):
        assert not (tmp_path / "none").exists()
