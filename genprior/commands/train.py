"""genprior train: training of a prior on images, on one or several devices."""

import inspect
import json
import reprlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from genprior.commands import options
from genprior.commands.path_types import TypedPath
from genprior.commands.prior_arguments import constructor_arguments, parse_arguments
from genprior.commands.progress import Progress
from genprior.commands.registered_names import Names
from genprior.commands.task_syntax import Task, TaskText
from genprior.core.errors import CheckpointError
from genprior.registry import (
    FITTED,
    FROM_EXEMPLAR,
    OF_PAIRS,
    OF_POINTS,
    PRIORS,
    TRAINABLE,
    lookup,
)

PREVIEW, PREVIEW_STEPS, PREVIEW_PAIRS = 16, 18, 3
IMAGES = 2000
BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
# Options without effect on a prior that is computed in closed form.
TRAINED_ONLY = (
    "steps", "minutes", "init", "resume", "held_out", "batch", "accumulate", "lr", "warmup",
    "ema", "clip", "optimizer", "dtype", "compile", "channels_last", "workers", "save_minutes",
    "only", "preview", "tensorboard", "device", "task", "teacher",
)


@click.command()
@click.argument("prior", type=Names(lambda: (*TRAINABLE, *FITTED, *PRIORS.plugins)))
@click.argument("data", nargs=-1, required=True)
@click.option("-o", "--output", "out", required=True, type=TypedPath(),
              help="Folder of the run: checkpoints, log and preview images.")
@click.option("--task", type=Task(),
              help="Task of pix2pix, as in genprior evaluate: the measurements that the training "
                   "simulates, such as inpaint:random=0.5 or denoise:noise=0.1.")
@click.option("--steps", type=click.IntRange(1),
              help="Length of the training in optimiser steps, resumed parts included.")
@click.option("--time", "minutes", type=options.Duration(),
              help="Length of the training in time, resumed parts included: 90s, 20m or 2h. Give "
                   "either --steps or --time.")
@click.option("--crop", type=click.IntRange(8), default=64, show_default=True,
              help="Side of the training crops, pixels.")
@options.resize
@click.option("--flip/--no-flip", default=True, show_default=True,
              help="Augmentation: mirror half of the crops.")
@click.option("--turn/--no-turn", default=True, show_default=True,
              help="Augmentation: rotate crops by multiples of 90 degrees.")
@click.option("--scale/--no-scale", default=True, show_default=True,
              help="Augmentation: shrink some crops from larger parts of an image.")
@options.max_pixels
@click.option("--batch", type=click.IntRange(1), default=16, show_default=True,
              help="Batch size: crops per update, summed over all processes.")
@click.option("--accumulate", type=click.IntRange(1), default=1, show_default=True,
              help="Gradient accumulation: parts into which each process splits its share of a "
                   "batch, to save memory.")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=5e-4, show_default=True,
              help="Peak learning rate.")
@click.option("--warmup", type=click.IntRange(1), default=200, show_default=True,
              help="Steps of linear warm-up of the learning rate, which then decays to 0 by a "
                   "cosine.")
@click.option("--ema", type=click.FloatRange(0, 1, max_open=True), default=0.999,
              show_default=True, help="Decay of the exponential moving average of the weights.")
@click.option("--clip", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
              help="Gradient clipping: largest norm of the gradient.")
@click.option("--optimizer", type=click.Choice(["adamw", "muon", "sgd", "rmsprop"]),
              default="adamw", show_default=True,
              help="Optimiser. muon applies Muon to the convolutions and AdamW to the rest.")
@click.option("--set", "arguments", multiple=True, metavar="NAME=VALUE",
              help="Constructor argument of the prior, such as widths=[32,64]; the value is "
                   "JSON. May be repeated.")
@click.option("--init", metavar="PRIOR",
              help="Start from the weights of a shipped prior or a checkpoint folder; --set may "
                   "change the arguments that the shapes of the weights do not depend on, and "
                   "the widths of ddpm: of a narrower level the most important channels stay.")
@click.option("--teacher", metavar="PRIOR",
              help="Distillation: ddpm learns the estimates of this denoiser, averaged over flips "
                   "and turns, instead of the clean images.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]),
              help="Precision of the network.  [default: that of a resumed run, else bfloat16, or "
                   "float32 on a CPU without it]")
@click.option("--channels-last/--contiguous", default=True, show_default=True,
              help="Memory format of the weights.")
@click.option("--only", metavar="NETWORK",
              help="Train one of the networks of a prior, and keep the others as they are: "
                   "network or filler of ddpm.")
