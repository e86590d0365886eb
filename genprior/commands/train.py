"""train: train a prior on images, on one device or on many."""

import inspect
import sys
import time
from pathlib import Path
from typing import Any

import click

from genprior.commands import options
from genprior.commands.path_types import TypedPath
from genprior.commands.prior_arguments import _arguments, constructor_arguments
from genprior.registry import FITTED, FROM_EXEMPLAR, PRIORS, TRAINABLE, lookup

PREVIEW, PREVIEW_STEPS = 16, 18
IMAGES = 2000
# What a prior that is computed has no use for.
TRAINED_ONLY = (
    "steps", "minutes", "init", "resume", "held_out", "batch", "accumulate", "lr", "warmup",
    "ema", "clip", "optimizer", "dtype", "compile", "channels_last", "workers", "save_minutes",
    "preview", "tensorboard", "device",
)


@click.command()
@click.argument("prior", type=click.Choice((*TRAINABLE, *FITTED)))
@click.argument("data", nargs=-1, required=True)
@click.option("-o", "--output", "out", required=True, type=TypedPath(),
              help="Folder of the run: checkpoints, a log and pictures.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps in all.")
@click.option("--time", "minutes", type=options.Duration(),
              help="Training time in all, resumed parts included: 90s, 20m, 2h.")
@click.option("--crop", type=click.IntRange(8), default=64, show_default=True,
              help="Side of the crops, pixels.")
@options.resize
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half the crops.")
@click.option("--turn/--no-turn", default=True, show_default=True,
              help="Turn crops by quarter turns.")
@click.option("--scale/--no-scale", default=True, show_default=True,
              help="Take some crops from larger parts of an image.")
@options.max_pixels
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True,
              help="Crops an update, over all processes.")
@click.option("--accumulate", type=click.IntRange(1), default=1, show_default=True,
              help="Parts that each process splits its share of a batch into.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=5e-4, show_default=True,
              help="Peak learning rate.")
@click.option("--warmup", type=click.IntRange(1), default=200, show_default=True,
              help="Steps of linear warm-up; then the rate follows a cosine down to 0.")
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True), default=0.999,
              show_default=True, help="Decay of the running average of the weights.")
@click.option("--clip", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
              help="Largest norm of the gradient.")
@click.option("--optimizer", type=click.Choice(["adamw", "muon", "sgd", "rmsprop"]),
              default="adamw", show_default=True,
              help="Muon moves the convolutions, AdamW the rest.")
@click.option("--set", "arguments", multiple=True, metavar="NAME=VALUE",
              help="Argument of the prior, JSON value; may be repeated.")
@click.option("--init", metavar="PRIOR",
              help="Start from the weights of a prior that ships or of a checkpoint folder; "
                   "--set may change what they do not depend on.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]),
              help="Precision of the network.  [default: that of a resumed run, else bfloat16, or "
                   "float32 on a CPU without it]")
@click.option("--channels-last/--contiguous", default=True, show_default=True,
              help="How weights lie in memory.")
@click.option("--compile", is_flag=True, help="Compile the networks.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True,
              help="Processes that read the data; 0 is a thread.")
@click.option("--validate", "held_out", multiple=True, metavar="DATA",
              help="Images that are not trained on: keep the weights that do best on them.")
@click.option("--save-minutes", type=click.FloatRange(0), default=5.0, show_default=True,
              help="Time between two checkpoints.")
@click.option("--preview/--no-preview", default=True, show_default=True,
              help="Draw pictures at some checkpoints.")
@click.option("--tensorboard", is_flag=True, help="Write the log for TensorBoard, too.")
@click.option("--resume", is_flag=True, help="Continue the run in --output.")
@options.seed
@options.device
@options.quiet
def train(
    prior: str, data: tuple[str, ...], out: Path, resume: bool, crop: int, resize: int | None,
    flip: bool, turn: bool, scale: bool, max_pixels: int, device: str,
    arguments: tuple[str, ...], init: str | None, quiet: bool, held_out: tuple[str, ...],
    preview: bool, tensorboard: bool, **settings: Any,
) -> None:
    """Train a prior on images.

    DATA: folders of images (read recursively), image files, .npy arrays (N, H, W[, C]), idx
    files (MNIST's format), or torchvision:NAME[:FOLDER].

    Under torchrun all processes share every batch: torchrun --nproc-per-node 4 -m genprior
    train ... The priors pca and texture are computed at once;
    a texture of one picture has its very pixels, of many images their mean spectrum.
    """
    crops = {"size": crop, "flip": flip, "turn": turn, "scale": scale,
             "max_pixels": max_pixels, "resize": resize}
    if not resume and (any(out.glob("step-*")) or (out / "manifest.json").exists()):
        way = "choose another -o" if prior in FITTED else "add --resume, or choose another -o"
        raise click.UsageError(f"{out} holds a training: {way}")
    if prior in FITTED:
        given = _given(*TRAINED_ONLY)
        if given:
            raise click.UsageError(f"{prior} is computed, not trained: leave {given} out")
        _compute(prior, data, out, crops, arguments, settings["seed"])
    else:
        if (settings["steps"] is None) == (settings["minutes"] is None):
            raise click.UsageError("give the length of the training: either --steps or --time")
        source = (data, held_out, crops, preview, tensorboard)
        out = _train(prior, source, out, resume, device, arguments, init, quiet, settings)
    if out and not quiet:
        click.echo(str(out))


