"""Settings of a training, and the check that a resumed run keeps them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import torch
from msgspec import Meta

from genprior.core.devices import DTYPES, has_bfloat16, pick_dtype
from genprior.core.errors import CheckpointError, SettingError
from genprior.priors.checkpoint import STEP, newest, read_manifest
from genprior.training.optimizers import Kind

# Settings that may change when a training is resumed: its length, and how the work is done.
MAY_CHANGE = (
    "steps", "minutes", "save_minutes", "accumulate", "workers", "channels_last", "compile",
)
# Data may have been moved or renamed; it is the same if its digest is.
DIGESTS = {"data": "data_digest", "validation": "validation_digest"}
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]


class Progress(msgspec.Struct):
    """Progress and settings of a training run, as recorded in a manifest."""

    step: Annotated[int, Meta(ge=0, le=2**53)]
    seconds: Annotated[float, Meta(ge=0, le=1e12)]
    best: float | None = None
    # A bound of 0 would not be exact: denormal numbers are flushed to 0 in a training.
    loss_scale: tuple[Annotated[float, Meta(ge=1e-300, le=1e300)], Annotated[int, Meta(ge=0)]] = (
        2.0**13, 0,
    )
    window: list[dict[str, Finite]] = []
    settings: dict[str, Any] = {}


def read_progress(folder: Path) -> Progress:
    """Returns the progress and the settings of training that the manifest of a checkpoint records.

    Raises:
        CheckpointError: The checkpoint is not one of a training, is of another step than its
            name, or cannot be read.
    """
    try:
        progress = msgspec.convert(read_manifest(folder), Progress)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{folder} has no record of a training ({error}): give the folder of a training run, "
            f"or start from its weights, --init"
        ) from None
    # Another step would be continued with images and noise that it has already seen.
    if STEP.fullmatch(folder.name) and int(folder.name.removeprefix("step-")) != progress.step:
        raise CheckpointError(
            f"{folder} holds step {progress.step} according to its manifest: restore the name of "
            f"the folder or the manifest"
        )
    return progress


@dataclass(frozen=True)
class Settings:
    """Settings of a training.

    Arguments:
        steps: Total number of optimiser steps, or None.
        minutes: Total wall time, including the earlier parts of a resumed run, or None.
        batch: Images per update, over all processes.
        lr: Peak learning rate.
        warmup: Steps of linear warm-up; after it the rate follows a cosine down to 0.
        ema: Decay of the moving average (EMA) of the weights.
        clip: Gradients with a larger norm are scaled down to this norm.
        dtype: Precision of the network under autocast. None is the precision of the resumed run.
            For a new run it is bfloat16, or float32 on a CPU without bfloat16 instructions,
            where float32 is faster.
        save_minutes: Time between two checkpoints.
        seed: Seed of crops, noise and levels.
        optimizer: "adamw", "sgd", "rmsprop", or "muon": Muon for the convolutions, AdamW for
            the rest.
        accumulate: Number of parts that a process splits its share of a batch into (gradient
            accumulation), to need less memory.
        workers: Processes that read data ahead; 0 uses a thread of this process.
        channels_last: Whether weights are in the memory format channels_last, in which
            convolutions are fastest.
        compile: Whether networks are compiled, which takes a minute and saves time later.
        only: Name of the one network to train, a key of the prior's `groups`; None trains all.

    Raises:
        ValueError: Both or none of `steps` and `minutes` are given, a number is not positive, or
            the precision does not exist.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 16
    lr: float = 5e-4
    warmup: int = 200
    ema: float = 0.999
    clip: float = 1.0
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    save_minutes: float = 5.0
    seed: int = 0
    optimizer: Kind = "adamw"
    accumulate: int = 1
    workers: int = 0
    channels_last: bool = True
    compile: bool = False
    only: str | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give the length of the training: either steps or minutes")
        for name in ("steps", "minutes", "batch", "warmup", "accumulate"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.dtype not in (None, *DTYPES):
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")


def with_dtype(settings: Settings, device: torch.device, resumed: Path | None) -> Settings:
    """Returns the settings with the precision filled in; warns about one that is slow here.

    Arguments:
        settings: The settings; a precision that they have is kept.
        device: Device that the network is trained on.
        resumed: Folder of the run to resume, whose precision is used; None for a new run.

    Raises:
        CheckpointError: The run has no checkpoint, or it cannot be read.
    """
    if settings.dtype is not None:
        return replace(settings, dtype=pick_dtype(settings.dtype, device))
    before = read_progress(newest(resumed)).settings if resumed else {}
    fast = "bfloat16" if has_bfloat16(device) else "float32"
    dtype = before.get("dtype") or fast
    if dtype not in tuple(DTYPES):
        raise CheckpointError(
            f"{resumed} was trained in dtype {dtype!r}, which must be one of "
            f"{', '.join(DTYPES)}: give --dtype"
        )
    return replace(settings, dtype=dtype)


def check_same(
    folder: Path,
    manifest: Mapping[str, Any],
    prior: str,
    config: Mapping[str, Any],
    settings: Settings,
    about: Mapping[str, Any],
) -> None:
    """Checks that a training is resumed with the prior, settings and data that it began with.

    Arguments:
        folder: Checkpoint folder of the training.
        manifest: Manifest of the checkpoint.
        prior: Name of the prior that is to be trained now.
        config: Constructor arguments of that prior.
        settings: Settings to train it with now; those in `MAY_CHANGE` may differ.
        about: Provenance of the training now, such as its data.

    Raises:
        CheckpointError: The checkpoint is of another prior, or has other arguments.
        SettingError: It was trained with other settings, or on other images.
    """
    if manifest["prior"] != prior:
        raise CheckpointError(f"{folder} is a {manifest['prior']}, not a {prior}")
    network = _differences(manifest["config"], config)
    if network:
        remedy = "--task" if network.startswith("task ") else "--set"
        raise CheckpointError(f"{folder} has another network, {network}: give the same {remedy}")
    now = {name: value for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    same = [name for name, digest in DIGESTS.items()
            if digest in about and manifest.get(digest) == about[digest]]
    other = {"settings", "init", "sample_size", *DIGESTS.values(), *same}
    facts = {name: value for name, value in about.items() if name not in other}
    changed = [_differences(manifest.get("settings", {}), now), _differences(manifest, facts)]
    if any(changed):
        raise SettingError(
            f"{folder} cannot be resumed, {', '.join(filter(None, changed))}: give the earlier "
            f"values, or start another run from its weights, --init"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Describes the values that differ between two mappings, of the names in both."""
    now = json.loads(json.dumps(dict(now)))
    return ", ".join(
        f"{name} was {before[name]}, now it is {value}"
        for name, value in now.items() if name in before and before[name] != value
    )
