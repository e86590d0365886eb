"""Figures for a course on generative models: latent grids, interpolation, temperatures, collapse.

    python examples/lecture.py manifold --prior runs/vae-2 -o manifold.png
    python examples/lecture.py codes --prior runs/vae-2 --data digits.npy --labels labels.npy \\
        -o codes.png
    python examples/lecture.py interpolation --prior gan:digits -o interpolation.png
    python examples/lecture.py images --prior glow --data photos.npy -o images.png
    python examples/lecture.py temperatures --prior glow:digits -o temperatures.png
    python examples/lecture.py levels --prior runs/hvae-digits -o levels.png
    python examples/lecture.py collapse --data digits.npy -o collapse.png
    python examples/lecture.py autoencoders --data digits.npy --labels labels.npy \\
        -o autoencoders.png
    python examples/lecture.py neighbours --prior gan:digits --data digits.npy -o neighbours.png
    python examples/lecture.py arithmetic --prior gan:digits -o arithmetic.png
    python examples/lecture.py restorations --prior runs/pix2pix --prior ddpm:digits \\
        --data test.npy -o pix2pix.png

`benchmarks/recipes.md` says how to train the priors in `runs/`. The outputs of these lines are in
`examples/lecture`; `photos.npy` holds crops of the cat and the astronaut of scikit-image.
"""

from collections.abc import Sequence
from pathlib import Path

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn.functional import softplus
from torchvision.utils import make_grid

from genprior import degrade, load_prior, make_operator, restore, sample
from genprior.io.images import write_image
from genprior.operators.masks import box_hole, random_keep
from genprior.priors.base import Decoder, Encoder
from genprior.priors.elbo import divergence
from genprior.priors.hvae import HVAE
from genprior.priors.latent_interpolation import interpolate
from genprior.priors.vae import VAE

SHAPE = torch.Size((1, 1, 28, 28))
INKS = ("#4e79a7", "#f28e2b", "#e15759", "#76b7b2", "#59a14f",
        "#b6992d", "#b07aa1", "#ff9da7", "#9c755f", "#222222")
# Trainings of `collapse`: optimiser, learning rate, momentum (beta 1 of Adam), loss.
GANS = {
    "Adam, rate 0.002,\nnon-saturating loss (2)": ("Adam", 2e-3, 0.5, "nonsaturating"),
    "Adam, rate 0.002,\nminimax loss (1)": ("Adam", 2e-3, 0.5, "minimax"),
    "SGD, rate 0.01, momentum 0.9,\nnon-saturating loss (2)":
        ("SGD", 1e-2, 0.9, "nonsaturating"),
    "SGD, rate 0.01, momentum 0.9,\nminimax loss (1)": ("SGD", 1e-2, 0.9, "minimax"),
}
ON_DATA = ("autoencoders", "collapse", "neighbours", "restorations")
ALONE = ("autoencoders", "collapse")  # they train their networks


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


def collapse(x: Tensor, epochs: Sequence[int] = (1, 2, 3, 4)) -> Tensor:
    """Trains dense GANs on images, and draws samples of them after some epochs.

    Rows: Adam and SGD with momentum, each with the non-saturating loss (2) and the minimax loss
    (1). The titles have the spread of the samples: the root of the sum of the variances of the
    pixels, in units of [0, 1].
    """
    draw = torch.Generator().manual_seed(1)
    z = torch.randn(36, 32, generator=draw)
    figure, axes = plt.subplots(len(GANS), len(epochs), figsize=(7.6, 8.2), layout="constrained")
    for row, (name, settings) in zip(axes, GANS.items(), strict=True):
        with torch.enable_grad():
            pictures = _train_dense_gan(x, z, *settings, epochs)
        for ax, drawn, epoch in zip(row, pictures, epochs, strict=True):
            ax.imshow(make_grid(drawn, 6, padding=1)[0], cmap="gray", vmin=0, vmax=1)
            spread = drawn.std(dim=0).norm()
            ax.set_title(f"epoch {epoch}, spread {spread:.2g}", fontsize=8)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=8)
    figure.suptitle(f"spread of the training images: {x.std(dim=0).norm():.2g}", fontsize=9)
    return _pixels(figure)[:1]


