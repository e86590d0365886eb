"""What a pipeline calls: restore, degrade, sample, load_prior."""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genprior.arrays import to_tensor
from genprior.checkpoint import load_checkpoint
from genprior.inverse.base import Restoration, Solver, misfit
from genprior.inverse.unconditional import sample_denoiser
from genprior.noise import Noise
from genprior.operators.base import Operator
from genprior.priors.base import Decoder, Denoiser, Gaussian
from genprior.registry import OPERATORS, SOLVERS, lookup
from genprior.weights import find_prior

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
FITS = (0.3, 1.5)
CHUNK_PIXELS = {"cpu": 2**20, "cuda": 2**24, "mps": 2**21}


def load_prior(name: str | Path, device: str = "cpu") -> nn.Module:
    """Loads a prior.

    Arguments:
        name: A prior that ships, "ddpm"; one of its sets, "ddpm:digits"; or the path of a
            checkpoint folder, or of the folder of a training run.
        device: Where to put it.

    Returns:
        The prior, in evaluation mode, its parameters frozen.

    Raises:
        CheckpointError: There is no such prior, or its weights are corrupt.
    """
    return load_checkpoint(find_prior(name))[0].to(device)


def make_operator(task: str, **settings: Any) -> Operator:
    """Builds an operator by the name of its task.

    Arguments:
        task: "inpaint", "deblur", "superres" or "denoise".
        settings: Arguments of its class.

    Raises:
        ValueError: The task does not exist, or a setting is wrong.
    """
    return lookup(OPERATORS, task, "operator")(**settings)


def make_solver(name: str, steps: int | None = None, **settings: Any) -> Solver:
    """Builds a solver by name.

    Arguments:
        name: Name in the registry.
        steps: Network evaluations; None keeps the solver's default.
        settings: Other fields of the solver.

    Raises:
        ValueError: The name or a setting does not exist; the message lists those that do.
    """
    cls = lookup(SOLVERS, name, "solver")
    if steps is not None:
        settings["steps"] = steps
    known = [field.name for field in fields(cls)]
    for setting in settings:
        if setting not in known:
            raise ValueError(
                f"solver {name!r} has no setting {setting!r}: it has {', '.join(known)}"
            )
    return cls(**settings)


def default_solver(operator: Operator, prior: object, samples: int) -> str:
    """Name of the solver that was measured best for a problem.

    One picture is asked for: the best point estimate. Several samples: a sampler.
    """
    if isinstance(prior, Gaussian):
        return "gaussian"
    if samples > 1:
        return "diffpir"
    return "posterior-mean" if operator.is_identity else "hqs"


def degrade(
    image: Any,
    operator: Operator,
    noise_std: float | Sequence[float] | Tensor = 0.0,
    seed: int = 0,
    index: int | Sequence[int] = 0,
) -> Any:
    """Makes a measurement y = A x + sigma n of a clean image.

    Arguments:
        image: Tensor (B, C, H, W), numpy array (H, W, C) or PIL image; see `to_tensor`.
        operator: What to measure.
        noise_std: Noise level in units of [0, 1], >= 0; a number or one per image.
        seed: Seed of the noise.
        index: Number of the first image, or of every image: image number i gets the noise of
            (seed, i).

    Returns:
        The measurement, of the type of `image`. As an 8-bit type it is rounded and clipped.
    """
    x, back = to_tensor(image)
    sigma = _noise_levels(noise_std, x)
    y = operator.A(x)
    noise = Noise(seed, [(number, 0) for number in _numbers(index, len(y))]).normal(y)
    return back(y + sigma.reshape(-1, 1, 1, 1) * operator.observed(noise))


