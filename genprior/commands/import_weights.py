"""import: make a checkpoint of weights from elsewhere."""

from pathlib import Path

import click

from genprior.commands.path_types import TypedPath
from genprior.registry import TRAINABLE


@click.command("import")
@click.argument("file", type=TypedPath())
@click.option("--prior", type=click.Choice(TRAINABLE), required=True, help="What they are of.")
@click.option("--set", "arguments", multiple=True, metavar="NAME=VALUE",
              help="Argument of the prior, JSON value; may be repeated.")
@click.option("-o", "--output", required=True, type=TypedPath(),
              help="Folder of the checkpoint.")
def import_(file: Path, prior: str, arguments: tuple[str, ...], output: Path) -> None:
    """Make a checkpoint of a .pt or .pth file.

    The file must hold the state_dict of a prior of this package. It is read without running
    any code in it, and refused if its keys and shapes are not those of the prior.
    """
    if output.exists():
        raise click.UsageError(f"{output} exists: choose another -o")
    from genprior.api.weight_import import import_weights
    from genprior.commands.prior_arguments import constructor_arguments

    where = import_weights(file, output, prior, constructor_arguments(prior, arguments))
    click.echo(f"{file}{f' [{where}]' if where else ''} -> {output}")
