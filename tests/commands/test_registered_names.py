"""Choices that are looked up when a value is typed."""

import click
from click.testing import CliRunner

from genprior.commands.registered_names import Names


def test_names_are_listed_when_they_are_needed() -> None:
    asked = []

    def names() -> list[str]:
        asked.append(1)
        return ["hqs", "dps"]

    @click.command()
    @click.option("--solver", type=Names(names))
    def run(solver: str | None) -> None:
        click.echo(solver)

    assert not asked
    assert CliRunner().invoke(run, ["--solver", "dps"]).output == "dps\n"
    wrong = CliRunner().invoke(run, ["--solver", "HQS"])
    assert wrong.exit_code == 2
    assert "'hqs', 'dps'" in wrong.output
    assert asked
