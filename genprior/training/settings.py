"""How to train."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from genprior.core.devices import DTYPES, has_bfloat16
from genprior.core.errors import CheckpointError, SettingError
from genprior.priors.checkpoint import newest, read_manifest
from genprior.training.optimizers import Kind

# What may change where a stopped training goes on: how long it is, and how the work is done.
FREE = ("steps", "minutes", "save_minutes", "accumulate", "workers", "channels_last", "compile")


@dataclass(frozen=True)
class Settings:
    """How to train.

    Arguments:
        steps: Optimiser steps in all, or None.
        minutes: Wall time in all, earlier parts of a resumed run included, or None.
        batch: Images an update, over all processes.
        lr: Peak learning rate.
        warmup: Steps of linear warm-up; after it the rate follows a cosine down to 0.
        ema: Decay of the running average of the weights.
        clip: Largest norm of the gradient.
        dtype: Precision of the network under autocast. None is that of a run that is resumed, else
            bfloat16, or float32 on a CPU without instructions for that, which is faster there.
        save_minutes: Time between two checkpoints.
        seed: Seed of crops, noise and levels.
        optimizer: "adamw", "sgd", "rmsprop", or "muon": Muon for the convolutions, AdamW for
            the rest.
        accumulate: Parts that a process splits its share of a batch into, to need less memory.
        workers: Processes that read the data ahead; 0 is a thread of this one.
        channels_last: Whether weights lie in memory as convolutions are fastest on.
        compile: Whether networks are compiled, which takes a minute and saves time later.

    Raises:
        ValueError: Both lengths are given or none, one is not positive, or the precision does not
            exist.
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
    """Settings that have a precision.

    Arguments:
        settings: Their own comes first.
        device: Where the network is trained.
        resumed: The run to go on with.

    Raises:
        CheckpointError: The run has no checkpoint, or it cannot be read.
    """
    if settings.dtype is not None:
        return settings
    before = read_manifest(newest(resumed)).get("settings", {}) if resumed else {}
    fast = "bfloat16" if has_bfloat16(device) else "float32"
    return replace(settings, dtype=before.get("dtype") or fast)


def check_same(
    folder: Path,
    manifest: Mapping[str, Any],
    prior: str,
    config: Mapping[str, Any],
    settings: Settings,
    about: Mapping[str, Any],
) -> None:
    """Checks that a training goes on as it began.

    Arguments:
        folder: Its checkpoint.
        manifest: The manifest of that.
        prior: Name of the prior that is to be trained now.
        config: Its arguments.
        settings: How it is to be trained now; `FREE` says what may have changed.
        about: On what.

    Raises:
        CheckpointError: It is of another prior, or of other arguments.
        SettingError: It was trained with other settings, or on other images.
    """
    if manifest["prior"] != prior:
        raise CheckpointError(f"{folder} is a {manifest['prior']}, not a {prior}")
    network = _differences(manifest["config"], config)
    if network:
        raise CheckpointError(f"{folder} is of another network, {network}: give its --set")
    now = {name: value for name, value in asdict(settings).items() if name not in FREE}
    facts = {name: value for name, value in about.items() if name not in ("settings", "init")}
    changed = [_differences(manifest.get("settings", {}), now), _differences(manifest, facts)]
    if any(changed):
        raise SettingError(
            f"{folder} cannot be gone on with, {', '.join(filter(None, changed))}: give what it "
            f"had, or begin another run from its weights, --init"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What two have under the same name but not alike."""
    now = json.loads(json.dumps(dict(now)))
    return ", ".join(
        f"{name} was {before[name]}, now it is {value}"
        for name, value in now.items() if name in before and before[name] != value
    )