@click.option("--compile", is_flag=True, help="Compile the networks.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True,
              help="Number of processes that read the data; 0 reads in a thread.")
@click.option("--validate", "held_out", multiple=True, metavar="DATA",
              help="Validation images, which are not trained on: keep the weights with the lowest "
                   "loss on them. May be repeated.")
@click.option("--save-minutes", type=click.FloatRange(0), default=5.0, show_default=True,
              help="Minutes between two checkpoints.")
@click.option("--preview/--no-preview", default=True, show_default=True,
              help="Save samples of the prior at some checkpoints.")
@click.option("--tensorboard", is_flag=True, help="Also write the log for TensorBoard.")
@click.option("--resume", is_flag=True,
              help="Continue the run in the output folder from its last checkpoint.")
@options.seed
@options.device
@options.quiet
def train(
    prior: str, data: tuple[str, ...], out: Path, resume: bool, crop: int, resize: int | None,
    flip: bool, turn: bool, scale: bool, max_pixels: int, device: str,
    arguments: tuple[str, ...], init: str | None, teacher: str | None, quiet: bool,
    held_out: tuple[str, ...],
    preview: bool, tensorboard: bool, task: TaskText | None, **settings: Any,
) -> None:
    """Train a prior on images.

    DATA: folders of images (with subfolders), image files, .npy arrays (N, H, W[, C]), idx
    files (the format of MNIST), or torchvision:NAME[:FOLDER].

    Give the length of the training by --steps or --time. The output folder can then be passed to
    --prior. Under torchrun all processes share every batch: torchrun --nproc-per-node 4 -m
    genprior train ...

    The priors pca and texture are computed in closed form, without --steps and --time. A texture
    of one image has the spectrum of that image, a texture of several images has their mean
    spectrum. The prior planar is of points: .npy arrays (N, n), without crops. The prior pix2pix
    restores the measurements of one --task and no others.
    """
    crops = {"size": crop, "flip": flip, "turn": turn, "scale": scale,
             "max_pixels": max_pixels, "resize": resize}
    from genprior.priors.checkpoint import MANIFEST, complete_steps

    if not resume and (complete_steps(out) or (out / MANIFEST).exists()):
        remedy = "choose another -o" if prior in FITTED else "add --resume, or choose another -o"
        raise click.UsageError(f"{out} holds a training run: {remedy}")
    if prior in FITTED:
        unused = _typed_options(*TRAINED_ONLY)
        if unused:
            raise click.UsageError(f"{prior} is computed, not trained: leave {unused} out")
        _compute(prior, data, out, crops, arguments, settings["seed"])
    else:
        if (settings["steps"] is None) == (settings["minutes"] is None):
            raise click.UsageError("give the length of the training: either --steps or --time")
        if (task is not None) != (prior in OF_PAIRS):
            raise click.UsageError(
                f"{prior} is trained for one task: give it by --task, such as inpaint:random=0.5"
                if task is None else f"--task is for {', '.join(OF_PAIRS)}: leave it out"
            )
        if task is not None:
            arguments += (f"task={json.dumps(task.text)}",)
        source = (task, data, held_out, crops, preview, tensorboard)
        starts = (init, teacher)
        out = _train(prior, source, out, resume, device, arguments, starts, quiet, settings)
    if out and not quiet:
        click.echo(str(out))


