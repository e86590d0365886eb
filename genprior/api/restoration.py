"""Restoration of images from measurements (`restore`), and their simulation (`degrade`)."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from genprior.api.calibration import Calibration, intervals, read_calibration
from genprior.api.diagnostics import check_restoration, unused_noise
from genprior.api.factory import (
    as_operator,
    choose_solver,
    for_channels,
    ignored_quality,
    ignored_steps,
    load_prior,
    make_operator,
    make_solver,
    operator_on,
    prior_on,
    suited_solvers,
)
from genprior.api.inputs import (
    check_noise,
    image_numbers,
    physics_noise,
    random_seed,
    take_image,
    take_measurement,
    whole_number,
)
from genprior.api.noise_law import Measured, measured_noise
from genprior.api.progress_bar import as_callback
from genprior.api.sampling import sample
from genprior.api.texture_fill import Fill, add_texture, choose_fill
from genprior.core.devices import pick_device, pick_dtype, without_autocast
from genprior.core.errors import RestorationWarning, SettingError
from genprior.core.linalg import per_image
from genprior.core.random_streams import MEASUREMENT, Noise
from genprior.inverse.base import Quality, Restoration, Solver, misfit
from genprior.inverse.execution.executor import (
    MIXED,
    Executor,
    SampleIndex,
    chunk_size,
    chunks,
)
from genprior.inverse.execution.memory import Tile
from genprior.inverse.execution.monitor import all_finite
from genprior.inverse.execution.running_statistics import RunningStatistics, beyond
from genprior.io.arrays import floats_like, noise_levels, samples_like
from genprior.io.limits import MAX_SAMPLES
from genprior.operators.base import Operator
from genprior.operators.noise_models import GaussianNoise, SignalDependentNoise, noise_law
from genprior.operators.whitened import Whitened, WhitenedNonlinear

__all__ = ["degrade", "load_prior", "make_operator", "make_solver", "restore", "sample"]


@without_autocast
def degrade(
    image: Any,
    operator: Operator,
    noise_std: float | Sequence[float] | Tensor | GaussianNoise | SignalDependentNoise | str | None
    = None,
    seed: int = 0,
    index: int | Sequence[int] = 0,
) -> Any:
    """Makes a measurement y = A x + n of a clean image.

    Arguments:
        image: Tensor (B, C, H, W), numpy array (H, W, C) or PIL image; see `to_tensor`. For a
            physics of deepinv a batch of floats may have any channels and scale.
        operator: An operator of genprior, or a `deepinv.physics.LinearPhysics`.
        noise_std: Noise level in units of [0, 1], >= 0; one number, or one per image. None is
            the level of the physics if its noise is Gaussian, else 0. Or the law of the noise, an
            object of `genprior.operators.noise_models` or its text, such as "poisson=30".
        seed: Seed of the noise.
        index: Number of the first image, or of every image: image number i gets the noise of
            (seed, i), which is not the noise that `restore` draws for it.

    Returns:
        The measurement, in the type of `image`; integers are rounded and clipped. A tensor if a
        physics returns measurements of another shape.

    Raises:
        ValueError: An argument is out of its range; the message says which and why.
    """
    seed = random_seed(seed)
    physics, operator = operator, as_operator(operator)
    x, back = take_image(image, operator)
    operator = operator_on(operator, x.device)
    y = operator.A(x)
    if noise_std is None:
        noise_std = physics_noise(physics, operator.unpack(y))
    noise = Noise(seed, [(number, *MEASUREMENT) for number in image_numbers(index, len(y))])
    if isinstance(noise_std, str):
        noise_std = noise_law(noise_std)
    if isinstance(noise_std, GaussianNoise | SignalDependentNoise):
        check_noise(operator, torch.ones(1))
        y = _with_noise(y, operator, noise_std, noise)
    else:
        sigma = noise_levels(noise_std, x, operator.measures_images)
        check_noise(operator, sigma)
        y = y + per_image(sigma, y) * operator.mask_unmeasured(noise.normal(y))
    made = operator.unpack(y)
    return back(y) if operator.measures_images or (made is y and y.shape == x.shape) else made


def _with_noise(
    y: Tensor, operator: Operator, law: GaussianNoise | SignalDependentNoise, noise: Noise
) -> Tensor:
    if isinstance(law, GaussianNoise):
        return y + operator.mask_unmeasured(law.colour(noise.normal(y)))
    rows = [law.add(one, stream) for one, stream in zip(y, noise.generators, strict=True)]
    return operator.mask_unmeasured(torch.stack(rows))


@torch.inference_mode(False)  # samplers differentiate the network
@without_autocast
def restore(
    y: Any,
    operator: Operator,
    prior: str | Path | object = "ddpm",
    solver: str | Solver | None = None,
    noise_std: (
        float | Sequence[float] | Tensor | str | GaussianNoise | SignalDependentNoise | None
    ) = None,
    samples: int = 1,
    steps: int | Literal["auto"] | None = "auto",
    seed: int = 0,
    index: int | Sequence[int] = 0,
    device: str | torch.device = "auto",
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
    tile: Tile = "auto",
    keep_samples: bool = True,
    quantiles: Sequence[float] = (),
    antithetic: bool = True,
    fill: Fill | None = None,
    progress: Callable[[int, int], object] | bool | None = None,
    quality: Quality = "default",
    calibration: Calibration | str | Path | None = None,
) -> Restoration:
    """Restores images from their measurements.

    Arguments:
        y: Measurements: tensor (B, C, H, W) or (C, H, W) in [0, 1], numpy (H, W, C) or PIL
            image; see `to_tensor`. For a physics of deepinv also floats or complex numbers of any
            shape (B, ...) and scale, or a `TensorList` of several tensors.
        operator: Operator of the measurements: one of genprior, or a
            `deepinv.physics.LinearPhysics`. Images with two channels, as those of its MRI, are
            complex: their real and imaginary parts, in [-1, 1].
        prior: Name, checkpoint folder or object: a prior of genprior, a
            `deepinv.models.Denoiser`, a `DDPMPipeline` of diffusers, or a function of noisy
            images in [0, 1] and their noise level that returns denoised images. See
            `load_prior`. A denoiser of one or three channels takes the two parts of a complex
            image as two grey images, (x + 1) / 2.
        solver: Name, object, or None for the default: a point estimate for one sample, a
            sampler for several; for Gaussian priors (texture, pca) always exact samples.
        noise_std: Noise level of y in units of [0, 1] (for complex numbers, of the real and of
            the imaginary part); one number, one per image, or "auto" to estimate it by
            `estimate_noise` with the prior, which must be a denoiser; for denoising, "auto" also
            finds noise that is correlated, as that of cameras. Or the law of the noise, an object
            of `genprior.operators.noise_models` or its text: "poisson=PEAK",
            "signal=GAIN,OFFSET" or "correlated=LEVEL,WIDTH". None is the level of the physics if
            its noise is Gaussian, else 0.
        samples: Posterior samples per image, >= 1.
        steps: Steps of the solver, for most the network evaluations. "auto" or None: for `hqs`
            and `posterior-mean` as many as each measurement takes, see `quality`; for others
            their default. If the default solver has none, as that of denoising, they are not
            used, and a warning says so.
        seed: Seed, >= 0.
        index: Index of the first image, or one index per image: image i draws the noise
            of (seed, i), so `restore(y)` and `restore(y[i:i+1], index=i)` agree on image i,
            bit for bit on a CPU.
        device: "auto", "cpu", "cuda", "mps" or a `torch.device`. "auto" is the device of y if
            that is not the CPU, else CUDA if it is available.
        dtype: Precision of the network; the solver's state stays float32. "auto" is float32. A
            CPU without instructions for "bfloat16" or "float16" is several times slower with
            them: this gives a warning.
        tile: "auto" evaluates the network on tiles of large images and, for inpainting, only on
            windows around the holes; a number is the side of the tiles in pixels; "off" uses
            neither.
        keep_samples: Whether to return the samples. If not, mean and std are computed as running
            statistics, which need no memory for the samples.
        quantiles: Levels in [0, 1] of the quantiles per pixel to compute, such as (0.05, 0.95)
            for the central 90 % (needs 19 samples). They keep all samples in memory meanwhile.
        antithetic: Draw the third sample with the noise of the first with opposite sign, the
            fourth with that of the second, and so on, which improves the mean; if not, all
            samples are independent.
        fill: "smooth" leaves holes to the prior: a blur in wide ones. "texture" gives them the
            texture of patches of the known part: sharper, but with larger errors; for inpainting
            only. Each sample has its own patches. "auto" does so in wide holes whose
            surroundings some patches resemble, see `add_texture`. None is "auto" for point
            estimates of a default solver (`solver` is None), else "smooth".
        progress: Called after each network evaluation with (evaluations done, total),
            counted over the whole batch. True shows a bar, in a notebook or on standard error.
        quality: With `steps` "auto": "default" is the fewest evaluations with the PSNR of many to
            0.05 dB; "fast" takes fewer, "best" as many as improve the result
            (benchmarks/results/steps.md).
        calibration: File of `genprior calibrate`, for `lower` and `upper` of the result: intervals
            that hold a promised share of the pixels, on average over photos like those that
            calibrated. An image that differs from them in a setting or in its measurement gets
            none, with a warning. It needs several samples, as many as were calibrated.

    Returns:
        A `Restoration` on the device of y. `image`, `mean` and `samples` have the type of y and
        are rounded and clipped for integers; `samples` has one more axis, (B, K, C, H, W)
        for a batch and (K, C, H, W) for a single image (channels last in numpy, a list in
        Pillow). `std` would be too small for 8 bits, so it holds floats in units of [0, 1], as a
        tensor for tensors and an array otherwise, in the layout of `image`.

    Warns:
        RestorationWarning: Each of the `warnings` of the result.

    Raises:
        ValueError: An argument is out of its range; the message says which and why.
        TypeError: The prior lacks the ability that the solver needs, or the operator is not one.
        CheckpointError: The prior's weights are missing or corrupt.
        FloatingPointError: The network or the result holds NaN or infinite numbers.
        MemoryError: There is not enough memory, even for the smallest tiles of one image.
    """
    samples, seed = whole_number("samples", samples, 1), random_seed(seed)
    if samples > MAX_SAMPLES:
        raise SettingError(f"samples must be at most {MAX_SAMPLES}, got {samples}")
    steps = None if steps in (None, "auto") else whole_number("steps", steps, 1)
    several, quantiles = samples > 1, _levels(quantiles, samples)
    progress = as_callback(progress)
    if isinstance(calibration, str | Path):
        calibration = read_calibration(calibration)
    if calibration is not None and not several:
        raise SettingError(
            "calibrated intervals need samples: set samples to the number that was calibrated"
        )
    physics, operator = operator, as_operator(operator)
    measurement, back, single = take_measurement(y, operator)
    device = pick_device(device, measurement)
    precision = pick_dtype(dtype, device)
    operator = operator_on(operator, device)
    prior_name, prior = prior_on(prior, device)
    if noise_std is None:
        noise_std = physics_noise(physics, y)
    name, method = choose_solver(solver, steps, operator, prior, samples)
    numbers = image_numbers(index, len(measurement))
    problem = _problem(measurement, operator, prior, method, noise_std, device)
    unscaled, operator = operator, problem.operator
    work, sigma = problem.y, problem.sigma
    textured = method.stochastic or method.has_texture
    fill = choose_fill(fill, solver in (None, "auto"), textured, operator)
    prior = for_channels(prior, operator.image_shape(work.shape)[1])
    methods = [method] * len(work)
    if not isinstance(solver, Solver) and (steps is None or not hasattr(method, "steps")):
        methods = suited_solvers(method, quality, work, operator, prior, problem.scaled)
    runs = _runs(methods, problem.coloured, samples, operator.image_shape(work.shape), device)
    paired = antithetic and method.supports_antithetic
    executors = [
        Executor(each, prior, seed, numbers, tile, precision, len(parts), paired,
                 problem.operator_of(parts[0][0][0]), problem.passes)
        for each, parts in runs
    ]
    _show_total(executors, progress)
    started = time.perf_counter()
    stats = RunningStatistics(len(work), several and (keep_samples or bool(quantiles)), paired)
    misfits: list[list[Tensor]] = [[] for _ in work]
    found: dict[str, None] = {}  # reasons for doubt, without repetitions
    for executor, (_, parts) in zip(executors, runs, strict=True):
        for part in parts:
            x, final = problem.solve(executor, part)
            if not all_finite(x):
                raise FloatingPointError(
                    f"solver {name} gave NaN or infinite numbers: use float32 or another solver"
                )
            keys = [(numbers[i], k) for i, k in part]
            x, doubted = add_texture(x, final.operator, fill, seed, keys)
            found |= {f"image {part[row][0]}: {text}": None for row, text in doubted.items()}
            answers = final.image(x).to(measurement.device)
            fits = misfit(x, final.y, final.operator, final.scaled).cpu()
            for i, rows in _rows_of([i for i, _ in part]).items():
                stats.add(i, answers[rows])
                misfits[i].append(fits[rows])
    seconds = time.perf_counter() - started
    fits_of_samples = problem.in_image_units(torch.stack([torch.cat(fits) for fits in misfits]))
    fit = fits_of_samples.mean(dim=1)
    lower = upper = None
    uncalibrated: list[str] = []
    if calibration is not None:
        lower, upper, reasons = intervals(
            calibration, problem.measurement, operator_on(unscaled, measurement.device), sigma,
            prior, methods, samples, paired and samples > 2, stats.mean, stats.std, fit,
        )
        uncalibrated = [
            f"image {i}: no calibrated intervals: {reason}" if len(work) > 1 else
            f"no calibrated intervals: {reason}"
            for i, reason in enumerate(reasons) if reason
        ]
    sizes = _effective_sizes(executors, len(work))
    doubts = (
        *ignored_steps(solver, steps, method),
        *ignored_quality(quality, method),
        *found,
        *problem.noise.doubts,
        *unused_noise(physics, sigma),
        *check_restoration(work, operator, sigma, fit, method.stochastic),
        *method.doubts(work, operator, prior, problem.scaled),
        *(() if sizes is None else method.doubts_of_weights(sizes)),
        *beyond(quantiles, samples),
        *uncalibrated,
    )
    for doubt in doubts:
        warnings.warn(doubt, RestorationWarning, stacklevel=4)  # two decorators are in between
    evaluations = {
        i: executor.evaluations or round(executor.monitor.images / sum(map(len, parts)))
        for executor, (_, parts) in zip(executors, runs, strict=True)
        for part in parts for i, _ in part
    }
    mean = back(stats.mean)
    windows = {i: cut for executor in executors for i, cut in executor.windows.items()}
    return Restoration(
        image=mean,
        samples=samples_like(stats.samples, back, single) if several and keep_samples else None,
        mean=mean if several else None,
        std=floats_like(y, stats.std, single) if several else None,
        quantiles={q: floats_like(y, x, single) for q, x in stats.quantiles(quantiles).items()},
        lower=None if lower is None else floats_like(y, lower, single),
        upper=None if upper is None else floats_like(y, upper, single),
        misfit=fit,
        misfits=fits_of_samples if several else None,
        solver=name,
        prior=prior_name,
        nfe=max(evaluations.values()),
        evaluations=tuple(evaluations[i] for i in range(len(work))),
        products=method.jacobian_products_for(operator, prior),
        antithetic=paired and samples > 2,
        seconds=seconds,
        noise_std=problem.noise.level,
        noise_found=problem.noise.found,
        seed=seed,
        warnings=doubts,
        tile=next((executor.tile for executor in executors if executor.tile), None),
        windows=tuple(tuple(windows.get(i, ())) for i in range(len(work))),
        reduced=tuple(text for executor in executors for text in executor.reduced),
        methods=tuple(methods),
        passes=problem.passes,
        effective_sizes=sizes,
    )


@dataclass(frozen=True)
class _Problem:
    """A batch of measurements, as solvers take them, and their noise.

    Arguments:
        measurement: y as it was given, after the transform of its noise, see `Measured.forward`.
        noisy: y as it was given, float32 on the device of the solver.
        given: `measurement`, float32 on the device of the solver.
        y, operator: Measurements in the unit of their operator, and this operator.
        unit: This unit, a number or one per image.
        sigma, scaled: Noise levels of `measurement` and of `y`, shape (B,).
        noise: The noise.
        white: The operator of whitened measurements; None if all noise is white.
        passes: How often the solver denoises an image.
    """

    measurement: Tensor
    noisy: Tensor
    given: Tensor
    y: Tensor
    operator: Operator
    unit: Any
    sigma: Tensor
    scaled: Tensor
    noise: Measured
    white: Whitened | WhitenedNonlinear | None
    passes: int

    @property
    def coloured(self) -> list[bool]:
        """Which images have noise that is not white."""
        return [self.noise.is_correlated(i) for i in range(len(self.y))]

    def operator_of(self, image: int) -> Operator | Whitened | WhitenedNonlinear:
        """Returns the operator of the measurements that an image is solved from."""
        white = self.white if self.noise.is_correlated(image) else None
        return self.operator if white is None else white

    def solve(self, executor: Executor, part: list[SampleIndex]) -> tuple[Tensor, "_Answered"]:
        """Returns the answers of a solver for a batch, and the measurements that they answer.

        Arguments:
            executor: Runs the solver.
            part: Pairs (image, sample); images with white noise, or with other noise.
        """
        images = [i for i, _ in part]
        operator, y, scaled = self.operator.select(images), self.y[images], self.scaled[images]
        white = self.operator_of(images[0]).select(images)
        if isinstance(white, Whitened | WhitenedNonlinear):
            level = self.sigma.to(self.y)[images]
            x = executor.solve(white.whiten(self.given[images]), white, level, part)
        else:
            x = executor.solve(y, operator, scaled, part)
        noise = self.noise
        if self.passes > 1:
            mixed, noise = noise.second_pass(self.noisy[images], noise.backward(x))
            y, scaled = noise.forward(mixed), torch.full_like(scaled, noise.level)
            x = executor.solve(y, operator, scaled, part)
        if not self.sigma[images].all():
            known = operator.keep_known(x, y)
            x = torch.where((scaled == 0).reshape(-1, 1, 1, 1), known, x)
        return x, _Answered(y, operator, scaled, noise)

    def in_image_units(self, misfits: Tensor) -> Tensor:
        """Returns misfits (B, K); without noise they are residuals, which have a unit."""
        rescaled = per_image(self.unit, misfits).to(misfits) * misfits
        return torch.where((self.sigma == 0).to(misfits.device)[:, None], rescaled, misfits)


@dataclass(frozen=True)
class _Answered:
    """Measurements that a batch of answers was computed from, see `_Problem`."""

    y: Tensor
    operator: Operator
    scaled: Tensor
    noise: Measured

    def image(self, x: Tensor) -> Tensor:
        """Returns an answer as an image, without margins and transform."""
        return self.noise.backward(self.operator.crop_margin(x))


def _problem(
    measurement: Tensor, operator: Operator, prior: object, method: Solver, noise_std: Any,
    device: torch.device,
) -> _Problem:
    """Returns the measurements as a solver takes them; estimates their noise for "auto"."""
    noise = measured_noise(noise_std, measurement.to(device), operator, prior)
    if method.ignores_noise:
        noise = noise.white(measurement)
    noisy = measurement.detach().to(device, torch.float32)
    measurement = noise.forward(measurement)
    sigma = noise_levels(noise.level, measurement, operator.measures_images)
    check_noise(operator, sigma)
    given = measurement.detach().to(device, torch.float32)
    operator.check_shape(given.shape)
    white = noise.whitened(operator, method.takes_any_noise)
    operator, unit = operator.rescaled(given.shape)
    # Quotients are copies: tensors made in inference mode cannot be differentiated through.
    return _Problem(
        measurement, noisy, given, given / per_image(unit, given), operator, unit, sigma,
        sigma.to(given) / unit, noise, white, noise.passes(method),
    )


def _runs(
    methods: list[Solver], coloured: list[bool], samples: int, shape: torch.Size,
    device: torch.device,
) -> list[tuple[Solver, list[list[SampleIndex]]]]:
    """Returns the solvers that differ, each with its batches of (image, sample).

    Images with noise that is not white, which `coloured` tells, are in batches of their own.
    """
    images: list[tuple[tuple[Solver, bool], list[int]]] = []
    for i, kind in enumerate(zip(methods, coloured, strict=True)):
        same = next((group for other, group in images if other == kind), None)
        if same is None:
            images.append((kind, [i]))
        else:
            same.append(i)
    runs = []
    for (method, _), group in images:
        size = chunk_size(shape, device, method)
        pooled = method.pools_samples(shape)
        size = samples if pooled else size
        alone = pooled or not MIXED.get(device.type, False)
        together = [[i] for i in group] if alone else [group]
        parts = [
            part for some in together
            for part in chunks([(i, k) for k in range(samples) for i in some], size)
        ]
        runs.append((method, parts))
    return runs


def _effective_sizes(executors: list[Executor], count: int) -> Tensor | None:
    """Returns the effective sample size of each of `count` images, the mean over its samples."""
    found = {key: size for executor in executors for key, size in executor.effective_sizes.items()}
    if not found:
        return None
    of_images = [[size for (i, _), size in found.items() if i == image] for image in range(count)]
    return torch.stack([torch.stack(sizes).mean() for sizes in of_images]).cpu()


def _rows_of(images: list[int]) -> dict[int, list[int] | slice]:
    """Returns the rows of a batch that belong to each of its images."""
    if len(set(images)) == 1:
        return {images[0]: slice(None)}
    return {
        i: [row for row, image in enumerate(images) if image == i] for i in dict.fromkeys(images)
    }


def _show_total(
    executors: list[Executor], progress: Callable[[int, int], object] | None
) -> None:
    """Lets `progress` be called with the evaluations of all executors together."""
    if progress is None:
        return
    monitors = [executor.monitor for executor in executors]

    def show(*_: int) -> None:
        total = sum(monitor.total for monitor in monitors)
        progress(min(sum(monitor.done for monitor in monitors), total), total)

    for monitor in monitors:
        monitor.progress = show


def _levels(quantiles: Sequence[float], samples: int) -> tuple[float, ...]:
    """Returns the levels of the quantiles.

    Raises:
        SettingError: A level is no number in [0, 1], or there is only one sample.
    """
    try:
        levels = tuple(quantiles)
        valid = all(0 <= level <= 1 for level in levels) and (samples > 1 or not levels)
    except (TypeError, ValueError):
        raise SettingError(
            f"quantiles must be a list of numbers between 0 and 1, got {quantiles!r}"
        ) from None
    if not valid:
        raise SettingError(
            f"quantiles must be between 0 and 1, and need several samples; got "
            f"{list(levels)} and {samples} sample(s)"
        )
    return levels
