"""Adapter for the reconstructors and samplers of deepinv, with genprior operators and denoisers.

`deepinv:NAME` is the class of that name (case-insensitive) in `deepinv.sampling`, `deepinv.optim`
or `deepinv.models`. Arguments that follow from the task are filled in: the denoiser, the noise
level, the data fidelity, the prior. `pigdm` and `mmps` are deepinv's reverse diffusion with DDPM
steps and deepinv's guidance terms for these papers.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from warnings import catch_warnings, simplefilter

import deepinv
import torch
from torch import Tensor, nn

from genprior.core.errors import CheckpointError, PeerError, SettingError
from genprior.core.random_streams import Noise, seed_global
from genprior.integrations.deepinv import DenoiserModel, decomposable
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Convolution, Operator
from genprior.priors.base import Denoiser

MODULES = (deepinv.sampling, deepinv.optim, deepinv.models)
DENOISERS = ("denoiser", "model", "backbone_net")
SMALLEST_SIGMA = 1e-3
# Errors of genprior's denoiser or of memory, not of the deepinv method: they are re-raised.
RERAISED = (FloatingPointError, SettingError, CheckpointError, MemoryError, torch.OutOfMemoryError)
# deepinv's guidance per pixel falls with the square root of the number of pixels.
DPS_WEIGHTS = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)


@dataclass(frozen=True)
class Peer(Baseline):
    """A reconstruction method of deepinv.

    Images of equal noise level are sampled in one batch from one random stream, so that a sample
    depends on the rest of its batch; on a CPU a batch holds one image by default. Tuning DPS
    chooses its weight.

    Arguments:
        name: Name of the class.
        settings: Constructor arguments (name, value) that differ from the defaults.

    Raises:
        SettingError: deepinv has no such method, or the method has no such argument. When
            called: the method cannot be constructed with these settings.
        PeerError: When called: the method failed.
    """

    summary: ClassVar[str] = "a reconstructor or sampler of deepinv"
    supports_antithetic: ClassVar[bool] = False

    name: str
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        known = inspect.signature(_find_method(self.name)).parameters
        for setting, _ in self.settings:
            if setting not in known:
                raise SettingError(
                    f"deepinv:{self.name} has no setting {setting!r}, it has {', '.join(known)}"
                )

    @property
    def needs(self) -> type:
        """`Denoiser` if the method takes one, else `object`."""
        cls = _find_method(self.name)
        accepted = inspect.signature(cls).parameters
        of_models = cls.__module__.startswith("deepinv.models")
        wanted = DENOISERS if of_models else (*DENOISERS, "prior")
        return Denoiser if any(name in accepted for name in wanted) else object

    @property
    def stochastic(self) -> bool:
        return _is_sampler(_find_method(self.name))

    def choices(self, noise_std: float) -> Mapping[str, Sequence[Any]]:
        if self.name.lower() != "dps" or "weight" in dict(self.settings):
            return {}
        return {"settings": [(*self.settings, ("weight", value)) for value in DPS_WEIGHTS]}

    def suits(self, operator: Operator) -> bool:
        method = _find_method(self.name)
        if method is deepinv.models.WienerDeconvolution:
            return _is_circular(operator)
        if method is deepinv.sampling.DDRM:
            return _is_circular(operator) or operator.is_pixel_mask
        return True

    def solve(
        self, y: Tensor, operator: Operator, prior: object, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        x = torch.empty(operator.image_shape(y.shape), dtype=y.dtype, device=y.device)
        levels = noise_std.tolist()
        for rows in self._groups(operator, generator.images, levels):
            sigma, several = levels[rows[0]], len({generator.images[k] for k in rows}) > 1
            part = operator.select(rows if several else rows[:1])
            physics = decomposable(part, x.shape[1:])
            physics.noise_model = deepinv.physics.GaussianNoise(sigma)
            measurement = y[rows]
            if operator.is_pixel_mask:  # DDRM needs a mask with all channels
                count = physics.mask.shape[:1] or (1,)
                physics.mask = physics.mask.expand(*count, *y.shape[1:])
                # and supports only one mask per batch
                if several and _find_method(self.name) is deepinv.sampling.DDRM:
                    physics.mask = physics.mask.expand_as(measurement).flatten(0, 1)[None]
                    measurement = measurement.flatten(0, 1)[None]
            channels = x.shape[1]
            denoiser = DenoiserModel(prior, channels) if isinstance(prior, Denoiser) else None
            method = self._build(denoiser, max(sigma, SMALLEST_SIGMA), y.device)
            # deepinv draws from the global random state; fork_rng restores it afterwards.
            with torch.random.fork_rng([y.device] if y.is_cuda else []), catch_warnings():
                simplefilter("ignore", DeprecationWarning)  # from deepinv's own code
                seed_global(generator.generators[rows[0]].initial_seed(), y.device)
                found = self._run(method, measurement, physics)
            found = found[0] if isinstance(found, tuple) else found
            x[rows] = found.reshape(x[rows].shape).to(y.dtype)
        return x

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        raise NotImplementedError("a method of deepinv is run by `solve`")

    def _groups(
        self, operator: Operator, images: Sequence[int], levels: Sequence[float]
    ) -> list[list[int]]:
        """Returns groups of batch indices that are restored in one call.

        A group has one image if the method is not a sampler (its stopping rule, for example, may
        depend on the whole batch) or if every image has its own operator that is not a mask.
        """
        same = operator.is_pixel_mask or operator.select([0]) is operator
        together = self.stochastic and same
        keys = list(zip([0] * len(images) if together else images, levels, strict=True))
        return [[k for k, other in enumerate(keys) if other == key] for key in dict.fromkeys(keys)]

    def _build(self, denoiser: nn.Module | None, sigma: float, device: torch.device) -> Callable:
        cls = _find_method(self.name)
        given = dict(self.settings)
        filled = _arguments(cls, denoiser, sigma, device)
        missing = [
            name
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
            and name not in {**given, **filled}
        ]
        if missing:
            raise SettingError(
                f"deepinv:{self.name} needs {', '.join(missing)}, which a task does not provide: "
                f"choose another method"
            )
        try:
            return cls(**{**filled, **given}).eval()
        except Exception as error:
            settings = ", ".join(f"{key}={value}" for key, value in self.settings) or "defaults"
            raise SettingError(
                f"deepinv:{self.name} cannot be made with {settings}: {_reason(error)}"
            ) from error

    def _run(self, method: Callable, y: Tensor, physics: deepinv.physics.Physics) -> Any:
        try:
            return method(y, physics)
        except RERAISED:
            raise
        except Exception as error:
            raise PeerError(f"deepinv:{self.name} failed: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _is_circular(operator: Operator) -> bool:
    return isinstance(operator, Convolution) and operator.boundary == "circular"


def _guided(fidelity: type) -> Callable[..., nn.Module]:
    """Returns a constructor of deepinv's reverse diffusion with one of its guidance terms."""

    def build(
        denoiser: nn.Module,
        dtype: torch.dtype,
        device: torch.device,
        num_steps: int = 100,
        weight: float = 1.0,
    ) -> nn.Module:
        d, times = deepinv.sampling, torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
        guidance = fidelity(weight=weight)
        sde = d.VariancePreservingDiffusion(alpha=1.0, device=device)
        solver = d.DDPMSolver(times)
        return d.PosteriorDiffusion(guidance, denoiser, sde, solver, dtype=dtype, device=device)

    return build


