"""The command line. The only module that parses text, prints or exits."""

from pathlib import Path
from typing import Any

import click

from genprior.registry import PRIORS


@click.group()
def main() -> None:
    """Restore images with generative priors."""


@main.command()
@click.argument("prior", type=click.Choice(sorted(PRIORS)))
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", required=True, type=click.Path(path_type=Path))
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps in all.")
@click.option("--minutes", type=click.FloatRange(0), help="Training time in all, minutes.")
@click.option("--crop", default=64, show_default=True, help="Side of the crops, pixels.")
@click.option("--batch", default=16, show_default=True, help="Crops a step.")
@click.option("--lr", default=5e-4, show_default=True, help="Peak learning rate.")
@click.option("--seed", default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Continue the run in --output.")
def train(
    prior: str, data: tuple[Path, ...], out: Path, crop: int, resume: bool, **settings: Any
) -> None:
    """Train a prior on folders of images."""
    import torch

    from genprior.data import Crops
    from genprior.fit import Settings, fit
    from genprior.registry import lookup

    torch.manual_seed(settings["seed"])
    model = lookup(PRIORS, prior, "prior")()
    crops = Crops(data, crop, seed=settings["seed"])
    about = {"data": [path.name for path in data], "images": len(crops.images), "crop": crop}
    bar = click.progressbar(length=10**6, label=prior)
    with bar:

        def report(step: int, done: float, loss: float) -> None:
            bar.update(int(done * bar.length) - bar.pos)

        folder = fit(prior, model, crops, out, Settings(**settings), about, resume, report)
    click.echo(str(folder))
