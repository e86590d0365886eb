"""Builders of operators for image files, one per task.

Each function takes the settings of a task and returns a builder: (images of one size,
whether they are clean) -> operator. An image that is not clean is the measurement itself.
"""

import functools
import inspect
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from genprior.api.factory import as_operator, gaussian_blur, motion_blur
from genprior.api.kernel_estimation import Kind, estimate_kernel
from genprior.core.errors import ImageError, SettingError
from genprior.io.images import ImageFile, image_files, read_bytes, read_image, read_mask
from genprior.io.limits import KERNEL_PIXELS, MAX_PIXELS
from genprior.io.npy import read_header
from genprior.io.raster import check_size
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.clipping import Clipping, Gamma
from genprior.operators.colour import Luminance, Mosaic
from genprior.operators.compressed_sensing import CompressedSensing
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.jpeg import JPEG
from genprior.operators.jpeg_estimation import estimate_coding
from genprior.operators.jpeg_tables import SAMPLINGS, standard_tables
from genprior.operators.kernel_superres import KernelSuperResolution
from genprior.operators.masks import box_hole, grown, random_keep
from genprior.operators.phase_retrieval import CodedDiffraction, PhaseRetrieval
from genprior.operators.quantisation import Quantisation
from genprior.operators.superres import SuperResolution

# Errors of a physics of deepinv that cannot be constructed or applied to these images.
FAILURES = (AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError,
            ValueError)
# Largest change of the proportions of an image by --size that is taken as rounding.
SHARE_STRETCHED = 0.01
# Value from which highlights of photos count as clipped.
PHOTO_WHITE = 250 / 255
Build = Callable[[list[ImageFile], bool], Operator]


def inpainting(
    mask: tuple[str, Any],
    invert: bool = False,
    seed: int | Sequence[torch.Generator] = 0,
    max_pixels: int = MAX_PIXELS,
    tell: Callable[[str], object] | None = None,
    grow: int = 0,
) -> Build:
    """Returns a builder of inpainting operators.

    Arguments:
        mask: ("alpha", None), ("random", share missing), ("box", (height, width)) or
            ("file", path of an image whose white pixels are missing, or of a folder that holds
            one mask for every image, with the same name and subfolder).
        invert: Swap missing and known pixels.
        seed: Seed of random masks, which depend on nothing else; or one random generator for
            each image.
        max_pixels: Mask files with more pixels are refused.
        tell: Called once for each mask file with transparency, with the rule by which it was read.
        grow: Pixels within this distance of a missing one are missing, too; in pixels, >= 0.
    """
    kind, value = mask
    told: set[Path] = set()
    text = f"box={value[0]}x{value[1]}" if kind == "box" else value or kind

    def keep(image: ImageFile, seed: int | Sequence[torch.Generator]) -> torch.Tensor:
        pixels, rule = image.pixels, "transparent pixels are filled in"
        if kind == "file":
            file = _mask_of(value, image.name) if value.is_dir() else value
            read = read_mask(file, max_pixels)
            hole, rule = read.hole, read.rule
            if hole.shape[-2:] != pixels.shape[-2:]:
                raise ImageError(
                    f"the mask {file} is {_size(hole)} and the image {_size(pixels)} "
                    f"(width x height): make them equal"
                )
            known = ~hole
        elif kind == "alpha":
            if image.alpha is None:
                raise ImageError(
                    "the image has no alpha channel that marks missing pixels: give --mask FILE, "
                    "random=0.5 or box=48x48"
                )
            known = image.alpha >= 0.5
        elif kind == "random":
            known = random_keep((1, 1, *pixels.shape[-2:]), value, seed)
        else:
            known = ~box_hole((1, 1, *pixels.shape[-2:]), *value)
        known = ~known.bool() if invert else known.bool()
        known = grown(known, grow)
        for empty, what in (
            (known.all(), "nothing is missing"), (~known.any(), "every pixel is missing"),
        ):
            if empty:
                raise ImageError(
                    f"{what} in the mask {text}: {rule}, the others are kept; --invert-mask swaps "
                    f"the two"
                )
        if tell and kind == "file" and read.used_alpha and file not in told:
            tell(f"mask {file}: {rule}; --invert-mask swaps the two")
            told.add(file)
        return known

    def build(images: list[ImageFile], clean: bool) -> Operator:
        seeds: list[Any] = (
            [seed] * len(images) if isinstance(seed, int) else [[g] for g in seed]
        )
        masks = [keep(image, one) for image, one in zip(images, seeds, strict=True)]
        return Inpainting(torch.cat(masks))

    return build


