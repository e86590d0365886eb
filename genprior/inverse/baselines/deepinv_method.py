"""Any reconstructor or sampler of deepinv by name, on our operators and with our denoisers.

`deepinv:NAME` is the class of that name, whatever its capitals, in `deepinv.sampling`,
`deepinv.optim` or `deepinv.models`. Arguments that it must have and that follow from the task
are filled in: the denoiser, the noise level, the data fidelity, the prior. `pigdm` and `mmps`
are deepinv's reverse diffusion by DDPM steps, guided by its terms of these papers.
"""

import copy
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
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator
from genprior.priors.base import Denoiser

MODULES = (deepinv.sampling, deepinv.optim, deepinv.models)
DENOISERS = ("denoiser", "model", "backbone_net")
SMALLEST_SIGMA = 1e-3
# What a method may raise that is not its fault: the denoiser is ours, and so is the memory.
OURS = (FloatingPointError, SettingError, CheckpointError, MemoryError, torch.OutOfMemoryError)
# Their guidance of a pixel falls with the root of the number of pixels.
DPS_WEIGHTS = (30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)


@dataclass(frozen=True)
class Peer(Baseline):
    """A method of deepinv.

    Samples of images with one noise level are drawn together, from one stream: they depend on
    what else is computed at once, on a CPU nothing by default. Tuning DPS chooses its weight.

    Arguments:
        name: Name of its class.
        settings: Its arguments (name, value) other than the defaults.

    Raises:
        SettingError: deepinv has no such method, or the method no such argument; of a call, it
            does not go with these.
        PeerError: Of a call: the method failed.
    """

    summary: ClassVar[str] = "a reconstructor or sampler of deepinv"
    supports_antithetic: ClassVar[bool] = False

    name: str
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        known = inspect.signature(_find(self.name)).parameters
        for setting, _ in self.settings:
            if setting not in known:
                raise SettingError(
                    f"deepinv:{self.name} has no setting {setting!r}, it has {', '.join(known)}"
                )

    @property
    def needs(self) -> type:
        """`Denoiser` if the method takes one, else nothing."""
        cls = _find(self.name)
        taken = inspect.signature(cls).parameters
        of_models = cls.__module__.startswith("deepinv.models")
        wanted = DENOISERS if of_models else (*DENOISERS, "prior")
        return Denoiser if any(name in taken for name in wanted) else object

    @property
    def stochastic(self) -> bool:
        return _samples(_find(self.name))

    def choices(self, noise_std: float) -> Mapping[str, Sequence[Any]]:
        if self.name.lower() != "dps" or "weight" in dict(self.settings):
            return {}
        return {"settings": [(*self.settings, ("weight", value)) for value in DPS_WEIGHTS]}

    def suits(self, operator: Operator) -> bool:
        method, kinds = _find(self.name), deepinv.physics
        if method is deepinv.models.WienerDeconvolution:
            return _is_circular(operator)
        if method is deepinv.sampling.DDRM:
            return _is_circular(operator) or isinstance(operator, kinds.DecomposablePhysics)
        return isinstance(operator, kinds.LinearPhysics)

    def solve(
        self, y: Tensor, operator: Operator, prior: object, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        x = torch.empty(operator.image_shape(y.shape), dtype=y.dtype, device=y.device)
        levels = noise_std.tolist()
        for rows in self._groups(operator, generator.images, levels):
            sigma, several = levels[rows[0]], len({generator.images[k] for k in rows}) > 1
            part = operator.select(rows if several else rows[:1])
            physics = _as_theirs(part, x.shape)
            physics.noise_model = deepinv.physics.GaussianNoise(sigma)
            data = y[rows]
            if operator.is_pixel_mask:  # DDRM wants a mask of all channels
                count = physics.mask.shape[:1] or (1,)
                physics.mask = physics.mask.expand(*count, *y.shape[1:])
                if several and _find(self.name) is deepinv.sampling.DDRM:  # and takes just one
                    physics.mask = physics.mask.expand_as(data).flatten(0, 1)[None]
                    data = data.flatten(0, 1)[None]
            channels = x.shape[1]
            denoiser = _Adapted(prior, channels) if isinstance(prior, Denoiser) else None
            method = self._build(denoiser, max(sigma, SMALLEST_SIGMA), y.device)
            # deepinv draws from the global state; fork_rng gives it back as it was.
            with torch.random.fork_rng([y.device] if y.is_cuda else []), catch_warnings():
                simplefilter("ignore", DeprecationWarning)  # what deepinv says of itself
                seed_global(generator.generators[rows[0]].initial_seed(), y.device)
                found = self._run(method, data, physics)
            found = found[0] if isinstance(found, tuple) else found
            x[rows] = found.reshape(x[rows].shape).to(y.dtype)
        return x

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        raise NotImplementedError("a method of deepinv is run by `solve`")

    def _groups(
        self, operator: Operator, images: Sequence[int], levels: Sequence[float]
    ) -> list[list[int]]:
        """Rows of the batch that are restored at once.

        One image alone if the method does not sample (it may look at the whole batch, to stop
        say) or if each has an operator of its own that is not a mask.
        """
        same = operator.is_pixel_mask or operator.select([0]) is operator
        together = self.stochastic and same
        keys = list(zip([0] * len(images) if together else images, levels, strict=True))
        return [[k for k, other in enumerate(keys) if other == key] for key in dict.fromkeys(keys)]

    def _build(self, denoiser: nn.Module | None, sigma: float, device: torch.device) -> Callable:
        cls = _find(self.name)
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
                f"deepinv:{self.name} needs {', '.join(missing)}, which no task gives: "
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
        except OURS:
            raise
        except Exception as error:
            raise PeerError(f"deepinv:{self.name} failed: {_reason(error)}") from error


class _Adapted(deepinv.models.Denoiser):
    """A denoiser of ours as deepinv calls it; images may come as channels of one."""

    def __init__(self, prior: Denoiser, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.prior = [prior]  # in a list: not a submodule, so that nothing moves or copies it

    def forward(self, x: Tensor, sigma: float | Tensor, *_: Any, **__: Any) -> Tensor:
        # Some methods ask for sigma 0, where a denoiser has nothing to do.
        sigma = torch.as_tensor(sigma).to(x).flatten().clamp(min=1e-5)
        images = x.reshape(-1, self.channels, *x.shape[2:])
        return self.prior[0].denoise(images, sigma).reshape(x.shape)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _is_circular(operator: Operator) -> bool:
    return isinstance(operator, deepinv.physics.Blur) and operator.padding == "circular"


def _as_theirs(operator: Operator, shape: torch.Size) -> deepinv.physics.LinearPhysics:
    """An operator of one image as deepinv has it: a circular blur with its singular values."""
    if _is_circular(operator):
        filter_ = operator.filter
        return deepinv.physics.BlurFFT(tuple(shape[1:]), filter=filter_, device=filter_.device)
    theirs = copy.copy(operator)  # which still shares what it holds, and is to be changed
    theirs._buffers, theirs._modules = dict(operator._buffers), dict(operator._modules)
    return theirs


def _guided(fidelity: type) -> Callable[..., nn.Module]:
    """How to build deepinv's reverse diffusion with one of its guidance terms."""

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


def _samples(method: Callable) -> bool:
    """Whether a method draws samples."""
    return method in GUIDED.values() or method.__module__.startswith("deepinv.sampling")


def _find(name: str) -> Callable:
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
    """What follows from the task, of the arguments that the class takes."""
    taken = inspect.signature(cls).parameters
    samples = _samples(cls)
    prior = deepinv.optim.ScorePrior if samples else deepinv.optim.PnP
    given = {} if denoiser is None else {name: denoiser for name in DENOISERS}
    if given and not cls.__module__.startswith("deepinv.models"):
        given["prior"] = prior(denoiser)
    values = {
        **given,
        "data_fidelity": deepinv.optim.L2(sigma if samples and "prior" in taken else 1.0),
        "sigma": sigma,
        "sigma_denoiser": sigma,
        "dtype": torch.float32,
        "verbose": False,
        "device": device,
    }
    return {name: value for name, value in values.items() if name in taken}