def _train(
    prior: str, source: tuple, out: Path, resume: bool, device: str, arguments: tuple[str, ...],
    starts: tuple[str | None, str | None], quiet: bool, settings: dict[str, Any],
) -> Path | None:
    import torch

    from genprior.api.calibration import weights_digest
    from genprior.api.sampling import sample
    from genprior.core.devices import pick_device
    from genprior.core.distributed import joined
    from genprior.priors.base import ConditionalGenerator, Decoder, Denoiser
    from genprior.training.loop import Settings, fit

    task, data, held_out, crops, preview, tensorboard = source
    init, teacher = starts
    chosen = Settings(**settings)
    torch.manual_seed(chosen.seed)
    start = _initialised(init, prior, arguments) if init else None
    channels = _channels(prior, arguments, out, resume) if start is None else (
        start.config.get("channels", 3)
    )
    side = (crops["size"],) * 2

    def draw(network: Any) -> torch.Tensor:
        if task is not None:
            x, rough = images.batch(0, PREVIEW_PAIRS).to(device).chunk(2, dim=1)
            return torch.stack((rough, network.translate(rough), x), dim=1).flatten(0, 1)
        steps = PREVIEW_STEPS if isinstance(network, Denoiser) else 1
        return sample(network, PREVIEW, side, steps=steps, device=str(device))

    with (
        joined() as ranks,
        Progress(quiet or not ranks.first, desc=prior, bar_format=BAR_FORMAT) as progress,
    ):
        common = {"seed": chosen.seed, "warn": _warn, **crops}
        images, validation = ranks.local_rank_first(
            lambda: _points(data, held_out, chosen.seed) if prior in OF_POINTS
            else _crops(data, held_out, channels, common)
        )
        if task is not None:
            images = _pairs(images, task, chosen.seed, crops["max_pixels"])
        torch.manual_seed(chosen.seed)  # reading the data may draw random numbers
        model = start or _new(prior, arguments, images.channels)
        if prior in OF_POINTS and model.dimension != images.dimension:
            raise click.UsageError(
                f"points of {images.dimension} numbers need --set dimension={images.dimension}"
            )
        images_per_step = chosen.batch * len(model.updates())
        about = {"data": [Path(name).name for name in data], "images": len(images.images),
                 "data_digest": images.digest()}
        about |= {} if prior in OF_POINTS else _crop_settings(crops)
        about |= {"init": init} if init else {}
        if validation is not None:
            about |= {"validation": [Path(name).name for name in held_out],
                      "validation_digest": validation.digest()}
        if task is not None:
            model.signature.copy_(images.signature(chosen.batch))
        device = pick_device(ranks.device(device), torch.empty(0))
        model.to(device)
        if teacher:
            taught_by = _teacher(teacher, device)
            model.distil(taught_by)
            about |= {"teacher": teacher, "teacher_weights": weights_digest(taught_by)}
        elif isinstance(model, Denoiser):
            about |= {"teacher": None}  # a resumed run must have the same
        draws = preview and prior not in OF_POINTS
        draws = draws and isinstance(model, Denoiser | Decoder | ConditionalGenerator)
        folder = fit(
            prior, model, images, out, chosen, about, resume,
            _reporting(progress, images_per_step), ranks, validation, draw if draws else None,
            tensorboard,
        )
        return folder if ranks.first else None


def _crops(
    data: tuple[str, ...], held_out: tuple[str, ...], channels: int | None,
    common: dict[str, Any],
) -> tuple[Any, Any]:
    """Returns the crops of the training, and of the validation or None."""
    from genprior.training.crops import Crops

    images = Crops(data, channels=channels, **common)
    common = common | {"channels": images.channels, "held_out": True}
    return images, Crops(held_out, **common) if held_out else None


def _pairs(crops: Any, task: TaskText, seed: int, max_pixels: int) -> Any:
    """Returns the crops with simulated measurements of a task."""
    from genprior.evaluation.plan import Task
    from genprior.evaluation.training_pairs import TrainingPairs

    settings = (task.text, task.kind, task.settings, task.noise, task.crop, max_pixels)
    return TrainingPairs(crops, Task(*settings), seed)


def _points(data: tuple[str, ...], held_out: tuple[str, ...], seed: int) -> tuple[Any, Any]:
    """Returns the points of the training, and of the validation or None."""
    from genprior.training.points import Points

    return Points(data, seed), Points(held_out, seed) if held_out else None


def _compute(
    prior: str, data: tuple[str, ...], out: Path, crops: dict[str, Any],
    arguments: tuple[str, ...], seed: int,
) -> None:
    """Computes a prior from images in closed form and saves it."""
    from genprior.api.estimated_priors import compute_prior, save_prior
    from genprior.io.datasets import is_picture
    from genprior.training.crops import Crops

    cls = lookup(PRIORS, prior, "prior")
    one = prior in FROM_EXEMPLAR and len(data) == 1 and is_picture(data[0])
    if one and crops["resize"]:
        raise click.UsageError(
            "the texture of a single image is estimated from its own pixels: drop --resize"
        )
    build = cls.from_exemplar if one else cls.from_images
    known = [n for n in inspect.signature(build).parameters
             if n not in ("image", "images", "keep", "generator")]
    extra = () if one else ("images", "channels")
    settings = parse_arguments(arguments, [*known, *extra])
    count = settings.pop("images", IMAGES)
    channels = settings.pop("channels", None)  # None: those of the data
    about: dict[str, Any] = {"data": [Path(name).name for name in data], "seed": seed}
    images = None
    if not one:
        if "components" in known:
            settings.setdefault("components", 100)
        images = Crops(data, channels=channels, seed=seed, warn=_warn, **crops).batch(0, count)
        about |= _crop_settings(crops) | {"images": count}
    paths = [Path(name) for name in data]
    model = compute_prior(prior, paths, images, seed, crops["max_pixels"], **settings)
    save_prior(prior, model, out, about)


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)


