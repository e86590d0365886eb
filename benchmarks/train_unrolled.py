"""Trains the network and the schedules of the unrolled steps of `hqs`.

    python benchmarks/train_unrolled.py PHOTOS... -o unrolled --minutes 85

The steps are unrolled on random crops, with random operators and noise levels. A copy of the
denoiser (or the network for unrolled steps that the prior has), one for all steps and operators,
and the numbers of each step follow the gradient of the mean PSNR. 12 % of the crops are drawings,
and 15 % of the blurs are restored with a kernel that is slightly wrong. Written are a checkpoint,
OUT, with the moving average of the network, and the numbers, OUT.json. A prior without an
inpainting network learns no holes.

`--init OUT...` goes on from such runs, from the mean of their weights if there are several.
`--rate 0` keeps the numbers of genprior, which is what another prior needs.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from train_schedule import (
    between,
    blur,
    crops_of,
    disc_kernel,
    downsampling,
    gaussian_kernel,
    leaves,
    motion_kernel,
    oval_kernel,
    rounded,
    schedule_of,
    trainable,
)

import genprior
from genprior.api.factory import load_checkpoint
from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.inverse.plug_and_play.hqs import HQS, refined
from genprior.inverse.plug_and_play.schedules import TRAINED, TRAINED_LEVELS, Schedule
from genprior.inverse.self_ensemble import mean_of_views
from genprior.io.images import image_files, read_image
from genprior.operators.base import Convolution, Operator
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernel_superres import KernelSuperResolution
from genprior.priors.checkpoint import save_checkpoint
from genprior.priors.ddpm import DDPM
from genprior.registry import find_prior
from genprior.training.optimizers import build_optimizers

SHARES = {"blur": 0.46, "downsampling": 0.26, "scattered": 0.14, "hole": 0.14}
STEPS = {"blur": (8, 4), "downsampling": (6, 4), "scattered": (4,), "hole": (3,)}
FEWER_SHARE, GREY_SHARE, WRONG_SHARE, NOISE_FREE_SHARE = 0.2, 0.08, 0.15, 0.2
DRAWING_SHARE, DARK_SHARE = 0.12, 0.06
MOTION_SHARE, NARROW_SHARE = 0.14, 0.08  # of the blurs, besides those of `blur`
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,-"
NOISE_FREE_HOLES = 0.6
SIZES = ((3, 96), (2, 120))  # crops of a batch, and their side
WARMUP, MOMENTUM = 30, 0.99


@dataclass(frozen=True)
class Problem:
    """A batch of measurements.

    Arguments:
        name: Name of the schedule, without "unrolled-".
        y: Measurements.
        operator: The operator that the solver is given.
        noise_std: Noise levels, shape (B,).
        start: Images that the steps begin with, shape (B, C, H, W).
        clean: Images, shape (B, C, H, W).
        weight: 1 where the error counts, shape (B, 1, H, W).
    """

    name: str
    y: Tensor
    operator: Operator
    noise_std: Tensor
    start: Tensor
    clean: Tensor
    weight: Tensor

    def decibels(self, x: Tensor) -> Tensor:
        """Returns the mean PSNR of images in dB, not clipped."""
        error = ((x - self.clean) ** 2 * self.weight).flatten(1).sum(dim=1)
        error = error / (self.weight.flatten(1).sum(dim=1) * x.shape[1])
        return -10 * (error + 1e-6).log10().mean()


def wrong_kernel(kernel: Tensor, draw: random.Random) -> Tensor:
    """Returns a kernel (1, 1, h, w) turned by up to 4 degrees and scaled by up to 6 %."""
    kernel = F.pad(kernel, (0, 1 - kernel.shape[-1] % 2, 0, 1 - kernel.shape[-2] % 2))
    (h, w), angle, scale = kernel.shape[-2:], math.radians(draw.uniform(-4, 4)), 1 / draw.uniform(
        0.94, 1.06
    )
    turned = torch.tensor([[math.cos(angle), -math.sin(angle) * h / w, 0],
                           [math.sin(angle) * w / h, math.cos(angle), 0]]) * scale
    grid = F.affine_grid(turned[None], list(kernel.shape), align_corners=True)
    kernel = F.grid_sample(kernel, grid, align_corners=True).clamp(min=0)
    return kernel / kernel.sum()


def tone(draw: random.Random) -> tuple[int, int, int]:
    """Returns a colour, or a grey, often at an end of the range."""
    def level() -> int:
        return draw.choice((0, 255, draw.randint(0, 255)))

    return (level(), level(), level()) if draw.random() < 0.6 else (level(),) * 3


def drawing(draw: random.Random, side: int) -> Tensor:
    """Returns stripes, squares, shapes or lines of text, shape (1, 3, side, side)."""
    if draw.random() < 0.3:
        tall, wide = draw.randint(2, 16), draw.choice((draw.randint(2, 16), side))
        rows = (torch.arange(side) + draw.randint(0, 15)) // tall
        columns = (torch.arange(side) + draw.randint(0, 15)) // wide
        odd = (rows[:, None] + columns) % 2 == 1
        first, second = (torch.tensor(tone(draw))[:, None, None] / 255 for _ in range(2))
        return torch.where(odd, first, second)[None]
    image = Image.new("RGB", (side, side), tone(draw))
    pen, ink, text = ImageDraw.Draw(image), tone(draw), draw.random() < 0.6
    for _ in range(draw.randint(1, 6) if not text or draw.random() < 0.5 else 0):
        a, b, c, d = (draw.randint(-20, side + 20) for _ in range(4))
        box, kind = (min(a, c), min(b, d), max(a, c), max(b, d)), draw.random()
        if kind < 0.4:
            pen.rectangle(box, fill=tone(draw))
        elif kind < 0.7:
            pen.ellipse(box, fill=tone(draw))
        else:
            pen.line((a, b, c, d), fill=tone(draw), width=draw.randint(1, 6))
    if text:
        size = draw.randint(9, 28)
        font = ImageFont.load_default(size)
        for top in range(draw.randint(-5, 10), side, int(size * draw.uniform(1.1, 1.8))):
            words = ("".join(draw.choices(LETTERS, k=draw.randint(1, 9))) for _ in range(9))
            pen.text((draw.randint(-10, 10), top), " ".join(words), fill=ink, font=font)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255


def any_blur(draw: random.Random) -> Operator:
    """Returns a blur of `blur`, or one by motion of 4 to 30 pixels, or a narrow Gaussian."""
    share = draw.random()
    if share < MOTION_SHARE:
        kernel = motion_kernel(between(draw, 4, 30), draw.uniform(0, 180))
    elif share < MOTION_SHARE + NARROW_SHARE:
        kernel = gaussian_kernel(draw.uniform(0.3, 0.7))
    else:
        return blur(draw)
    boundary = draw.choice(("circular", "valid"))
    return genprior.make_operator("deblur", kernel=kernel, boundary=boundary)


def any_downsampling(draw: random.Random) -> Operator:
    """Returns a downsampling with a filter, a box, by 8, or with the kernel of a blur."""
    share = draw.random()
    if share < 0.12:
        kind = draw.random()
        kernel = (
            oval_kernel(draw) if kind < 0.4
            else motion_kernel(between(draw, 3, 15), draw.uniform(0, 180)) if kind < 0.7
            else disc_kernel(between(draw, 1, 4))
        )
        return KernelSuperResolution(draw.choice((2, 2, 4)), kernel, "circular")
    settings: dict[str, Any] = {"boundary": "circular"}
    if share < 0.24:
        return genprior.make_operator(
            "superres", factor=draw.choice((2, 4)), kernel="box", **settings
        )
    if share < 0.28:
        return genprior.make_operator("superres", factor=8, **settings)
    return downsampling(draw)


def scattered_holes(draw: random.Random, side: int) -> Tensor:
    """Returns missing pixels or strokes as 1, shape (1, side, side)."""
    if draw.random() >= 0.3:
        share = draw.choice((0.5, 0.9, draw.uniform(0.05, 0.96)))
        return (torch.rand(1, side, side) < share).float()
    strokes, along = torch.zeros(1, side, side), torch.linspace(0, 1, 300)
    for _ in range(draw.randint(2, 10)):
        top, left, bottom, right = (draw.uniform(0, side) for _ in range(4))
        rows, columns = top + (bottom - top) * along, left + (right - left) * along
        strokes[0, rows.long().clamp(max=side - 1), columns.long().clamp(max=side - 1)] = 1
    width = draw.choice((1, 3, 5))
    return F.max_pool2d(strokes, width, 1, width // 2)


def wide_hole(draw: random.Random, side: int) -> Tensor:
    """Returns a box or blobs as 1, shape (1, side, side)."""
    unknown = torch.zeros(1, side, side)
    if draw.random() < 0.6:
        h, w = draw.randint(8, 56), draw.randint(8, 56)
        top, left = draw.randint(4, side - h - 4), draw.randint(4, side - w - 4)
        unknown[:, top : top + h, left : left + w] = 1
        return unknown
    rough = torch.rand(1, 1, side // 12 + 2, side // 12 + 2)
    smooth = F.interpolate(rough, scale_factor=12, mode="bilinear")[0, :, :side, :side]
    blobs = (smooth < draw.uniform(0.2, 0.45)).float()
    if not blobs.any():
        blobs[:, 10:30, 10:30] = 1
    return blobs


def problem(
    draw: random.Random, photos: Sequence[Tensor], crops: tuple[int, int], prior: DDPM,
    noise: Noise,
) -> Problem:
    """Draws a batch of measurements.

    Arguments:
        draw: Random numbers; masks are drawn with those of torch.
        photos: Images, shape (1, 3, H, W).
        crops: Number of crops, and their side.
        prior: The prior, for the start of images with holes.
        noise: Source of the noise of so many images.
    """
    kinds = tuple(SHARES) if prior.is_inpainter else ("blur", "downsampling")
    kind = draw.choices(kinds, [SHARES[name] for name in kinds])[0]
    count, side = crops
    clean = crops_of(photos, draw, count, side)
    for i in range(count):
        share = draw.random()
        if share < DRAWING_SHARE:
            clean[i] = drawing(draw, side)[0]
        elif share < DRAWING_SHARE + DARK_SHARE:
            clean[i] *= between(draw, 0.1, 1)
    if draw.random() < GREY_SHARE or prior.channels == 1:
        clean = clean.mean(dim=1, keepdim=True)
    noise_std = clean.new_tensor([between(draw, *TRAINED_LEVELS) for _ in clean])
    weight = torch.ones_like(clean[:, :1])
    if kind in ("scattered", "hole"):
        if draw.random() < NOISE_FREE_HOLES:
            noise_std = torch.zeros_like(noise_std)
        holes = scattered_holes if kind == "scattered" else wide_hole
        unknown = torch.stack([holes(draw, side) for _ in clean])
        operator = given = Inpainting(1 - unknown)
        if kind == "hole" or noise_std[0] == 0:
            weight = unknown
    elif kind == "blur":
        operator = given = any_blur(draw)
        if draw.random() < WRONG_SHARE:
            kernel = wrong_kernel(operator.kernel, draw)
            if kernel.shape == operator.kernel.shape:
                given = genprior.make_operator("deblur", kernel=kernel, boundary=operator.boundary)
    else:
        operator = given = any_downsampling(draw)
        if draw.random() < NOISE_FREE_SHARE:
            noise_std = torch.zeros_like(noise_std)
    y = operator.A(clean)
    y = y + per_image(noise_std, y) * noise.normal(y)
    with torch.no_grad():
        if kind in ("scattered", "hole"):
            views = draw.choices(prior.symmetries, k=draw.choice((1, 2, 3)))
            start = mean_of_views(y, operator, prior, noise_std, views)
        else:
            start = HQS().starting_images(y, given, prior, noise_std)[0]
    steps, *fewer = STEPS[kind]
    if fewer and draw.random() < FEWER_SHARE:
        steps = fewer[0]
    return Problem(f"{kind}-{steps}", y, given, noise_std, start, clean, weight)


def numbers_of(schedule: Schedule) -> dict[str, Any]:
    """Returns the numbers of the steps of a schedule."""
    found: dict[str, Any] = {}
    for field in fields(schedule):
        value = getattr(schedule, field.name)
        if field.name == "sharp" and value is not None:
            found["sharp"] = numbers_of(value)
        elif isinstance(value, Sequence):
            found[field.name] = [float(number) for number in value]
    return found


def mean_of(values: Sequence[Any]) -> Any:
    """Returns the mean of the tensors of several runs, which may be nested in mappings."""
    if isinstance(values[0], Mapping):
        return {key: mean_of([value[key] for value in values]) for key in values[0]}
    with torch.no_grad():
        return torch.stack(list(values)).mean(dim=0)


def initial(given: argparse.Namespace) -> tuple[DDPM, dict[str, dict[str, Any]], dict[str, Any]]:
    """Returns the prior and the numbers that the training starts with.

    Returns:
        The prior; the numbers, positive ones as logarithms; and what its manifest says of it.
    """
    base, manifest = load_checkpoint(find_prior(given.prior))
    if not isinstance(base, DDPM):
        raise SystemExit(f"--prior {given.prior} is no ddpm")
    prior = DDPM(**{**base.config, "unrolled": True})
    state = prior.inherit(base.state_dict())
    own = [f"{kind}-{count}" for kind, counts in STEPS.items() for count in counts]
    numbers = {name: trainable(numbers_of(TRAINED[f"unrolled-{name}"])) for name in own}
    if given.init:
        runs = [genprior.load_prior(str(folder)).unrolled.state_dict() for folder in given.init]
        state |= {f"unrolled.{key}": value for key, value in mean_of(runs).items()}
        files = [json.loads(Path(f"{folder}.json").read_text()) for folder in given.init]
        numbers = mean_of([{name: trainable(file[name]) for name in own} for file in files])
    prior.load_state_dict(state)
    about = {key: value for key, value in manifest.items()
             if key not in ("schema", "prior", "config", "files")}
    return prior.requires_grad_(False).eval(), numbers, about


def train(given: argparse.Namespace) -> None:
    """Trains the network and the numbers, and writes both every few minutes."""
    draw = random.Random(given.seed)
    torch.manual_seed(given.seed)
    prior, numbers, about = initial(given)
    for tensor in leaves(numbers):
        tensor.requires_grad_(given.rate > 0)
    photos = [read_image(file).pixels for folder in given.photos for file in image_files(folder)]
    photos = [x for x in photos if min(x.shape[-2:]) >= max(side for _, side in SIZES)]
    network = prior.unrolled.requires_grad_(True)
    average = {key: value.detach().clone() for key, value in network.state_dict().items()}
    optimizers = list(
        build_optimizers("unrolled", network.parameters(), "muon", given.lr).values()
    )
    if given.rate:
        optimizers.append(torch.optim.Adam(list(leaves(numbers)), given.rate, betas=(0.9, 0.98)))
    rates = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]

    def save() -> None:
        state = prior.state_dict() | {f"unrolled.{key}": value for key, value in average.items()}
        save_checkpoint(given.output, "ddpm", prior.config, state, about=about)
        found = {name: rounded(each) for name, each in numbers.items()}
        Path(f"{given.output}.json").write_text(json.dumps(found, indent=1) + "\n")

    count, saved, begin = 0, 0.0, time.process_time()
    gains: dict[str, float] = {}
    while (spent := (time.process_time() - begin) / 60) < given.minutes:
        part = spent / given.minutes
        warm = min(1, (count + 1) / WARMUP)
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * warm * (1 - part) ** 0.8
        crops = draw.choice(SIZES)
        noise = Noise(given.seed, range(count * 9, count * 9 + crops[0]))
        drawn = problem(draw, photos, crops, prior, noise)
        kernel = drawn.operator.kernel if isinstance(drawn.operator, Convolution) else None
        steps = schedule_of(numbers[drawn.name]).steps(drawn.noise_std, kernel)
        x = refined(drawn.start, steps, drawn.noise_std, drawn.operator.proximal(drawn.y),
                    prior.denoise_unrolled, prior.symmetries)
        gained = drawn.decibels(x) - drawn.decibels(drawn.start)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (-gained).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 30.0)
        for optimizer in optimizers:
            optimizer.step()
        count += 1
        decay = min(MOMENTUM, (count + 1) / (count + 10))
        with torch.no_grad():
            for key, value in network.state_dict().items():
                average[key].lerp_(value, 1 - decay)
        old = gains.get(drawn.name, gained.item())
        gains[drawn.name] = 0.95 * old + 0.05 * gained.item()
        if count % 20 == 0:
            text = ", ".join(f"{name} {gain:.2f}" for name, gain in sorted(gains.items()))
            print(f"{count} steps, {spent:.1f} minutes, gain in dB: {text}", flush=True)
        if spent > saved + 4:
            saved = spent
            save()
    save()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="+", help="folders of photos")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=85, help="of processor time")
    parser.add_argument("--lr", type=float, default=3e-4, help="of the network")
    parser.add_argument("--rate", type=float, default=0.015, help="of the numbers")
    parser.add_argument("--init", type=Path, nargs="+", default=[])
    parser.add_argument("--prior", default="ddpm")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
