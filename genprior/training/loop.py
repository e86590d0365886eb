"""Training loop of every `Trainable` prior, in one process or distributed by `torchrun`."""

import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from genprior.core.atomic_files import discard, unfinished
from genprior.core.distributed import Ranks
from genprior.core.errors import CheckpointError, SettingError
from genprior.io.images import write_image
from genprior.io.panels import grid
from genprior.priors.checkpoint import MANIFEST, complete_steps, newest, steps_of
from genprior.training.crops import Crops
from genprior.training.leakage import common_image
from genprior.training.lock import LOCK, exclusive_run
from genprior.training.log import LOG, TrainingLog
from genprior.training.progress_picture import PICTURE, write_progress
from genprior.training.settings import Settings, with_dtype
from genprior.training.state import BEST, KEEP, Training, remove_older

__all__ = ["Settings", "fit"]
CHECK_BATCHES = 4
PREVIEW_SHARE = 0.01
SAMPLES = "samples"
INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def fit(
    name: str,
    prior: nn.Module,
    data: Any,
    out: Path,
    settings: Settings,
    about: dict[str, Any] | None = None,
    resume: bool = False,
    report: Callable[[int, float, float], object] | None = None,
    ranks: Ranks | None = None,
    validation: Any = None,
    preview: Callable[[nn.Module], Tensor] | None = None,
    tensorboard: bool = False,
) -> Path:
    """Trains a prior and writes checkpoints.

    Resuming is exact: on a CPU, and if the length is given in steps, a stopped and resumed
    training gives the same weights as an uninterrupted one, bit for bit. The number of processes
    that share a batch, and the number of parts that they split it into (`Settings.accumulate`),
    change the result by rounding only, unless the prior uses statistics of a batch, as batch
    normalisation does.

    Arguments:
        name: Name of the prior in the registry.
        prior: Its module; trained in place on the device it is on.
        data: Source of batches: `batch(number, count, rows)`, see `genprior.training.crops.Crops`.
        out: Folder of the run: checkpoints `step-*`, `log.jsonl`, previews `samples/*.png`,
            `progress.png` with the losses and some previews, and with `validation` the weights of
            the lowest validation loss, `best`.
        settings: Training settings.
        about: Provenance to put into the manifests. "flip" and "turn" (by default those of
            `data`) tell whether a self-ensemble of a denoiser may flip and rotate images.
        resume: Continue from the newest checkpoint in `out`. A run that was killed before its
            first checkpoint was complete begins again.
        report: Called after every step with (step, fraction done, loss).
        ranks: The processes that share every batch.
        validation: Source of images that are not in `data`. The loss of the moving average of
            the weights is measured on some of them at every checkpoint.
        preview: Function that draws images (B, C, H, W) from the prior in evaluation mode. Called
            at checkpoints, so often that it takes about 1 % of the time, and at the end.
        tensorboard: Write the log for TensorBoard, too.

    Returns:
        The folder of the last checkpoint.

    Raises:
        CheckpointError: `resume` is set and `out` holds no checkpoint, or several checkpoints in
            `out` are incomplete and none is complete.
        FloatingPointError: A loss or a weight is not finite; the message names the step.
        KeyboardInterrupt: Ctrl-C was pressed or SIGTERM received; a run of one process has
            written a checkpoint before.
        SettingError: `validation` is given for a prior with competing networks, such as a GAN,
            whose losses do not measure its quality; an image is in both `data` and `validation`;
            a run is resumed with other settings; `out` holds a run and `resume` is not set; a
            training is running in `out`; or the weights are frozen.
        ValueError: The batch cannot be divided evenly among processes and parts.
    """
    ranks, out = ranks or Ranks(), Path(out)
    if not resume and complete_steps(out):
        raise SettingError(f"{out} holds a training run: resume it, or choose another folder")
    if len(steps_of(out)) > 1 and not complete_steps(out):
        raise CheckpointError(
            f"{out} holds checkpoints without {MANIFEST}, which are damaged: choose another folder"
        )
    resume = resume and not was_killed_early(out)
    if resume and not complete_steps(out) and not (out / MANIFEST).exists():
        raise CheckpointError(f"no checkpoint in {out}: begin the training without resume")
    groups = [list(group) for group in prior.groups().values()]
    if not all(group and all(p.requires_grad for p in group) for group in groups):
        raise SettingError("the prior's weights are frozen: call prior.requires_grad_(True) first")
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    settings = with_dtype(settings, groups[0][0].device, out if resume else None)
    about = _about(data) | (about or {})
    training = Training(name, prior.to(memory_format=layout), settings, ranks, about)
    if validation is not None and len(training.updates) > 1:
        raise SettingError(f"the losses of a {name} do not measure its quality: omit validation")
    if both := common_image(data, validation):
        raise SettingError(f"{both} is in the training and in the validation data: use other data")
    devices = [training.device] if training.device.type == "cuda" else []
    if not resume:
        out.mkdir(parents=True, exist_ok=True)
    with (
        exclusive_run(out) if ranks.first else nullcontext(), torch.random.fork_rng(devices),
        _flushing_denormals(), closing(TrainingLog(out, ranks, tensorboard)) as log,
    ):
        if resume:
            progress = training.restore(newest(out))
            log.resume(training.step, progress.window)
        else:
            log.begin()
        if ranks.first:  # after a damaged checkpoint was refused, so that nothing is lost then
            _remove_remains(out)
        ranks.wait()
        writer = _CheckpointWriter(training, log, out, validation, preview)
        _loop(training, log, writer, data, report)
        return writer.save(last=True)


