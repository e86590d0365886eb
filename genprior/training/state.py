"""State of a training: weights, their moving average, optimisers; updates and checkpoints.

Every random number of a training is a function of (seed, update, row of the batch). So no state
of a generator has to be saved to resume exactly, and a batch may be split in any way.
"""

import os
import platform
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.devices import DTYPES
from genprior.core.distributed import Ranks
from genprior.core.errors import CheckpointError, SettingError
from genprior.core.random_streams import Noise, seed_global
from genprior.priors.checkpoint import (
    STATE,
    complete_steps,
    read_manifest,
    read_model,
    read_tensors,
    remove_checkpoint,
    save_checkpoint,
    steps_of,
)
from genprior.priors.nets.compile import compile_networks
from genprior.training.optimizers import MOMENTS, build_optimizers
from genprior.training.settings import Progress, Settings, check_same, read_progress

BEST = "best"
KEEP = 2
DROPOUT = 1
FIRST_SCALE, SCALE_STEPS = 2.0**13, 2000


class Training:
    """A prior in training.

    Arguments:
        name: Name of the prior in the registry.
        prior: Its module; trained in place on the device it is on.
        settings: Training settings.
        ranks: The processes that share every batch.
        about: Provenance to put into the manifests.

    Raises:
        ValueError: The batch cannot be divided evenly among processes and parts.
    """

    def __init__(
        self,
        name: str,
        prior: nn.Module,
        settings: Settings,
        ranks: Ranks,
        about: dict[str, Any],
    ) -> None:
        self.name, self.prior, self.settings, self.ranks = name, prior, settings, ranks
        self.about = {**about, "settings": asdict(settings)}
        if settings.batch % (ranks.world * settings.accumulate):
            raise ValueError(
                f"the batch must be a multiple of processes x accumulate = {ranks.world} x "
                f"{settings.accumulate}, got {settings.batch}"
            )
        self.device = next(prior.parameters()).device
        groups = {group: list(params) for group, params in prior.groups().items()}
        if settings.only not in (None, *groups):
            raise SettingError(
                f"{name} has no network {settings.only!r} to train: choose {' or '.join(groups)}"
            )
        self.groups = {group: params for group, params in groups.items()
                       if settings.only in (None, group)}
        adam = {group: dict(prior.adam(group)) for group in self.groups}
        self.lrs = {group: settings.lr * own.pop("lr", 1.0) for group, own in adam.items()}
        self.optimizers = {
            group: build_optimizers(
                group, params, settings.optimizer, self.lrs[group], **adam[group]
            )
            for group, params in self.groups.items()
        }
        updates = [tuple(n for n in names if n in self.groups) for names in prior.updates()]
        self.updates = [names for names in updates if names]
        self.live = prior.state_dict()
        self.average = {key: value.clone() for key, value in self.live.items()}
        floating = [key for key, value in self.live.items() if value.is_floating_point()]
        self._moving = [[table[key] for key in floating] for table in (self.average, self.live)]
        self._counting = [key for key in self.live if key not in floating]
        self.step = self.drawn = 0
        self.seconds = 0.0
        self.best: float | None = None
        self.scale, self.finite_steps = FIRST_SCALE, 0
        if settings.compile:
            compile_networks(prior)

    @property
    def rows(self) -> slice:
        """Rows of a batch that belong to this process."""
        share = self.settings.batch // self.ranks.world
        return slice(self.ranks.rank * share, (self.ranks.rank + 1) * share)

    def begin(self, data: Any) -> None:
        """Initialises weights that depend on a first batch, and broadcasts all weights."""
        if not self.step and self.ranks.first:
            x = data.batch(0, self.settings.batch).to(self.device)
            self.prior.prepare(x, Noise(self.settings.seed, [(0, k) for k in range(len(x))]))
        self.ranks.copy(list(self.live.values()))
        for key, value in self.average.items() if not self.step else ():
            value.copy_(self.live[key])

    def update(self, groups: Collection[str], x: Tensor, rate: float) -> dict[str, Tensor]:
        """Updates the weights of some groups from one batch.

        Arguments:
            groups: Names of the groups.
            x: The rows of the batch that belong to this process.
            rate: Learning rate as a fraction of its peak.

        Returns:
            Mean loss of each group over these rows, on the device.
        """
        for group in groups:
            for parameter in self.groups[group]:
                parameter.grad = None
        scale = self.scale if self.settings.dtype == "float16" else 1.0
        parts, row = self.settings.accumulate, self.rows.start
        totals: dict[str, Tensor] = {}
        for shard in x.to(self.device, non_blocking=True).chunk(parts):
            losses = self._losses(groups, shard, row)
            row += len(shard)
            for number, group in enumerate(groups, 1):
                # The loss of one network of a GAN also depends on the other one.
                inputs = self.groups[group] if len(self.groups) > 1 else None
                loss = losses[group] * (scale / parts)
                loss.backward(inputs=inputs, retain_graph=number < len(groups))
                value = losses[group].detach() / parts
                totals[group] = totals[group] + value if group in totals else value
        gradients = [p.grad for g in groups for p in self.groups[g] if p.grad is not None]
        self.ranks.average(gradients)
        if scale != 1:
            torch._foreach_mul_(gradients, 1 / scale)
        norms = {
            group: nn.utils.clip_grad_norm_(self.groups[group], self.settings.clip)
            for group in groups
        }
        if self._gradients_finite(norms):
            for group in groups:
                for optimizer in self.optimizers[group].values():
                    optimizer.param_groups[0]["lr"] = self.lrs[group] * rate
                    optimizer.step()
        self.drawn += 1
        return totals

    def end_step(self) -> None:
        """Counts the step and updates the moving average of the weights."""
        self.step += 1
        decay = min(self.settings.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(*self._moving, 1 - decay)
        for key in self._counting:
            self.average[key].copy_(self.live[key])

    def _losses(self, groups: Collection[str], x: Tensor, row: int) -> dict[str, Tensor]:
        """Returns losses of images x, rows `row` and later of a batch, each with its own noise."""
        seed = self.settings.seed
        noise = Noise(seed, [(self.drawn, row + k) for k in range(len(x))])
        dropout = Noise(seed, [(self.drawn, row, DROPOUT)]).generators[0].initial_seed()
        seed_global(dropout, x.device)
        with self._precision():
            return self.prior.losses_of(groups, x, noise)

    def _precision(self) -> torch.autocast:
        low = DTYPES[self.settings.dtype]
        return torch.autocast(self.device.type, low, enabled=low != torch.float32)

    def _gradients_finite(self, norms: dict[str, Tensor]) -> bool:
        """Whether no gradient overflowed in float16; adapts the loss scale of later steps."""
        if self.settings.dtype != "float16":
            return True
        finite = all(bool(norm.isfinite()) for norm in norms.values())
        self.finite_steps = self.finite_steps + 1 if finite else 0
        if not finite:
            self.scale /= 2
        elif self.finite_steps % SCALE_STEPS == 0:
            self.scale *= 2
        return finite

    def validate(self, data: Any, batches: int) -> float:
        """Returns the loss of the moving average on the first batches, with fixed noise."""
        total, count = 0.0, self.settings.batch
        size = count // (self.ranks.world * self.settings.accumulate)  # fits, as in training
        with self.averaged() as prior, torch.no_grad(), self._precision():
            for number in range(batches):
                x = data.batch(number, count)
                for start in range(0, count, size):
                    part = x[start : start + size].to(self.device)
                    noise = Noise(0, [(number, start + row) for row in range(len(part))])
                    losses = prior.losses(part, noise).values()
                    total += sum(loss.item() for loss in losses) * len(part)
        return total / (batches * count)

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """Yields the prior with the moving average as its weights, in evaluation mode."""
        saved = {key: value.clone() for key, value in self.live.items()}
        was_training = self.prior.training
        with torch.no_grad():
            for key, value in self.live.items():
                value.copy_(self.average[key])
        try:
            yield self.prior.eval()
        finally:
            with torch.no_grad():
                for key, value in self.live.items():
                    value.copy_(saved[key])
            self.prior.train(was_training)

    def check_finite(self) -> None:
        """Raises FloatingPointError if weights are NaN or infinite, for example by a gradient."""
        tensors = [value for table in self._moving for value in table]
        if not all(value.isfinite().all() for value in tensors):
            raise FloatingPointError(
                f"the weights are NaN or infinite after step {self.step} and not saved: start "
                f"another run from an older checkpoint, --init, with a lower lr"
            )

    def save(self, out: Path, more: dict[str, Any]) -> None:
        """Writes a checkpoint of the current step, and removes old ones."""
        folder = out / f"step-{self.step:08d}"
        state = {f"live.{key}": value for key, value in self.live.items()}
        for name, optimizer in self._named_optimizers():
            for index, moments in optimizer.state_dict()["state"].items():
                for key, value in moments.items():
                    state[f"optimizer.{name}.{index}.{key}"] = value
        save_checkpoint(
            folder, self.name, self.prior.config, self.average, state, self._facts(more)
        )
        remove_older(out, KEEP)

    def save_best(self, out: Path) -> None:
        """Writes the moving average only: the training cannot be resumed from it."""
        best = out / BEST / f"step-{self.step:08d}"
        save_checkpoint(best, self.name, self.prior.config, self.average, about=self._facts({}))
        for old in steps_of(best.parent):
            if old != best:
                remove_checkpoint(old)

    def _facts(self, more: dict[str, Any]) -> dict[str, Any]:
        return {
            **self.about,
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "best": self.best,
            "loss_scale": [self.scale, self.finite_steps],
            **more,
            "processes": self.ranks.world,
            "threads": torch.get_num_threads(),
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        }

    def restore(self, folder: Path) -> Progress:
        """Restores the state of a checkpoint, and returns what its manifest tells.

        Raises:
            CheckpointError: The checkpoint is corrupt, or of another network.
            SettingError: It was trained with other settings, or on other images.
        """
        manifest, progress = read_manifest(folder), read_progress(folder)
        check_same(folder, manifest, self.name, self.prior.config, self.settings, self.about)
        state = read_tensors(folder, manifest, STATE)
        model = read_model(folder, manifest)
        live = {k.removeprefix("live."): v for k, v in state.items() if k.startswith("live.")}
        _check_like(folder, "weights", model, self.average)
        _check_like(folder, "weights in training", live, self.live)
        moments = self._moments_like(state)
        _check_like(
            folder, "moments of the optimiser",
            {key: value for key, value in state.items() if not key.startswith("live.")}, moments,
        )
        if any(line.keys() != self.groups.keys() for line in progress.window):
            raise CheckpointError(f"{folder} has losses of other groups than {list(self.groups)}")
        self.prior.load_state_dict(live)
        for key, value in self.average.items():
            value.copy_(model[key])
        for key, value in moments.items():  # fused updates need its memory format
            value.copy_(state[key])
        self._load_moments(moments)
        self.step, self.seconds = progress.step, progress.seconds
        self.drawn = self.step * len(self.updates)
        self.best = progress.best
        self.scale, self.finite_steps = progress.loss_scale
        return progress

    def _moments_like(self, saved: Collection[str]) -> dict[str, Tensor]:
        """Returns empty tensors for the moments of all parameters of which some were saved."""
        moments = {}
        for name, optimizer in self._named_optimizers():
            for index, parameter in enumerate(optimizer.param_groups[0]["params"]):
                keys = {f"optimizer.{name}.{index}.{entry}": entry
                        for entry in MOMENTS[type(optimizer)]}
                if not keys.keys() & saved:  # it was never updated
                    continue
                for key, entry in keys.items():
                    like = parameter.detach()
                    moments[key] = (torch.zeros((), dtype=torch.float32, device=like.device)
                                    if entry == "step" else torch.empty_like(like))
        return moments

    def _load_moments(self, moments: dict[str, Tensor]) -> None:
        for name, optimizer in self._named_optimizers():
            state: dict[int, dict[str, Tensor]] = {}
            prefix = f"optimizer.{name}."
            for key, value in moments.items():
                if key.startswith(prefix):
                    index, entry = key.removeprefix(prefix).split(".")
                    state.setdefault(int(index), {})[entry] = value
            param_groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": param_groups})

    def _named_optimizers(self) -> list[tuple[str, torch.optim.Optimizer]]:
        return [item for group in self.optimizers.values() for item in group.items()]


def remove_older(run: Path, keep: int) -> None:
    """Removes the checkpoints of a run that are incomplete, or not among the newest `keep`."""
    kept = complete_steps(run)[-keep:]
    for folder in steps_of(run):
        if folder not in kept:
            remove_checkpoint(folder)


def _check_like(
    folder: Path, what: str, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> None:
    """Checks names, shapes and types of restored tensors.

    Raises:
        CheckpointError: They differ; the message names the first difference.
    """
    first = next(iter(sorted(found.keys() ^ expected.keys())), None)
    if first is not None:
        problem = f"{first} is {'missing' if first in expected else 'unknown'}"
        raise CheckpointError(f"the {what} in {folder} do not fit its configuration: {problem}")
    for key, value in found.items():
        like = expected[key]
        if (value.shape, value.dtype) != (like.shape, like.dtype):
            raise CheckpointError(
                f"the {what} in {folder} do not fit its configuration: {key} is {value.dtype} of "
                f"shape {tuple(value.shape)}, it must be {like.dtype} of {tuple(like.shape)}"
            )
