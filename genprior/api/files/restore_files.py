"""Restoration of files in batches: read, restore, write the images and a sidecar.

Files are independent: the noise of a file depends on the seed only, not on the other files,
and an error in one file does not stop the others.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genprior.api.adaptation import Adaptation, adapt_prior
from genprior.api.compressed_photos import noise_or_compression
from genprior.api.estimated_priors import estimate_prior, read_exemplar
from genprior.api.factory import (
    check_no_settings,
    ignored_steps,
    load_described,
    solver_for_task,
)
from genprior.api.files.job import Job, MakeOperator
from genprior.api.files.outputs import write_output, write_results, written_together
from genprior.api.files.paths import OutputPaths
from genprior.api.files.save_options import quantiles
from genprior.api.files.sidecar import (
    adaptation_of,
    compression,
    describe,
    doubts,
    estimated_blur,
    facts,
    resampling,
)
from genprior.api.noise_level import estimate_noise
from genprior.api.restoration import degrade, restore
from genprior.core.atomic_files import sweep
from genprior.core.checksums import sha256
from genprior.core.devices import pick_device, pick_dtype
from genprior.core.errors import FOR_ALL, OF_ONE_FILE, ImageError, SettingError
from genprior.inverse.base import Restoration
from genprior.io.encode import check_side, check_transparency
from genprior.io.images import FORMAT_OF, ImageFile, read_image
from genprior.io.limits import MAX_PIXELS
from genprior.operators.base import Operator
from genprior.priors.checkpoint import fingerprint
from genprior.registry import FROM_EXEMPLAR

# Images that are restored together. On a CPU a batch is not faster, and its results would appear,
# or be lost by an interrupt, all at once.
CPU_BATCH, GPU_BATCH, BATCH_PIXELS = 1, 16, 2**24


@dataclass(frozen=True)
class _Prior:
    """A prior and the checksum of the file that it was loaded or estimated from."""

    model: nn.Module
    sha256: str


@dataclass(frozen=True)
class _Batch:
    """Images of one size, which are restored together."""

    targets: list[OutputPaths] = field(default_factory=list)
    images: list[ImageFile] = field(default_factory=list)

    def has_room_for(self, image: ImageFile, max_images: int) -> bool:
        """Returns whether one more image fits: same shape, and neither limit is exceeded."""
        shape = image.pixels.shape
        capacity = min(max_images, BATCH_PIXELS // shape[-2:].numel())
        return not self.images or (
            len(self.images) < capacity and self.images[0].pixels.shape == shape
        )


def run(
    job: Job,
    targets: list[OutputPaths],
    progress: Callable[[int, int], object] | None = None,
    failed: Callable[[OutputPaths, Exception], object] | None = None,
) -> Iterator[dict[str, Any]]:
    """Restores files and yields the record of each, as written to its sidecar.

    While one batch is restored the next one is read, and on a GPU the last one is written.

    Arguments:
        job: The settings.
        targets: The inputs and the paths of their outputs.
        progress: Called with the network evaluations done and their total, for all files; the
            total is an estimate until the last file.
        failed: Called with a file and its error; the other files are still restored. None
            raises the first error.

    Raises:
        ImageError: A file cannot be read, or cannot be restored with these settings.
        CheckpointError: The prior does not exist or is corrupt.
        SettingError: The device, the solver or one of its settings does not exist, the prior
            takes no exemplar, or it needs one and there is none.
    """

    def stop(target: OutputPaths, error: Exception) -> None:
        raise error

    failed = failed or stop
    device = pick_device(job.device, torch.empty(0))
    job = replace(job, dtype=pick_dtype(job.dtype, device))
    prior = _prior_of_all(job, device)
    targets = _writable(targets, failed)
    for folder in {target.output.parent for target in targets}:
        sweep(folder)
    max_images = CPU_BATCH if device.type == "cpu" else GPU_BATCH
    if job.adapt is not None or job.finds_compression:
        max_images = 1  # each file has its own prior, or its own operator
    overall = _Progress(len(targets), progress)

    def unread(target: OutputPaths, error: Exception) -> None:
        overall.left -= 1
        failed(target, error)

    # On a CPU the solver takes all cores: a result is written, and shown, before the next one.
    behind = 0 if device.type == "cpu" else 1
    with (
        closing(_read_ahead(job, targets, max_images if prior else 1, unread)) as batches,
        ThreadPoolExecutor(1, thread_name_prefix="genprior-writer") as writer,
    ):
        written: deque[Future[_Records]] = deque()
        for batch in batches:
            for restored in _restored(job, batch, prior, device, overall, failed):
                written.append(writer.submit(restored.write_all, job))
            while len(written) > behind:
                yield from _reported(written.popleft().result(), failed)
        while written:
            yield from _reported(written.popleft().result(), failed)


def measure(
    operator: MakeOperator,
    file: Path,
    output: Path,
    noise: float | str,
    seed: int,
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
) -> None:
    """Writes a simulated measurement of a clean file; missing pixels become transparent.

    A measurement that is no image is written as an array of floats, (H, W, C).

    Raises:
        ImageError: The file cannot be read, measured or written.
    """
    image = read_image(file, max_pixels)
    with _naming_file(file):
        built = operator([image], True)
        y = degrade(image.pixels, built, noise, seed)
    if not built.measures_images:
        array = y[0].permute(1, 2, 0).float().cpu().numpy()
        with written_together(output.parent, overwrite) as files:
            files.write(output, lambda file: np.save(file, array))
        return
    alpha = None if image.alpha is None else built.crop_margin(image.alpha)
    known = built.mask_unmeasured(torch.ones_like(y))[:, :1]
    if (known == 0).any():
        alpha = known if alpha is None else known * alpha
    write_output(output, y, replace(image, alpha=alpha), overwrite)


def _prior_of_all(job: Job, device: torch.device) -> _Prior | None:
    """Returns the prior for all files; None if each file has its own."""
    if job.exemplar is not None or job.prior in FROM_EXEMPLAR:
        check_no_settings(job.prior, job.prior_settings)
    if job.exemplar is not None:
        model, _ = read_exemplar(job.prior, job.exemplar, job.max_pixels)
        return _Prior(model.to(device), sha256(job.exemplar.read_bytes()))
    if job.prior not in FROM_EXEMPLAR:
        model, manifest = load_described(job.prior, **job.prior_settings)
        return _Prior(model.to(device), fingerprint(manifest))
    if job.task != "inpaint":
        raise SettingError(
            f"prior {job.prior!r} is estimated from an image: give one with --exemplar (only "
            f"inpaint works without one, it uses the known part of each file)"
        )
    return None


def _prior_of_one(job: Job, target: OutputPaths, y: Tensor, operator: Operator) -> _Prior:
    """Returns the prior of one file, estimated from its known part."""
    keep = operator.mask_unmeasured(torch.ones_like(y))[:, :1]
    return _Prior(estimate_prior(job.prior, y, keep), sha256(target.content()))


def _writable(targets: list[OutputPaths], failed: Callable) -> list[OutputPaths]:
    """Returns the files whose results can be written; reports the others, before any work."""
    writable = []
    for target in targets:
        try:
            target.check_free()
        except OF_ONE_FILE as error:
            failed(target, error)
        else:
            writable.append(target)
    return writable


def _batches(
    job: Job, targets: list[OutputPaths], max_images: int, failed: Callable
) -> Iterator[_Batch]:
    batch = _Batch()
    for target in targets:
        try:
            with _naming_file(target.source):  # raise before any restoration
                image = target.read(job.max_pixels)
                target.check_format()
                if image.is_transparent and not job.opaque:
                    check_transparency(FORMAT_OF[target.output.suffix.lower()])
        except OF_ONE_FILE as error:
            failed(target, error)
            continue
        if not batch.has_room_for(image, max_images):
            yield batch
            batch = _Batch()
        batch.targets.append(target)
        batch.images.append(image)
        if not batch.has_room_for(image, max_images):  # full: restore it before reading on
            yield batch
            batch = _Batch()
    if batch.targets:
        yield batch


def _read_ahead(
    job: Job, targets: list[OutputPaths], max_images: int, failed: Callable
) -> Iterator[_Batch]:
    """Yields the batches, and reads the next one meanwhile in another thread."""
    failures: list[tuple[OutputPaths, Exception]] = []
    batches = _batches(job, targets, max_images, lambda *failure: failures.append(failure))

    def read() -> tuple[_Batch | None, list[tuple[OutputPaths, Exception]]]:
        failures.clear()
        return next(batches, None), list(failures)

    with ThreadPoolExecutor(1, thread_name_prefix="genprior-reader") as reader:
        following = reader.submit(read)
        while True:
            batch, unread = following.result()
            for target, error in unread:
                failed(target, error)
            if batch is None:
                return
            following = reader.submit(read)
            yield batch


class _Progress:
    """Progress over all files: their evaluations are estimated from those of the current batch.

    Arguments:
        files: Number of files.
        show: Called with (evaluations done, estimated total), or None.
    """

    def __init__(self, files: int, show: Callable[[int, int], object] | None) -> None:
        self.left, self.show = files, show  # `left` are the files after the current batch
        self.before, self.now, self.files = 0, 0, 1

    def begin(self, files: int) -> Callable[[int, int], object] | None:
        """Returns the `progress` of `restore` for the next batch of files."""
        self.left -= files
        self.before, self.now, self.files = self.before + self.now, 0, files
        return self.show and self._update

    def _update(self, done: int, total: int) -> None:
        self.now = done
        rest = round(total * self.left / self.files)
        self.show(self.before + done, self.before + total + rest)


def _still_free(batch: _Batch, failed: Callable) -> _Batch:
    """Returns the files of a batch whose results no other process has written meanwhile."""
    free = _Batch()
    for target, image in zip(batch.targets, batch.images, strict=True):
        try:
            target.check_free()
        except OF_ONE_FILE as error:
            failed(target, error)
        else:
            free.targets.append(target)
            free.images.append(image)
    return free


def _restored(
    job: Job,
    batch: _Batch,
    prior: _Prior | None,
    device: torch.device,
    progress: _Progress,
    failed: Callable,
) -> Iterator["_Restored"]:
    """Restores a batch; yields it, or its files one by one if the batch fails."""
    before, batch = len(batch.targets), _still_free(batch, failed)
    count = len(batch.targets)
    progress.left -= before - count
    if not count:
        return
    try:
        with _naming_file(batch.targets[0].source):
            restored = _restore_batch(job, batch, prior, device, progress.begin(count))
    except FOR_ALL:
        raise
    except OF_ONE_FILE as error:
        if count == 1:
            failed(batch.targets[0], error)
            return
    else:
        yield restored
        return
    # The file that failed is unknown: restore them one by one.
    progress.left += count
    for target, image in zip(batch.targets, batch.images, strict=True):
        yield from _restored(job, _Batch([target], [image]), prior, device, progress, failed)


_Records = list[tuple[OutputPaths, "dict[str, Any] | Exception"]]


def _reported(records: _Records, failed: Callable) -> Iterator[dict[str, Any]]:
    """Yields the records of a batch that was written; reports the files that could not be."""
    for target, record in records:
        if isinstance(record, Exception):
            failed(target, record)
        else:
            yield record


@dataclass(frozen=True)
class _Restored:
    """Results of a batch, with the operator, prior and solver that gave them."""

    batch: _Batch
    result: Restoration
    y: Tensor
    operator: Operator
    prior: _Prior
    device: torch.device
    name: str
    missing: list[float]
    adaptation: Adaptation | None = None

    def write_all(self, job: Job) -> _Records:
        """Writes all images; returns the record, or the error, of every file."""
        records: _Records = []
        for i, target in enumerate(self.batch.targets):
            try:
                records.append((target, self.write(job, target, self.batch.images[i], i)))
            except OF_ONE_FILE as error:
                records.append((target, error))
        return records

    def write(self, job: Job, target: OutputPaths, image: ImageFile, i: int) -> dict[str, Any]:
        """Writes image i and its sidecar; returns the entries of the sidecar."""
        reference = None
        if job.degrade:
            reference = self.operator.crop_margin(image.pixels)
            alpha = None if image.alpha is None else self.operator.crop_margin(image.alpha)
            image = replace(image, alpha=alpha)
        method = self.result.methods[i]
        record = facts(job, target, self.prior.sha256, self.device, self.name, method)
        record |= describe(self.result, i, len(self.y)) | resampling(self.operator, self.y)
        record |= adaptation_of(self.adaptation)
        record |= compression(self.operator) | estimated_blur(self.operator, i)
        if isinstance(job.noise, str) and job.noise != "auto":  # a law, not an estimate
            record |= {"noise": job.noise, "noise_estimated": False}
        record["warnings"] += ignored_steps(job.solver, _steps(job), method)
        if self.adaptation and not self.adaptation.improved:
            record["warnings"].append(
                f"the prior adapted in {self.adaptation.steps} steps predicts hidden pixels no "
                f"better: it is not used"
            )
        record["warnings"] += doubts(job, target.output, image, self.missing[i])
        kernel = None
        if "kernel" in target.extras:
            kernel = self.operator.select([i]).kernel.cpu()
        return write_results(
            target, image, self.result, i, self.y, reference, record, job.opaque, kernel
        )


def _restore_batch(
    job: Job, batch: _Batch, prior: _Prior | None, device: torch.device, progress: Callable | None
) -> _Restored:
    pixels = torch.cat([image.pixels for image in batch.images])
    operator = job.operator(batch.images, job.degrade)
    if job.degrade:
        y = degrade(pixels, operator, job.noise, job.seed, [0] * len(pixels))
    else:
        y = operator.from_pixels(pixels)
        shape = operator.image_shape(y.shape)[2:]
        side = max(getattr(operator, "output_size", None) or shape)
        for target in batch.targets:
            check_side(FORMAT_OF[target.output.suffix.lower()], side)
    prior = prior or _prior_of_one(job, batch.targets[0], y, operator)
    adaptation = None if job.adapt is None else _adapted(job, prior, y, operator, device)
    model = adaptation.prior if adaptation else prior.model
    noise: Any = job.noise
    if job.finds_compression:
        operator, noise = noise_or_compression(batch.images[0], y.to(device), operator, model)
    name, solver, steps = solver_for_task(
        job.solver, _steps(job), operator, model, job.samples, job.task, job.prior
    )
    result = restore(
        y, operator, model, solver, noise, job.samples, steps, seed=job.seed,
        index=[0] * len(y), device=str(device), dtype=job.dtype, tile=job.tile, progress=progress,
        keep_samples="samples" in job.save, quantiles=tuple(quantiles(job.save).values()),
        fill=job.fill, quality=job.quality, calibration=job.calibration,
    )
    missing = [1 - known.mean().item() for known in operator.mask_unmeasured(torch.ones_like(y))]
    return _Restored(batch, result, y, operator, prior, device, name, missing, adaptation)


def _adapted(
    job: Job, prior: _Prior, y: Tensor, operator: Operator, device: torch.device
) -> Adaptation:
    """Returns the prior adapted to a file, whose noise level is estimated first if need be."""
    budget = {"steps" if isinstance(job.adapt, int) else "seconds": job.adapt}
    noise = job.noise
    if noise == "auto":
        known = operator.mask_unmeasured(torch.ones_like(y))[:, :1]
        noise = estimate_noise(y, prior.model, str(device), known)
    elif isinstance(noise, str):
        raise SettingError(f"a prior is adapted to images with white noise: {noise!r} is not")
    return adapt_prior(y, operator, prior.model, noise, seed=job.seed, device=device, **budget)


def _steps(job: Job) -> int | None:
    return None if job.steps == "auto" else job.steps


@contextmanager
def _naming_file(path: Path) -> Iterator[None]:
    """Prefixes error messages with the path of the file."""
    try:
        yield
    except FOR_ALL:
        raise
    except OF_ONE_FILE as error:
        if str(error).startswith(str(path)):
            raise
        kinds = {ValueError: ImageError, OSError: ImageError, MemoryError: MemoryError}
        kind = next((new for old, new in kinds.items() if isinstance(error, old)), type(error))
        raise kind(f"{path}: {error}") from error
