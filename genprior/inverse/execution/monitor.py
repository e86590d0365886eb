"""Monitoring of network evaluations: precision, counts and progress, checks for NaN."""

import copy
import functools
import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor

from genprior.core.devices import DTYPES
from genprior.core.errors import SettingError
from genprior.priors.base import Denoiser, Factor, Gaussian

Prior = TypeVar("Prior")
# Methods of other priors whose calls are counted.
MONITORED_METHODS = (
    "decode", "rest", "encode", "reconstruct", "log_prob", "denoise_latents", "translate",
)


def all_finite(x: Tensor) -> Tensor | bool:
    """Returns whether all values are finite, without synchronising the host with a GPU."""
    if x.device.type == "cpu" and math.isfinite(x.detach().sum().item()):  # the fastest test
        return True
    return x.isfinite().all()


class Monitor:
    """Runs a network in a given precision, counts its evaluations and checks for NaN.

    Arguments:
        dtype: Precision of the network: "float32", or autocast to "bfloat16" / "float16".
        progress: Called with (evaluations done, total evaluations), or None.
        total: Total number of evaluations.

    Raises:
        SettingError: The precision is unknown.
    """

    def __init__(
        self, dtype: str, progress: Callable[[int, int], object] | None, total: int
    ) -> None:
        if dtype not in DTYPES:
            raise SettingError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.dtype = DTYPES[dtype]
        self.progress, self.total, self.done = progress, total, 0
        self.images = 0
        self.evaluations: list[tuple[Tensor | bool, Tensor | bool]] = []

    def evaluate(
        self, network: Callable[..., Tensor], x: Tensor, *rest: object, count: int = 1
    ) -> Tensor:
        """Evaluates a network, and counts it as `count` evaluations."""
        low, kind = self.dtype != torch.float32, x.device.type
        same = not low and not torch.is_autocast_enabled(kind)  # entering autocast takes 30 us
        dtype = self.dtype if low else None
        with nullcontext() if same else torch.autocast(kind, dtype, enabled=low):
            value = network(x, *rest).to(x.dtype)
        self.evaluations.append((all_finite(x), all_finite(value)))
        self.done += count
        self.images += len(x)
        return value

    def show(self) -> None:
        """Calls `progress`."""
        if self.progress:
            self.progress(min(self.done, self.total), self.total)

    @property
    def counts(self) -> tuple[int, int]:
        """Evaluations done, and their total."""
        return self.done, self.total

    def rewind(self, done: int, total: int) -> None:
        """Resets the counts to earlier ones, before the evaluations after them are repeated."""
        self.done, self.total, self.evaluations = done, total, []

    def check(self) -> None:
        """Checks the evaluations since the last check for NaN, and clears them.

        Raises:
            FloatingPointError: The network received or returned NaN or infinite numbers.
        """
        seen, self.evaluations = self.evaluations, []
        for number, (given, got) in enumerate(seen, self.done - len(seen) + 1):
            if not (given and got):
                low = self.dtype != torch.float32
                raise FloatingPointError(
                    f"the network {'gave' if given else 'was given'} NaN or infinite numbers in "
                    f"evaluation {number} of {self.total}: use "
                    f"{'float32' if low else 'another solver or prior'}"
                )


class MonitoredDenoiser(Monitor, Denoiser):
    """A denoiser with monitoring; arguments: the denoiser, then those of `Monitor`."""

    def __init__(self, prior: Denoiser, *settings: object) -> None:
        super().__init__(*settings)
        self.prior, self.batch = prior, 2**31
        self.receptive_radius, self.stride = prior.receptive_radius, prior.stride
        self.is_inpainter, self.symmetries = prior.is_inpainter, prior.symmetries
        self.is_unrolled = prior.is_unrolled

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self._monitored(self.prior.denoise, x, sigma)

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        return self._monitored(self.prior.denoise_masked, x, sigma, unknown)

    def denoise_unrolled(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self._monitored(self.prior.denoise_unrolled, x, sigma)

    def _monitored(self, network: Callable[..., Tensor], *arguments: object) -> Tensor:
        x, *_ = arguments
        count = max(1, len(x) // self.batch)  # a call with particles counts several times
        x_hat = self.evaluate(network, *arguments, count=count)
        if x_hat.shape != x.shape:
            raise TypeError(
                f"{type(self.prior).__name__} must return images of the shape that it is given, "
                f"{tuple(x.shape)}, but it returned {tuple(x_hat.shape)}"
            )
        if x_hat.device.type == "cpu":  # on other devices each check would synchronise the host
            self.check()
        self.show()
        return x_hat


class MonitoredGaussian(MonitoredDenoiser, Gaussian):
    """A Gaussian prior with a monitored denoiser; samplers use the prior in closed form.

    Mean and covariance remain those of whole images even if the denoiser runs in tiles.
    """

    def __init__(self, prior: Gaussian, *settings: object) -> None:
        super().__init__(prior, *settings)
        self.law = prior

    @property
    def size(self) -> tuple[int, int] | None:
        return self.law.size

    def mean(self, image_shape: torch.Size) -> Tensor:
        return self.law.mean(image_shape)

    def cov(self, v: Tensor) -> Tensor:
        return self.law.cov(v)

    def factor(self, image_shape: torch.Size, like: Tensor) -> Factor:
        return self.law.factor(image_shape, like)

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return self.law.latent_shape(image_shape)

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        return self.law.decode(z, image_shape)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.law.log_prob(x)


def monitored_denoiser(prior: Denoiser, *settings: object) -> MonitoredDenoiser:
    """Returns a denoiser with monitoring, Gaussian if the prior is; see `MonitoredDenoiser`."""
    return (MonitoredGaussian if isinstance(prior, Gaussian) else MonitoredDenoiser)(
        prior, *settings
    )


def monitored(prior: Prior, monitor: Monitor, images: int) -> Prior:
    """Returns a decoder or density with monitored evaluations that shares the prior's weights.

    NaN is recorded without an error: an optimiser may reject a trial point with NaN and continue.

    Arguments:
        prior: The prior.
        monitor: The monitor that counts the evaluations.
        images: Number of images per evaluation. A call with a multiple of it, for example from
            several starts, counts as that many evaluations.
    """
    kind = type(prior)

    def counted(name: str) -> Callable[..., Tensor]:
        def method(self: Any, x: Tensor, *rest: object, **named: object) -> Tensor:
            original = functools.partial(getattr(kind, name), self, **named)
            if self.busy:  # one method of a prior calls another one
                return original(x, *rest)
            self.busy = True
            try:
                value = monitor.evaluate(original, x, *rest, count=max(1, len(x) // images))
            finally:
                self.busy = False
            monitor.show()
            return value

        return method

    other = copy.copy(prior)
    methods = {name: counted(name) for name in MONITORED_METHODS if hasattr(kind, name)}
    for key, value in ("__class__", type(kind.__name__, (kind,), methods)), ("busy", False):
        object.__setattr__(other, key, value)  # the class may be a frozen dataclass
    return other
