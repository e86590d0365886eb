"""Runs a solver in no more memory than there is: windows, tiles, smaller batches.

Windows around small holes and tiles of large images are taken from the start. Where memory
runs out nevertheless, the batch is halved, then the tiles are, and that part of the work is
done again from its seed: nothing of the failed attempt is used.
"""

import gc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genprior.core.random_streams import WINDOW, Noise, partner
from genprior.inverse.base import Solver
from genprior.inverse.execution.hole_windows import Window, cut, windows
from genprior.inverse.execution.memory import KEPT, MemoryPolicy, Tile
from genprior.inverse.execution.monitor import Monitor, monitored, monitored_denoiser
from genprior.operators.base import Operator
from genprior.priors.base import Decoder, Density, Gaussian

OUT_OF_MEMORY = (MemoryError, torch.OutOfMemoryError)
# As cuFFT, cuBLAS, cuSOLVER and pinned memory say it.
LIBRARIES_OUT_OF_MEMORY = ("out of memory", "alloc_failed")
# Pixels from which windows are worth more than batches are.
WINDOWS = {"cpu": 0, "mps": 2**18, "cuda": 2**20}
# The rounding of a convolution depends on the batch, and a CPU gains nothing from batches.
CHUNKS = {"cpu": 1, "mps": 2**21, "cuda": 2**24}

Chain = tuple[int, int]