def _mask_of(folder: Path, name: Path) -> Path:
    """Returns the mask of an image in a folder of masks: same name, any suffix."""
    inner = folder / name.parent
    masks = [p for p in (image_files(inner) if inner.is_dir() else ()) if p.stem == name.stem]
    masks = [p for p in masks if p.name == name.name] or masks
    if len(masks) != 1:
        raise ImageError(
            f"there are {len(masks)} masks for this image in {folder}: there must be one, such as "
            f"{inner / name.stem}.png"
        )
    return masks[0]


def blurring(
    gaussian: float | Literal["auto"] | None = None,
    motion: tuple[float, float] | Literal["auto"] | None = None,
    kernel: Path | str | None = None,
    boundary: Literal["valid", "reflect", "replicate", "circular"] = "valid",
    max_pixels: int = MAX_PIXELS,
    noise_std: float | None = None,
) -> Build:
    """Returns a builder of blur operators.

    Exactly one of `gaussian` (std in pixels), `motion` (length in pixels, angle) and `kernel`
    (image file, or NPY file of any numbers; they are scaled to sum to 1) is given. Kernels of
    more than `max_pixels` pixels, of more than 2^20 pixels, or larger than the image are refused.
    "auto" estimates the blur of each image, with the noise level `noise_std` (None: estimated);
    the kernel may be "auto=SIZE", with its largest size in pixels.

    Raises:
        ValueError: The kernel is not valid, for example a file that cannot be read or is black.
    """
    for kind, value in (("gaussian", gaussian), ("motion", motion), ("any", kernel)):
        if isinstance(value, str):
            return _estimating(cast(Kind, kind), value, boundary, noise_std)
    gaussian, motion = cast(float | None, gaussian), cast(tuple[float, float] | None, motion)
    kernel = cast(Path | None, kernel)
    if gaussian is not None:
        weights, remedy = gaussian_blur(gaussian), "choose a smaller --gaussian"
    elif motion is not None:
        weights, remedy = motion_blur(motion), "choose a shorter --motion"
    elif kernel is None:
        raise SettingError("give one of gaussian, motion and kernel")
    else:
        weights = _kernel_of(kernel, min(max_pixels, KERNEL_PIXELS))
        remedy = "crop the kernel"
    try:
        operator = Blur(weights, boundary)
    except ValueError as error:
        raise ImageError(f"{kernel}: {error}" if kernel else str(error)) from error

    def build(images: list[ImageFile], clean: bool) -> Operator:
        for image in images:
            if any(k > n for k, n in zip(weights.shape, image.pixels.shape[-2:], strict=True)):
                raise ImageError(
                    f"the blur kernel must not be larger than the image: the kernel is "
                    f"{_size(weights)}, the image {_size(image.pixels)} (width x height): "
                    f"{remedy}"
                )
        return operator

    return build


def _estimating(kind: Kind, text: str, boundary: str, noise_std: float | None) -> Build:
    """Returns a builder of blur operators whose kernels are estimated; `text` is auto[=SIZE]."""
    size = text.partition("=")[2]

    def build(images: list[ImageFile], clean: bool) -> Operator:
        if clean:
            raise SettingError("clean images are blurred first: give the blur in place of auto")
        pixels = torch.cat([image.pixels for image in images])
        try:
            estimate = estimate_kernel(pixels, kind, int(size) if size else None, noise_std)
        except SettingError as error:
            raise ImageError(str(error)) from error  # the other files may be larger
        operator = Blur(estimate.kernel, boundary)
        operator.estimated = estimate.found
        return operator

    return build


def _kernel_of(file: Path, max_pixels: int) -> Tensor:
    """Returns the weights of a kernel file, not yet scaled, (h, w); an NPY file may hold any."""
    if file.suffix.lower() != ".npy":
        return read_image(file, max_pixels).pixels.mean(dim=1)[0]
    data = io.BytesIO(read_bytes(file, max_pixels))
    try:
        shape, dtype = read_header(data)
        if len(shape) != 2:
            return read_image(file, max_pixels).pixels.mean(dim=1)[0]
        if dtype.kind not in "buif":
            raise ValueError(f"holds {dtype}: save numbers")
        check_size(shape[0], shape[1], max_pixels)
        data.seek(0)
        return torch.from_numpy(np.load(data, allow_pickle=False).astype(np.float64))
    except (ValueError, EOFError) as error:
        raise ImageError(f"{file}: not a kernel ({error})") from error


