"""Where and how a network runs: device, precision, progress."""

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from genprior.core.devices import DTYPES
from genprior.core.errors import SettingError
from genprior.priors.base import Denoiser, Factor, Gaussian

Prior = TypeVar("Prior")
# What a search evaluates of a prior.
SEARCHED = ("decode", "rest", "encode", "reconstruct", "log_prob")


class Monitor:
    """Runs a network in a given precision, counts its evaluations and looks for NaN.

    Arguments:
        dtype: Precision of the network: "float32", or autocast to "bfloat16" / "float16".
        progress: Called with (evaluations done, in all), or None.
        total: Evaluations in all.

    Raises:
        SettingError: A precision that does not exist.
    """

    def __init__(
        self, dtype: str, progress: Callable[[int, int], object] | None, total: int
    ) -> None:
        if dtype not in DTYPES:
            raise SettingError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.dtype = DTYPES[dtype]
        self.progress, self.total, self.done = progress, total, 0
        self.images = 0
        self.evaluations: list[tuple[Tensor, Tensor]] = []

    def evaluate(
        self, network: Callable[..., Tensor], x: Tensor, *rest: object, count: int = 1
    ) -> Tensor:
        """The value of a network, noted as `count` evaluations."""
        low = self.dtype != torch.float32
        with torch.autocast(x.device.type, self.dtype if low else None, enabled=low):
            value = network(x, *rest).to(x.dtype)
        self.evaluations.append((x.isfinite().all(), value.isfinite().all()))
        self.done += count
        self.images += len(x)
        return value

    def show(self) -> None:
        """Calls `progress`."""
        if self.progress:
            self.progress(min(self.done, self.total), self.total)

    @property
    def counts(self) -> tuple[int, int]:
        """Evaluations done, and in all."""
        return self.done, self.total

    def rewind(self, done: int, total: int) -> None:
        """Goes back to earlier counts, since the evaluations after them are made again."""
        self.done, self.total, self.evaluations = done, total, []

    def check(self) -> None:
        """Looks at the evaluations since the last look, and forgets them.

        Raises:
            FloatingPointError: The network was given or gave NaN or infinite numbers.
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
    """A denoiser that is watched; arguments as of `Monitor`, after the denoiser."""

    def __init__(self, prior: Denoiser, *settings: object) -> None:
        super().__init__(*settings)
        self.prior, self.batch = prior, 2**31
        self.receptive_radius, self.stride = prior.receptive_radius, prior.stride
        self.is_inpainter, self.symmetries = prior.is_inpainter, prior.symmetries

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self._watched(self.prior.denoise, x, sigma)

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        return self._watched(self.prior.denoise_masked, x, sigma, unknown)

    def _watched(self, network: Callable[..., Tensor], *arguments: object) -> Tensor:
        x, *_ = arguments
        count = max(1, len(x) // self.batch)  # a crowd of particles for each image
        x_hat = self.evaluate(network, *arguments, count=count)
        if x_hat.shape != x.shape:
            raise TypeError(
                f"{type(self.prior).__name__} must denoise images of shape {tuple(x.shape)} to "
                f"images of that shape, and gave {tuple(x_hat.shape)}"
            )
        if x_hat.device.type == "cpu":  # elsewhere a look would stop the host at every step
            self.check()
        self.show()
        return x_hat


class MonitoredGaussian(MonitoredDenoiser, Gaussian):
    """A Gaussian law whose denoiser is watched: samplers draw from the law in closed form.

    The law stays that of whole images where the denoiser is shown tiles.
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
    """A denoiser watched, and Gaussian if the prior is; arguments as of `MonitoredDenoiser`."""
    return (MonitoredGaussian if isinstance(prior, Gaussian) else MonitoredDenoiser)(
        prior, *settings
    )


def monitored(prior: Prior, monitor: Monitor, images: int) -> Prior:
    """A decoder or density whose evaluations are watched, sharing its weights.

    A search may try what gives NaN, and turn back: that is only noted.

    Arguments:
        prior: The prior.
        monitor: Where they are counted.
        images: How many images one evaluation is of; a network that is shown more of them, say
            from several starts, is evaluated as often.
    """
    kind = type(prior)

    def watched(name: str) -> Callable[..., Tensor]:
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
    methods = {name: watched(name) for name in SEARCHED if hasattr(kind, name)}
    for key, value in ("__class__", type(kind.__name__, (kind,), methods)), ("busy", False):
        object.__setattr__(other, key, value)  # which may be frozen
    return other
