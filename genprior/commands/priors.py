"""priors: what ships, what can be trained, and whether weights are sound."""

import json
from pathlib import Path

import click

from genprior.commands.path_types import TypedPath
from genprior.priors.weights import embedded_priors
from genprior.registry import FROM_EXEMPLAR, TRAINABLE, find_prior


@click.group()
def priors() -> None:
    """The priors that ship, and checkpoints of yours."""


@priors.command("list")
def list_() -> None:
    """The priors whose weights ship, those that can be trained, those made of a picture."""
    for name, folder in embedded_priors().items():
        manifest = json.loads((folder / "manifest.json").read_text())
        click.echo(f"{name:16} {manifest.get('summary', '')}")
    click.echo(f"trainable: {', '.join(TRAINABLE)}")
    click.echo(f"from an exemplar: {', '.join(FROM_EXEMPLAR)}")


@priors.command()
@click.argument("name")
def info(name: str) -> None:
    """The manifest of a prior."""
    from genprior.priors.checkpoint import newest, read_manifest

    click.echo(json.dumps(read_manifest(newest(find_prior(name))), indent=1))


@priors.command()
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the weights against their manifests (all that ship, if none is named)."""
    from genprior.api.factory import load_checkpoint

    for name in names or tuple(embedded_priors()):
        load_checkpoint(find_prior(name), anew=True)
        click.echo(f"{name}: ok")


@priors.command()
@click.argument("source", type=TypedPath())
@click.option("-o", "--output", required=True, type=TypedPath(),
              help="Folder of the new checkpoint.")
@click.option("--summary", default="", help="What it is, for: genprior priors list.")
def pack(source: Path, output: Path, summary: str) -> None:
    """Copy a checkpoint in half precision, without what only training needs."""
    if output.exists():
        raise click.UsageError(f"{output} exists: choose another -o")
    from genprior.priors.checkpoint import pack as pack_checkpoint

    pack_checkpoint(source, output, {"summary": summary} if summary else {})
    click.echo(str(output))
