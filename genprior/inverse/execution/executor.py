"""Memory-limited execution of a solver: windows, tiles, smaller batches.

Windows around small holes and tiles of large images are used from the start. If memory runs out
nevertheless, the batch is halved, then activations are recomputed, then the tiles are halved. That
part of the batch is restarted from its seed: nothing of the failed attempt is used.
"""

import gc
from collections.abc import Sequence

import torch
from torch import Tensor

from genprior.core.random_streams import WINDOW, Noise, partner
from genprior.inverse.base import Solver
from genprior.inverse.execution.hole_windows import Window, cut, windows
from genprior.inverse.execution.memory import GRADIENT_COST, MemoryPolicy, Tile
from genprior.inverse.execution.monitor import Monitor, monitored, monitored_denoiser
from genprior.operators.base import Operator
from genprior.priors.base import (
    ConditionalGenerator,
    Decoder,
    Density,
    Gaussian,
    LatentDenoiser,
)

OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
# Parts of the error messages of cuFFT, cuBLAS, cuSOLVER and pinned memory.
LIBRARIES_OUT_OF_MEMORY = ("out of memory", "alloc_failed")
# From this number of pixels on, windows save more time than batches.
WINDOWS = {"cpu": 0, "mps": 2**18, "cuda": 2**20}
# Pixels per batch. More make no network faster on a CPU, and leave its cache.
CHUNKS = {"cpu": 2**16, "mps": 2**21, "cuda": 2**24}
# Whether a batch holds several images, or only samples of one. On a CPU the result of an image
# does not depend on the other images, bit for bit, and results appear one by one.
MIXED = {"cpu": False, "mps": True, "cuda": True}

# Priors without a denoiser of images whose evaluations are counted.
COUNTED = (Decoder, Density, LatentDenoiser, ConditionalGenerator)

SampleIndex = tuple[int, int]


