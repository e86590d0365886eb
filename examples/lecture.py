"""Figures for a course on generative models: latent grids, interpolation, temperatures, collapse.

    python examples/lecture.py manifold --prior runs/vae-2 -o manifold.png
    python examples/lecture.py codes --prior runs/vae-2 --data digits.npy --labels labels.npy \\
        -o codes.png
    python examples/lecture.py interpolation --prior gan:digits -o interpolation.png
    python examples/lecture.py images --prior glow --data photos.npy -o images.png
    python examples/lecture.py temperatures --prior glow:digits -o temperatures.png
    python examples/lecture.py levels --prior runs/hvae-digits -o levels.png
    python examples/lecture.py collapse --prior runs/gan-sgd --prior gan:digits -o collapse.png

`benchmarks/recipes.md` says how to train the priors in `runs/`. The outputs of these lines are in
`examples/lecture`; `photos.npy` holds crops of the cat and the astronaut of scikit-image.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torchvision.utils import make_grid

from genprior import load_prior, sample
from genprior.io.images import write_image
from genprior.priors.base import Decoder, Encoder
from genprior.priors.hvae import HVAE
from genprior.priors.latent_interpolation import interpolate

SHAPE = torch.Size((1, 1, 28, 28))
INKS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f",
        "#b6992d", "#b07aa1", "#ff9da7", "#9c755f", "#222222")


def manifold(prior: Decoder, count: int = 20) -> Tensor:
    """Decodes a square grid in a latent plane, spaced by quantiles of the normal distribution."""
    quantiles = torch.distributions.Normal(0, 1).icdf((torch.arange(count) + 0.5) / count)
    z = torch.cartesian_prod(quantiles.flip(0), quantiles).flip(1)
    return make_grid(prior.decode(z, torch.Size((len(z), *SHAPE[1:]))), count, padding=0)


def codes(prior: Encoder, x: Tensor, labels: Sequence[int], side: int = 560) -> Tensor:
    """Plots the codes of images in a latent plane from -3.5 to 3.5, one colour per label."""
    sheet = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(sheet)
    at = (prior.encode(x) / 7 + 0.5) * torch.tensor([side, -side]) + torch.tensor([0, side])
    for (column, row), label in zip(at.tolist(), labels, strict=True):
        draw.ellipse((column - 2, row - 2, column + 2, row + 2), fill=INKS[label])
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1) / 255


def interpolation(prior: Decoder, seed: int, rows: int = 5, count: int = 10) -> Tensor:
    """Interpolates between pairs of samples of a prior, one pair per row."""
    shape = torch.Size((rows, *SHAPE[1:]))
    draw = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(prior.latent_shape(shape), generator=draw) for _ in range(2))
    return make_grid(interpolate(prior, a, b, count, shape).flatten(0, 1), count, padding=1)


def images(prior: Decoder, x: Tensor, rows: int = 5, count: int = 10) -> Tensor:
    """Interpolates between pairs of given images, one pair per row with the images at its ends."""
    ways = interpolate(prior, x[:rows], x[rows : 2 * rows], count)
    return make_grid(ways.flatten(0, 1), count, padding=1)


def temperatures(prior: Decoder, seed: int, count: int = 10) -> Tensor:
    """Draws the same samples at temperatures from 0 to 1, one row per temperature."""
    size = tuple(SHAPE[2:]) if prior.channels == 1 else (64, 64)
    rows = [
        sample(prior, count, size, temperature=t, seed=seed) for t in (0, 0.25, 0.5, 0.7, 0.85, 1)
    ]
    return make_grid(torch.cat(rows), count, padding=1)


def levels(prior: HVAE, seed: int, count: int = 10) -> Tensor:
    """Draws samples that share latents: row k fixes the first k groups and resamples the rest."""
    shape = torch.Size((count, *SHAPE[1:]))
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(prior.latent_shape(shape), generator=draw)[:1].expand(count, -1)
    rows = [
        prior.decode(prior.resample(z, shape, fixed, draw), shape)
        for fixed in range(len(prior.group_shapes(shape)))
    ]
    return make_grid(torch.cat(rows), count, padding=1)


def collapse(priors: Sequence[Decoder], seed: int, count: int = 64) -> Tensor:
    """Draws samples of several priors side by side; a prior with mode collapse repeats itself."""
    grids = [make_grid(sample(prior, count, seed=seed), 8, padding=1) for prior in priors]
    return make_grid(grids, len(grids), padding=4, pad_value=1.0)


def _read(data: Path) -> Tensor:
    """Reads images as a tensor (N, C, H, W) in [0, 1]."""
    x = torch.from_numpy(np.load(data)).float() / 255
    return x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)


@click.command()
@click.argument("picture", type=click.Choice([
    "manifold", "codes", "interpolation", "images", "temperatures", "levels", "collapse",
]))
@click.option("--prior", "names", multiple=True, required=True,
              help="Name of a prior or checkpoint folder. May be repeated for collapse.")
@click.option("--data", type=click.Path(exists=True, path_type=Path),
              help="Images for codes and images: .npy array (N, H, W[, C]), 8 bits.")
@click.option("--labels", type=click.Path(exists=True, path_type=Path),
              help="Labels 0 ... 9 of the images for codes: .npy array (N,).")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(
    picture: str, names: Sequence[str], data: Path | None, labels: Path | None, seed: int,
    output: Path,
) -> None:
    """Draw the figure PICTURE with the priors of this package."""
    priors = [load_prior(name) for name in names]
    if picture in ("codes", "images") and data is None:
        raise click.UsageError(f"{picture} needs images: give --data")
    x = None if data is None else _read(data)
    with torch.no_grad():
        if picture == "codes":
            drawn = codes(priors[0], x, np.load(labels).tolist() if labels else [9] * len(x))
        elif picture == "images":
            drawn = images(priors[0], x)
        elif picture == "manifold":
            drawn = manifold(priors[0])
        elif picture == "collapse":
            drawn = collapse(priors, seed)
        else:
            drawn = globals()[picture](priors[0], seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_image(output, drawn[None].clamp(0, 1))


if __name__ == "__main__":
    main()
