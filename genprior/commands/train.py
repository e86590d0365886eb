"""train: train a prior on folders of images."""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import click

from genprior import options
from genprior.registry import PRIORS, TRAINABLE, lookup


@click.command()
@click.argument("prior", type=click.Choice(TRAINABLE))
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", required=True, type=click.Path(path_type=Path),
              help="Folder of the run: checkpoints and a log.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps in all.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True),
              help="Training time in all, minutes, resumed parts included.")
@click.option("--crop", type=click.IntRange(8), default=64, show_default=True,
              help="Side of the crops, pixels.")
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True,
              help="Crops a step.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=5e-4, show_default=True,
              help="Peak learning rate.")
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), default="adamw",
              show_default=True, help="Muon moves the convolutions, AdamW the rest.")
@click.option("--set", "arguments", multiple=True, metavar="NAME=VALUE",
              help="Argument of the prior, JSON value; may be repeated.")
@click.option("--init", metavar="PRIOR",
              help="Start from the weights of a prior that ships or of a checkpoint folder.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="bfloat16",
              show_default=True, help="Precision of the network.")
@click.option("--resume", is_flag=True, help="Continue the run in --output.")
@options.seed
@options.device
@options.quiet
def train(
    prior: str, data: tuple[Path, ...], out: Path, crop: int, resume: bool, device: str,
    arguments: tuple[str, ...], init: str | None, quiet: bool, **settings: Any,
) -> None:
    """Train a prior on folders of images."""
    if (settings["steps"] is None) == (settings["minutes"] is None):
        raise click.UsageError("give the length of the training: either --steps or --minutes")
    if init and arguments:
        raise click.UsageError("--set does not go with --init, whose weights fix the network")
    if not resume and any(out.glob("step-*")):
        raise click.UsageError(f"{out} holds a training: add --resume, or choose another -o")
    import torch

    from genprior.data import Crops
    from genprior.fit import Settings, fit
    from genprior.watch import pick_device

    torch.manual_seed(settings["seed"])
    model = _initial(init, prior) if init else _fresh(prior, arguments)
    model.to(pick_device(device, torch.empty(0)))
    crops = Crops(data, crop, model.config["channels"], settings["seed"])
    about = {"data": [path.name for path in data], "images": len(crops.images), "crop": crop}
    about |= {"init": init} if init else {}
    hidden = quiet or not sys.stderr.isatty()
    with click.progressbar(length=10**6, label=prior, file=sys.stderr, hidden=hidden) as bar:

        def report(step: int, done: float, loss: float) -> None:
            bar.label = f"{prior} step {step} loss {loss:.4f}"
            bar.update(int(done * bar.length) - bar.pos)

        folder = fit(prior, model, crops, out, Settings(**settings), about, resume, report)
    if not quiet:
        click.echo(str(folder))


def _fresh(prior: str, arguments: tuple[str, ...]) -> Any:
    return lookup(PRIORS, prior, "prior")(**constructor_arguments(prior, arguments))


def _initial(init: str, prior: str) -> Any:
    from genprior.checkpoint import load_checkpoint
    from genprior.weights import find_prior

    model, manifest = load_checkpoint(find_prior(init))
    if manifest["prior"] != prior:
        raise click.UsageError(f"--init {init}: it is a {manifest['prior']}, not a {prior}")
    return model.train().requires_grad_(True)


def constructor_arguments(prior: str, texts: tuple[str, ...]) -> dict[str, Any]:
    """Arguments of a prior's class from what --set was given."""
    known = list(inspect.signature(lookup(PRIORS, prior, "prior")).parameters)
    parsed = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--set {text}: write NAME=VALUE")
        if name not in known:
            raise click.UsageError(f"--set {text}: choose one of {', '.join(known)}")
        try:
            parsed[name] = json.loads(value)
        except ValueError:
            parsed[name] = value
    return parsed
