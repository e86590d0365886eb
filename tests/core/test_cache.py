"""Cache folder: the user's variables, in order."""

import tempfile
from pathlib import Path

import pytest

from genprior.core.cache import cache_folder


def test_variables_come_before_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENPRIOR_HOME", "/data/models")
    monkeypatch.setenv("XDG_CACHE_HOME", "/data/cache")
    assert cache_folder() == Path("/data/models")
    monkeypatch.delenv("GENPRIOR_HOME")
    assert cache_folder() == Path("/data/cache/genprior")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ann"))
    assert cache_folder() == Path("/home/ann/.cache/genprior")


def test_a_user_without_a_home_gets_a_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GENPRIOR_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert cache_folder() == Path(tempfile.gettempdir()) / "genprior"
