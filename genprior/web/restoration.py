"""Restoration of an image that the page sent: bytes in, bytes of image files out.

The result is that of the restoring command of the same settings, which `command_line` returns.
"""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
import torch
from torch import Tensor

from genprior.api.compressed_photos import noise_or_compression
from genprior.api.estimated_priors import estimate_prior
from genprior.api.factory import make_operator, prior_on, solver_for_task
from genprior.api.restoration import restore
from genprior.api.tasks import blurring, denoising, enlarging
from genprior.core.devices import pick_device
from genprior.core.errors import ImageError, SettingError
from genprior.core.noise_text import DEFAULT_NOISE
from genprior.inverse.base import Quality, Restoration, Solver
from genprior.io.encode import check_side, check_transparency
from genprior.io.images import FORMAT_OF, ImageFile, image_bytes, parse_image, suffix_of
from genprior.operators.base import Operator
from genprior.priors.checkpoint import newest, read_manifest
from genprior.priors.external import is_external, load, local_copy
from genprior.registry import FROM_EXEMPLAR, PRIORS, SOLVERS, find_prior, lookup

# Formats that browsers show, without loss.
SHOWN = ("PNG", "WEBP", "BMP")
NOISES = {tool: DEFAULT_NOISE[tool] for tool in ("inpaint", "denoise", "deblur", "superres")}
LABEL = Path("the image")


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of one restoration, as the page sends them.

    Arguments:
        tool: Name of the restoring command.
        name: Name of the image file, for the command line only: nothing is read from it.
        prior: One of the priors that the server offers.
        noise: Noise level in units of [0, 1], or "auto" to estimate it.
        blur: Kind of blur of "deblur".
        std: Standard deviation of the Gaussian blur, pixels.
        length, angle: Motion blur, pixels and degrees.
        factor: Factor of "superres".
        solver, steps, quality, samples, seed: See `genprior.restore`.
    """

    tool: Literal["inpaint", "denoise", "deblur", "superres"]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    prior: str
    noise: Annotated[float, msgspec.Meta(ge=0, le=1)] | Literal["auto"]
    solver: str = "auto"
    steps: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None
    quality: Quality = "default"
    samples: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    blur: Literal["gaussian", "motion"] = "gaussian"
    std: Annotated[float, msgspec.Meta(gt=0, le=100)] = 1.6
    length: Annotated[float, msgspec.Meta(ge=1, le=500)] = 15.0
    angle: Annotated[float, msgspec.Meta(ge=-360, le=360)] = 0.0
    factor: Annotated[int, msgspec.Meta(ge=2, le=8)] = 2


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """First line of a request for a restoration; the parts are "image" and, optionally, "mask"."""

    parts: list[tuple[str, int]]
    settings: Settings


@dataclass(frozen=True)
class Restorer:
    """Restores images with the priors and the limits of one server.

    Arguments:
        priors: Names or checkpoint folders of the priors, by the names that the page shows.
        device: See `genprior.restore`.
        max_pixels: Larger images are refused before they are decoded.
    """

    priors: Mapping[str, str]
    device: str
    max_pixels: int

    def choices(self) -> dict[str, Any]:
        """Returns the priors with the solvers that each allows, and facts about the solvers.

        Raises:
            CheckpointError: A prior does not exist.
            SettingError: A solver or prior of a plug-in cannot be imported.
        """
        classes = {name: lookup(SOLVERS, name, "solver") for name in SOLVERS}
        priors = []
        for label, name in self.priors.items():
            from_image = name in FROM_EXEMPLAR
            prior = _class_of(name)
            fits = [key for key, cls in classes.items() if issubclass(prior, cls.needs)]
            tools = ["inpaint"] if from_image else list(NOISES)
            priors.append({"name": label, "solvers": fits, "tools": tools})
        solvers = {
            name: {"summary": cls.summary, "stochastic": cls().stochastic,
                   "steps": None if cls.suited is not Solver.suited
                   else getattr(cls(), "steps", None)}
            for name, cls in classes.items()
        }
        return {"priors": priors, "solvers": solvers, "noises": NOISES,
                "max_pixels": self.max_pixels}

    def open(self, data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Decodes an image and returns facts and, as 8-bit PNG files, the image and its hole.

        Raises:
            ImageError: The bytes are not an image, or it is damaged or too large.
        """
        image = parse_image(data, LABEL, self.max_pixels)
        parts = {"image": image_bytes(replace(image, bits=8), "PNG")}
        if image.is_transparent:
            parts["hole"] = image_bytes((image.alpha < 0.5).float(), "PNG")
        height, width = image.pixels.shape[-2:]
        return {
            "width": width, "height": height, "format": image.format, "bits": image.bits,
            "channels": image.pixels.shape[1], "suffix": suffix_of(image.format),
        }, parts

    def restore(
        self,
        settings: Settings,
        parts: Mapping[str, bytes],
        progress: Callable[[int, int], object],
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Restores an image.

        Arguments:
            settings: The settings.
            parts: The image file, and for inpainting the mask, white = fill in.
            progress: See `genprior.restore`; an error that it raises ends the restoration.

        Returns:
            Facts, and image files: "file-K" in the format of the input and, if browsers do not
            show that without loss, "shown-K" in PNG; K = 0 is the estimate or the mean of the
            samples, K >= 1 the samples. "std" holds the standard deviation per pixel (RMS over
            the channels) as little-endian uint16, row by row, in units of `std_unit`.

        Raises:
            ValueError: The image or a setting cannot be used.
            TypeError: The prior lacks the ability that the solver needs.
            FloatingPointError, MemoryError: See `genprior.restore`.
        """
        if "image" not in parts or set(parts) - {"image", "mask"}:
            raise SettingError("the request must have the parts image and, optionally, mask")
        if settings.prior not in self.priors:
            raise SettingError(
                f"unknown prior {settings.prior!r}: choose one of {', '.join(self.priors)}"
            )
        image = parse_image(parts["image"], LABEL, self.max_pixels)
        hole = self._hole(parts.get("mask"), image) if settings.tool == "inpaint" else None
        # As with --mask alpha: the transparent pixels are filled in and the result is opaque.
        alpha_is_hole = (
            hole is not None and image.alpha is not None and torch.equal(hole, image.alpha < 0.5)
        )
        written = _with_filled_alpha(image, hole, alpha_is_hole)
        if written.is_transparent:
            check_transparency(image.format)
        operator = _operator(settings, image, hole, self.max_pixels)
        check_side(image.format, max(operator.image_shape(image.pixels.shape)[2:]))
        name, result = self._solve(settings, operator, image, progress)
        files, about = _files(result, written), _facts(result, settings, image) | {"solver": name}
        if "std" in files:
            about["std_unit"] = files.pop("std_unit")
        prior = self.priors[settings.prior]
        about["command"] = command_line(settings, image.format, prior, alpha_is_hole)
        return about, files

    def _hole(self, mask: bytes | None, image: ImageFile) -> Tensor:
        if mask is None:
            raise SettingError("inpainting needs a mask: paint over the pixels to fill in")
        hole = parse_image(mask, Path("the mask"), self.max_pixels).pixels.mean(1, True) >= 0.5
        if hole.shape[-2:] != image.pixels.shape[-2:]:
            raise ImageError("the mask must have the size of the image: paint it again")
        if hole.all() or not hole.any():
            extent = "all pixels are" if hole.all() else "no pixel is"
            raise ImageError(f"{extent} marked: paint over some pixels, which are filled in")
        return hole

    def _solve(
        self, settings: Settings, operator: Operator, image: ImageFile, progress: Callable
    ) -> tuple[str, Restoration]:
        """Restores as `genprior.api.files.restore_files` does, with the noise of image 0.

        Returns:
            Name of the solver, and the result.
        """
        y = operator.mask_unmeasured(image.pixels)
        source = self.priors[settings.prior]
        if source in FROM_EXEMPLAR:
            if settings.tool != "inpaint":
                raise SettingError(f"prior {source!r} is for inpainting here: choose another one")
            keep = operator.mask_unmeasured(torch.ones_like(y))[:, :1]
            prior: Any = estimate_prior(source, y, keep)
        else:
            prior = prior_on(source, pick_device(self.device, y))[1]
        noise: Any = settings.noise
        if settings.tool == "denoise" and noise == "auto" and settings.solver == "auto":
            device = pick_device(self.device, y)
            operator, noise = noise_or_compression(image, y.to(device), operator, prior)
        name, solver, steps = solver_for_task(
            settings.solver, settings.steps, operator, prior, settings.samples, settings.tool,
            source,
        )
        return name, restore(
            y, operator, prior, solver, noise, settings.samples, steps, settings.seed,
            device=self.device, quality=settings.quality, progress=progress,
        )


def _class_of(prior: str) -> type:
    """Returns the class of a prior by its name, folder or file.

    Raises:
        CheckpointError: There is no such prior.
    """
    if prior in FROM_EXEMPLAR:
        return lookup(PRIORS, prior, "prior")
    source = local_copy(prior)
    if is_external(source):
        return type(load(source)[0])
    return lookup(PRIORS, read_manifest(newest(find_prior(source)))["prior"], "prior")


def _operator(
    settings: Settings, image: ImageFile, hole: Tensor | None, max_pixels: int
) -> Operator:
    if hole is not None:
        return make_operator("inpaint", keep=~hole)
    if settings.tool == "deblur":
        gaussian = settings.blur == "gaussian"
        build = blurring(
            settings.std if gaussian else None,
            None if gaussian else (settings.length, settings.angle),
            None, "valid", max_pixels,
        )
    else:
        enlarge = settings.tool == "superres"
        build = enlarging(settings.factor, max_pixels=max_pixels) if enlarge else denoising()
    return build([image], False)


def _with_filled_alpha(image: ImageFile, hole: Tensor | None, opaque: bool) -> ImageFile:
    """Returns the image with the transparency of its result: pixels filled in are opaque."""
    if image.alpha is None or hole is None:
        return image
    return replace(image, alpha=None if opaque else image.alpha.masked_fill(hole, 1.0))


def _files(result: Restoration, like: ImageFile) -> dict[str, Any]:
    images = [result.image, *(() if result.samples is None else result.samples[0])]
    files: dict[str, Any] = {}
    for k, image in enumerate(images):
        files[f"file-{k}"] = image_bytes(image, like.format, like)
        if like.format not in SHOWN:
            files[f"shown-{k}"] = image_bytes(image, "PNG", like)
    if result.std is not None:
        std = result.std[0].square().mean(dim=0).sqrt().double()
        unit = max(std.max().item(), 1e-12) / 65535
        files["std"] = (std / unit).round().numpy().astype("<u2").tobytes()
        files["std_unit"] = unit
    return files


def _facts(result: Restoration, settings: Settings, image: ImageFile) -> dict[str, Any]:
    height, width = result.image.shape[-2:]
    noise = result.noise_std
    warnings = [
        text.removeprefix("image 0: ").replace("noise_std", "the noise level")
        for text in (*result.warnings, *result.reduced)
    ]
    if settings.tool == "inpaint" and settings.noise == 0 and image.format == "JPEG":
        warnings.append("known pixels change in a JPEG file: download PNG to keep them")
    return {
        "width": width, "height": height, "nfe": result.nfe,
        "noise": noise.item() if isinstance(noise, Tensor) else noise,
        "noise_found": ", ".join(result.noise_found),
        "seconds": round(result.seconds, 2), "warnings": warnings,
        "suffix": suffix_of(image.format),
    }


def command_line(settings: Settings, format: str, prior: str, alpha_is_hole: bool) -> str:
    """Returns the restoring command that gives the same result.

    Arguments:
        settings: The settings.
        format: Format of the image file.
        prior: Name or folder of the prior.
        alpha_is_hole: Whether the mask is the transparency of the image; else it is expected in
            STEM.mask.png, which the page can save.
    """
    name = PurePosixPath(settings.name.replace("\\", "/")).name or "image"
    name = "".join(c for c in name if c.isprintable())
    path = PurePosixPath(name)
    if FORMAT_OF.get(path.suffix.lower()) != format:
        path = PurePosixPath(path.name + suffix_of(format))
    file = f"./{path}" if str(path).startswith("-") else str(path)
    words = ["genprior", settings.tool, file]
    if settings.tool == "inpaint":
        stem = file.removesuffix(path.suffix)
        words += ["--mask", "alpha" if alpha_is_hole else f"{stem}.mask.png"]
    elif settings.tool == "superres":
        words += ["--factor", str(settings.factor)]
    elif settings.tool == "deblur":
        words += (["--gaussian", f"{settings.std:g}"] if settings.blur == "gaussian"
                  else ["--motion", f"{settings.length:g},{settings.angle:g}"])
    defaults: dict[str, tuple[Any, Any]] = {
        "noise": (settings.noise, NOISES[settings.tool]), "prior": (prior, "ddpm"),
        "solver": (settings.solver, "auto"), "steps": (settings.steps, None),
        "quality": (settings.quality, "default"),
        "samples": (settings.samples, 1), "seed": (settings.seed, 0),
    }
    for option, (value, default) in defaults.items():
        if value != default:
            words += [f"--{option}", str(value)]
    if settings.samples > 1:
        words += ["--save", "std,samples"]
    return shlex.join(words)
