"""JPEG compression: the truth lies in known cells of the block DCT.

    y = decode(k),    k = round(D T x / q),    so    |D T x - q k| <= q / 2

T converts colours to luma and chroma and averages the chroma over h x v pixels, D is the DCT of
8x8 blocks, q the quantisation table. The cells of all coefficients are the only information that
a JPEG holds. Given u ~ N(x, spread^2) in one coefficient, the mean inside its cell is that of a
truncated normal law: for small spreads the projection onto the cell, for large ones its centre,
which is what a decoder shows.

References:
    The JPEG Still Picture Compression Standard, Wallace, 1991.
    ITU-T Recommendation T.81, 1992 (tables of Annex K).
    Iterative Procedures for Reduction of Blocking Effects in Transform Image Coding, Zakhor,
        1992 (projection onto the cells).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.core.tensors import numbers
from genprior.operators.base import Quantiser
from genprior.operators.jpeg_tables import LUMA_WEIGHTS, SAMPLINGS, SIZE, standard_tables
from genprior.operators.truncated_normal import truncated_mean

# Rows: Y, Cb, Cr of R, G, B; and its inverse (JFIF, ITU-R BT.601).
TO_YCC = (
    LUMA_WEIGHTS,
    (-0.299 / 1.772, -0.587 / 1.772, 0.5),
    (0.5, -0.587 / 1.402, -0.114 / 1.402),
)
TO_RGB = (
    (1.0, 0.0, 1.402),
    (1.0, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587),
    (1.0, 1.772, 0.0),
)
LEVELS, SHIFT = 255.0, 128.0
# Flips of rows and columns after the transposition (5 to 8), by EXIF orientation.
FLIPS = {
    1: (False, False), 2: (False, True), 3: (True, True), 4: (True, False),
    5: (False, False), 6: (False, True), 7: (True, True), 8: (True, False),
}
# Iterations that undo the smooth upsampling of chroma.
UPSAMPLING_STEPS, UPSAMPLING_STEP = 15, 1.5
# Iterations that recover the coefficients of pixels that the decoder clipped to 0 or 255.
UNCLIPPING_STEPS = 4
# Rows and columns of the coefficients whose error is the level of the noise.
COARSE = 4
# Spreads below, in grey levels, count as 0.
SMALLEST_SPREAD = 1e-4
# A block whose decoded pixels differ by more (root mean square, grey levels) is uncertain.
UNCERTAIN_RMS = 1.5


def dct_matrix(like: Tensor) -> Tensor:
    """Returns the orthonormal 8x8 DCT-II matrix."""
    k = torch.arange(SIZE, dtype=torch.float64)
    matrix = torch.cos(math.pi / SIZE * (k + 0.5) * k[:, None]) * math.sqrt(2 / SIZE)
    matrix[0] /= math.sqrt(2)
    return matrix.to(like)


def block_dct(plane: Tensor) -> Tensor:
    """Returns the DCT of the 8x8 blocks of planes (B, H, W) as (B, H/8, W/8, 8, 8)."""
    blocks = plane.unflatten(-1, (-1, SIZE)).unflatten(-3, (-1, SIZE)).transpose(-3, -2)
    matrix = dct_matrix(plane)
    return matrix @ blocks @ matrix.mT


def block_idct(coefficients: Tensor) -> Tensor:
    """Reverses `block_dct`."""
    matrix = dct_matrix(coefficients)
    blocks = matrix.mT @ coefficients @ matrix
    return blocks.transpose(-3, -2).flatten(-4, -3).flatten(-2)


@dataclass(frozen=True)
class Cells:
    """Cells of the coefficients of one component, in grey levels.

    Attributes:
        centre: Shape (B, H/8, W/8, 8, 8): q k.
        half: Half of the widths, of that shape: q / 2, or q where the block is uncertain.
        levels: k, integers as floats.
        unsure: Whether a block is uncertain, shape (B, H/8, W/8): it is not whole, or its pixels
            are no output of a decoder.
    """

    centre: Tensor
    half: Tensor
    levels: Tensor
    unsure: Tensor


class JPEG(Quantiser, nn.Module):
    """JPEG compression and decoding of colour or grey images, as libjpeg does it.

    The measurement is the decoded image, and A x the image that is decoded after encoding x. The
    coefficients of y are found from its pixels and the tables. Where that is not possible (blocks
    that reach over the border, or were changed after decoding) cells are twice as wide.

    Arguments:
        tables: Quantisation tables of luma and chroma, shape (2, 8, 8), or one for both,
            (8, 8); or a quality from 1 to 100 of the standard tables.
        sampling: Resolution of the chroma: "4:4:4" (full), "4:2:2" (half the columns), "4:4:0"
            (half the rows) or "4:2:0" (half of both, the most common). Grey images have none.
        offset: Row and column of the image's first pixel in its first block (of 8 pixels, 16
            where the chroma is halved): not 0 if the image was cropped after it was decoded.
        orientation: EXIF orientation, 1 to 8, that was applied to the pixels after decoding.

    Raises:
        SettingError: An argument is not one of these.
    """

    def __init__(
        self,
        tables: Any,
        sampling: str = "4:2:0",
        offset: tuple[int, int] = (0, 0),
        orientation: int = 1,
    ) -> None:
        super().__init__()
        if sampling not in SAMPLINGS:
            raise SettingError(
                f"the sampling of a JPEG must be one of {', '.join(SAMPLINGS)}, got {sampling!r}"
            )
        if not (isinstance(orientation, int) and orientation in FLIPS):
            raise SettingError(f"the EXIF orientation must be 1 to 8, got {orientation!r}")
        if len(offset) != 2 or not all(isinstance(n, int) and n >= 0 for n in offset):
            raise SettingError(f"offset must be two whole numbers >= 0, got {offset!r}")
        self.sampling, self.factors = sampling, SAMPLINGS[sampling]
        self.offset, self.orientation = offset, orientation
        self.register_buffer("tables", _checked_tables(tables))
        self._known: tuple[Tensor, list[Cells]] | None = None

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        if len(measurement_shape) != 4 or measurement_shape[1] not in (1, 3):
            raise ValueError(
                f"a JPEG holds grey or colour images (batch, 1 or 3, height, width), got shape "
                f"{tuple(measurement_shape)}"
            )
        return torch.Size(measurement_shape)

    def A(self, x: Tensor) -> Tensor:
        stored = LEVELS * self._stored(x)
        coefficients = [block_dct(plane) for plane in self._planes(stored)]
        levels = self._quantised(coefficients)
        decoded = self._decoded(levels, stored.shape[-2:])
        return self._upright(decoded.round().clamp(0, LEVELS)) / LEVELS

    def conditional_mean(self, x: Tensor, y: Tensor, spread: float | Tensor) -> Tensor:
        spreads = LEVELS * per_image(spread, x).unsqueeze(-1)
        stored = LEVELS * self._stored(x)
        changes = []
        for index, (plane, cells) in enumerate(
            zip(self._planes(stored), self.cells(y), strict=True)
        ):
            c = block_dct(plane)
            low, high = cells.centre - cells.half, cells.centre + cells.half
            mean = truncated_mean(c, spreads, low, high, SMALLEST_SPREAD)
            grid = self._grid(stored.shape[-2:], index)
            changes.append(grid.repeated(grid.visible(block_idct(mean - c))))
        return x + self._upright(self._colours(changes)) / LEVELS

    def error_std(self, y: Tensor) -> Tensor:
        coarse = self.tables[0, :COARSE, :COARSE].to(y)  # the finer ones are mostly 0, not uniform
        return (coarse.square().mean() / 12).sqrt().expand(len(y)) / LEVELS

    def unexplained(self, y: Tensor) -> Tensor:
        cells, *_ = self.cells(y)
        inside = self._grid(self._stored(y).shape[-2:], 0).whole_blocks(y)[0, ..., 0, 0]
        whole = inside.expand(cells.unsure.shape)
        return (whole & cells.unsure).flatten(1).sum(1) / whole.flatten(1).sum(1).clamp(min=1)

    def doubt(self, share: float) -> str:
        return (
            f"{share:.0%} of its blocks are not what these JPEG tables give: was it resized or "
            f"edited afterwards, or has it another quality?"
        )

    def described(self) -> dict[str, Any]:
        luma, chroma = self.tables.flatten(1).int().tolist()
        return {
            "tables": [luma, chroma], "sampling": self.sampling, "offset": list(self.offset),
            "orientation": self.orientation,
        }

    def decoding_error(self, y: Tensor) -> float:
        """Returns the root mean square, in grey levels, by which y differs from a decoded image.

        It is about 0.5 if y was decoded with these tables; blocks at the border do not count.
        """
        seen = (LEVELS * self._stored(y)).round()
        levels = self._quantised([block_dct(p) for p in self._planes(seen, decoded=True)])
        error = self._decoded(levels, seen.shape[-2:]).clamp(0, LEVELS) - seen
        grid = self._grid(seen.shape[-2:], y.shape[1] - 1)
        power = block_dct(grid.padded(grid.averaged(error.square().mean(1))))[..., 0, 0] / SIZE
        whole = grid.whole_blocks(y)[..., 0, 0].expand(power.shape)
        return power[whole].mean().sqrt().item() if whole.any() else 0.0

    def whole_coefficients(self, y: Tensor, component: int) -> Tensor:
        """Returns the coefficients of decoded images in the blocks that lie in the image.

        Arguments:
            y: Images (B, C, H, W).
            component: 0 for luma, 1 and 2 for chroma.

        Returns:
            In grey levels, shape (blocks, 8, 8).
        """
        seen = LEVELS * self._stored(y)
        grid = self._grid(seen.shape[-2:], component)
        coefficients = block_dct(self._planes(seen, decoded=True)[component])
        whole = grid.whole_blocks(y)[..., 0, 0].expand(coefficients.shape[:3])
        return coefficients[whole]

    def cells(self, y: Tensor) -> list[Cells]:
        """Returns the cells of each component of a decoded image (B, C, H, W)."""
        if self._known is None or self._known[0] is not y:
            self._known = y, self._find_cells(y)
        return self._known[1]

    def _find_cells(self, y: Tensor) -> list[Cells]:
        seen = (LEVELS * self._stored(y)).round()
        size = seen.shape[-2:]
        planes = self._planes(seen, decoded=True)
        for _ in range(UNCLIPPING_STEPS):
            coefficients = [block_dct(plane) for plane in planes]
            levels = self._quantised(coefficients)
            decoded = self._decoded(levels, size)
            beyond = ((seen <= 0) & (decoded < 0)) | ((seen >= LEVELS) & (decoded > LEVELS))
            planes = self._planes(torch.where(beyond, decoded, seen), decoded=True)
        error = (decoded.round().clamp(0, LEVELS) - seen).square().mean(1)
        found = []
        for index, (k, c) in enumerate(zip(levels, coefficients, strict=True)):
            q = self._table(index).to(c)
            grid = self._grid(size, index)
            power = block_dct(grid.padded(grid.averaged(error)))[..., :1, :1] / SIZE
            sure = grid.whole_blocks(y) & (power <= UNCERTAIN_RMS**2)
            half = torch.where(sure, q / 2, q).expand_as(c)
            found.append(Cells(torch.where(sure, q * k, c), half, k, ~sure[..., 0, 0]))
        return found

    def _table(self, component: int) -> Tensor:
        return self.tables[min(component, 1)]

    def _quantised(self, coefficients: list[Tensor]) -> list[Tensor]:
        return [(c / self._table(i).to(c)).round() for i, c in enumerate(coefficients)]

    def _grid(self, size: Sequence[int], component: int) -> "Grid":
        factors = self.factors if component else (1, 1)
        return Grid(*(
            Axis(length, offset % (SIZE * factor), factor)
            for length, offset, factor in zip(size, self.offset, factors, strict=True)
        ))

    def _planes(self, stored: Tensor, decoded: bool = False) -> list[Tensor]:
        """Returns the components of images in grey levels, each (B, rows, columns), padded.

        Arguments:
            stored: Images in the orientation of the file.
            decoded: Whether the chroma was enlarged by a decoder, which is undone; else it is
                averaged as in an encoder.
        """
        if stored.shape[1] == 3:
            stored = _mixed(TO_YCC, stored)
        planes = []
        for index, component in enumerate(stored.unbind(1)):
            grid = self._grid(component.shape[-2:], index)
            plane = grid.without_upsampling(component) if decoded else grid.averaged(component)
            planes.append(grid.padded(plane if index else plane - SHIFT))
        return planes

    def _decoded(self, levels: list[Tensor], size: Sequence[int]) -> Tensor:
        """Returns decoded images in grey levels, not clipped, in the orientation of the file."""
        planes = []
        for index, k in enumerate(levels):
            grid = self._grid(size, index)
            plane = block_idct(k * self._table(index).to(k))
            planes.append(grid.upsampled(grid.visible(plane)))
        planes[0] = planes[0] + SHIFT
        return self._colours(planes)

    def _colours(self, planes: list[Tensor]) -> Tensor:
        """Returns images (B, C, H, W) of components of that size."""
        components = torch.stack(planes, 1)
        if len(planes) == 1:
            return components
        return _mixed(TO_RGB, components)

    def _stored(self, x: Tensor) -> Tensor:
        """Returns images in the orientation of the file."""
        rows, columns = FLIPS[self.orientation]
        x = x.flip(-1) if columns else x
        x = x.flip(-2) if rows else x
        return x.mT if self.orientation >= 5 else x

    def _upright(self, x: Tensor) -> Tensor:
        """Reverses `_stored`."""
        rows, columns = FLIPS[self.orientation]
        x = x.mT if self.orientation >= 5 else x
        x = x.flip(-2) if rows else x
        return x.flip(-1) if columns else x


@dataclass(frozen=True)
class Axis:
    """Rows, or columns, of a component.

    Arguments:
        length: Pixels of the image.
        offset: Position of the first pixel in its block of 8 `factor` pixels.
        factor: Pixels of the image per pixel of the component.
    """

    length: int
    offset: int
    factor: int

    @property
    def first(self) -> int:
        """Number of component pixels of the first block that lie before the image."""
        return self.offset // self.factor

    @property
    def before(self) -> int:
        """Number of pixels of the first component pixel that lie before the image."""
        return self.offset % self.factor

    @property
    def count(self) -> int:
        """Number of component pixels that the image touches."""
        return -(-(self.offset + self.length) // self.factor) - self.first

    @property
    def blocks(self) -> int:
        """Number of blocks that the image touches."""
        return -(-(self.first + self.count) // SIZE)

    def whole(self) -> Tensor:
        """Returns whether all pixels of a block lie in the image, shape (blocks,)."""
        start = torch.arange(self.blocks) * SIZE * self.factor - self.offset
        return (start >= 0) & (start + SIZE * self.factor <= self.length)


@dataclass(frozen=True)
class Grid:
    """Rows and columns of the blocks of a component."""

    rows: Axis
    columns: Axis

    def padded(self, plane: Tensor) -> Tensor:
        """Extends a component (B, count, count) to whole blocks, repeating its border."""
        sides = []
        for axis in (self.columns, self.rows):
            sides += [axis.first, SIZE * axis.blocks - axis.first - axis.count]
        return functional.pad(plane, sides, mode="replicate")

    def visible(self, plane: Tensor) -> Tensor:
        """Reverses `padded`."""
        rows, columns = (
            slice(axis.first, axis.first + axis.count) for axis in (self.rows, self.columns)
        )
        return plane[..., rows, columns]

    def averaged(self, component: Tensor) -> Tensor:
        """Averages the pixels (B, H, W) of each component pixel, as an encoder does."""
        sides = []
        for axis in (self.columns, self.rows):
            sides += [axis.before, axis.factor * axis.count - axis.before - axis.length]
        full = functional.pad(component, sides, mode="replicate")
        return functional.avg_pool2d(full, (self.rows.factor, self.columns.factor))

    def repeated(self, plane: Tensor) -> Tensor:
        """Repeats each component pixel: the transpose of `averaged`, times the factors."""
        for dim, axis in ((-2, self.rows), (-1, self.columns)):
            plane = plane.repeat_interleave(axis.factor, dim)
        return self._cropped(plane)

    def upsampled(self, plane: Tensor) -> Tensor:
        """Interpolates a component (B, count, count) to (B, H, W) as libjpeg does."""
        for dim, axis in ((-2, self.rows), (-1, self.columns)):
            plane = _enlarged(plane, dim) if axis.factor == 2 else plane
        return self._cropped(plane)

    def without_upsampling(self, component: Tensor) -> Tensor:
        """Returns the component whose `upsampled` is nearest to the one given, (B, H, W)."""
        if (self.rows.factor, self.columns.factor) == (1, 1):
            return component
        plane = self.averaged(component)
        for _ in range(UPSAMPLING_STEPS):
            plane = plane + UPSAMPLING_STEP * self.averaged(component - self.upsampled(plane))
        return plane

    def whole_blocks(self, like: Tensor) -> Tensor:
        """Returns whether blocks lie in the image, shape (1, blocks, blocks, 1, 1)."""
        inside = self.rows.whole()[:, None] & self.columns.whole()
        return inside[None, ..., None, None].to(like.device)

    def _cropped(self, full: Tensor) -> Tensor:
        rows, columns = (
            slice(axis.before, axis.before + axis.length) for axis in (self.rows, self.columns)
        )
        return full[..., rows, columns]


def _mixed(weights: Sequence[Sequence[float]], channels: Tensor) -> Tensor:
    """Returns sums of the three channels of images (B, 3, H, W), with a row of weights each."""
    parts = channels.unbind(1)
    sums = [
        sum(weight * part for weight, part in zip(row, parts, strict=True)) for row in weights
    ]
    return torch.stack(sums, 1)  # type: ignore[arg-type]


def _enlarged(plane: Tensor, dim: int) -> Tensor:
    """Doubles an axis by linear interpolation, with weights 3/4 and 1/4."""
    count = plane.shape[dim]
    first, last = plane.narrow(dim, 0, 1), plane.narrow(dim, count - 1, 1)
    before = torch.cat([first, plane.narrow(dim, 0, count - 1)], dim)
    after = torch.cat([plane.narrow(dim, 1, count - 1), last], dim)
    pairs = torch.stack([0.75 * plane + 0.25 * before, 0.75 * plane + 0.25 * after], dim)
    return pairs.flatten(dim - 1, dim)


def _checked_tables(tables: Any) -> Tensor:
    if isinstance(tables, int):
        return standard_tables(tables)
    found = torch.as_tensor(numbers(tables, "the tables of a JPEG")).float()
    found = found.expand(2, SIZE, SIZE) if found.shape == (SIZE, SIZE) else found
    if found.shape != (2, SIZE, SIZE) or not ((found >= 1) & (found <= 65535)).all():
        raise SettingError(
            f"the tables of a JPEG must be numbers >= 1 of shape (2, 8, 8) for luma and chroma, "
            f"or (8, 8), got shape {tuple(found.shape)}"
        )
    return found.clone()
