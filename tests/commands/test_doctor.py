"""Checks of genprior doctor, in a sound and in a broken installation."""

import json
import tempfile
from pathlib import Path

import pytest
from shell import genprior, succeed

from genprior.commands import doctor


@pytest.fixture
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the checks that take long."""
    monkeypatch.setattr(doctor, "embedded_priors", dict)


def test_the_doctor_finds_this_installation_sound() -> None:
    result = succeed("doctor")
    assert "BAD" not in result.stdout and "verified" in result.stdout
    checks = {c["check"]: c for c in json.loads(succeed("doctor", "--json").stdout)}
    assert all(check["ok"] for check in checks.values())
    assert {"genprior", "torch", "torchvision", "deepinv", "ddpm", "denoise, cpu"} <= set(checks)


def test_the_doctor_names_what_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    monkeypatch.setattr(doctor, "embedded_priors", lambda: {"ddpm": tmp_path})
    monkeypatch.setattr(doctor, "find_prior", lambda name: tmp_path)
    monkeypatch.setattr(doctor, "_denoise", lambda device: (False, "0.1 dB better"))
    monkeypatch.setattr(doctor, "LIBRARIES", ("numpy", "no-such-library"))
    result = genprior("doctor")
    bad = [line for line in result.stdout.splitlines() if line.startswith("BAD")]
    assert result.exit_code == 6
    for line, parts in zip(bad, [
        ("torchvision", "does not match torch", "nms", "install both from one index"),
        ("no-such-library", "pip install no-such-library"),
        ("ddpm", "no checkpoint in"),
        ("denoise", "0.1 dB"),
    ], strict=True):
        assert all(part in line for part in parts)
    assert result.stderr == f"genprior: 4 of {len(result.stdout.splitlines())} checks failed\n"


def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GENPRIOR_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", home)


def test_without_a_home_folder_the_cache_is_a_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nothing_else: None
) -> None:
    homeless(monkeypatch)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lines = succeed("doctor").stdout.splitlines()
    (cache,) = (line.split() for line in lines if " cache " in line)
    assert cache[:3] == ["ok", "cache", f"{tmp_path / 'genprior'},"]


def test_the_doctor_says_that_there_is_no_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, nothing_else: None
) -> None:
    error = FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    def missing(*name: str) -> str:
        raise error

    homeless(monkeypatch)
    monkeypatch.setattr(tempfile, "gettempdir", missing)
    monkeypatch.setattr(doctor.importlib, "import_module", missing)
    result = genprior("doctor")
    bad = [line for line in result.stdout.splitlines() if line.startswith("BAD")]
    assert result.exit_code == 6
    for line, (name, variable) in zip(
        bad[1:], [("temporary", "TMPDIR"), ("cache", "GENPRIOR_HOME")], strict=True
    ):
        assert line.split()[1] == name
        assert line.endswith(f"{error.strerror}: set {variable} to a folder")
    assert f"torchvision  cannot be imported ({error})" in bad[0] and "pip" not in bad[0]
