"""Memory policy of a prior: whole images, tiles, or activation checkpointing.

Images with more pixels than a limit per device are tiled from the start. A prior or solver that
stores activations for gradients counts a pixel several times.
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

# Per device: side of the tiles, and the number of pixels above which images are tiled.
TILES = {"cpu": (1024, 2**21), "mps": (1024, 2**21), "cuda": (2048, 2**24)}
# Bytes per pixel of the shipped network; 1090 were measured.
BYTES_PER_PIXEL = 1000
# Memory per pixel of a solver with Jacobian products, relative to one without. 6350 bytes were
# measured; only half of them is counted, because tiles would recompute activations, which is slow.
GRADIENT_COST = 3.0
# Smallest side to which tiles are reduced if a pixel takes much memory: overlap would dominate.
NARROWEST = 256

Tile = int | Literal["auto", "off"]


class MemoryPolicy:
    """Choice between whole images, tiles and checkpointed activations, for any image shape.

    Arguments:
        prior: The prior.
        method: The solver that uses it.
        tile: See `Executor`.

    Attributes:
        can_tile: Tiles are possible.
        can_checkpoint: Activation checkpointing is possible.
        uses_denoiser: The solver needs a denoiser, and the prior is one.

    Raises:
        SettingError: Tiles of this side, or any tiles, are not possible.
    """

    def __init__(self, prior: object, method: Solver, tile: Tile) -> None:
        self.prior, self.method, self.requested_tile = prior, method, tile
        has_ability = isinstance(prior, method.needs)
        self.uses_denoiser = has_ability and method.needs is Denoiser
        searches = has_ability and method.needs in TILED
        is_local = getattr(prior, "receptive_radius", None) is not None
        self.can_tile = self.uses_denoiser or (
            searches and is_local and method.batch_multiplier > 0
        )
        gradients = method.batch_multiplier > 0 and searches
        self.can_checkpoint = gradients and isinstance(prior, ActivationCheckpointing)
        self.checkpointed: ActivationCheckpointing | None = None
        self.side_limit: int | None = None
        self.activation_bytes: float | None = None
        if isinstance(tile, int) and not self.can_tile:
            raise SettingError(
                f"tiles need a prior for images of any size with a known receptive radius; "
                f"{type(method).__name__} takes images as a whole here: leave tile at 'auto' or "
                f"choose another solver or prior"
            )
        smallest_side = max(SMALLEST, 4 * prior.stride) if self.can_tile else SMALLEST
        if tile not in ("auto", "off") and not (isinstance(tile, int) and tile >= smallest_side):
            raise SettingError(
                f"tile must be 'auto', 'off' or a side of at least {smallest_side} pixels, "
                f"got {tile!r}"
            )
        self.smallest_side = smallest_side

    def fit(self, shape: torch.Size, like: Tensor) -> tuple[object, int | None]:
        """Returns the prior for images of a shape, and the side of its tiles or None.

        Arguments:
            shape: Shape of the images, (B, C, H, W).
            like: A tensor on the device of the images.
        """
        if not (self.can_tile or self.can_checkpoint):
            return self.prior, None
        side, pixel_limit = TILES.get(like.device.type, TILES["cpu"])
        if (
            self.requested_tile == "auto"
            and self.can_checkpoint
            and self._pixels_at_once(shape, like) > pixel_limit
        ):
            self._checkpoint_activations()
        prior, pixels = self.checkpointed or self.prior, self._pixels_at_once(shape, like)
        if self.requested_tile != "auto":
            side = self.requested_tile if isinstance(self.requested_tile, int) else None
        elif pixels <= pixel_limit or not self.can_tile or prior.receptive_radius is None:
            side = None
        else:
            narrow_side = int(side / self._bytes_per_pixel(shape, like) ** 0.5)
            side = min(side, max(narrow_side, NARROWEST, self.smallest_side))
        side = min(filter(None, (side, self.side_limit)), default=None)
        if side is None:
            return prior, None
        if self.uses_denoiser:
            return (Tiled(prior, side), side) if max(shape[-2:]) > side else (prior, None)
        # Small images too: a batch of them may be too large, and the tiled prior splits it.
        return TILED[self.method.needs](prior, side), side if max(shape[-2:]) > side else None

    def reduce(self, shape: torch.Size) -> str:
        """Reduces the memory of one image for the next attempt, and returns a description.

        Raises:
            MemoryError: No further reduction is possible.
        """
        if self.can_checkpoint and not self.checkpointed and self.requested_tile != "off":
            self._checkpoint_activations()
            return "activations are recomputed"
        longest = max(shape[-2:])
        side = -(-min(self.side_limit or longest, longest) // 2)
        if not self.can_tile:
            raise MemoryError("make it smaller, or choose a solver that supports tiles")
        if self.requested_tile == "off" or side < self.smallest_side:
            raise MemoryError("allow tiles, or make it smaller")
        self.side_limit = side
        return f"tiles of {side} pixels"

    def fits(self, shape: torch.Size, like: Tensor) -> bool:
        """Whether the memory that images of a shape need can be allocated."""
        try:
            np.empty(
                int(BYTES_PER_PIXEL * max(self._pixels_at_once(shape, like), shape[0])), np.uint8
            )
        except MemoryError:
            return False
        return True

    def _checkpoint_activations(self) -> None:
        self.checkpointed = self.checkpointed or self.prior.with_checkpointing()

    def _pixels_at_once(self, shape: torch.Size, like: Tensor) -> float:
        """Returns the weighted number of pixels per call; for a denoiser that of one image."""
        images = 1 if self.uses_denoiser else shape[0] * self.method.batch_multiplier
        return images * shape[-2:].numel() * self._bytes_per_pixel(shape, like)

    def _bytes_per_pixel(self, shape: torch.Size, like: Tensor) -> float:
        """Returns the bytes of a pixel in units of BYTES_PER_PIXEL.

        For a denoiser it includes all states (such as particles) of an image.
        """
        if self.uses_denoiser:
            return self.method.batch_multiplier * (
                GRADIENT_COST if self.method.jacobian_products else 1.0
            )
        if self.checkpointed or not (self.can_tile or self.can_checkpoint):
            return 1.0
        if self.activation_bytes is None:
            self.activation_bytes = activation_bytes(self.prior, shape[1], like) / BYTES_PER_PIXEL
        return max(self.activation_bytes, 1.0)
