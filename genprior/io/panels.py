"""Figures of a result: side-by-side panels, grids of images, uncertainty maps."""

import math

import torch
from torch import Tensor, nn

GAP = 4


def panel(pictures: list[Tensor]) -> Tensor:
    """Places images side by side on a white background.

    Arguments:
        pictures: Images (1, C, H, W) in [0, 1]; smaller ones are enlarged by integer factors.
            Grey images become colour if any image is in colour.

    Returns:
        One image, shape (1, C, H, W).
    """
    height = max(p.shape[-2] for p in pictures)
    channels = max(p.shape[1] for p in pictures)
    columns = []
    for image in pictures:
        factor = max(1, round(height / image.shape[-2]))
        if factor > 1:
            image = nn.functional.interpolate(image, scale_factor=factor, mode="nearest")
        image = image[..., :height, :].expand(-1, channels, -1, -1)
        bottom = height - image.shape[-2]
        columns.append(nn.functional.pad(image, (0, GAP, 0, bottom), value=1.0))
    return torch.cat(columns, dim=-1)[..., :-GAP].clamp(0, 1)


def grid(images: Tensor) -> Tensor:
    """Arranges images of one size in a nearly square grid.

    Arguments:
        images: Shape (B, C, H, W) in [0, 1].

    Returns:
        One image, shape (1, C, height, width), with white gaps and white empty cells.
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
    """Returns an uncertainty map: a grey image whose white is the largest standard deviation.

    Arguments:
        std: Standard deviation, shape (1, C, H, W), in image units; channels are averaged as RMS.

    Returns:
        The map, shape (1, 1, H, W), and the standard deviation that white stands for.
    """
    grey = std.square().mean(dim=1, keepdim=True).sqrt()
    scale = max(grey.max().item(), 1e-12)
    return grey / scale, scale
