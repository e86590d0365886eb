"""Messages, JSON and progress of restoring commands, and the streams that they go to."""

import io
import json
from pathlib import Path

import pytest
from shell import genprior, save_photo, sidecar, succeed


@pytest.fixture
def quick(weights: Path) -> list[object]:
    return ["--prior", weights, "--solver", "hqs", "--steps", 2]


def test_json_is_all_there_is_on_stdout(tmp_path: Path, quick: list) -> None:
    files = [save_photo(tmp_path / f"{n}.png", start=100 * n) for n in (1, 2)]
    result = succeed("inpaint", *files, "--mask", "box=3x3", *quick, "--json")
    records = json.loads(result.stdout)
    assert [record["input"] for record in records] == list(map(str, files))
    assert records[0] == sidecar(tmp_path / "1.genprior.png")
    assert result.stderr == ""


def test_quiet_says_nothing(tmp_path: Path, quick: list) -> None:
    file = save_photo(tmp_path / "a.png")
    result = succeed("inpaint", file, "--mask", "box=3x3", *quick, "-q")
    assert result.output == ""


def test_losing_known_pixels_is_said(tmp_path: Path, quick: list) -> None:
    file = save_photo(tmp_path / "a.png")
    options = ["--mask", "box=3x3", *quick]
    result = succeed("inpaint", file, *options, "-o", tmp_path / "b.jpg")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"warning: {tmp_path / 'b.jpg'}: known pixels change in a JPEG file")
    assert "warning" not in result.stdout
    result = succeed("inpaint", file, *options, "-o", tmp_path / "c.jpg", "--noise", 0.01)
    assert "known pixels" not in result.stderr


def test_a_wrong_noise_level_is_doubted(tmp_path: Path, quick: list) -> None:
    files = [save_photo(tmp_path / f"{n}.png", start=100 * n) for n in (1, 2)]
    result = succeed("denoise", *files, "--noise", 0.001, *quick)
    for n, line in zip((1, 2), result.stderr.splitlines(), strict=True):
        name = tmp_path / f"{n}.genprior.png"
        assert line.startswith(f"warning: {name}: the misfit of the restoration is ")
        assert line.endswith("is --noise 0.001 right?")


def test_progress_goes_to_stderr_of_a_terminal_only(
    tmp_path: Path, quick: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genprior.commands import progress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(progress.sys, "stderr", screen)
    with progress.Progress(quiet=False) as bar:
        for k in range(3):
            bar.update(k + 1, 3)
        assert bar.bar.n == bar.bar.total == 3
    assert "0/3" in screen.getvalue() and "NFE/s" in screen.getvalue()
    screen.truncate(0)
    with progress.Progress(quiet=True) as bar:
        bar.update(1, 3)
        bar.write("text")
    assert screen.getvalue().strip("\0") == ""


def test_a_bug_shows_where_it_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_photo(tmp_path / "a.png")
    monkeypatch.setenv("GENPRIOR_DEBUG", "1")
    with pytest.raises(ValueError, match="unknown prior 'none'"):
        genprior("inpaint", file, "--prior", "none", "--mask", "box=3x3")
