"""How to train."""

from dataclasses import dataclass
from typing import Literal

from genprior.optim import Kind
from genprior.watch import DTYPES


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
        dtype: Precision of the network under autocast.
        save_minutes: Time between two checkpoints.
        seed: Seed of crops, noise and levels.
        optimizer: "adamw", "sgd", "rmsprop", or "muon": Muon for the convolutions, AdamW for
            the rest.
        accumulate: Parts that a process splits its share of a batch into, to need less memory.
        workers: Processes that read the data ahead; 0 is a thread of this one.
        channels_last: Whether weights lie in memory as convolutions are fastest on.
        compile: Whether networks are compiled, which takes a minute and saves time later.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 16
    lr: float = 5e-4
    warmup: int = 200
    ema: float = 0.999
    clip: float = 1.0
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
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
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
