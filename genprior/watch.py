"""Where and how a denoiser runs: device, precision, progress."""

from collections.abc import Callable

import torch
from torch import Tensor

from genprior.errors import SettingError
from genprior.priors.base import Denoiser, Factor, Gaussian

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Watched(Denoiser):
    """A denoiser that runs in a given precision, counts evaluations and looks for NaN.

    Arguments:
        prior: The denoiser.
        dtype: Precision of the network: "float32", or autocast to "bfloat16" / "float16".
        progress: Called with (evaluations done, in all), or None.
        total: Evaluations in all.

    Raises:
        SettingError: A precision that does not exist.
    """

    def __init__(
        self,
        prior: Denoiser,
        dtype: str,
        progress: Callable[[int, int], object] | None,
        total: int,
    ) -> None:
        if dtype not in DTYPES:
            raise SettingError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.prior, self.dtype = prior, DTYPES[dtype]
        self.reach, self.stride = prior.reach, prior.stride
        self.progress, self.total, self.done = progress, total, 0
        self.evaluations: list[tuple[Tensor, Tensor]] = []

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        low = self.dtype != torch.float32
        with torch.autocast(x.device.type, self.dtype if low else None, enabled=low):
            x_hat = self.prior.denoise(x, sigma).to(x.dtype)
        self.evaluations.append((x.isfinite().all(), x_hat.isfinite().all()))
        self.done += 1
        if x.device.type == "cpu":  # elsewhere a look would stop the host at every step
            self.check()
        if self.progress:
            self.progress(self.done, self.total)
        return x_hat

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


class WatchedGaussian(Watched, Gaussian):
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


def watch(
    prior: Denoiser, dtype: str, progress: Callable[[int, int], object] | None, total: int
) -> Watched:
    """A denoiser watched, and Gaussian if the prior is; arguments as of `Watched`."""
    kind = WatchedGaussian if isinstance(prior, Gaussian) else Watched
    return kind(prior, dtype, progress, total)


def pick_device(device: str, near: Tensor) -> torch.device:
    """The device to compute on.

    Arguments:
        device: "auto", "cpu", "cuda", "mps" or "cuda:1".
        near: "auto" stays where this tensor is if that is an accelerator, else takes CUDA
            where there is one, else the CPU.

    Raises:
        SettingError: The device does not exist here.
    """
    if device == "auto":
        if near.device.type != "cpu":
            return near.device
        device = "cuda" if torch.cuda.is_available() else "cpu"
    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps:0")
    full = device if ":" in device or device == "cpu" else f"{device}:0"
    if full not in here:
        raise SettingError(
            f"device {device!r} is not available here: choose auto or {', '.join(here)}"
        )
    return torch.device(full)
