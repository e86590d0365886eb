"""Output files of a restoration: images, and a JSON sidecar with all settings to repeat it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from genprior.api.files.paths import OutputPaths
from genprior.api.files.save_options import OF_CALIBRATION, quantiles
from genprior.api.files.sidecar import quality
from genprior.core.atomic_files import AtomicFiles
from genprior.core.checksums import sha256
from genprior.core.errors import ImageError
from genprior.inverse.base import Restoration
from genprior.io.images import ImageFile, write_image
from genprior.io.panels import panel, std_map


def write_results(
    target: OutputPaths,
    image: ImageFile,
    result: Restoration,
    i: int,
    y: Tensor,
    reference: Tensor | None,
    record: dict[str, Any],
    opaque: bool = False,
    kernel: Tensor | None = None,
) -> dict[str, Any]:
    """Writes the images and the sidecar of image i of a batch, atomically.

    Either all files are written, or none, and the files of an earlier run stay as they were.

    Arguments:
        target: Paths of the files.
        image: The input; results get its bit depth, transparency and metadata.
        result: The restored batch.
        i: Index of the image in the batch.
        y: The measurements of the batch.
        reference: Reference image, (1, C, H, W); None if it is unknown.
        record: Other entries of the sidecar, see `sidecar.facts` and `sidecar.describe`.
        opaque: Write the results without the transparency of the input.
        kernel: Estimated blur kernel, (1, 1, h, w), for the extra image "kernel".

    Returns:
        All entries of the sidecar.

    Raises:
        ImageError: A file cannot be written, or another process has created it meanwhile.
    """
    if result.lower is None or result.lower[i].isnan().any():  # the image has no intervals
        extras = tuple(name for name in target.extras if name not in OF_CALIBRATION)
        target = replace(target, extras=extras)
    with written_together(target.output.parent, target.overwrite) as files:
        record = record | _write_images(
            files, target, image, result, i, y, reference, opaque, kernel
        )
        if reference is not None:
            record |= quality(files.read(target.output), target.output, reference, y[i : i + 1])
        record["files"] = {path.name: sha256(files.read(path)) for path in target.images}
        text = json.dumps(record, indent=1, allow_nan=False) + "\n"
        files.write(target.sidecar, lambda file: file.write(text.encode()))
    return record


def write_output(
    path: Path, image: ImageFile | Tensor, like: ImageFile | None = None, overwrite: bool = False
) -> None:
    """Writes an image that has no sidecar; arguments and errors: see `write_image`.

    Raises:
        ImageError: Another process has created the file meanwhile, and `overwrite` is not set.
    """
    with written_together(path.parent, overwrite) as files:
        write_image(path, image, like, files)


@contextmanager
def written_together(folder: Path, overwrite: bool) -> Iterator[AtomicFiles]:
    """Yields files of a folder of which all are written at the end of the block, or none.

    Raises:
        ImageError: A file cannot be written, or exists and `overwrite` is not set.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with AtomicFiles(exclusive=not overwrite) as files:
            yield files
    except FileExistsError as error:
        raise ImageError(
            f"{error.filename} has been created by another process meanwhile and is kept: add "
            f"--overwrite, or choose another -o"
        ) from error
    except OSError as error:
        name, reason = error.filename or folder, (error.strerror or str(error)).lower()
        raise ImageError(f"{name}: cannot be written ({reason}): choose another -o") from error


def _write_images(
    files: AtomicFiles,
    target: OutputPaths,
    image: ImageFile,
    result: Restoration,
    i: int,
    y: Tensor,
    reference: Tensor | None,
    opaque: bool,
    kernel: Tensor | None,
) -> dict[str, Any]:
    """Writes the images; returns the paths of the extras and the scale of the std map."""
    one = slice(i, i + 1)
    without_alpha = replace(image, alpha=None)
    shown = [y[one], result.image[one]]
    levels = quantiles(target.extras)
    extras = {}
    about: dict[str, Any] = {}
    if result.std is not None:
        extras["std"], about["std_white"] = std_map(result.std[one])
        shown.append(extras["std"])
        extras["mean"] = result.mean[one]
        samples = () if result.samples is None else result.samples[i]
        extras |= {f"sample-{k:02d}": x[None] for k, x in enumerate(samples)}
        extras |= {q: result.quantiles[level][one] for q, level in levels.items()}
        if result.lower is not None:
            extras |= {"lower": result.lower[one], "upper": result.upper[one]}
    if kernel is not None:
        extras["kernel"] = kernel / kernel.max()
    if "panel" in target.extras:
        extras["panel"] = panel(shown if reference is None else [*shown, reference])
    for extra in target.extras:
        like = None if extra in ("std", "panel", "kernel") else without_alpha
        write_image(target.side(extra), extras[extra], like, files)
    write_image(target.output, result.image[one], without_alpha if opaque else image, files)
    if target.extras:
        about["saved"] = [str(target.side(extra)) for extra in target.extras]
    return about
