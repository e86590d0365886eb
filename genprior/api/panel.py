"""Panel of a restoration with captions, drawn by matplotlib: `genprior.show`."""

from typing import TYPE_CHECKING, Any

import numpy as np

from genprior.api.inputs import whole_number
from genprior.core.display import deviations, pixels
from genprior.core.errors import SettingError
from genprior.inverse.base import Restoration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE, CAPTION = 2.2, 0.45  # inches of a picture, and of its caption


def show(
    result: Restoration, y: Any = None, reference: Any = None, samples: int = 3, image: int = 0,
) -> "Figure":
    """Draws a panel: measurement, restoration, samples, standard deviation and reference.

    It needs matplotlib (`pip install "genprior[plot]"`), whose pyplot shows it in a notebook.

    Arguments:
        result: What `restore` returned.
        y: The measurement, drawn first if it is an image: as given to `restore`.
        reference: The true image, if it is known, of the type of y. It is drawn last, and the
            captions give the PSNR.
        samples: Number of samples to draw, >= 0, if the result has samples.
        image: Which image of a batch.

    Returns:
        The figure; `savefig` writes it to a file.

    Raises:
        SettingError: matplotlib is not installed, `samples` is negative, or there is no such
            image in the batch.
        ValueError: `reference` has another size than the restoration.
    """
    samples, image = whole_number("samples", samples, 0), whole_number("image", image, 0)
    restored = pixels(result.image)
    if image >= len(restored):
        raise SettingError(f"image must be below {len(restored)}, got {image}")
    try:
        from matplotlib import pyplot
    except ImportError:
        raise SettingError(
            'matplotlib is not installed: pip install "genprior[plot]"'
        ) from None

    truth = None if reference is None else pixels(reference)[image]
    what = "restored" if result.mean is None else "mean"
    pictures = [] if y is None or not _is_image(y) else [("measurement", pixels(y)[image])]
    pictures.append((what, restored[image]))
    for k, sample in enumerate(_samples(result, image, len(restored))[:samples]):
        pictures.append((f"sample {k}", sample))
    if truth is not None:
        if truth.shape[:2] != restored[image].shape[:2]:
            raise ValueError(
                f"reference must have the size of the restoration, {restored[image].shape[:2]}, "
                f"got {truth.shape[:2]}: crop it"
            )
        pictures = [(name if name == "measurement" else f"{name}, {_psnr(x, truth):.2f} dB", x)
                    for name, x in pictures]
    count = len(pictures) + (result.std is not None) + (truth is not None)
    ratio = restored[image].shape[0] / restored[image].shape[1]
    size = (SIDE * count, SIDE * ratio + 2 * CAPTION)
    figure, axes = pyplot.subplots(1, count, figsize=size, layout="constrained", squeeze=False)
    rest = list(axes[0])
    for caption, picture in pictures:
        _draw(rest.pop(0), caption, picture)
    if result.std is not None:
        maps, white = deviations(result.std)
        _draw(rest.pop(0), f"std, white is {white[image]:.2g}", maps[image])
    if truth is not None:
        _draw(rest.pop(0), "reference", truth)
    figure.supxlabel(
        f"{result.solver}, prior {result.prior}, {result.nfe} evaluations, "
        f"misfit {result.misfit[image].item():.2f}", fontsize=9,
    )
    return figure


def _draw(axes: Any, caption: str, picture: np.ndarray) -> None:
    axes.imshow(picture if picture.shape[-1] == 3 else picture[..., 0], cmap="gray", vmin=0,
                vmax=255, interpolation="nearest")
    axes.set_title(caption, fontsize=9)
    axes.set_axis_off()


def _is_image(y: Any) -> bool:
    """Whether a measurement can be drawn: the axes of one, and two that are longer than 1."""
    shape = getattr(y, "shape", None)
    if shape is None:  # Pillow
        return True
    axes = (2, 3, 4) if isinstance(y, np.ndarray) else (3, 4)
    return len(shape) in axes and min(sorted(shape)[-2:]) > 1


def _samples(result: Restoration, image: int, count: int) -> np.ndarray:
    """Returns the samples of an image, (K, H, W, C), uint8; K = 0 if there are none."""
    kept = result.samples
    if kept is None:
        return np.empty((0, 1, 1, 1), np.uint8)
    batch = not isinstance(kept, list) and kept.ndim == 5
    return pixels(kept[image] if batch else kept)


def _psnr(x: np.ndarray, truth: np.ndarray) -> float:
    error = np.square(x.astype(float) - truth).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))
