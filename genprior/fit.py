"""The one training loop, for every prior that is `Trainable`."""

import json
import math
import os
import platform
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genprior.checkpoint import (
    STATE,
    newest,
    read_manifest,
    read_tensors,
    save_checkpoint,
)
from genprior.data import Crops
from genprior.optim import Kind, build_optimizers

KEEP = 2


@dataclass(frozen=True)
class Settings:
    """How to train.

    Arguments:
        steps: Optimiser steps in all, or None.
        minutes: Training time in all, earlier parts of a resumed run included, or None.
        batch: Images a step.
        lr: Peak learning rate.
        warmup: Steps of linear warm-up; after it the rate follows a cosine down to 0.
        ema: Decay of the running average of the weights.
        clip: Largest norm of the gradient.
        dtype: Precision of the network under autocast.
        save_minutes: Time between two checkpoints.
        seed: Seed of crops, noise and levels.
        optimizer: "adamw", or "muon": Muon for the convolutions, AdamW for the rest.
    """

    steps: int | None = None
    minutes: float | None = None
    batch: int = 16
    lr: float = 5e-4
    warmup: int = 200
    ema: float = 0.999
    clip: float = 1.0
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    save_minutes: float = 5.0
    seed: int = 0
    optimizer: Kind = "adamw"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give the length of the training: either steps or minutes")


def fit(
    name: str,
    prior: torch.nn.Module,
    data: Crops,
    out: Path,
    settings: Settings,
    about: dict[str, Any] | None = None,
    resume: bool = False,
    report: Callable[[int, float, float], object] | None = None,
) -> Path:
    """Trains a prior and writes checkpoints.

    Arguments:
        name: Name of the prior in the registry.
        prior: Its module; trained in place on the device it is on.
        data: Source of batches.
        out: Folder of the run: checkpoints `step-*` and `log.jsonl`.
        settings: How to train.
        about: Provenance to put into the manifests.
        resume: Continue from the newest checkpoint in `out`.
        report: Called after every step with (step, fraction done, loss).

    Returns:
        The folder of the last checkpoint.

    Raises:
        CheckpointError: `resume` is set and `out` holds no checkpoint.
        FloatingPointError: A loss is not finite; the message names the step.
    """
    torch.set_flush_denormal(True)
    prior.to(memory_format=torch.channels_last)
    run = _Run(name, prior, settings, {**(about or {}), "settings": asdict(settings)})
    if resume:
        run.restore(newest(out))
    out.mkdir(parents=True, exist_ok=True)
    saved = time.monotonic()
    with ThreadPoolExecutor(1) as loader, open(out / "log.jsonl", "a") as log:
        batch = loader.submit(data.batch, run.drawn, settings.batch)
        while (done := run.fraction()) < 1:
            losses = {}
            for groups in run.updates:
                number = run.drawn
                x, batch = batch.result(), loader.submit(data.batch, number + 1, settings.batch)
                losses |= run.update(groups, x, done)
            run.end_step(losses)
            if report:
                report(run.step, done, sum(losses.values()))
            if run.step % 20 == 0:
                line = {"step": run.step, "seconds": round(run.seconds, 1), **losses}
                log.write(json.dumps(line) + "\n")
                log.flush()
            if time.monotonic() - saved > 60 * settings.save_minutes:
                run.save(out)
                saved = time.monotonic()
    return run.save(out)


class _Run:
    """Everything that changes during a training, and how it is saved and restored."""

    def __init__(
        self, name: str, prior: torch.nn.Module, settings: Settings, about: dict[str, Any]
    ) -> None:
        self.name, self.prior, self.settings, self.about = name, prior, settings, about
        self.groups = {group: list(params) for group, params in prior.groups().items()}
        adam = {group: dict(prior.adam(group)) for group in self.groups}
        self.lrs = {group: settings.lr * own.pop("lr", 1.0) for group, own in adam.items()}
        self.optimizers = {
            group: build_optimizers(
                group, params, settings.optimizer, self.lrs[group], **adam[group]
            )
            for group, params in self.groups.items()
        }
        self.updates = [tuple(groups) for groups in prior.updates()]
        self.average = {key: value.clone() for key, value in prior.state_dict().items()}
        self.step = self.drawn = 0
        self.seconds = 0.0

    def named_optimizers(self) -> list[tuple[str, torch.optim.Optimizer]]:
        return [item for group in self.optimizers.values() for item in group.items()]

    def fraction(self) -> float:
        if self.settings.steps is not None:
            return self.step / self.settings.steps
        return self.seconds / (60 * self.settings.minutes)

    def update(self, groups: Collection[str], x: Tensor, done: float) -> dict[str, float]:
        """Changes the weights of some groups, after one batch."""
        started = time.monotonic()
        settings = self.settings
        device = next(self.prior.parameters()).device
        generator = torch.Generator().manual_seed(settings.seed * 2**32 + self.drawn)
        amp = torch.autocast(device.type, torch.bfloat16, enabled=settings.dtype == "bfloat16")
        with amp:
            losses = self.prior.losses_of(groups, x.to(device), generator)
        lr = min((self.step + 1) / settings.warmup, 0.5 + 0.5 * math.cos(math.pi * done))
        for number, group in enumerate(groups, 1):
            for parameter in self.groups[group]:
                parameter.grad = None
            # The loss of one network of a GAN runs through the other one, too.
            inputs = self.groups[group] if len(self.groups) > 1 else None
            losses[group].backward(inputs=inputs, retain_graph=number < len(groups))
        for group in groups:
            torch.nn.utils.clip_grad_norm_(self.groups[group], settings.clip)
            for optimizer in self.optimizers[group].values():
                optimizer.param_groups[0]["lr"] = self.lrs[group] * lr
                optimizer.step()
        self.drawn += 1
        values = {group: losses[group].item() for group in groups}
        self.seconds += time.monotonic() - started
        return values

    def end_step(self, losses: dict[str, float]) -> None:
        """Moves the running average, and checks that the training goes on."""
        self.step += 1
        decay = min(self.settings.ema, self.step / (self.step + 10))
        live = self.prior.state_dict()
        torch._foreach_lerp_(list(self.average.values()), list(live.values()), 1 - decay)
        if not all(map(math.isfinite, losses.values())):
            raise FloatingPointError(f"the loss is {losses} at step {self.step}: lower the lr")

    def save(self, out: Path) -> Path:
        folder = out / f"step-{self.step:08d}"
        state = {f"live.{key}": value for key, value in self.prior.state_dict().items()}
        for name, optimizer in self.named_optimizers():
            for index, moments in optimizer.state_dict()["state"].items():
                for key, value in moments.items():
                    state[f"optimizer.{name}.{index}.{key}"] = value
        about = {
            **self.about,
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        save_checkpoint(folder, self.name, self.prior.config, self.average, state, about)
        for old in sorted(out.glob("step-*"))[:-KEEP]:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        return folder

    def restore(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        state = read_tensors(folder, manifest, STATE)
        model = read_tensors(folder, manifest, "model.safetensors")
        live = {k.removeprefix("live."): v for k, v in state.items() if k.startswith("live.")}
        self.prior.load_state_dict(live)
        for key, value in self.average.items():
            value.copy_(model[key])
        for name, optimizer in self.named_optimizers():
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith(f"optimizer.{name}."):
                    index, entry = key.removeprefix(f"optimizer.{name}.").split(".")
                    moments.setdefault(int(index), {})[entry] = value
            param_groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": param_groups})
        self.step, self.seconds = manifest["step"], manifest["seconds"]
        self.drawn = self.step * len(self.updates)