def _train_dense_gan(
    x: Tensor, z_shown: Tensor, kind: str, lr: float, momentum: float, loss: str,
    epochs: Sequence[int],
) -> list[Tensor]:
    """Trains a GAN of dense layers; returns the images of `z_shown` after some epochs."""
    torch.manual_seed(0)
    pixels, latent = x[0].numel(), z_shown.shape[1]
    G = nn.Sequential(nn.Linear(latent, 128), nn.ReLU(), nn.Linear(128, 256), nn.ReLU(),
                      nn.Linear(256, pixels), nn.Sigmoid())
    D = nn.Sequential(nn.Linear(pixels, 256), nn.LeakyReLU(0.2), nn.Linear(256, 128),
                      nn.LeakyReLU(0.2), nn.Linear(128, 1))
    if kind == "Adam":
        of_G, of_D = (torch.optim.Adam(net.parameters(), lr, (momentum, 0.999)) for net in (G, D))
    else:
        of_G, of_D = (torch.optim.SGD(net.parameters(), lr, momentum) for net in (G, D))
    draw, real, pictures = torch.Generator().manual_seed(1), 2 * x.flatten(1) - 1, []
    for epoch in range(1, max(epochs) + 1):
        for batch in torch.randperm(len(x), generator=draw).split(100):
            fake = 2 * G(torch.randn(len(batch), latent, generator=draw)).detach() - 1
            critic = softplus(-D(real[batch])).mean() + softplus(D(fake)).mean()
            of_D.zero_grad()
            critic.backward()
            of_D.step()
            logit = D(2 * G(torch.randn(len(batch), latent, generator=draw)) - 1)
            minimax = loss == "minimax"
            generator = -softplus(logit).mean() if minimax else softplus(-logit).mean()
            of_G.zero_grad()
            generator.backward()
            of_G.step()
        if epoch in epochs:
            pictures.append(G(z_shown).detach().reshape(len(z_shown), *x.shape[1:]))
    return pictures


def autoencoders(x: Tensor, labels: Sequence[int], steps: int = 3000) -> Tensor:
    """Trains an autoencoder and a VAE with two latents on 1000 images, and draws both.

    Columns: images and their reconstructions, codes of 256 other images, decoded grid.
    """
    train, test, shown = x[:1000], x[1000:1256], labels[1000:1256]
    figure, axes = plt.subplots(2, 3, figsize=(10.5, 7), layout="constrained")
    for row, (name, beta) in zip(axes, {"autoencoder": 0, "VAE": 1}.items(), strict=True):
        with torch.enable_grad():
            vae = _train_codes(train, beta, steps)
        z = vae.encode(test)
        pairs = torch.cat((test[:24].reshape(3, 8, *SHAPE[1:]),
                           vae.decode(z[:24], test[:24].shape).reshape(3, 8, *SHAPE[1:])), dim=1)
        sheet = make_grid(pairs.flatten(0, 1), 8, padding=1)
        row[0].imshow(sheet[0].clamp(0, 1), cmap="gray")
        row[0].set_title(f"{name}: images, reconstructions below", fontsize=9)
        for digit in range(10):
            mine = z[torch.tensor(shown) == digit]
            row[1].plot(*mine.T, ".", color=INKS[digit], label=str(digit))
        row[1].set(xlabel="z1", ylabel="z2")
        row[1].set_title("codes of images that were not trained on", fontsize=9)
        row[1].legend(fontsize=7, ncols=2, markerscale=1.5)
        ends = torch.distributions.Normal(0, 1).icdf((torch.arange(15) + 0.5) / 15)
        grids = [ends, ends]
        if beta == 0:  # its codes have a law of their own
            grids = [torch.linspace(*z[:, k].quantile(torch.tensor([0.02, 0.98])), 15)
                     for k in range(2)]
        plane = torch.cartesian_prod(grids[1].flip(0), grids[0]).flip(1)
        decoded = vae.decode(plane, torch.Size((len(plane), *SHAPE[1:])))
        row[2].imshow(make_grid(decoded, 15, padding=0)[0].clamp(0, 1), cmap="gray")
        row[2].set_title("decoded grid", fontsize=9)
        for ax in (row[0], row[2]):
            ax.set_axis_off()
    return _pixels(figure)


def _train_codes(x: Tensor, beta: float, steps: int, std: float = 0.25) -> VAE:
    """Trains a dense VAE with two latents, decoder N(G(z), std^2); an autoencoder if beta is 0."""
    torch.manual_seed(0)
    vae = VAE(1, 2, (256, 128), size=SHAPE[2:], architecture="dense", std=std, beta=beta)
    optimizer, draw = torch.optim.Adam(vae.parameters(), 1e-3), torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (100,), generator=draw)]
        mean, log_std = vae.posterior(batch)
        noise = torch.randn(mean.shape, generator=draw) if beta else 0
        error = vae.decode(mean + log_std.exp() * noise, batch.shape) - batch
        loss = error.square().sum(dim=(1, 2, 3)) / (2 * std**2) + beta * divergence(mean, log_std)
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    return vae


def neighbours(prior: Decoder, x: Tensor, seed: int, count: int = 12, near: int = 3) -> Tensor:
    """Draws samples, and below each the images of the training set that are nearest to it."""
    drawn = sample(prior, count, seed=seed)
    order = torch.cdist(drawn.flatten(1), x.flatten(1)).argsort(dim=1)[:, :near]
    rows = [drawn, *(x[order[:, k]] for k in range(near))]
    return make_grid(torch.cat(rows), count, padding=1)