class Executor:
    """Execution of a solver within the available memory, for batches of measurements.

    Arguments:
        method: The solver.
        prior: The prior.
        seed: Seed of the noise.
        numbers: Index of every image, which together with the seed determines its noise.
        tile: Side of the tiles in pixels; "auto" for tiles of large images; "off" for whole
            images, without windows either.
        dtype: Precision of the network.
        parts: Number of calls of `solve`, for the total of the progress.
        antithetic: Whether partner samples have noise of opposite signs.
        operator: The operator, if the number of evaluations depends on it.
        passes: Number of calls of `solve` for each part.

    Attributes:
        evaluations: Evaluations of the prior's network per image, 0 if unknown in advance.
        tile: Side of the tiles in pixels; None if no image was tiled.
        windows: The windows of every image that was restored in windows, by its index in
            the batch.
        effective_sizes: The effective sample size of every run of particles with weights, by
            (image, sample); the least of its windows.
        reduced: What was reduced because memory ran out, one sentence each.

    Raises:
        SettingError: The tiles or the precision are not supported.
    """

    def __init__(
        self,
        method: Solver,
        prior: object,
        seed: int,
        numbers: Sequence[int],
        tile: Tile,
        dtype: str,
        parts: int,
        antithetic: bool = False,
        operator: Operator | None = None,
        passes: int = 1,
    ) -> None:
        self.method, self.prior, self.requested_tile = method, prior, tile
        self.antithetic = antithetic
        self.policy = MemoryPolicy(prior, method, tile)
        self.seed, self.numbers = seed, numbers
        self.tile: int | None = None
        self.windows: dict[int, list[Window]] = {}
        self.effective_sizes: dict[SampleIndex, Tensor] = {}
        self.reduced: list[str] = []
        self.batch_limit: int | None = None
        self.evaluations = passes * method.evaluations(prior, operator)
        settings = dtype, None, self.evaluations * parts
        self.monitor = (
            monitored_denoiser(prior, *settings)
            if self.policy.uses_denoiser
            else Monitor(*settings)
        )

    def solve(
        self, y: Tensor, operator: Operator, sigma: Tensor, samples: list[SampleIndex]
    ) -> Tensor:
        """Restores a batch of measurements, as a `Solver` does.

        Arguments:
            y: Measurements, shape (B, ...).
            operator: The operator.
            sigma: Noise levels, shape (B,).
            samples: Indices (image, sample of that image) of every measurement.

        Raises:
            MemoryError: Memory does not suffice for one image in the smallest tiles.
            FloatingPointError: The network received or returned NaN or infinite numbers.
        """
        groups = _mask_groups(operator, len(y))
        if len(groups) > 1:
            return self._in_parts(y, operator, sigma, samples, groups)
        image_windows = self._windows(y, operator, sigma)
        if len(y) > 1 and (image_windows or (self.batch_limit and len(y) > self.batch_limit)):
            parts = chunks(list(range(len(y))), 1 if image_windows else self.batch_limit)
            return self._in_parts(y, operator, sigma, samples, parts)
        counts = self.monitor.counts
        try:
            if image_windows:
                return self._in_windows(y, operator, sigma, samples[0], image_windows)
            return self._whole(y, operator, sigma, samples)
        except OUT_OF_MEMORY as error:
            reason = str(error)
        except RuntimeError as error:
            if not self._lacked_memory(error, operator.image_shape(y.shape), y):
                raise
            reason = "an allocation failed"
        # Outside of the handler, since the traceback keeps all computed tensors alive.
        self._reduce(len(y), operator.image_shape(y.shape), reason)
        self.monitor.rewind(*counts)
        return self.solve(y, operator, sigma, samples)

    def _lacked_memory(self, error: RuntimeError, shape: torch.Size, like: Tensor) -> bool:
        """Whether a RuntimeError without a type of its own was caused by a failed allocation."""
        if like.device.type == "cpu":  # torch raises a plain RuntimeError: try with numpy
            return not self.policy.fits(shape, like)
        return any(words in str(error).lower() for words in LIBRARIES_OUT_OF_MEMORY)

    def _windows(self, y: Tensor, operator: Operator, sigma: Tensor) -> list[Window]:
        """Returns the windows of the first image of a batch that has any."""
        pixels = operator.image_shape(y.shape)[-2:].numel()
        large = pixels >= WINDOWS.get(y.device.type, 0)
        if (
            not (self.policy.can_tile and self.method.supports_windows and large)
            or self.requested_tile == "off"
            or bool((sigma > 0).all())  # windows are for data without noise
        ):
            return []
        known = operator.mask_unmeasured(torch.ones_like(y))
        candidates = (
            windows(self.prior, operator.select([i]), known[i : i + 1], sigma[i])
            for i in range(len(y))
        )
        return next(filter(None, candidates), [])

    def _in_parts(
        self, y: Tensor, operator: Operator, sigma: Tensor, samples: list[SampleIndex],
        parts: list[list[int]],
    ) -> Tensor:
        self._add_evaluations(len(parts))
        x = torch.cat([
            self.solve(y[part], operator.select(part), sigma[part], [samples[i] for i in part])
            for part in parts
        ])
        order = sum(parts, [])
        return x if order == sorted(order) else x[[order.index(i) for i in range(len(y))]]

    def _in_windows(
        self, y: Tensor, operator: Operator, sigma: Tensor, sample: SampleIndex,
        image_windows: list[Window],
    ) -> Tensor:
        self._add_evaluations(len(image_windows))
        x = operator.A_adjoint(y)
        for number, window in enumerate(image_windows, WINDOW):
            part = (..., *cut(window))
            local = operator.crop(*cut(window))
            x[part] = self._whole(y[part], local, sigma, [(*sample, number)])
        self.windows[sample[0]] = image_windows
        return x

    def _whole(
        self, y: Tensor, operator: Operator, sigma: Tensor, samples: list[tuple[int, ...]]
    ) -> Tensor:
        noise = self._noise(samples)
        prior, side = self.policy.fit(operator.image_shape(y.shape), y)
        self.tile = side or self.tile
        if self.policy.uses_denoiser:
            self.monitor.prior, self.monitor.batch = prior, len(y)
            monitored_prior = self.monitor
        elif isinstance(prior, COUNTED) and self.method.needs is not Gaussian:
            monitored_prior = monitored(prior, self.monitor, len(y))
        else:  # no network is evaluated
            return self.method(y, operator, prior, sigma, noise)
        x, sizes = self.method.run(y, operator, monitored_prior, sigma, noise)
        for (i, k, *_), size in zip(samples, () if sizes is None else sizes, strict=False):
            self.effective_sizes[i, k] = min(size, self.effective_sizes.get((i, k), size))
        if self.policy.uses_denoiser or not x.isfinite().all():
            self.monitor.check()
        self.monitor.rewind(*self.monitor.counts)
        return x

    def _noise(self, samples: list[tuple[int, ...]]) -> Noise:
        partners = [partner(k) if self.antithetic else None for _, k, *_ in samples]
        keys = [
            (self.numbers[i], k if earlier is None else earlier, *rest)
            for (i, k, *rest), earlier in zip(samples, partners, strict=True)
        ]
        return Noise(self.seed, keys, [earlier is not None for earlier in partners])

    def _add_evaluations(self, times: int) -> None:
        self.monitor.total += self.evaluations * (times - 1)

    def _reduce(self, count: int, shape: torch.Size, reason: str) -> None:
        """Reduces the memory of the next attempt."""
        gc.collect()  # tensors of the failed attempt are in reference cycles through its traceback
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if count > 1:
            self.batch_limit = -(-count // 2)
            self.reduced.append(f"memory ran out: {self.batch_limit} images at a time")
            return
        try:
            how = self.policy.reduce(shape)
        except MemoryError as error:
            raise MemoryError(
                f"there is not enough memory for an image of {shape[-1]} x {shape[-2]} pixels "
                f"({reason.partition('.')[0]}): {error}"
            ) from None
        self.reduced.append(f"memory ran out: {how}")


def chunk_size(
    shape: Sequence[int], device: torch.device, method: Solver | None = None
) -> int:
    """Returns the batch size for images of a shape; a method may need more memory per image."""
    pixels = shape[-1] * shape[-2]
    if method is not None:
        pixels *= max(1, method.batch_multiplier) * (
            GRADIENT_COST if method.jacobian_products else 1
        )
    return max(1, int(CHUNKS.get(device.type, 1) // pixels))


def chunks(items: list, size: int) -> list[list]:
    """Splits items into groups of `size`."""
    return [items[k : k + size] for k in range(0, len(items), size)]


def _mask_groups(operator: Operator, count: int) -> list[list[int]]:
    """Splits a batch into groups of indices whose masks are of the same kind.

    A mask may be the same in all channels (`is_mask`) or not, and solvers treat the two kinds
    differently. The result of an image must not depend on the other images of its batch.
    """
    if operator.is_mask or not operator.is_pixel_mask:
        return [list(range(count))]
    whole = [operator.select([i]).is_mask for i in range(count)]
    groups = [[i for i in range(count) if whole[i] is kind] for kind in (True, False)]
    return [group for group in groups if group]