GUIDED = {
    "pigdm": _guided(deepinv.sampling.PiGDMDataFidelity),
    "mmps": _guided(deepinv.sampling.MomentMatchingDataFidelity),
}


def _is_sampler(method: Callable) -> bool:
    """Whether a method is a sampler."""
    return method in GUIDED.values() or method.__module__.startswith("deepinv.sampling")


def _find_method(name: str) -> Callable:
    if name.lower() in GUIDED:
        return GUIDED[name.lower()]
    found = {}
    for module in MODULES:
        for key, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, deepinv.models.Reconstructor):
                found.setdefault(key.lower(), value)
    if name.lower() not in found:
        raise SettingError(
            f"deepinv has no reconstructor {name!r}: choose one of "
            f"{', '.join([*sorted(cls.__name__ for cls in found.values()), *GUIDED])}"
        )
    return found[name.lower()]


def _arguments(
    cls: Callable, denoiser: nn.Module | None, sigma: float, device: torch.device
) -> Mapping[str, Any]:
    """Returns those arguments of the class that follow from the task."""
    accepted = inspect.signature(cls).parameters
    samples = _is_sampler(cls)
    prior = deepinv.optim.ScorePrior if samples else deepinv.optim.PnP
    given = {} if denoiser is None else {name: denoiser for name in DENOISERS}
    if given and not cls.__module__.startswith("deepinv.models"):
        given["prior"] = prior(denoiser)
    values = {
        **given,
        "data_fidelity": deepinv.optim.L2(sigma if samples and "prior" in accepted else 1.0),
        "sigma": sigma,
        "sigma_denoiser": sigma,
        "dtype": torch.float32,
        "verbose": False,
        "device": device,
    }
    return {name: value for name, value in values.items() if name in accepted}
