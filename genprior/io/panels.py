"""Pictures that show a result: side-by-side panels and uncertainty maps."""

import math

import torch
from torch import Tensor, nn

GAP = 4


def panel(pictures: list[Tensor]) -> Tensor:
    """Images side by side, on white.

    Arguments:
        pictures: Images (1, C, H, W) in [0, 1]; smaller ones are enlarged by whole factors,
            grey ones become colour where any is in colour.

    Returns:
        One image, shape (1, C, H, W).
    """
    height = max(p.shape[-2] for p in pictures)
    channels = max(p.shape[1] for p in pictures)
    columns = []
    for picture in pictures:
        factor = max(1, round(height / picture.shape[-2]))
        if factor > 1:
            picture = nn.functional.interpolate(picture, scale_factor=factor, mode="nearest")
        picture = picture[..., :height, :].expand(-1, channels, -1, -1)
        bottom = height - picture.shape[-2]
        columns.append(nn.functional.pad(picture, (0, GAP, 0, bottom), value=1.0))
    return torch.cat(columns, dim=-1)[..., :-GAP].clamp(0, 1)


def grid(images: Tensor) -> Tensor:
    """Images of one size as one, in rows nearly as many as columns.

    Arguments:
        images: Shape (B, C, H, W) in [0, 1].

    Returns:
        One image, shape (1, C, rows of H, columns of W), white where there is none.
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = []
    for start in range(0, len(images), columns):
        row = torch.cat([nn.functional.pad(x, (0, GAP, 0, GAP), value=1.0)
                         for x in images[start : start + columns]], dim=-1)
        rows.append(row)
    width = rows[0].shape[-1]
    rows = [nn.functional.pad(row, (0, width - row.shape[-1]), value=1.0) for row in rows]
    return torch.cat(rows, dim=-2)[None, :, :-GAP, :-GAP]


def std_map(std: Tensor) -> tuple[Tensor, float]:
    """Uncertainty as a grey image whose white is the largest standard deviation.

    Arguments:
        std: Standard deviation, shape (1, C, H, W), in image units.

    Returns:
        The map, shape (1, 1, H, W), and the standard deviation that white stands for.
    """
    grey = std.square().mean(dim=1, keepdim=True).sqrt()
    scale = max(grey.max().item(), 1e-12)
    return grey / scale, scale