def _about(data: Any) -> dict[str, Any]:
    """Returns the properties of crops that a prior is used with later."""
    about = {name: getattr(data, name) for name in ("flip", "turn") if hasattr(data, name)}
    return about | ({"sample_size": [data.size] * 2} if isinstance(data, Crops) else {})


def was_killed_early(out: Path) -> bool:
    """Whether a folder holds a training that was killed before its first checkpoint."""
    # A run that ends, even by an error, removes its lock.
    begun = steps_of(out) or (out / LOG).is_file() or (out / LOCK).is_file()
    return bool(begun) and not complete_steps(out) and not (out / MANIFEST).exists()


def _remove_remains(out: Path) -> None:
    """Removes what a killed run has left in a locked folder: half files, older checkpoints."""
    remove_older(out, KEEP)
    remove_older(out / BEST, 1)
    for folder in (out, out / SAMPLES, *complete_steps(out), *complete_steps(out / BEST)):
        for path in unfinished(folder):
            with suppress(OSError):
                discard(path)


def _loop(
    training: Training,
    log: TrainingLog,
    writer: "_CheckpointWriter",
    data: Any,
    report: Callable | None,
) -> None:
    settings, ranks = training.settings, training.ranks
    before, started = training.seconds, time.monotonic()
    with closing(_batches(data, training)) as batches, _deferred_interrupts(ranks) as interrupted:
        training.begin(data)
        while (done := _fraction(training)) < 1:
            warm = min((training.step + 1) / settings.warmup, 1.0)
            rate = min(warm, 0.5 + 0.5 * math.cos(math.pi * done))
            losses: dict[str, Tensor] = {}
            for groups in training.updates:
                losses |= training.update(groups, next(batches), rate)
            training.end_step()
            training.seconds = before + time.monotonic() - started
            speed = settings.batch * len(training.updates) / max(
                (training.seconds - before) / (training.step - writer.first_step), 1e-9
            )
            log.add(training.step, losses, {
                "seconds": round(training.seconds, 1), "lr": settings.lr * rate,
                "images_per_second": round(speed, 1),
            })
            if report and ranks.first:
                report(training.step, done, log.latest)
            stop = interrupted()
            if writer.is_time() or stop:
                writer.save()
            training.seconds = before + time.monotonic() - started
            if stop:
                raise KeyboardInterrupt(
                    f"interrupted at step {training.step}, which is saved: resume to continue"
                )


@contextmanager
def _flushing_denormals() -> Iterator[None]:
    """Flushes denormal numbers to 0 within the context, since a CPU is slow with them."""
    before = (torch.tensor(1e-40) * 1).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@contextmanager
def _deferred_interrupts(ranks: Ranks) -> Iterator[Callable[[], bool]]:
    """Defers Ctrl-C and SIGTERM until a step has ended and is saved; a second one is immediate.

    Yields:
        Function that tells whether one was received.
    """
    received = threading.Event()
    if ranks.world > 1 or threading.current_thread() is not threading.main_thread():
        yield received.is_set
        return

    def record(number: int, frame: object) -> None:
        received.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.getsignal(number) for number in INTERRUPTS}
    before = {number: handler for number, handler in before.items() if handler is not None}
    for number in before:
        signal.signal(number, record)
    try:
        yield received.is_set
    finally:
        restore()