class Executor:
    """A solver that is spared what does not matter, and gets by with the memory there is.

    Arguments:
        method: The solver.
        prior: The prior.
        seed: Seed of the noise.
        numbers: Number of every image, which with the seed tells its noise.
        tile: Side of the tiles in pixels; "auto" for tiles of large images; "off" for whole
            images, without windows either.
        dtype: Precision of the network.
        progress: Called with (evaluations done, in all), or None.
        parts: How often `solve` will be called.
        antithetic: Samples that are partners have noise of opposite signs.

    Attributes:
        evaluations: Of the prior's network for one image, 0 if that is not known before.
        tile: Side of the tiles; None if no image was cut up.
        windows: The windows of every image that was restored in windows, by its place in
            the batch.
        reduced: What was made smaller because memory ran out, a sentence each.

    Raises:
        SettingError: Tiles or a precision were asked for that cannot be.
    """

    def __init__(
        self,
        method: Solver,
        prior: object,
        seed: int,
        numbers: Sequence[int],
        tile: Tile,
        dtype: str,
        progress: Callable[[int, int], object] | None,
        parts: int,
        antithetic: bool = False,
    ) -> None:
        self.method, self.prior, self.asked = method, prior, tile
        self.antithetic = antithetic
        self.policy = MemoryPolicy(prior, method, tile)
        self.seed, self.numbers = seed, numbers
        self.tile: int | None = None
        self.windows: dict[int, list[Window]] = {}
        self.reduced: list[str] = []
        self.most: int | None = None
        self.evaluations = method.evaluations(prior)
        settings = dtype, progress, self.evaluations * parts
        self.monitor = (
            monitored_denoiser(prior, *settings) if self.policy.denoises else Monitor(*settings)
        )

    def solve(
        self, y: Tensor, operator: Operator, sigma: Tensor, chains: list[Chain]
    ) -> Tensor:
        """Restores a batch of measurements, as a `Solver` does.

        Arguments:
            y: Measurements, shape (B, ...).
            operator: How they were made.
            sigma: Noise levels, shape (B,).
            chains: Which image, and which sample of it, every measurement is for.

        Raises:
            MemoryError: There is not enough even for one image in the smallest tiles.
            FloatingPointError: The network was given or gave NaN or infinite numbers.
        """
        alike = _alike(operator, len(y))
        if len(alike) > 1:
            return self._in_parts(y, operator, sigma, chains, alike)
        found = self._windows(y, operator, sigma)
        if len(y) > 1 and (found or (self.most and len(y) > self.most)):
            parts = chunks(list(range(len(y))), 1 if found else self.most)
            return self._in_parts(y, operator, sigma, chains, parts)
        counts = self.monitor.counts
        try:
            if found:
                return self._in_windows(y, operator, sigma, chains[0], found)
            return self._whole(y, operator, sigma, chains)
        except OUT_OF_MEMORY as error:
            reason = str(error)
        except RuntimeError as error:
            if not self._lacked_memory(error, operator.image_shape(y.shape), y):
                raise
            reason = "an allocation failed"
        # Outside of the handler, since the traceback holds on to all that was computed.
        self._reduce(len(y), operator.image_shape(y.shape), reason)
        self.monitor.rewind(*counts)
        return self.solve(y, operator, sigma, chains)

    def _lacked_memory(self, error: RuntimeError, shape: torch.Size, like: Tensor) -> bool:
        """Whether an allocation failed for which torch has no type of its own."""
        if like.device.type == "cpu":  # numpy has one
            return not self.policy.fits(shape, like)
        return any(words in str(error).lower() for words in LIBRARIES_OUT_OF_MEMORY)

    def _windows(self, y: Tensor, operator: Operator, sigma: Tensor) -> list[Window]:
        """Windows of the first image of a batch that has any."""
        pixels = operator.image_shape(y.shape)[-2:].numel()
        large = pixels >= WINDOWS.get(y.device.type, 0)
        if (
            not (self.policy.cuts and self.method.supports_windows and large)
            or self.asked == "off"
        ):
            return []
        known = operator.mask_unmeasured(torch.ones_like(y))
        each = (
            windows(self.prior, operator.select([i]), known[i : i + 1], sigma[i])
            for i in range(len(y))
        )
        return next(filter(None, each), [])

    def _in_parts(
        self, y: Tensor, operator: Operator, sigma: Tensor, chains: list[Chain],
        parts: list[list[int]],
    ) -> Tensor:
        self._expect(len(parts))
        x = torch.cat([
            self.solve(y[part], operator.select(part), sigma[part], [chains[i] for i in part])
            for part in parts
        ])
        order = sum(parts, [])
        return x if order == sorted(order) else x[[order.index(i) for i in range(len(y))]]

    def _in_windows(
        self, y: Tensor, operator: Operator, sigma: Tensor, chain: Chain, found: list[Window]
    ) -> Tensor:
        self._expect(len(found))
        x = operator.A_adjoint(y)
        for number, window in enumerate(found, WINDOW):
            part = (..., *cut(window))
            local = operator.crop(*cut(window))
            x[part] = self._whole(y[part], local, sigma, [(*chain, number)])
        self.windows[chain[0]] = found
        return x

    def _whole(
        self, y: Tensor, operator: Operator, sigma: Tensor, chains: list[tuple[int, ...]]
    ) -> Tensor:
        noise = self._noise(chains)
        prior, side = self.policy.fit(operator.image_shape(y.shape), y)
        self.tile = side or self.tile
        if self.policy.denoises:
            self.monitor.prior, self.monitor.batch = prior, len(y)
            monitored_prior = self.monitor
        elif isinstance(prior, Decoder | Density) and self.method.needs is not Gaussian:
            monitored_prior = monitored(prior, self.monitor, len(y))
        else:  # nothing is evaluated
            return self.method(y, operator, prior, sigma, noise)
        x = self.method(y, operator, monitored_prior, sigma, noise)
        if self.policy.denoises or not x.isfinite().all():
            self.monitor.check()
        self.monitor.rewind(*self.monitor.counts)
        return x

    def _noise(self, chains: list[tuple[int, ...]]) -> Noise:
        partners = [partner(k) if self.antithetic else None for _, k, *_ in chains]
        keys = [
            (self.numbers[i], k if earlier is None else earlier, *rest)
            for (i, k, *rest), earlier in zip(chains, partners, strict=True)
        ]
        return Noise(self.seed, keys, [earlier is not None for earlier in partners])

    def _expect(self, times: int) -> None:
        self.monitor.total += self.evaluations * (times - 1)

    def _reduce(self, count: int, shape: torch.Size, reason: str) -> None:
        """Makes the next attempt smaller."""
        gc.collect()  # what the last one left is in cycles, by way of its traceback
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if count > 1:
            self.most = -(-count // 2)
            self.reduced.append(f"memory ran out: {self.most} images at a time")
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
    """How many images of a shape are restored at once, by a method that may take much for one."""
    pixels = shape[-1] * shape[-2]
    if method is not None:
        pixels *= max(1, method.batch_multiplier) * (KEPT if method.jacobian_products else 1)
    return max(1, int(CHUNKS.get(device.type, 1) // pixels))


def chunks(items: list, size: int) -> list[list]:
    """Items in groups of `size`."""
    return [items[k : k + size] for k in range(0, len(items), size)]


def _alike(operator: Operator, count: int) -> list[list[int]]:
    """The images of a batch in groups that are solved by the same means.

    Where some images have whole pixels only and others have not, an image must not depend on
    which of them it is with.
    """
    if operator.is_mask or not operator.is_pixel_mask:
        return [list(range(count))]
    whole = [operator.select([i]).is_mask for i in range(count)]
    groups = [[i for i in range(count) if whole[i] is kind] for kind in (True, False)]
    return [group for group in groups if group]
