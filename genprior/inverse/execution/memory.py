"""How a prior is shown an image: whole, in tiles, or without memory of its activations.

Images of more pixels than the memory is for are shown in tiles from the start. What keeps much
for its gradients counts a pixel several times.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genprior.core.errors import SettingError
from genprior.inverse.base import Solver
from genprior.inverse.execution.tiled_decoder import TILED, activation_bytes
from genprior.inverse.execution.tiled_denoiser import SMALLEST, Tiled
from genprior.priors.base import ActivationCheckpointing, Denoiser

# Side of the tiles, for images of more pixels than that.
TILES = {"cpu": (1024, 2**21), "mps": (1024, 2**21), "cuda": (2048, 2**24)}
# Bytes that the network that ships takes: 1090 were measured.
PER_PIXEL = 1000
# What a pixel counts of which a solver keeps the gradient: 6350 bytes were measured, of which
# half is granted, for to compute them again takes long.
KEPT = 3.0
# Tiles that are narrower, for the sake of dear pixels, would be mostly overlap.
NARROWEST = 256

Tile = int | Literal["auto", "off"]


class MemoryPolicy:
    """A prior, for images of any shape.

    Arguments:
        prior: The prior.
        method: The solver that it is for.
        tile: See `Executor`.

    Attributes:
        cuts: Tiles are possible.

    Raises:
        SettingError: Tiles were asked for that cannot be.
    """

    def __init__(self, prior: object, method: Solver, tile: Tile) -> None:
        self.prior, self.method, self.asked = prior, method, tile
        able = isinstance(prior, method.needs)
        self.denoises = able and method.needs is Denoiser
        searched = able and method.needs in TILED
        reaches = getattr(prior, "reach", None) is not None
        self.cuts = self.denoises or (searched and reaches and method.batch_multiplier > 0)
        gradients = method.batch_multiplier > 0 and searched
        self.can_checkpoint = gradients and isinstance(prior, ActivationCheckpointing)
        self.checkpointed: ActivationCheckpointing | None = None
        self.largest: int | None = None
        self.activation_bytes: float | None = None
        if isinstance(tile, int) and not self.cuts:
            raise SettingError(
                f"tiles are for priors of images of any size that say how far they reach; "
                f"{type(method).__name__} takes images as a whole here: leave tile at 'auto' or "
                f"choose another solver or prior"
            )
        least = max(SMALLEST, 4 * prior.stride) if self.cuts else SMALLEST
        if tile not in ("auto", "off") and not (isinstance(tile, int) and tile >= least):
            raise SettingError(
                f"tile must be 'auto', 'off' or a side of at least {least} pixels, got {tile!r}"
            )
        self.least = least

    def fit(self, shape: torch.Size, like: Tensor) -> tuple[object, int | None]:
        """The prior for images of a shape, and the side of its tiles, None for whole images.

        Arguments:
            shape: Shape of the images, (B, C, H, W).
            like: A tensor on their device.
        """
        if not (self.cuts or self.can_checkpoint):
            return self.prior, None
        side, most = TILES.get(like.device.type, TILES["cpu"])
        if (
            self.asked == "auto"
            and self.can_checkpoint
            and self._pixels_at_once(shape, like) > most
        ):
            self._checkpoint_activations()
        prior, pixels = self.checkpointed or self.prior, self._pixels_at_once(shape, like)
        if self.asked != "auto":
            side = self.asked if isinstance(self.asked, int) else None
        elif pixels <= most or not self.cuts or prior.receptive_radius is None:
            side = None
        else:
            narrow = int(side / self._bytes_per_pixel(shape, like) ** 0.5)
            side = min(side, max(narrow, NARROWEST, self.least))
        side = min(filter(None, (side, self.largest)), default=None)
        if side is None:
            return prior, None
        if self.denoises:
            return (Tiled(prior, side), side) if max(shape[-2:]) > side else (prior, None)
        # Small images too, of which there may be too many at once.
        return TILED[self.method.needs](prior, side), side if max(shape[-2:]) > side else None

    def reduce(self, shape: torch.Size) -> str:
        """Makes one image take less memory than the last time, and says how.

        Raises:
            MemoryError: Nothing is left to be done.
        """
        if self.can_checkpoint and not self.checkpointed and self.asked != "off":
            self._checkpoint_activations()
            return "activations are computed again"
        longest = max(shape[-2:])
        side = -(-min(self.largest or longest, longest) // 2)
        if not self.cuts:
            raise MemoryError("make it smaller, or choose a solver that can be shown tiles")
        if self.asked == "off" or side < self.least:
            raise MemoryError("allow tiles, or make it smaller")
        self.largest = side
        return f"tiles of {side} pixels"

    def fits(self, shape: torch.Size, like: Tensor) -> bool:
        """Whether there is the memory that images of a shape take."""
        try:
            np.empty(int(PER_PIXEL * max(self._pixels_at_once(shape, like), shape[0])), np.uint8)
        except MemoryError:
            return False
        return True

    def _checkpoint_activations(self) -> None:
        self.checkpointed = self.checkpointed or self.prior.with_checkpointing()

    def _pixels_at_once(self, shape: torch.Size, like: Tensor) -> float:
        """Pixels that are shown at once; of a denoiser those for an image."""
        images = 1 if self.denoises else shape[0] * self.method.batch_multiplier
        return images * shape[-2:].numel() * self._bytes_per_pixel(shape, like)

    def _bytes_per_pixel(self, shape: torch.Size, like: Tensor) -> float:
        """Bytes of a pixel, in units of PER_PIXEL; of a denoiser for all chains of an image."""
        if self.denoises:
            return self.method.batch_multiplier * (KEPT if self.method.jacobian_products else 1.0)
        if self.checkpointed or not (self.cuts or self.can_checkpoint):
            return 1.0
        if self.activation_bytes is None:
            self.activation_bytes = activation_bytes(self.prior, shape[1], like) / PER_PIXEL
        return max(self.activation_bytes, 1.0)
