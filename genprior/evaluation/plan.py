"""Evaluation plan: the tasks, methods and images to evaluate."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from genprior.api.estimated_priors import read_exemplar
from genprior.api.factory import choose_solver, load_described
from genprior.api.noise_law import measured_noise
from genprior.api.tasks import (
    blurring,
    clipping,
    colorizing,
    decompressing,
    demosaicing,
    denoising,
    enlarging,
    foreign,
    gamma_curve,
    inpainting,
    phase_retrieval,
    quantising,
    sensing,
)
from genprior.core.checksums import file_digest
from genprior.core.errors import ImageError, SettingError
from genprior.core.noise_text import level_of
from genprior.core.random_streams import Noise
from genprior.evaluation.reference_images import ReferenceImage
from genprior.inverse.base import Quality, Solver
from genprior.inverse.baselines.base import Baseline
from genprior.io.datasets import resized
from genprior.io.images import ImageFile
from genprior.io.limits import MAX_PIXELS
from genprior.operators.base import Operator
from genprior.priors.base import ConditionalGenerator
from genprior.priors.checkpoint import fingerprint
from genprior.registry import FROM_EXEMPLAR


@dataclass(frozen=True)
class Task:
    """A restoration task: an operator, its settings and a noise level.

    Arguments:
        text: The task as the user typed it; its name in the results.
        kind: Name of the restoring command, or "phase", "gamma", "quantise" or "deepinv".
        settings: Arguments of the builder of that name in `genprior.api.tasks`.
        noise: Noise level in units of [0, 1], or the text of a law (`core.noise_text`).
        crop: Side of the centre crop, in pixels; None uses the whole image.
        resize: Length in pixels to which the shorter side is resized before the crop; None keeps
            the size.
        max_pixels: Larger images and masks are refused.
    """

    text: str
    kind: str
    settings: Mapping[str, Any]
    noise: float | str
    crop: int | None = None
    max_pixels: int = MAX_PIXELS
    resize: int | None = None

    def read(self, reference: ReferenceImage) -> ImageFile:
        """Returns an image, resized and cropped.

        Raises:
            ImageError: The image cannot be read, or is smaller than the crop.
        """
        image = reference.read(self.max_pixels)
        if self.resize is not None:
            image = _resized(image, self.resize)
        return image if self.crop is None else _cropped(image, self.crop, reference.name)

    def files(self) -> list[str]:
        """Returns the sha256 of the mask and kernel files that the task reads."""
        kind, mask = self.settings.get("mask", ("", None))
        given = [self.settings.get(name) for name in ("kernel", "blur")]
        given.append(mask if kind == "file" else None)
        paths = [Path(path) for path in given if path is not None]
        inside = [file for path in paths for file in sorted(path.rglob("*"))]
        return [file_digest(file) for file in (*paths, *inside) if file.is_file()]

    def operator(self, images: list[ImageFile], numbers: Sequence[int], seed: int) -> Operator:
        """Returns the operator for images of one size.

        Arguments:
            images: The images.
            numbers: Index of each image in the collection; seeds its random mask.
            seed: Seed of the evaluation.
        """
        if self.kind == "inpaint":
            masks = Noise(seed + 1, list(numbers)).generators
            build = inpainting(**self.settings, seed=masks, max_pixels=self.max_pixels)
        elif self.kind == "deblur":
            build = blurring(**self.settings, max_pixels=self.max_pixels)
        elif self.kind == "deepinv":
            build = foreign(**self.settings, seed=seed + 1)
        else:
            builders: Mapping[str, Any] = {
                "superres": enlarging, "denoise": denoising, "dejpeg": decompressing,
                "colorize": colorizing, "demosaic": demosaicing, "compressed-sensing": sensing,
                "hdr": clipping, "phase": phase_retrieval, "gamma": gamma_curve,
                "quantise": quantising,
            }
            build = builders[self.kind](**self.settings)
        return build(images, True)


@dataclass(frozen=True)
class Method:
    """A restoration method: a solver with a prior, or a baseline.

    Arguments:
        name: Its name in the results.
        solver: Name, also "auto", or object.
        prior: Name of the prior; None for a baseline without one.
        model: The prior; None without one, or if each image has its own, estimated from its known
            part.
        sha256: Checksum of the prior's weights.
        tuned: Solvers that replace `solver` for some tasks, by the text of the task.
        typed: Names of the settings that the user typed; they are not tuned.
    """

    name: str
    solver: str | Solver
    prior: str | None = None
    model: nn.Module | None = None
    sha256: str | None = None
    tuned: Mapping[str, Solver] = field(default_factory=dict)
    typed: Collection[str] = ()

    def choices(self, task: Task) -> dict[str, Sequence[Any]]:
        """Returns the settings to tune for a task, with the values to try; {} for solvers."""
        if not self.is_baseline:
            return {}
        found = self.solver.choices(level_of(task.noise))
        return {name: values for name, values in found.items() if name not in self.typed}

    def solver_of(self, task: Task) -> str | Solver:
        """Returns the solver for a task."""
        return self.tuned.get(task.text, self.solver)

    @property
    def is_baseline(self) -> bool:
        """Whether the method is a baseline."""
        return isinstance(self.solver, Baseline)

    def suits(self, task: Task, operator: Operator, image: Tensor) -> bool:
        """Returns whether the method supports a task.

        Arguments:
            task: The task.
            operator: Operator of the task, for the image.
            image: An image, (1, C, H, W).
        """
        if self.prior is not None and self.model is None:
            return task.kind == "inpaint"
        _, solver = choose_solver(self.solver, None, operator, self.model, 1)
        y = operator.A(image)
        if task.noise != 0 and not (operator.is_linear or solver.takes_nonlinear_noise):
            return False
        try:
            if isinstance(task.noise, str) and not solver.ignores_noise:
                noise = measured_noise(task.noise, y, operator, self.model)
                operator = noise.whitened(operator, solver.takes_any_noise) or operator
            solver.check_compatible(operator, self.model, y)
        except (SettingError, TypeError):
            return False
        return True

    def is_outside_training(self, task: Task, operator: Operator, image: Tensor) -> bool:
        """Returns whether the prior was trained for the measurements of another task.

        Arguments:
            task, operator, image: See `suits`.
        """
        if self.model is None or self.is_baseline:
            return False
        if isinstance(task.noise, str):  # such a prior is trained on white noise
            return isinstance(self.model, ConditionalGenerator)
        _, solver = choose_solver(self.solver, None, operator, self.model, 1)
        y = operator.A(image)
        rescaled, unit = operator.rescaled(y.shape)
        level = torch.full((len(y),), task.noise) / unit
        return bool(solver.doubts(y, rescaled, self.model, level))


@dataclass(frozen=True)
class Plan:
    """All settings of an evaluation.

    Arguments:
        references: Reference images, each with its index in the collection.
        tasks: The tasks.
        methods: The methods.
        seeds: Seeds of noise and random masks.
        samples: Number of posterior samples, for stochastic solvers.
        steps: Number of steps, for solvers that have steps and are given by name; None is
            "auto", see `restore`.
        quality: See `restore`.
        dtype: Precision of the networks.
        device: Name of the device, or "auto".
        batch: Number of images of one size that are restored together.
        show: Number of images, from the first, whose results are saved for the contact sheet.
        lpips: Whether to measure LPIPS.
        compile: Whether the networks are compiled, which changes rounding.
        settings: Other settings on which the results depend, JSON types.
    """

    references: Sequence[tuple[int, ReferenceImage]]
    tasks: Sequence[Task]
    methods: Sequence[Method]
    seeds: Sequence[int] = (0,)
    samples: int = 1
    steps: int | None = None
    dtype: str = "float32"
    device: str = "auto"
    batch: int = 1
    show: int = 4
    lpips: bool = False
    compile: bool = False
    quality: Quality = "default"
    settings: Mapping[str, Any] | None = None

    def facts(self) -> dict[str, Any]:
        """Returns all settings on which a result depends, besides its key."""
        names = ("samples", "steps", "quality", "dtype", "lpips")
        fixed = {name: getattr(self, name) for name in names}
        weights = {m.prior: m.sha256 for m in self.methods if m.sha256 is not None}
        noise = {task.text: [task.noise, task.crop, *task.files()] for task in self.tasks}
        resize = {task.text: task.resize for task in self.tasks if task.resize is not None}
        solvers = {
            m.name: {task.text: _describe(m.solver_of(task)) for task in self.tasks}
            for m in self.methods
        }
        names = {
            str(number): [reference.name, reference.digest()]
            for number, reference in self.references
        }
        fixed |= {"resize": resize} if resize else {}
        fixed |= {"compile": True} if self.compile else {}
        return {**fixed, **(self.settings or {}), "weights": weights, "tasks": noise,
                "methods": solvers, "images": names}


def not_suited(plan: Plan) -> list[tuple[str, str]]:
    """Returns the pairs (task, method) that are left out: the method does not support the task.

    Raises:
        SettingError: No method supports any of the tasks.
        ImageError: No image can be read.
    """
    pairs = []
    for task in plan.tasks:
        operator, image = _first(plan, task)
        unsuited = [m for m in plan.methods if not m.suits(task, operator, image)]
        pairs += [(task.text, method.name) for method in unsuited]
    if len(pairs) == len(plan.tasks) * len(plan.methods):
        names = ", ".join(method.name for method in plan.methods)
        raise SettingError(
            f"no method ({names}) supports any of the tasks: choose other tasks or methods"
        )
    return pairs


def outside_training(plan: Plan) -> list[tuple[str, str]]:
    """Returns the pairs (task, method) whose prior was trained for another task.

    Raises:
        ImageError: No image can be read.
    """
    pairs = []
    for task in plan.tasks:
        operator, image = _first(plan, task)
        pairs += [(task.text, m.name) for m in plan.methods
                  if m.suits(task, operator, image)
                  and m.is_outside_training(task, operator, image)]
    return pairs


def _first(plan: Plan, task: Task) -> tuple[Operator, Tensor]:
    """Returns the operator of a task for the first image that can be read, and that image."""
    number, image = _first_readable(plan, task)
    return task.operator([image], [number], 0), image.pixels


def _first_readable(plan: Plan, task: Task) -> tuple[int, ImageFile]:
    errors = []
    for number, reference in plan.references:
        try:
            return number, task.read(reference)
        except ImageError as error:
            errors.append(error)
    raise errors[0]


def _resized(image: ImageFile, side: int) -> ImageFile:
    def change(x: Tensor) -> Tensor:
        width, height = resized((x.shape[-1], x.shape[-2]), side)
        return interpolate(x, (height, width), mode="bicubic", antialias=True).clamp(0, 1)

    alpha = None if image.alpha is None else change(image.alpha)
    return replace(image, pixels=change(image.pixels), alpha=alpha)


def _cropped(image: ImageFile, crop: int, name: str) -> ImageFile:
    height, width = image.pixels.shape[-2:]
    if min(height, width) < crop:
        raise ImageError(
            f"{name} has {width}x{height} pixels, too few for a crop of {crop}: choose a "
            f"smaller crop"
        )
    top, left = (height - crop) // 2, (width - crop) // 2
    window = (..., slice(top, top + crop), slice(left, left + crop))
    alpha = None if image.alpha is None else image.alpha[window]
    return replace(image, pixels=image.pixels[window], alpha=alpha)


def _describe(solver: str | Solver) -> Any:
    if isinstance(solver, str):
        return solver
    return [type(solver).__name__, {k: repr(v) for k, v in asdict(solver).items()}]


def load_method_prior(
    name: str, exemplar: Path | None, max_pixels: int = MAX_PIXELS, **settings: Any
) -> tuple[nn.Module | None, str | None]:
    """Returns a prior by name, and the checksum of its weights or of its exemplar.

    Arguments:
        name: Name or path of the prior.
        exemplar: Image from which a prior is estimated.
        max_pixels: Larger exemplars are refused.
        settings: See `load_prior`; a prior that is estimated from an image has none.

    Returns:
        (None, None) for a prior that is estimated from the known part of each image.

    Raises:
        CheckpointError: The prior does not exist, or is corrupt.
        ImageError: The exemplar cannot be read.
    """
    if name not in FROM_EXEMPLAR:
        model, manifest = load_described(name, **settings)
        return model, fingerprint(manifest)
    if exemplar is None:
        return None, None
    model, _ = read_exemplar(name, exemplar, max_pixels)
    return model, hashlib.sha256(exemplar.read_bytes()).hexdigest()
