"""Quality of images (PSNR, SSIM), of filled holes, and of samples (coverage, CRPS), per image."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d, unfold

from genprior.core.random_streams import partners

WINDOW = 7


def psnr(x: Tensor, reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Returns the peak signal-to-noise ratio of each image, `10 log10(data_range^2 / MSE)` in dB.

    The mean squared error (MSE) is over channels and pixels. Values are not capped.

    Arguments:
        x: Images (B, C, H, W).
        reference: Reference images, of the same shape.
        data_range: Largest possible value minus the smallest.

    Returns:
        (B,); infinite for an image equal to its reference.

    Raises:
        ValueError: The shapes differ or are not (B, C, H, W).

    >>> psnr(torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), 0.1))
    tensor([20.])
    """
    x_, reference_ = _pair(x, reference)
    mse = (x_ - reference_).square().mean((1, 2, 3))
    return (10 * torch.log10(data_range**2 / mse)).to(x.dtype)


def ssim(x: Tensor, reference: Tensor, data_range: float = 1.0) -> Tensor:
    """Returns the structural similarity (SSIM) of each image, with the defaults of scikit-image.

    Wang et al. 2004 with a uniform 7 x 7 window, sample covariances, K1 = 0.01 and K2 = 0.03,
    averaged over the windows inside the image and over channels. (The 11 x 11 Gaussian window
    of the paper gives other values, by 0.02 or so.)

    Arguments:
        x: Images (B, C, H, W).
        reference: Reference images, of the same shape.
        data_range: Largest possible value minus the smallest.

    Returns:
        (B,), 1 for an image equal to its reference.

    Raises:
        ValueError: The shapes differ, are not (B, C, H, W), or a side is below 7 pixels.
    """
    x_, y = _pair(x, reference)
    if min(x.shape[2:]) < WINDOW:
        raise ValueError(
            f"SSIM compares windows of {WINDOW} x {WINDOW} pixels: images of "
            f"{x.shape[3]} x {x.shape[2]} are too small, use psnr"
        )
    mean_x, mean_y = _window_mean(x_), _window_mean(y)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    var_x = sample * (_window_mean(x_ * x_) - mean_x * mean_x)
    var_y = sample * (_window_mean(y * y) - mean_y * mean_y)
    cov = sample * (_window_mean(x_ * y) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * cov + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean((1, 2, 3)).to(x.dtype)


def hole_psnr(x: Tensor, reference: Tensor, hole: Tensor, data_range: float = 1.0) -> Tensor:
    """Returns the PSNR of each image over the pixels of its hole, in dB.

    Arguments:
        x: Images (B, C, H, W).
        reference: Reference images, of the same shape.
        hole: True in the hole, shape (B or 1, 1, H, W).
        data_range: Largest possible value minus the smallest.

    Returns:
        (B,); NaN for an image without a hole.
    """
    x_, reference_ = _pair(x, reference)
    inside = hole.bool().expand(len(x), *x.shape[1:])
    error = torch.where(inside, (x_ - reference_).square(), 0)
    mse = error.sum((1, 2, 3)) / inside.sum((1, 2, 3))
    return (10 * torch.log10(data_range**2 / mse)).to(x.dtype)


def patch_distance(
    x: Tensor, reference: Tensor, hole: Tensor, directions: int = 128
) -> Tensor:
    """Returns the sliced Wasserstein distance of the 7x7 patches in a hole to the true ones.

    It compares texture, not positions: the patches around the pixels of the hole, each less its
    mean per channel, are projected on random directions of unit length; the distance is the root
    mean square, over directions and ranks, of the difference of the sorted projections (Rabin et
    al., Wasserstein Barycenter and Its Application to Texture Mixing, 2011).

    Arguments:
        x: Images (B, C, H, W).
        reference: Reference images, of the same shape.
        hole: True in the hole, shape (B or 1, 1, H, W).
        directions: Number of directions, which are the same in every call.

    Returns:
        (B,), in image units, 0 for equal images; NaN if no patch around a pixel of the hole is
        inside the image.
    """
    x_, reference_ = _pair(x, reference)
    if min(x.shape[2:]) < WINDOW:
        return x.new_full((len(x),), math.nan)
    size = x.shape[1] * WINDOW**2
    drawn = torch.randn(size, directions, generator=torch.Generator().manual_seed(0))
    direction = (drawn / drawn.norm(dim=0)).to(x_)
    margin = WINDOW // 2
    centres = hole.bool()[..., margin:-margin, margin:-margin].expand(len(x), -1, -1, -1)
    distances = []
    for image, truth, inside in zip(x_, reference_, centres, strict=True):
        if not inside.any():
            distances.append(x_.new_tensor(math.nan))
            continue
        first, second = (_texture(part, inside) @ direction for part in (image, truth))
        difference = first.sort(dim=0).values - second.sort(dim=0).values
        distances.append(difference.square().mean().sqrt())
    return torch.stack(distances).to(x.dtype)


def gradient_ratio(x: Tensor, hole: Tensor, ring: int = 16) -> Tensor:
    """Returns the root mean square of the gradient in the hole over that in a ring around it.

    The gradient is the difference of horizontal and of vertical neighbours that are both in the
    hole, or both in the ring. It is near 1 where the texture goes on, and small in a blur.

    Arguments:
        x: Images (B, C, H, W).
        hole: True in the hole, shape (B or 1, 1, H, W).
        ring: Width of the ring in pixels, >= 1.

    Returns:
        (B,); NaN without neighbours in the hole or in the ring, or if the ring is constant.
    """
    inside = hole.bool().expand(len(x), -1, -1, -1)
    near = max_pool2d(inside.to(x), 2 * ring + 1, 1, ring) > 0
    strengths = []
    for region in (inside, near & ~inside):
        total = pairs = 0
        for before, after in _neighbours(x.to(_widest_float(x)), region):
            (a, in_a), (b, in_b) = before, after
            both = (in_a & in_b).expand_as(a)
            total = total + torch.where(both, (a - b).square(), 0).sum((1, 2, 3))
            pairs = pairs + both.sum((1, 2, 3))
        strengths.append((total / pairs).sqrt())
    ratio = strengths[0] / strengths[1]
    return torch.where(strengths[1] > 0, ratio, math.nan).to(x.dtype)


def border_jump(x: Tensor, hole: Tensor) -> Tensor:
    """Returns the mean absolute difference of neighbours across the border over that along it.

    Across: one pixel in the hole, its neighbour outside. Along: both in the hole, or both outside,
    and each beside the border. A visible seam gives more than 1.

    Arguments:
        x: Images (B, C, H, W).
        hole: True in the hole, shape (B or 1, 1, H, W).

    Returns:
        (B,); NaN without such neighbours, or if all of those along the border are equal.
    """
    inside = hole.bool().expand(len(x), -1, -1, -1)
    cross = torch.zeros_like(inside)
    for (_, a), (_, b) in _neighbours(inside, inside):
        differ = a ^ b
        rows, columns = differ.shape[2:]
        cross[..., :rows, :columns] |= differ
        cross[..., -rows:, -columns:] |= differ
    means = []
    for across in (True, False):
        total = pairs = 0
        for (a, in_a), (b, in_b) in _neighbours(x.to(_widest_float(x)), inside):
            rows, columns = in_a.shape[2:]
            beside = cross[..., :rows, :columns] & cross[..., -rows:, -columns:]
            counted = ((in_a ^ in_b) if across else (beside & (in_a == in_b))).expand_as(a)
            total = total + torch.where(counted, (a - b).abs(), 0).sum((1, 2, 3))
            pairs = pairs + counted.sum((1, 2, 3))
        means.append(total / pairs)
    return torch.where(means[1] > 0, means[0] / means[1], math.nan).to(x.dtype)


def central_interval(samples: int, level: float = 0.9) -> tuple[int, float]:
    """Returns which of K sorted samples bound a central interval, and its expected coverage.

    The reference and K samples of its exact posterior are exchangeable. So the reference lies
    between the a-th smallest and the a-th largest with probability (K + 1 - 2 a) / (K + 1).

    Arguments:
        samples: Number K of samples, >= 2.
        level: Wanted coverage.

    Returns:
        a, and the coverage: the smallest possible one >= `level`, or the largest one if none is.

    >>> central_interval(19), central_interval(4)
    ((1, 0.9), (1, 0.6))
    """
    a = max(1, int((samples + 1) * (1 - level) / 2 + 1e-9))
    return a, (samples + 1 - 2 * a) / (samples + 1)


def coverage(samples: Tensor, reference: Tensor, level: float = 0.9) -> Tensor:
    """Returns the share of pixels whose reference value lies in the central interval of samples.

    Pixels at which all samples are equal, as the known pixels of inpainting, are not counted.

    Arguments:
        samples: Shape (B, K, C, H, W), K >= 2.
        reference: Reference images, (B, C, H, W).
        level: Wanted coverage; `central_interval` gives the one that K samples allow.

    Returns:
        (B,); NaN for an image whose samples are equal at all pixels.
    """
    a, _ = central_interval(samples.shape[1], level)
    shares = []
    for drawn, truth in zip(samples, reference, strict=True):  # one by one: less memory
        ordered = drawn.sort(dim=0).values
        counted = ordered[0] < ordered[-1]
        inside = counted & (ordered[a - 1] <= truth) & (truth <= ordered[-a])
        shares.append(inside.sum() / counted.sum())
    return torch.stack(shares)


def rank_histogram(samples: Tensor, reference: Tensor) -> Tensor:
    """Returns the rank histogram: how often k of the K samples of a pixel are below its reference.

    For samples of the exact posterior all K + 1 ranks are equally likely (Talagrand et al., 1997).
    A hump means intervals that are too wide, two high ends too narrow ones, a slope a bias. Pixels
    at which all samples are equal are not counted; a sample equal to the reference counts half.

    Arguments:
        samples: Shape (B, K, C, H, W), K >= 2.
        reference: Reference images, (B, C, H, W).

    Returns:
        Shares of the counted pixels, shape (B, K + 1), which sum to 1; NaN without such pixels.
    """
    histograms = []
    for drawn, truth in zip(samples, reference, strict=True):  # one by one: less memory
        counted = drawn.amin(dim=0) < drawn.amax(dim=0)
        ends = [compare(truth).sum(dim=0)[counted] for compare in (drawn.lt, drawn.le)]
        counts = sum(torch.bincount(end, minlength=len(drawn) + 1) for end in ends)
        histograms.append(counts.to(_widest_float(samples)) / (2 * counted.sum()))
    return torch.stack(histograms)


def interval_width(samples: Tensor, level: float = 0.9) -> Tensor:
    """Returns the mean width of the central interval of samples, over the pixels of `coverage`.

    Arguments:
        samples: Shape (B, K, C, H, W), K >= 2.
        level: Wanted coverage; `central_interval` gives the one that K samples allow.

    Returns:
        (B,), in image units; NaN for an image whose samples are equal at all pixels.
    """
    a, _ = central_interval(samples.shape[1], level)
    widths = []
    for drawn in samples:
        ordered = drawn.sort(dim=0).values
        counted = ordered[0] < ordered[-1]
        widths.append((ordered[-a] - ordered[a - 1])[counted].mean())
    return torch.stack(widths)


def crps(samples: Tensor, reference: Tensor, antithetic: bool = False) -> Tensor:
    """Returns the continuous ranked probability score (CRPS), mean over the pixels; 0 is best.

    E|X - x| - E|X - X'| / 2 for X, X' of the samples, with the unbiased second term (Gneiting
    and Raftery, 2007; Zamo and Naveau, 2018). The CRPS of a point estimate is the absolute error.

    Arguments:
        samples: Shape (B, K, C, H, W), K >= 2.
        reference: Reference images, (B, C, H, W).
        antithetic: Whether the samples are antithetic: the dependent pairs that `partners` lists
            are then left out of the second term.

    Returns:
        (B,), in image units.
    """
    count = samples.shape[1]
    pairs, dependent = count * (count - 1) // 2, partners(count) if antithetic else []
    scores, dtype = [], _widest_float(samples)
    for drawn, truth in zip(samples, reference.to(dtype), strict=True):  # one by one: less memory
        ordered = drawn.sort(dim=0).values.to(dtype)  # sorting float32 is faster
        error = (ordered - truth).abs().mean(dim=0)
        # sum over pairs of |X_i - X_j| = sum of (2 i - K + 1) X_(i)
        rank = 2 * torch.arange(count).to(ordered) - count + 1
        distances = torch.tensordot(rank, ordered, dims=1)
        for a, b in dependent:
            distances = distances - (drawn[a].to(dtype) - drawn[b].to(dtype)).abs()
        scores.append((error - distances / (2 * (pairs - len(dependent)))).mean())
    return torch.stack(scores).to(samples.dtype)


def _pair(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if x.shape != reference.shape or x.ndim != 4:
        raise ValueError(
            "images to compare must have the same shape (B, C, H, W), "
            f"got {list(x.shape)} and {list(reference.shape)}"
        )
    dtype = _widest_float(x)  # variances are differences of large numbers
    return x.to(dtype), reference.to(dtype)


def _texture(image: Tensor, centres: Tensor) -> Tensor:
    """Returns the 7x7 patches (N, C 49) of an image around N pixels, each less its mean."""
    patches = unfold(image[None], WINDOW)[0, :, centres.flatten()]
    patches = patches.unflatten(0, (len(image), WINDOW**2))
    return (patches - patches.mean(dim=1, keepdim=True)).flatten(0, 1).T


def _neighbours(
    x: Tensor, region: Tensor
) -> Iterator[tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Yields images and a region at the first and at the second pixel of all neighbours."""
    for axis in (2, 3):
        count = x.shape[axis] - 1
        first, second = ((x.narrow(axis, k, count), region.narrow(axis, k, count)) for k in (0, 1))
        yield first, second


def _widest_float(x: Tensor) -> torch.dtype:
    """Returns float64, or float32 on Apple GPUs, which lack float64."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _window_mean(x: Tensor) -> Tensor:
    return avg_pool2d(x, WINDOW, stride=1)


def finite(value: Tensor) -> float | None:
    """Returns a number for JSON: None if it is infinite or NaN."""
    return value.item() if math.isfinite(value.item()) else None
