"""Output of commands in a limited encoding, or to a closed stream."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from repository import ROOT
from shell import levels, refused, save_photo, sidecar, succeed

from genprior.cli import main
from genprior.core import devices


@pytest.fixture
def quick(weights: Path) -> list[object]:
    return ["--prior", weights, "--solver", "hqs", "--steps", 1]


def test_files_with_names_outside_the_output_encoding_are_restored(
    tmp_path: Path, quick: list
) -> None:
    save_photo(tmp_path / "漢字é.png")
    save_photo(tmp_path / "z.png")
    save_photo(tmp_path / "x.png")
    os.rename(tmp_path / "x.png", os.fsencode(tmp_path) + b"/caf\x81.png")
    (tmp_path / "空.png").write_text("no picture")
    words = list(map(str, ["denoise", tmp_path, "--noise", 0.1, *quick]))
    result = CliRunner(charset="cp1252").invoke(main, words, catch_exceptions=False)
    assert result.exit_code == 6
    *lines, totals = result.stdout_bytes.splitlines()
    assert totals.startswith(b"4 files: 3 restored, 1 failed; ")
    assert [line.split(b" -> ")[0].split(b"/")[-1] for line in lines] == [
        b"caf\x81.png", b"z.png", rb"\u6f22\u5b57" + "é.png".encode("cp1252"),
    ]
    error, last = result.stderr_bytes.splitlines()
    assert rb"\u7a7a.png: " in error and last == b"genprior: 1 of 4 files failed"


@pytest.mark.skipif(sys.platform != "linux", reason="names are text")
def test_a_report_is_written_for_names_that_are_not_unicode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_photo(tmp_path / "a.png")
    mask, out = (Path(f"{tmp_path}/{os.fsdecode(name)}") for name in (b"m\xe9", b"o\xe9"))
    save_photo(tmp_path / "mask.png", channels=1)
    os.rename(tmp_path / "mask.png", mask)
    words = ["evaluate", str(tmp_path / "a.png"), "-o", str(out), "--prior", "none",
             "--baseline", "biharmonic", "--task", f"inpaint:mask={mask}", "-q"]
    monkeypatch.setattr(sys, "argv", ["genprior", *words])
    succeed(*words)
    report = (out / "report.md").read_text(encoding="utf-8")
    assert rf"| inpaint:mask={tmp_path}/m\udce9 |" in report and r"-o 'o\udce9'" in report
    assert rf"inpaint:mask={tmp_path}/m\udce9" in (out / "report.csv").read_text(encoding="utf-8")
    assert (out / "report.json").exists()


def test_a_configuration_can_be_read_whatever_the_encoding_of_the_output(
    tmp_path: Path, quick: list
) -> None:
    file, mask, config = tmp_path / "a.png", tmp_path / "漢é😀\x7f.png", tmp_path / "run.toml"
    save_photo(file)
    save_photo(mask, channels=1)
    words = list(map(str, ["inpaint", file, "--mask", mask, *quick]))
    result = CliRunner(charset="cp1252").invoke(main, [*words, "--dump-config"])
    config.write_bytes(result.stdout_bytes)
    succeed("inpaint", file, "--config", config)
    config.write_text(result.stdout, encoding="utf-8-sig")
    assert tomllib.loads(result.stdout)["mask"] == str(mask)
    succeed("inpaint", file, "--config", config, "--overwrite")


def test_a_configuration_with_a_name_that_is_not_unicode_is_refused() -> None:
    code, line = refused("inpaint", "a.png", "--prior", "caf\udce9", "--dump-config")
    assert code == 2 and r"'--prior': 'caf\udce9' is not valid Unicode" in line


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize("closed, words, message", [
    ("<&-", ["-", "-o", "b.png"], "standard input is closed: give a file instead of -"),
    (">&-", ["a.png", "-o", "-"], "standard output is closed: give -o a file"),
])
def test_a_stream_that_is_closed_is_refused_before_the_work(
    tmp_path: Path, quick: list, closed: str, words: list[str], message: str
) -> None:
    save_photo(tmp_path / "a.png")
    command = [sys.executable, "-m", "genprior", "denoise", *words, "--noise", "0.1"]
    root = str(ROOT)
    run = subprocess.run(["sh", "-c", f'exec "$@" {closed}', "sh", *command, *map(str, quick)],
                         cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}, text=True,
                         stderr=subprocess.PIPE)
    assert run.returncode == 2
    assert run.stderr.startswith(f"genprior: {message} (see ") and run.stderr.count("\n") == 1


def shell(folder: Path, redirected: str, *words: object) -> subprocess.CompletedProcess:
    """Runs a command with redirected streams."""
    command = [sys.executable, "-m", "genprior", *map(str, words)]
    return subprocess.run(["sh", "-c", f'exec "$@" {redirected}', "sh", *command], cwd=folder,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("redirected", ["2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_messages_that_cannot_be_written_change_nothing(
    tmp_path: Path, quick: list, redirected: str
) -> None:
    save_photo(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    words = ["denoise", "a.png", "b.png", "--noise", 0.1, *quick]
    assert shell(tmp_path, redirected, *words).returncode == 6
    assert sidecar(tmp_path / "a.genprior.png")["task"] == "denoise"
    assert levels(tmp_path / "a.genprior.png").shape == levels(tmp_path / "a.png").shape
    run = shell(tmp_path, redirected, "denoise", "b.png", "--noise", 0.1, *quick)
    assert (run.returncode, run.stdout, run.stderr) == (3, b"", b"")


def test_a_slow_precision_is_one_line(
    tmp_path: Path, quick: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        save_photo(tmp_path / f"{name}.png")
    monkeypatch.setattr(devices, "has_bfloat16", lambda device: False)
    words = ["denoise", tmp_path, "--noise", 0.1, *quick, "--dtype"]
    result = succeed(*words, "bfloat16", "-o", tmp_path / "slow")
    assert result.stderr.startswith("warning: this CPU has no instructions for bfloat16")
    assert result.stderr.count("\n") == 1
    assert sidecar(tmp_path / "slow" / "a.genprior.png")["dtype"] == "bfloat16"
    assert succeed(*words, "auto", "-o", tmp_path / "quick").stderr == ""
    assert sidecar(tmp_path / "quick" / "a.genprior.png")["dtype"] == "float32"


def test_the_effective_sample_size_is_printed_and_recorded(tmp_path: Path, weights: Path) -> None:
    file, out = tmp_path / "a.png", tmp_path / "b.png"
    save_photo(file, size=(9, 12))
    printed = succeed("denoise", file, "--noise", 0.1, "--prior", weights, "--solver", "smc",
                      "--steps", 2, "-o", out)
    size = sidecar(out)["effective_sample_size"]
    assert 1 <= size <= 16
    assert f", effective sample size {size:.1f}, " in printed.output