def restore(
    y: Any,
    operator: Operator,
    prior: str | Path | object = "ddpm",
    solver: str | Solver | None = None,
    noise_std: float | Sequence[float] | Tensor = 0.0,
    samples: int = 1,
    steps: int | None = None,
    seed: int = 0,
    index: int | Sequence[int] = 0,
    device: str = "auto",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    progress: Callable[[int, int], object] | None = None,
) -> Restoration:
    """Restores images from their measurements.

    Arguments:
        y: Measurements: tensor (B, C, H, W) in [0, 1], numpy (H, W, C) or PIL image.
        operator: How they were made: one of ours, or a `deepinv.physics.LinearPhysics`.
        prior: Name, checkpoint folder or object; see `load_prior`.
        solver: Name, object, or None for the best one measured: a point estimate for one
            sample, a sampler for several.
        noise_std: Noise level of y in units of [0, 1]; a number or one per image.
        samples: Posterior samples per image, >= 1.
        steps: Network evaluations; None keeps the solver's default.
        seed: Seed; 0 is a seed as any other.
        index: Number of the first image, or of every image: image number i draws the noise
            of (seed, i), so `restore(y)` and `restore(y[i:i+1], index=i)` agree on image i.
        device: "auto" (where y is, else CUDA where there is one), "cpu", "cuda", "mps".
        dtype: Precision of the network; the solver's state stays float32.
        progress: Called after each network evaluation with (evaluations done, in all),
            counted over the whole batch.

    Returns:
        A `Restoration`; its images have the type of y and live where y lives.

    Raises:
        ValueError: An argument is out of its range; the message says which and why.
        CheckpointError: The prior's weights are missing or corrupt.
        FloatingPointError: The result holds NaN or infinite numbers.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    measurement, back = to_tensor(y)
    sigma = _noise_levels(noise_std, measurement)
    place = pick_device(device, measurement)
    operator = _adapt(operator, place)
    prior_name, prior = _resolve_prior(prior, place)
    if isinstance(solver, Solver):
        name, method = type(solver).__name__, solver
    else:
        name = solver or "auto"
        name = default_solver(operator, prior, samples) if name == "auto" else name
        method = make_solver(name, steps)

    work = measurement.to(place, torch.float32)
    sigma = sigma.to(work)
    numbers = _numbers(index, len(work))
    chains = [i for i in range(len(work)) for _ in range(samples)]
    parts = _chunks(chains, operator.image_shape(work.shape), place)
    watched = prior
    if method.needs is Denoiser:
        watched = Watched(prior, dtype, progress, method.nfe * len(parts))
    started = time.perf_counter()
    draws, fits = [], []
    for start, images in parts:
        local = operator.select(images)
        keys = [(numbers[i], (start + k) % samples) for k, i in enumerate(images)]
        x = method(work[images], local, watched, sigma[images], Noise(seed, keys))
        exact = (sigma[images] == 0).reshape(-1, 1, 1, 1)
        x = torch.where(exact, local.keep_known(x, work[images]), x)
        if not x.isfinite().all():
            raise FloatingPointError(
                f"solver {name} gave NaN or infinite numbers: use float32 or another solver"
            )
        draws.append(operator.visible(x))
        fits.append(misfit(x, work[images], local, sigma[images]))
    seconds = time.perf_counter() - started
    x = torch.cat(draws).unflatten(0, (len(work), samples)).to(measurement.device)
    fit = torch.cat(fits).unflatten(0, (len(work), samples)).mean(dim=1).cpu()
    many = samples > 1
    return Restoration(
        image=back(x.mean(dim=1) if many else x[:, 0]),
        samples=x if many else None,
        mean=x.mean(dim=1) if many else None,
        std=x.std(dim=1) if many else None,
        misfit=fit,
        solver=name,
        prior=prior_name,
        nfe=method.nfe,
        seconds=seconds,
        noise_std=noise_std,
        seed=seed,
        warnings=_doubts(fit, sigma.cpu()),
    )


def sample(
    prior: str | Path | object,
    count: int = 1,
    size: tuple[int, int] = (256, 256),
    channels: int = 3,
    steps: int = 100,
    eta: float = 1.0,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[int, int], object] | None = None,
) -> Tensor:
    """Draws images from a prior.

    Arguments:
        prior: Name, checkpoint folder or object; see `load_prior`.
        count: Number of images.
        size: Their height and width in pixels.
        channels: 3 for colour, 1 for grey.
        steps: Network evaluations of a diffusion prior.
        eta: 1 is ancestral sampling (DDPM), 0 is DDIM; of a diffusion prior.
        seed: Seed; image i depends on (seed, i) alone.
        device: See `restore`.
        progress: See `restore`.

    Returns:
        Images, shape (count, channels, *size), clipped to [0, 1].

    Raises:
        TypeError: The prior neither denoises nor decodes.
    """
    like = torch.zeros(count, channels, *size)
    place = pick_device(device, like)
    _, prior = _resolve_prior(prior, place)
    like = like.to(place)
    noise = Noise(seed, [(i, 0) for i in range(count)])
    if isinstance(prior, Decoder):
        z = noise.normal(like.new_zeros(()).expand(prior.latent_shape(like.shape)))
        return prior.decode(z, like.shape).clamp(0, 1)
    if not isinstance(prior, Denoiser):
        raise TypeError(f"{type(prior).__name__} can neither denoise nor decode, so not sample")
    watched = Watched(prior, "float32", progress, steps)
    return sample_denoiser(watched, like, noise, steps, eta).clamp(0, 1)


class Watched(Denoiser):
    """A denoiser that runs in a given precision and reports every evaluation.

    Arguments:
        prior: The denoiser.
        dtype: Precision of the network: "float32", or autocast to "bfloat16" / "float16".
        progress: Called with (evaluations done, in all), or None.
        total: Evaluations in all.

    Raises:
        ValueError: A precision that does not exist.
    """

    def __init__(
        self,
        prior: Denoiser,
        dtype: str,
        progress: Callable[[int, int], object] | None,
        total: int,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.prior, self.dtype = prior, DTYPES[dtype]
        self.progress, self.total, self.done = progress, total, 0

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        low = self.dtype != torch.float32
        with torch.autocast(x.device.type, self.dtype if low else None, enabled=low):
            x_hat = self.prior.denoise(x, sigma).to(x.dtype)
        self.done += 1
        if self.progress:
            self.progress(self.done, self.total)
        return x_hat


def pick_device(device: str, near: Tensor) -> torch.device:
    """The device to compute on.

    Arguments:
        device: "auto", "cpu", "cuda", "mps" or "cuda:1".
        near: "auto" stays where this tensor is if that is an accelerator, else takes CUDA
            where there is one, else the CPU.

    Raises:
        ValueError: The device does not exist here.
    """
    if device == "auto":
        if near.device.type != "cpu":
            return near.device
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = device.split(":")[0]
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not here.get(kind, False):
        there = ", ".join(name for name, available in here.items() if available)
        raise ValueError(f"device {device!r} is not available here: choose auto or {there}")
    return torch.device(device)


def _resolve_prior(prior: str | Path | object, place: torch.device) -> tuple[str, object]:
    name = str(prior) if isinstance(prior, str | Path) else type(prior).__name__
    if isinstance(prior, str | Path):
        return name, load_prior(prior).to(place)
    if isinstance(prior, nn.Module) and any(p.device != place for p in prior.parameters()):
        prior = copy.deepcopy(prior).to(place)
    return name, prior


def _adapt(operator: object, place: torch.device) -> Operator:
    if not isinstance(operator, Operator):
        operator = lookup(OPERATORS, "external", "operator")(operator)
    if isinstance(operator, nn.Module) and any(b.device != place for b in operator.buffers()):
        operator = copy.deepcopy(operator).to(place)
    return operator


def _noise_levels(noise_std: float | Sequence[float] | Tensor, y: Tensor) -> Tensor:
    sigma = torch.as_tensor(noise_std, dtype=y.dtype, device=y.device).flatten()
    if sigma.numel() not in (1, len(y)):
        raise ValueError(
            f"noise_std must be one number or one for each of the {len(y)} images, "
            f"got {sigma.numel()}"
        )
    if not (sigma.isfinite().all() and (sigma >= 0).all()):
        raise ValueError(
            f"noise_std must be >= 0 and finite, in units of [0, 1] (25/255 is 0.098); "
            f"got {noise_std}"
        )
    return sigma.expand(len(y))


def _numbers(index: int | Sequence[int], count: int) -> list[int]:
    numbers = list(range(index, index + count)) if isinstance(index, int) else list(index)
    if len(numbers) != count:
        raise ValueError(f"index must hold one number for each of the {count} images")
    return numbers


def _chunks(
    chains: list[int], image_shape: torch.Size, place: torch.device
) -> list[tuple[int, list[int]]]:
    pixels = image_shape[-1] * image_shape[-2]
    size = max(1, CHUNK_PIXELS.get(place.type, 2**20) // pixels)
    return [(k, chains[k : k + size]) for k in range(0, len(chains), size)]


def _doubts(fit: Tensor, sigma: Tensor) -> tuple[str, ...]:
    low, high = FITS
    noisy = sigma > 0
    odd = noisy & ((fit < low) | (fit > high))
    return tuple(
        f"image {i}: the restoration is {fit[i]:.2f} noise levels away from the data, "
        f"which should be near 1: is noise_std {sigma[i]:.4g} right?"
        for i in odd.nonzero().flatten().tolist()
    )
