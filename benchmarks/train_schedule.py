"""Trains the schedules of `genprior.inverse.plug_and_play.schedules`.

    python benchmarks/train_schedule.py blur PHOTOS -o blur-8.json --steps 8 --minutes 13

The steps of `hqs` are unrolled on random crops, with random operators and noise levels; the level,
coupling, relaxation and momentum of each step, and the powers of the noise level, follow the
gradient of the mean PSNR. The weights of the prior are fixed. `--init FILE` goes on from such a
file. PHOTOS are photos that the prior was trained on; `benchmarks/steps.py` measures on others.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

import genprior
from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.core.symmetries import turn
from genprior.inverse.plug_and_play.hqs import HQS, refined
from genprior.inverse.plug_and_play.schedules import TRAINED_LEVELS, Schedule
from genprior.io.images import image_files, read_image
from genprior.operators.base import Convolution, Operator
from genprior.operators.kernels import disc_kernel, gaussian_kernel, motion_kernel

CROPS, SIDE = 3, 96
AVERAGED = 0.97  # of the PSNR that is printed
POSITIVE = ("sigma", "coupling")  # trained as their logarithms


def between(draw: random.Random, low: float, high: float) -> float:
    """Returns a number whose logarithm is uniform."""
    return math.exp(draw.uniform(math.log(low), math.log(high)))


def oval_kernel(draw: random.Random) -> Tensor:
    """Returns a Gaussian kernel that is wider in one direction."""
    long = between(draw, 1.2, 5)
    short, angle, side = long * draw.uniform(0.5, 1), draw.uniform(0, math.pi), math.ceil(3 * long)
    positions = torch.arange(-side, side + 1.0)
    rows, columns = torch.meshgrid(positions, positions, indexing="ij")
    along = rows * math.cos(angle) + columns * math.sin(angle)
    across = columns * math.cos(angle) - rows * math.sin(angle)
    kernel = (-((along / long) ** 2) / 2 - (across / short) ** 2 / 2).exp()
    return kernel / kernel.sum()


def shake_kernel(draw: random.Random) -> Tensor:
    """Returns the path of a shaken camera: a random walk with inertia, 9 to 21 pixels wide."""
    side = draw.choice((9, 13, 17, 21))
    kernel, at = torch.zeros(side, side), [side / 2, side / 2]
    speed = [draw.gauss(0, 0.5), draw.gauss(0, 0.5)]
    for _ in range(draw.randint(30, 150)):
        speed = [0.95 * v + draw.gauss(0, 0.15) for v in speed]
        at = [x + 0.4 * v for x, v in zip(at, speed, strict=True)]
        if not all(1 < x < side - 2 for x in at):
            break
        (row, down), (column, right) = ((int(x), x % 1) for x in at)
        weights = torch.outer(torch.tensor([1 - down, down]), torch.tensor([1 - right, right]))
        kernel[row : row + 2, column : column + 2] += weights
    return kernel / kernel.sum()


def blur(draw: random.Random) -> Operator:
    """Returns a blur: Gaussian, by motion, by defocus, or of a shaken camera."""
    kind = draw.random()
    if kind < 0.45:
        kernel = gaussian_kernel(between(draw, 0.6, 4.5))
    elif kind < 0.53:
        kernel = oval_kernel(draw)
    elif kind < 0.58:
        box = [draw.randint(3, 11) for _ in range(2)]
        kernel = torch.ones(box) / math.prod(box)
    elif kind < 0.72:
        kernel = motion_kernel(between(draw, 4, 30), draw.uniform(0, 180))
    elif kind < 0.85:
        kernel = disc_kernel(between(draw, 1, 8))
    else:
        kernel = shake_kernel(draw)
    boundary = draw.choice(("circular", "valid"))
    return genprior.make_operator("deblur", kernel=kernel, boundary=boundary)


def downsampling(draw: random.Random) -> Operator:
    """Returns a downsampling by 2, 3 or 4 with a Gaussian or bicubic filter."""
    factor = draw.choice((2, 2, 3, 4))
    settings = {"kernel": "bicubic"}
    if draw.random() < 0.6:
        settings = {"kernel": "gaussian", "std": factor * draw.uniform(0.35, 0.55)}
    return genprior.make_operator("superres", factor=factor, **settings, boundary="circular")


OPERATORS = {"blur": blur, "downsampling": downsampling}


def crops_of(photos: Sequence[Tensor], draw: random.Random, count: int, side: int) -> Tensor:
    """Returns random crops, flipped or turned, shape (count, 3, side, side)."""
    crops = []
    for x in draw.choices(photos, k=count):
        top, left = (draw.randrange(length - side + 1) for length in x.shape[-2:])
        crops.append(turn(x[..., top : top + side, left : left + side], draw.randrange(8)))
    return torch.cat(crops)


def decibels(x: Tensor, clean: Tensor) -> Tensor:
    """Returns the mean PSNR in dB of images that are not clipped."""
    return -10 * (x - clean).square().flatten(1).mean(dim=1).log10().mean()


def start_of(steps: int) -> dict[str, list[float]]:
    """Returns the numbers with which a training begins."""
    zeros = [0.0] * steps
    levels = [30 * (4 / 30) ** (k / max(steps - 1, 1)) for k in range(steps)]
    return {"sigma": levels, "coupling": [0.08] * steps, "relaxation": [0.9] * steps,
            "momentum": zeros, "sigma_power": zeros, "coupling_power": zeros}


def trainable(found: dict) -> dict:
    """Returns the numbers of a file as tensors with gradients, positive ones as logarithms."""
    numbers = {}
    for name, values in found.items():
        if isinstance(values, dict):
            numbers[name] = trainable(values)
        else:
            values = torch.tensor(values)
            numbers[name] = (values.log() if name in POSITIVE else values).requires_grad_()
    return numbers


def positive(numbers: dict) -> dict:
    """Returns levels and couplings from their logarithms, and the other numbers as they are."""
    return {
        name: positive(values) if isinstance(values, dict)
        else values.exp() if name in POSITIVE else values
        for name, values in numbers.items()
    }


def leaves(numbers: dict) -> Iterator[Tensor]:
    """Yields all tensors."""
    for values in numbers.values():
        yield from leaves(values) if isinstance(values, dict) else (values,)


def schedule_of(numbers: dict) -> Schedule:
    """Returns the schedule; its numbers are tensors, through which gradients pass."""
    found = positive(numbers)
    sharp = schedule_of(numbers["sharp"]) if "sharp" in numbers else None
    return Schedule(**{**found, "sharp": sharp})


def rounded(numbers: dict) -> dict:
    """Returns the numbers of a schedule as lists, to three digits."""
    def digits(values: object) -> object:
        if isinstance(values, dict):
            return {name: digits(each) for name, each in values.items()}
        return [float(f"{value:.3g}") for value in values.tolist()]

    with torch.no_grad():
        return digits(positive(numbers))


def train(given: argparse.Namespace) -> None:
    """Trains a schedule, and writes it after every 25 steps of the training."""
    draw = random.Random(given.seed)
    prior = genprior.load_prior(given.prior).requires_grad_(False)
    photos = [read_image(file).pixels for file in image_files(given.photos)]
    photos = [x for x in photos if min(x.shape[-2:]) >= SIDE]
    if given.init:
        found = json.loads(given.init.read_text())
    else:
        found = start_of(given.steps)
        if given.kind == "blur":
            found["sharp"] = start_of(given.steps)
    numbers = trainable(found)
    optimizer = torch.optim.Adam(list(leaves(numbers)), lr=given.rate, betas=(0.9, 0.98))
    method, gain, count, begin = HQS(), 0.0, 0, time.process_time()
    while (part := (time.process_time() - begin) / 60 / given.minutes) < 1:
        optimizer.param_groups[0]["lr"] = given.rate * (1 - part) ** 0.8
        operator, clean = OPERATORS[given.kind](draw), crops_of(photos, draw, CROPS, SIDE)
        noise_std = clean.new_tensor([between(draw, *TRAINED_LEVELS) for _ in clean])
        noise = Noise(given.seed, range(count * CROPS, (count + 1) * CROPS))
        y = operator.A(clean)
        y = y + per_image(noise_std, y) * noise.normal(y)
        with torch.no_grad():
            start = method.starting_images(y, operator, prior, noise_std)[0]
        kernel = operator.kernel if isinstance(operator, Convolution) else None
        steps = schedule_of(numbers).steps(noise_std, kernel)
        x = refined(
            start, steps, noise_std, operator.proximal(y), prior.denoise, prior.symmetries
        )
        gained = decibels(x, clean) - decibels(start, clean)
        optimizer.zero_grad()
        (-gained).backward()
        optimizer.step()
        gain = AVERAGED * gain + (1 - AVERAGED) * gained.item() if count else gained.item()
        count += 1
        if count % 25 == 0:
            spent = part * given.minutes
            print(f"{count} steps, {spent:.1f} minutes, gain {gain:.2f} dB", flush=True)
            given.output.write_text(json.dumps(rounded(numbers), indent=1) + "\n")
    given.output.write_text(json.dumps(rounded(numbers), indent=1) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=OPERATORS)
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=13, help="of processor time")
    parser.add_argument("--rate", type=float, default=0.05)
    parser.add_argument("--init", type=Path)
    parser.add_argument("--prior", default="ddpm")
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())