def _fraction(training: Training) -> float:
    """Returns the fraction of the training that is done; the same in all processes."""
    settings = training.settings
    if settings.steps is not None:
        return training.step / settings.steps
    return training.ranks.broadcast_object(training.seconds) / (60 * settings.minutes)


class _CheckpointWriter:
    """Writer of checkpoints, with a validation and previews, in the first process."""

    def __init__(
        self, training: Training, log: TrainingLog, out: Path, validation: Any,
        preview: Callable[[nn.Module], Tensor] | None,
    ) -> None:
        self.training, self.log, self.out = training, log, out
        self.validation, self.preview = validation, preview
        self.saved = time.monotonic()
        self.first_step = training.step
        self.saved_step = training.step or None  # None unless resumed
        self.preview_step: int | None = None  # a run may have been killed before its last preview
        self.preview_due = 0.0

    def is_time(self) -> bool:
        """Whether a checkpoint is due; the same in all processes, as all take part in it."""
        wait = 60 * self.training.settings.save_minutes
        due = time.monotonic() - self.saved > wait
        ranks = self.training.ranks
        # Agreeing costs a message, so several processes do it every 10 steps only.
        if ranks.world > 1:
            return self.training.step % 10 == 0 and ranks.broadcast_object(due)
        return due

    def save(self, last: bool = False) -> Path:
        training, log = self.training, self.log
        log.read()
        folder = self.out / f"step-{training.step:08d}"
        new = training.step != self.saved_step
        if new:
            training.check_finite()
        if training.ranks.first:
            if new and self.validation is not None:
                self._validate()
            if new:
                training.save(self.out, {"window": log.window})
            self._preview_if_due(last)
        training.ranks.wait()
        self.saved, self.saved_step = time.monotonic(), training.step
        return folder

    def _preview_if_due(self, last: bool) -> None:
        now = time.monotonic()
        new = self.preview_step != self.training.step
        if new and (last or now > self.preview_due):
            if self.preview is not None:
                self._write_preview()
            write_progress(self.out / LOG, self.out / SAMPLES, self.out / PICTURE)
            self.preview_step = self.training.step
            self.preview_due = time.monotonic() + (time.monotonic() - now) / PREVIEW_SHARE

    def _validate(self) -> None:
        training = self.training
        loss = training.validate(self.validation, CHECK_BATCHES)
        self.log.note(training.step, {"validation": loss})
        if training.best is None or loss < training.best:
            training.best = loss
            training.save_best(self.out)

    def _write_preview(self) -> None:
        folder = self.out / SAMPLES
        folder.mkdir(exist_ok=True)
        try:
            with self.training.averaged() as prior, torch.no_grad():
                images = self.preview(prior).float().clamp(0, 1).cpu()
        except FloatingPointError:
            raise FloatingPointError(
                f"the preview after step {self.training.step} holds NaN or infinite numbers: "
                f"lower the lr"
            ) from None
        write_image(folder / f"step-{self.training.step:08d}.png", grid(images))


class _Batches(Dataset):
    """Data set of batches by number, for worker processes."""

    def __init__(self, data: Any, count: int, rows: slice) -> None:
        self.data, self.count, self.rows = data, count, rows

    def __getitem__(self, number: int) -> Tensor:
        if self.rows == slice(0, self.count):
            return self.data.batch(number, self.count)
        return self.data.batch(number, self.count, self.rows)


def _batches(data: Any, training: Training) -> Iterator[Tensor]:
    """Yields this process's rows of the remaining batches, which are read ahead."""
    settings = training.settings
    source = _Batches(data, settings.batch, training.rows)
    numbers = itertools.count(training.drawn)
    if settings.workers:
        gpu = training.device.type == "cuda"
        yield from DataLoader(
            source, batch_size=None, sampler=numbers, num_workers=settings.workers,
            pin_memory=gpu,
        )
    else:
        with ThreadPoolExecutor(1) as reader:
            batch = reader.submit(source.__getitem__, next(numbers))
            while True:
                ready, batch = batch, reader.submit(source.__getitem__, next(numbers))
                yield ready.result()