def _crop_settings(crops: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that the crops depend on, by the names of their options."""
    return {"crop" if name == "size" else name: value for name, value in crops.items()
            if name != "max_pixels"}


def _typed_options(*names: str) -> str:
    """Returns those of the options that the user typed, as text for a message."""
    ctx = click.get_current_context()
    typed = [name for name in names
             if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    options = {param.name: param.opts[-1] for param in ctx.command.params}
    return " and ".join(options[name] for name in typed)


def _channels(
    prior: str, arguments: tuple[str, ...], out: Path, resume: bool
) -> int | None:
    """Returns the channels of a new prior by --set or the resumed run; None: those of the data."""
    import torch

    from genprior.priors.checkpoint import MANIFEST, complete_steps, read_manifest

    given = constructor_arguments(prior, arguments)
    with torch.device("meta"):  # shows a wrong --set before any data are read
        model = _construct(lookup(PRIORS, prior, "prior"), given)
    steps = complete_steps(out) if resume else []
    if "channels" in given or "channels" not in model.config:
        return model.config.get("channels", 3)
    channels = read_manifest(steps[-1])["config"].get("channels") if steps else None
    if type(channels) not in (int, type(None)) or channels not in (1, 3, None):
        raise CheckpointError(
            f"{steps[-1] / MANIFEST} has {reprlib.repr(channels)} channels, they must be 1 or 3: "
            f"get another copy of the folder"
        )
    return channels


def _new(prior: str, arguments: tuple[str, ...], channels: int) -> Any:
    cls, given = lookup(PRIORS, prior, "prior"), constructor_arguments(prior, arguments)
    takes_channels = "channels" in inspect.signature(cls).parameters
    return _construct(cls, ({"channels": channels} if takes_channels else {}) | given)


def _construct(cls: type, arguments: dict[str, Any]) -> Any:
    from genprior.priors.arguments import check_types

    if arguments.get("unrolled"):
        raise click.UsageError(
            "--set unrolled: this network is trained by benchmarks/train_unrolled.py, see "
            "docs/training.md"
        )
    try:
        check_types(cls, arguments)
        return cls(**arguments)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--set: {error}") from error


def _initialised(init: str, prior: str, arguments: tuple[str, ...]) -> Any:
    """Returns a prior with the weights of another checkpoint, and the changes of --set."""
    from genprior.api.factory import load_checkpoint
    from genprior.registry import find_prior

    model, manifest = load_checkpoint(find_prior(init))
    if manifest["prior"] != prior:
        raise click.UsageError(
            f"--init {init} is a checkpoint of {manifest['prior']}, not of {prior}: choose another"
        )
    changes = constructor_arguments(prior, arguments)
    if model.config.get("unrolled"):  # its network would not follow the others
        changes = {"unrolled": False} | changes
    if changes:
        state = model.state_dict()
        model = _construct(type(model), model.config | changes)
        inherited = model.inherit(state)
        own = model.state_dict()
        common = {key.split(".")[0] for key in own} & {key.split(".")[0] for key in state}
        if any(key not in inherited for key in {*own, *state} if key.split(".")[0] in common):
            raise click.UsageError(
                f"--init {init}: its weights do not fit --set {', '.join(arguments)}"
            )
        model.load_state_dict(inherited, strict=False)
    return model.train().requires_grad_(True)


def _teacher(name: str, device: Any) -> Any:
    """Returns the denoiser of a name or a folder, on a device."""
    from genprior.api.factory import load_prior
    from genprior.priors.base import Denoiser

    prior = load_prior(name, str(device))
    if not isinstance(prior, Denoiser):
        raise click.UsageError(f"--teacher {name} does not denoise: choose a ddpm")
    return prior


def _reporting(
    progress: Progress, images_per_step: int
) -> Callable[[int, float, float], None]:
    """Returns the callback of `fit` that shows the loss and, once a second, the images/s."""
    last: tuple[float, int] | None = None

    def report(step: int, done: float, loss: float) -> None:
        nonlocal last
        if last is None:
            progress.start(1.0, done)
            last = (time.monotonic(), step)
        seconds, text = time.monotonic() - last[0], ""
        if seconds > 1:
            speed = (step - last[1]) * images_per_step / seconds
            text = f"step {step}, loss {loss:.4f}, {speed:.1f} images/s"
            last = (time.monotonic(), step)
        progress.update(done, 1.0, text)

    return report