def arithmetic(prior: Decoder, seed: int, count: int = 10, drawn: int = 1000) -> Tensor:
    """Adds differences of mean latents: bold minus light, and slanted right minus left.

    Each block has z minus the difference, z, and z plus the difference.
    """
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(prior.latent_shape(torch.Size((drawn, *SHAPE[1:]))), generator=draw)
    x = torch.cat([prior.decode(part, torch.Size((len(part), *SHAPE[1:])))
                   for part in z.split(100)])[:, 0]
    axis = torch.linspace(-1, 1, x.shape[-1])
    ink = x.mean(dim=(1, 2))
    down = (x * axis[:, None]).sum(dim=(1, 2)) / x.sum(dim=(1, 2))
    right = (x * axis).sum(dim=(1, 2)) / x.sum(dim=(1, 2))
    moment = x * (axis[:, None] - down[:, None, None]) * (axis - right[:, None, None])
    slant = -moment.sum(dim=(1, 2)) / x.sum(dim=(1, 2))
    blocks, shape = [], torch.Size((count, *SHAPE[1:]))
    for feature in (ink, slant):
        order, share = feature.argsort(), drawn // 20
        change = z[order[-share:]].mean(dim=0) - z[order[:share]].mean(dim=0)
        blocks += [prior.decode(z[:count] + k * change, shape) for k in (-1, 0, 1)]
    return make_grid(torch.cat(blocks), count, padding=1)


def restorations(priors: Sequence[object], x: Tensor, count: int = 10) -> Tensor:
    """Restores a hole of 16 x 16 pixels, scattered missing pixels, and a blur, by each prior.

    A block for each measurement: images, measurements, and a row for every prior.
    """
    x, blocks = x[:count], []
    keep = random_keep((1, 1, *SHAPE[2:]), 0.5)
    for operator, noise in (
        (make_operator("inpaint", keep=~box_hole((1, 1, *SHAPE[2:]), 16, 16)), 0.0),
        (make_operator("inpaint", keep=keep), 0.0),
        (make_operator("deblur", gaussian=1.6, boundary="reflect"), 0.01),
    ):
        y = degrade(x, operator, noise)
        found = [restore(y, operator, prior, noise_std=noise).image for prior in priors]
        shown = torch.where(operator.mask_unmeasured(torch.ones_like(y)) > 0, y, 0.5)
        blocks.append(make_grid(torch.cat([x, shown, *found]), count, padding=1))
    return torch.cat([torch.nn.functional.pad(b, (0, 0, 0, 4), value=1.0) for b in blocks], dim=1)


def _pixels(figure: plt.Figure) -> Tensor:
    """Returns a figure of matplotlib as an image (3, H, W)."""
    figure.canvas.draw()
    return torch.from_numpy(np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()).permute(
        2, 0, 1) / 255


def _read(data: Path) -> Tensor:
    """Reads images as a tensor (N, C, H, W) in [0, 1]."""
    x = torch.from_numpy(np.load(data)).float() / 255
    return x[:, None] if x.ndim == 3 else x.permute(0, 3, 1, 2)


@click.command()
@click.argument("picture", type=click.Choice([
    "manifold", "codes", "interpolation", "images", "temperatures", "levels", "collapse",
    "autoencoders", "neighbours", "arithmetic", "restorations",
]))
@click.option("--prior", "names", multiple=True,
              help="Name of a prior or checkpoint folder. May be repeated for "
                   "restorations.")
@click.option("--data", type=click.Path(exists=True, path_type=Path),
              help="Images: .npy array (N, H, W[, C]), 8 bits.")
@click.option("--labels", type=click.Path(exists=True, path_type=Path),
              help="Labels 0 ... 9 of the images for codes and autoencoders: .npy array (N,).")
@click.option("--seed", default=0, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
def main(
    picture: str, names: Sequence[str], data: Path | None, labels: Path | None, seed: int,
    output: Path,
) -> None:
    """Draw the figure PICTURE with the priors of this package."""
    priors = [load_prior(name) for name in names]
    if not priors and picture not in ALONE:
        raise click.UsageError(f"{picture} needs a prior: give --prior")
    if picture in ("codes", "images", *ON_DATA) and data is None:
        raise click.UsageError(f"{picture} needs images: give --data")
    x = None if data is None else _read(data)
    digits = np.load(labels).tolist() if labels else [9] * len(x if x is not None else [])
    with torch.no_grad():
        if picture == "codes":
            drawn = codes(priors[0], x, digits)
        elif picture == "autoencoders":
            drawn = autoencoders(x, digits)
        elif picture == "images":
            drawn = images(priors[0], x)
        elif picture == "manifold":
            drawn = manifold(priors[0])
        elif picture == "collapse":
            drawn = collapse(x)
        elif picture == "restorations":
            drawn = restorations(priors, x)
        elif picture == "neighbours":
            drawn = neighbours(priors[0], x, seed)
        else:
            drawn = globals()[picture](priors[0], seed)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_image(output, drawn[None].clamp(0, 1))


if __name__ == "__main__":
    main()