def _train(
    prior: str, source: tuple, out: Path, resume: bool, device: str, arguments: tuple[str, ...],
    init: str | None, quiet: bool, settings: dict[str, Any],
) -> Path | None:
    import torch

    from genprior.api.sampling import sample
    from genprior.core.devices import pick_device
    from genprior.core.distributed import joined
    from genprior.priors.base import Decoder, Denoiser
    from genprior.training.crops import Crops
    from genprior.training.loop import Settings, fit

    data, held_out, crops, preview, tensorboard = source
    chosen = Settings(**settings)
    torch.manual_seed(chosen.seed)
    model = _initial(init, prior, arguments) if init else _fresh(prior, arguments)
    channels = model.config["channels"]
    side = (crops["size"],) * 2

    def draw(network: Any) -> torch.Tensor:
        steps = PREVIEW_STEPS if isinstance(network, Denoiser) else 1
        return sample(network, PREVIEW, side, steps=steps, device=str(device))

    drawn = chosen.batch * len(model.updates())
    with joined() as ranks, _Bar(prior, drawn, quiet or not ranks.first) as bar:
        common = {"channels": channels, "seed": chosen.seed, "warn": _warn, **crops}
        images, validation = ranks.local_rank_first(lambda: (
            Crops(data, **common), Crops(held_out, held_out=True, **common) if held_out else None
        ))
        about = {"data": [Path(name).name for name in data], "images": len(images.images)}
        about |= _named(crops) | ({"init": init} if init else {})
        about |= {"validation": [Path(name).name for name in held_out]} if held_out else {}
        device = pick_device(ranks.device(device), torch.empty(0))
        model.to(device)
        draws = preview and isinstance(model, Denoiser | Decoder)
        folder = fit(
            prior, model, images, out, chosen, about, resume, bar.update, ranks, validation,
            draw if draws else None, tensorboard,
        )
        return folder if ranks.first else None


def _compute(
    prior: str, data: tuple[str, ...], out: Path, crops: dict[str, Any],
    arguments: tuple[str, ...], seed: int,
) -> None:
    """Computes a prior from images in one go."""
    from genprior.api.estimated_priors import compute_prior, save_prior
    from genprior.io.datasets import is_picture
    from genprior.training.crops import Crops

    cls = lookup(PRIORS, prior, "prior")
    one = prior in FROM_EXEMPLAR and len(data) == 1 and is_picture(data[0])
    if one and crops["resize"]:
        raise click.UsageError("the texture of one picture has its own pixels: drop --resize")
    build = cls.from_exemplar if one else cls.from_images
    known = [n for n in inspect.signature(build).parameters
             if n not in ("image", "images", "keep", "generator")]
    extra = () if one else ("images", "channels")
    settings = _arguments(arguments, [*known, *extra])
    count = settings.pop("images", IMAGES)
    channels = settings.pop("channels", 3)
    about: dict[str, Any] = {"data": [Path(name).name for name in data], "seed": seed}
    images = None
    if not one:
        if "components" in known:
            settings.setdefault("components", 100)
        images = Crops(data, channels=channels, seed=seed, warn=_warn, **crops).batch(0, count)
        about |= _named(crops) | {"images": count}
    paths = [Path(name) for name in data]
    model = compute_prior(prior, paths, images, seed, crops["max_pixels"], **settings)
    save_prior(prior, model, out, about)


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)


def _named(crops: dict[str, Any]) -> dict[str, Any]:
    """What the crops depend on, as it is typed."""
    return {"crop" if name == "size" else name: value for name, value in crops.items()
            if name != "max_pixels"}


def _given(*names: str) -> str:
    """Options that were typed, as they are typed."""
    ctx = click.get_current_context()
    typed = [name for name in names
             if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    options = {param.name: param.opts[-1] for param in ctx.command.params}
    return " and ".join(options[name] for name in typed)


def _fresh(prior: str, arguments: tuple[str, ...]) -> Any:
    return _built(lookup(PRIORS, prior, "prior"), constructor_arguments(prior, arguments))


def _built(cls: type, arguments: dict[str, Any]) -> Any:
    try:
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--set: {error}") from error


def _initial(init: str, prior: str, arguments: tuple[str, ...]) -> Any:
    from genprior.api.factory import load_checkpoint
    from genprior.registry import find_prior

    model, manifest = load_checkpoint(find_prior(init))
    if manifest["prior"] != prior:
        raise click.UsageError(f"--init {init}: it is a {manifest['prior']}, not a {prior}")
    changes = constructor_arguments(prior, arguments)
    if changes:
        state = model.state_dict()
        model = _built(type(model), model.config | changes)
        kept = model.inherit(state)
        own = model.state_dict()
        both = {key.split(".")[0] for key in own} & {key.split(".")[0] for key in state}
        if any(key not in kept for key in {*own, *state} if key.split(".")[0] in both):
            raise click.UsageError(
                f"--init {init}: its weights do not fit --set {', '.join(arguments)}"
            )
        model.load_state_dict(kept, strict=False)
    return model.train().requires_grad_(True)


class _Bar:
    """Progress on stderr: time left, images a second, loss."""

    def __init__(self, prior: str, drawn: int, quiet: bool) -> None:
        self.prior, self.drawn, self.quiet = prior, drawn, quiet
        self.bar: Any = None
        self.last: tuple[float, int] | None = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def update(self, step: int, done: float, loss: float) -> None:
        """Shows a step; `done` is the fraction before it."""
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(
                total=1.0, initial=done, disable=True if self.quiet else None, file=sys.stderr,
                desc=self.prior, leave=False,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
            )
            self.last = (time.monotonic(), step)
        if self.bar.disable:
            return
        since, before = self.last
        seconds = time.monotonic() - since
        if seconds > 1:
            speed = (step - before) * self.drawn / seconds
            self.bar.set_postfix_str(f"step {step}, loss {loss:.4f}, {speed:.1f} images/s", False)
            self.last = (time.monotonic(), step)
        self.bar.update(min(done, 1.0) - self.bar.n)
