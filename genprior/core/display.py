"""Images of any type as 8-bit pixels, PNG bytes and HTML, for notebooks."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

# Sides in pixels of an image in a notebook: smaller ones are enlarged, larger ones reduced.
LEAST, MOST = 160, 512


def pixels(image: Any) -> np.ndarray:
    """Returns an image or a batch as 8-bit pixels.

    Arguments:
        image: Tensor (B, C, H, W) or (C, H, W), numpy array (H, W), (H, W, C) or (B, H, W, C),
            Pillow image or list of them; uint8, uint16 or floats in [0, 1], which are clipped. Of
            complex numbers, also as two channels, the magnitude is returned, the largest as
            white; of other numbers of channels the first one.

    Returns:
        Shape (B, H, W, C), uint8, with 1 or 3 channels.

    >>> pixels(np.full((4, 6, 3), 0.2)).shape
    (1, 4, 6, 3)
    """
    if isinstance(image, list | tuple):
        return np.concatenate([pixels(one) for one in image])
    if isinstance(image, Tensor):
        tensor = image.detach().cpu()
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        array = np.moveaxis(tensor.numpy(), -3, -1)
    elif isinstance(image, Image.Image):
        array = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    else:
        array = np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    array = array if array.ndim == 4 else array[None]
    if np.iscomplexobj(array) or array.shape[-1] == 2:
        size = np.abs(array) if np.iscomplexobj(array) else np.hypot(*np.moveaxis(array, -1, 0))
        array = (size if size.ndim == 4 else size[..., None]) / max(float(size.max()), 1e-12)
    array = array if array.shape[-1] in (1, 3) else array[..., :1]
    if array.dtype == np.uint8:
        return array
    scale = 257 if array.dtype == np.uint16 else 1 / 255
    return np.round(np.clip(array / scale, 0, 255)).astype(np.uint8)


def deviations(std: Any) -> tuple[np.ndarray, list[float]]:
    """Returns maps of a standard deviation, white for the largest, and what white stands for.

    Arguments:
        std: Standard deviation as floats, in one of the layouts of `pixels`; channels are
            averaged as RMS.

    Returns:
        Shape (B, H, W, 1), uint8, and one number in image units for each of the B.
    """
    if isinstance(std, Tensor):
        array = np.moveaxis(std.detach().float().cpu().numpy(), -3, -1)
    else:
        array = np.asarray(std, dtype=np.float32)
    array = array[..., None] if array.ndim == 2 else array
    array = array if array.ndim == 4 else array[None]
    grey = np.sqrt(np.square(array).mean(axis=-1, keepdims=True))
    white = [max(float(one.max()), 1e-12) for one in grey]
    return pixels(np.stack([one / top for one, top in zip(grey, white, strict=True)])), white


def png(picture: np.ndarray) -> bytes:
    """Returns pixels (H, W, C), uint8, as the bytes of a PNG file, reduced to `MOST` pixels."""
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    if max(image.size) > MOST:
        image.thumbnail((MOST, MOST))
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def figures(pictures: Sequence[tuple[str, np.ndarray]]) -> str:
    """Returns captioned pictures (caption, pixels) side by side as HTML, with the data inside."""
    cells = []
    for caption, picture in pictures:
        height, width = picture.shape[:2]
        factor = max(1, -(-LEAST // max(height, width)))
        shown = round(width * min(factor, MOST / max(height, width)))
        data = base64.b64encode(png(picture)).decode()
        cells.append(
            f'<figure style="margin:0"><img src="data:image/png;base64,{data}" '
            f'alt="{html.escape(caption)}" style="width:{max(shown, 1)}px;'
            f'image-rendering:{"pixelated" if factor > 1 else "auto"}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    return f'<div style="display:flex;gap:8px;flex-wrap:wrap">{"".join(cells)}</div>'
