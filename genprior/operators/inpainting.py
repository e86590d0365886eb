"""Inpainting operator: y = keep * x, with a mask `keep` of known pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from genprior.core.linalg import Singular, per_image, sum_blocks
from genprior.core.tensors import numbers
from genprior.operators.base import Operator
from genprior.operators.masks import with_axes


class Inpainting(Operator, nn.Module):
    """Operator that keeps some pixels of an image and sets the others to 0.

    Arguments:
        keep: True or 1 where a pixel is known, False or 0 where it is missing; shape
            (B or 1, C or 1, H, W), (B, H, W), or (H, W) or (H, W, 1) for all.
            `operators.masks` makes random masks and rectangular holes.

    Raises:
        ValueError: The shape is not one of these, a value is neither 0 nor 1, or an image has
            no missing or no known pixel.
    """

    is_pixel_mask = True

    def __init__(self, keep: Tensor) -> None:
        keep = with_axes(numbers(keep, "keep"), "keep")
        if not ((keep == 0) | (keep == 1)).all():
            raise ValueError(
                "keep must hold only 0 (missing) and 1 (known): threshold it first, keep > 0.5"
            )
        known = keep.flatten(1).bool()
        for images, defect, remedy in (
            (known.all(dim=1), "nothing is missing", "there is nothing to fill in"),
            (~known.any(dim=1), "nothing is known", "keep some pixels, or sample the prior"),
        ):
            if images.any():
                number = int(images.nonzero()[0])
                raise ValueError(f"{defect} in the mask of image {number}: {remedy}")
        super().__init__()
        self.register_buffer("mask", keep.to(torch.float32))
        self.register_buffer("known", keep > 0.5, persistent=False)
        self.is_mask = bool((keep == keep[:, :1]).all())

    def A(self, x: Tensor) -> Tensor:
        return self.mask_unmeasured(x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return self.mask_unmeasured(y)

    def block_gram(self, c: Tensor, factor: int, image_shape: torch.Size) -> Tensor:
        return sum_blocks(self._keep(c.new_zeros(()).expand(image_shape)).to(c), factor) * c

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        keep = self.mask.shape
        if len(measurement_shape) != 4:
            raise ValueError(
                f"images must be a batch (batch, channels, height, width), got shape "
                f"{tuple(measurement_shape)}"
            )
        batch, channels, *size = measurement_shape
        fits = keep[0] in (1, batch) and keep[1] in (1, channels) and list(keep[2:]) == size
        if not fits:
            raise ValueError(
                f"the mask must have the size of the image: the mask is {tuple(keep)}, the "
                f"image {tuple(measurement_shape)} (batch, channels, height, width): "
                f"crop or redraw the mask"
            )
        return torch.Size(measurement_shape)

    def pinv(self, y: Tensor) -> Tensor:
        return self.mask_unmeasured(y)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        rho = per_image(rho, x)
        return torch.where(self._keep(y), (y + rho * x) / (1 + rho), x)

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        c, sigma2 = per_image(c, v), per_image(sigma2, v)
        missing = torch.where(sigma2 > 0, v / torch.where(sigma2 > 0, sigma2, 1), 0)
        return torch.where(self._keep(v), v / (c + sigma2), missing)

    def select(self, images: Sequence[int]) -> "Inpainting":
        return self if len(self.mask) == 1 else Inpainting(self.mask[list(images)])

    def crop(self, rows: slice, columns: slice) -> "Inpainting":
        return Inpainting(self.mask[..., rows, columns])

    def mask_unmeasured(self, v: Tensor) -> Tensor:
        # not a product: NaN in the hole must not reach the result
        return torch.where(self._keep(v), v, 0)

    def num_measurements(self, y: Tensor) -> Tensor:
        self.image_shape(y.shape)
        known = self.known
        count = known.flatten(1).sum(dim=1) * (y[0].numel() // known[0].numel())
        return count.to(y).expand(len(y))

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        def same(x: Tensor) -> Tensor:
            return x

        return Singular(self.mask.to(like), same, same, same)

    def keep_known(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(self._keep(y), y, x)

    def _keep(self, x: Tensor) -> Tensor:
        self.image_shape(x.shape)
        return self.known.to(x.device)