def enlarging(
    factor: float | None,
    kernel: Literal["bicubic", "box", "gaussian"] = "bicubic",
    std: float | None = None,
    boundary: Literal["symmetric", "reflect", "circular"] = "symmetric",
    size: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    blur: Path | None = None,
) -> Build:
    """Returns a builder of super-resolution operators.

    An image is restored at an integer factor, and resampled if another size is asked for.

    Arguments:
        factor: Ratio of the sides, > 1, and an integer for clean images; None if `size` is given.
        kernel, std, boundary: See `SuperResolution`, with the integer factor.
        size: Height and width of the restored images.
        max_pixels: Larger results are refused.
        blur: File of any blur kernel, in place of `kernel` and `std`; see `blurring`.
    """
    weights = None if blur is None else _kernel_of(blur, min(max_pixels, KERNEL_PIXELS))

    def operator(
        whole: int, image_size: tuple[int, int], output_size: tuple[int, int] | None = None
    ) -> Operator:
        if weights is None:
            return SuperResolution(whole, kernel, std, boundary, image_size, output_size)
        try:
            return KernelSuperResolution(whole, weights, boundary, image_size, output_size)
        except ValueError as error:
            raise ImageError(f"{blur}: {error}") from error

    def build(images: list[ImageFile], clean: bool) -> Operator:
        height, width = given = images[0].pixels.shape[-2:]
        if clean:
            size_given = (height, width)
            return operator(cast(int, factor), size_given)
        ratio = factor or 1.0
        output = size or (round(ratio * height), round(ratio * width))
        _check_enlarged((height, width), output)
        whole = max(2, *(-(-large // small) for large, small in zip(output, given, strict=True)))
        image_size = (whole * height, whole * width)
        check_size(*image_size, max_pixels)
        return operator(whole, image_size, None if output == image_size else output)

    return build


def _check_enlarged(given: tuple[int, int], output: tuple[int, int]) -> None:
    """Checks that an output size is larger than an image and has about its proportions."""
    (height, width), (tall, wide) = given, output
    if tall < height or wide < width or given == output:
        raise ImageError(
            f"superres enlarges, and {wide}x{tall} is not larger than the image of "
            f"{width}x{height} (width x height): choose a larger --factor or --size"
        )
    right = wide * height / width
    if abs(tall - right) > max(1, wide / width, SHARE_STRETCHED * right):
        raise ImageError(
            f"--size {wide}x{tall} would stretch the image of {width}x{height} (width x height): "
            f"write --size {wide}x{round(right)}"
        )


def foreign(name: str, settings: Mapping[str, Any], seed: int = 0) -> Build:
    """Returns a builder of a physics of deepinv, the same for all images of one size.

    Arguments:
        name: Class name in `deepinv.physics`.
        settings: Arguments of the class, except `img_size` and `rng`, which are passed to
            classes that take them.
        seed: Seed of a random physics.

    Raises:
        SettingError: There is no such physics, or it does not take the arguments.
    """
    known = _all_physics()
    if name not in known:
        raise SettingError(
            f"deepinv has no physics {name!r}: choose one of {', '.join(known)}"
        )
    taken = {
        key for key, parameter in inspect.signature(known[name]).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    for setting in settings:
        if setting not in taken:
            raise SettingError(
                f"deepinv's {name} has no argument {setting!r}, it has {', '.join(sorted(taken))}"
            )

    def build(images: list[ImageFile], clean: bool) -> Operator:
        shape = tuple(images[0].pixels.shape[1:])
        return as_operator(_physics(name, json.dumps(dict(settings)), shape, seed), shape)

    return build


def _all_physics() -> dict[str, type]:
    """Returns the physics by name, without the base classes."""
    import deepinv

    return {
        name: cls for name, cls in vars(deepinv.physics).items()
        if isinstance(cls, type) and issubclass(cls, deepinv.physics.Physics)
        and not name.endswith(("Physics", "PhysicsCropper", "MultiScaler"))
    }


@functools.lru_cache(maxsize=4)  # some take minutes to construct
def _physics(name: str, settings: str, shape: tuple[int, int, int], seed: int) -> object:
    cls = _all_physics()[name]
    given = {"img_size": shape, "rng": torch.Generator().manual_seed(seed)}
    taken = inspect.signature(cls).parameters
    given = {key: value for key, value in given.items() if key in taken}
    try:
        physics = cls(**given | json.loads(settings))
        y = physics.A(torch.full((1, *shape), 0.5))
    except FAILURES as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingError(f"deepinv's {name} does not work with {settings} on images of shape "
                           f"{shape}: {reason}") from error
    if not isinstance(y, torch.Tensor):
        raise SettingError(f"deepinv's {name} returns several tensors, not one: choose another")
    return physics


def decompressing(
    quality: int | Literal["auto"] = "auto", sampling: str = "auto"
) -> Build:
    """Returns a builder of JPEG operators.

    Arguments:
        quality: Quality of the standard tables, 1 to 100. "auto" takes the tables and the
            sampling of a JPEG file, and estimates them from the pixels of any other file.
        sampling: Resolution of the chroma, see `JPEG`. "auto" is that of the file, or the one
            that is estimated; for clean images "4:2:0".

    Raises:
        SettingError: The images are clean, and the quality is "auto".
    """

    def build(images: list[ImageFile], clean: bool) -> Operator:
        if clean:
            if quality == "auto":
                raise SettingError("clean images are compressed first: give the --jpeg-quality")
            return JPEG(quality, "4:2:0" if sampling == "auto" else sampling)
        found = [_coding_of(image, quality, sampling) for image in images]
        if any(coding != found[0] for coding in found):
            raise ImageError("is coded in another way than the other files")  # one by one, then
        tables, used, offset, orientation = found[0]
        return JPEG(torch.tensor(tables).reshape(2, 8, 8), used, offset, orientation)

    return build


def _coding_of(
    image: ImageFile, quality: int | Literal["auto"], sampling: str
) -> tuple[tuple[int, ...], str, tuple[int, int], int]:
    """Returns the tables, sampling, offset and orientation of the JPEG that an image was."""
    file = image.coding
    if quality == "auto" and file is not None:
        if file.sampling not in SAMPLINGS:
            raise ImageError(
                f"its colours are stored as {file.sampling}: dejpeg takes JPEG files of the "
                f"samplings {', '.join(SAMPLINGS)}"
            )
        used = file.sampling if sampling == "auto" else sampling
        luma, chroma = file.tables[0], file.tables[-1]
        return (*luma, *chroma), used, (0, 0), file.orientation
    fit = estimate_coding(image.pixels, None if quality == "auto" else quality, sampling)
    if fit is None:
        raise ImageError(
            "is no JPEG file and shows no trace of JPEG compression, so there is nothing to "
            "undo; if it was one, give its --jpeg-quality"
        )
    tables = standard_tables(fit.quality).int().flatten().tolist()
    return tuple(tables), fit.sampling, fit.offset, 1


def colorizing() -> Build:
    """Returns a builder of the luminance, for grey images."""
    return lambda images, clean: Luminance()


def demosaicing(pattern: str = "RGGB") -> Build:
    """Returns a builder of colour filter arrays.

    Arguments:
        pattern: See `Mosaic`.
    """
    operator = Mosaic(pattern)
    return lambda images, clean: operator


def sensing(ratio: float, seed: int = 0) -> Build:
    """Returns a builder of compressed sensing operators.

    Arguments:
        ratio, seed: See `CompressedSensing`.
    """
    operator = CompressedSensing(ratio, seed)
    return lambda images, clean: operator


def clipping(
    factor: float = 2.0, pivot: float = 0.0, white: float | Literal["auto"] = "auto"
) -> Build:
    """Returns a builder of clipping operators, for over-exposed photos.

    Arguments:
        factor, pivot: See `Clipping`.
        white: Value from which highlights count as clipped. "auto" is 1 for clean images, and
            250/255 for photos: compression blurs the limit.

    Raises:
        SettingError: An argument is out of its range.
    """
    level = PHOTO_WHITE if white == "auto" else white
    Clipping(factor, pivot, level)  # raises if an argument is out of its range

    def build(images: list[ImageFile], clean: bool) -> Operator:
        return Clipping(factor, pivot, 1.0 if clean and white == "auto" else level)

    return build


def phase_retrieval(oversampling: float = 2.0, masks: int = 0, seed: int = 0) -> Build:
    """Returns a builder of phase retrieval, by oversampling or, if there are masks, by masks.

    Arguments:
        oversampling: See `PhaseRetrieval`.
        masks: Number of random masks, see `CodedDiffraction`; 0 for none.
        seed: Seed of the masks.
    """
    operator = CodedDiffraction(masks, seed) if masks else PhaseRetrieval(oversampling)
    return lambda images, clean: operator


def gamma_curve(gamma: float = 1 / 2.2) -> Build:
    """Returns a builder of a power law, see `Gamma`."""
    operator = Gamma(gamma)
    return lambda images, clean: operator


def quantising(levels: int = 8) -> Build:
    """Returns a builder of quantisation, see `Quantisation`."""
    operator = Quantisation(levels)
    return lambda images, clean: operator


def denoising() -> Build:
    """Returns a builder of the identity, for noise only."""
    return lambda images, clean: Denoising()


def _size(x: torch.Tensor) -> str:
    return f"{x.shape[-1]}x{x.shape[-2]}"
