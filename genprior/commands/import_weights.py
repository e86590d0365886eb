"""genprior import: conversion of a .pt or .pth file into a checkpoint folder."""

from pathlib import Path

import click

from genprior.commands.path_types import TypedPath
from genprior.registry import TRAINABLE


@click.command("import")
@click.argument("file", type=TypedPath())
@click.option("--prior", type=click.Choice(TRAINABLE), required=True,
              help="Prior that the weights belong to.")
@click.option("--set", "arguments", multiple=True, metavar="NAME=VALUE",
              help="Constructor argument of the prior, such as widths=[32,64]; the value is "
                   "JSON. May be repeated.")
@click.option("-o", "--output", required=True, type=TypedPath(),
              help="Folder of the new checkpoint.")
def import_(file: Path, prior: str, arguments: tuple[str, ...], output: Path) -> None:
    """Convert a .pt or .pth file into a checkpoint folder.

    FILE must hold the state_dict of a prior of this package. It is read without running any
    code in it. It is refused if its keys and shapes differ from those of the prior.
    """
    if output.exists():
        raise click.UsageError(f"{output} exists: choose another -o")
    from genprior.api.weight_import import import_weights
    from genprior.commands.prior_arguments import constructor_arguments

    where = import_weights(file, output, prior, constructor_arguments(prior, arguments))
    click.echo(f"{file}{f' [{where}]' if where else ''} -> {output}")
