"""Restoring files: read, group into batches, restore, write the pictures and a sidecar.

Every file is restored as if it were alone: its noise depends on the seed only, not on the
files beside it.
"""

import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genprior import __version__
from genprior.api import degrade, restore
from genprior.errors import ImageError
from genprior.files import write_atomic
from genprior.images import SUFFIXES, Picture, image_files, read_image, write_image
from genprior.inverse.base import Restoration
from genprior.metrics import psnr, ssim
from genprior.operators.base import Operator
from genprior.panel import panel, std_map

MakeOperator = Callable[[list[Picture], bool], Operator]
BATCH = 16
METRICS = "per image, RGB or grey, data range 1, result clipped to [0, 1]; SSIM window 7x7 uniform"


@dataclass(frozen=True)
class Job:
    """What to do with files.

    Arguments:
        task: Name of the task, for the sidecar.
        operator: Builds the operator of a batch of pictures of one size; the flag says that
            they are clean.
        settings: Settings of the operator, for the sidecar.
        noise_std: Noise level in units of [0, 1].
        save: What to save besides the picture: "mean", "std", "samples", "panel".
        degrade: The files are clean: measure them first, then compare.
        overwrite: Replace files that exist.
        opaque: The alpha of the files was the hole: it does not go into the result.
        solve: Arguments of `restore`: prior, solver, steps, samples, seed, device, dtype.
    """

    task: str
    operator: MakeOperator
    settings: dict[str, Any]
    noise_std: float
    save: tuple[str, ...] = ()
    degrade: bool = False
    overwrite: bool = False
    opaque: bool = False
    solve: dict[str, Any] = field(default_factory=dict)


def list_files(files: tuple[Path, ...]) -> list[Path]:
    """Image files among paths, folders opened.

    Raises:
        ImageError: A path does not exist, or a folder holds no image.
    """
    found = []
    for path in files:
        if path.is_dir():
            found += [p for p in image_files(path) if ".genprior" not in p.suffixes]
        elif path.exists():
            found.append(path)
        else:
            raise ImageError(f"{path}: no such file")
    return found


def plan_outputs(files: list[Path], output: Path | None) -> list[Path]:
    """Where the picture of every file goes.

    Raises:
        ImageError: Two files would go to one place, or a format cannot be written.
    """
    single = output is not None and output.suffix.lower() in (*SUFFIXES, ".npy")
    if single and len(files) > 1:
        raise ImageError(f"{output} is one file for {len(files)} inputs: give a folder to -o")
    if single:
        return [output]
    if output is not None and output.suffix and not output.is_dir():
        raise ImageError(
            f"{output}: cannot write {output.suffix} files, choose one of "
            f"{', '.join((*SUFFIXES, '.npy'))}"
        )
    named = [(output or p.parent) / f"{p.stem}.genprior{p.suffix}" for p in files]
    for path in named:
        if named.count(path) > 1:
            raise ImageError(f"several inputs would be written to {path}: restore them apart")
    return named


def run(
    job: Job,
    files: list[Path],
    outputs: list[Path],
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[dict[str, Any]]:
    """Restores files and yields the record of each, as it goes into the sidecar.

    Raises:
        ImageError: A file cannot be read, or an output exists; raised before any work.
    """
    if not job.overwrite:
        for path in outputs:
            if path.exists():
                raise ImageError(f"{path} exists: add --overwrite, or another -o")
    for batch in _batches(files, outputs):
        pictures = [picture for _, _, picture in batch]
        yield from _run_batch(job, batch, pictures, progress)


def _batches(files: list[Path], outputs: list[Path]) -> Iterator[list[tuple]]:
    batch: list[tuple] = []
    for path, output in zip(files, outputs, strict=True):
        picture = read_image(path)
        if batch and (len(batch) == BATCH or batch[0][2].pixels.shape != picture.pixels.shape):
            yield batch
            batch = []
        batch.append((path, output, picture))
    yield batch


def _run_batch(
    job: Job, batch: list[tuple], pictures: list[Picture], progress: Callable | None
) -> Iterator[dict[str, Any]]:
    clean = torch.cat([picture.pixels for picture in pictures])
    operator = job.operator(pictures, job.degrade)
    index = [0] * len(batch)
    y = operator.observed(clean) if not job.degrade else degrade(
        clean, operator, job.noise_std, job.solve.get("seed", 0), index
    )
    result = restore(
        y, operator, noise_std=job.noise_std, index=index, progress=progress, **job.solve
    )
    reference = operator.visible(clean) if job.degrade else None
    for i, (path, output, picture) in enumerate(batch):
        record = _describe(job, result, i)
        one = slice(i, i + 1)
        truth = None if reference is None else reference[one]
        if truth is not None:
            record |= _quality(result.image[one], truth, y[one])
        record |= {"input": str(path), "output": str(output)}
        record |= _save(job, result, one, y[one], truth, picture, output)
        text = json.dumps(record, indent=1) + "\n"
        sidecar = output.with_suffix(".json")
        write_atomic(sidecar, lambda file, text=text: file.write(text.encode()))
        yield record


def _describe(job: Job, result: Restoration, i: int) -> dict[str, Any]:
    facts = {k: v for k, v in vars(result).items() if isinstance(v, str | int | float)}
    return {
        "genprior": __version__,
        "task": job.task,
        "operator": job.settings,
        **facts,
        "misfit": result.misfit[i].item(),
        "samples": job.solve.get("samples", 1),
        "degrade": job.degrade,
        "dtype": job.solve.get("dtype", "float32"),
        "device": job.solve.get("device", "auto"),
        "warnings": [w for w in result.warnings if w.startswith(f"image {i}:")],
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }


def _quality(image: Tensor, truth: Tensor, y: Tensor) -> dict[str, Any]:
    image = image.clamp(0, 1)
    record: dict[str, Any] = {"psnr": psnr(image, truth).item(), "metrics": METRICS}
    if min(truth.shape[-2:]) >= 7:
        record["ssim"] = ssim(image, truth).item()
    if y.shape == truth.shape:
        record["psnr_measurement"] = psnr(y.clamp(0, 1), truth).item()
    return record


def _save(
    job: Job,
    result: Restoration,
    one: slice,
    y: Tensor,
    truth: Tensor | None,
    picture: Picture,
    output: Path,
) -> dict[str, Any]:
    output.parent.mkdir(parents=True, exist_ok=True)
    image = result.image[one]
    write_image(output, image, replace(picture, alpha=None) if job.opaque else picture)
    extra: dict[str, Any] = {}

    def side(name: str, pixels: Tensor) -> None:
        path = output.with_name(f"{output.stem}.{name}.png")
        write_image(path, pixels)
        extra.setdefault("saved", []).append(str(path))

    shown = [y, image]
    if result.std is not None:
        std, scale = std_map(result.std[one])
        shown.append(std)
        extra["std_white"] = scale
        if "std" in job.save:
            side("std", std)
        if "mean" in job.save:
            side("mean", result.mean[one])
        if "samples" in job.save:
            for k in range(result.samples.shape[1]):
                side(f"sample-{k:02d}", result.samples[one, k])
    if "panel" in job.save:
        side("panel", panel(shown if truth is None else [*shown, truth]))
    return extra
