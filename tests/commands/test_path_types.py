"""Paths among the options of a command."""

from pathlib import Path

import click
from click.testing import CliRunner

from genprior.commands.path_types import TypedPath, typed_files


@click.command()
@click.argument("files", nargs=-1, type=TypedPath())
@click.option("--mask", type=TypedPath())
@click.option("--data", multiple=True, type=TypedPath())
@click.option("-o", "output", type=TypedPath())
@click.option("--steps", default=3)
def show(**_: object) -> None:
    click.echo("\n".join(sorted(path.name for path in typed_files())))


def test_files_among_options_and_in_their_folders(tmp_path: Path) -> None:
    (tmp_path / "set" / "deep").mkdir(parents=True)
    for name in ("a.png", "mask.png", "out.png", "set/b.png", "set/deep/c.png"):
        (tmp_path / name).touch()
    words = [tmp_path / "a.png", "--mask", tmp_path / "mask.png", "--data", tmp_path / "set",
             "--data", tmp_path / "missing", "-o", tmp_path / "out.png"]
    result = CliRunner().invoke(show, list(map(str, words)))
    assert result.output.split() == ["b.png", "c.png", "mask.png"]


def test_an_empty_path_is_no_path() -> None:
    for words in ([""], ["--mask", ""]):
        result = CliRunner().invoke(show, words)
        assert result.exit_code == 2
        assert "the path is empty: give a name" in result.output
