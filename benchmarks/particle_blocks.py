"""The particle filter `smc` on images of several sizes: weights of whole images and of blocks.

    python benchmarks/particle_blocks.py [--rows patches] [--photo PHOTO]

patches   Images made of independent patches of 4 x 4 grey pixels, each of which has two modes of
          weights 0.7 and 0.3 with means near 0.2 and 0.8. Half of the pixels are missing and the
          noise is 1, so that the posterior weight of a mode differs from patch to patch. The error
          is the RMS, over the patches, of the share of particles in the second mode minus its
          exact weight; that of independent exact samples is given too. The grid of blocks is
          shifted at random at each level, so that its edges cut patches.
image     One image of 12 x 12 pixels with two modes that concern all of its pixels, at noise 6:
          the exact weight of the second mode, the share of particles in it, and the share of
          particles that lie farther from both modes than all but 1 in 1000 exact samples.
texture   A colour texture of 96 x 96 pixels (Gaussian, periodic, correlation of a few pixels),
          with a hole and scattered missing pixels, and with blur, noise 0.05. Standard deviation
          of samples over that of as many exact ones, and the RMS difference of the two means in
          units of what sampling explains.
photo     The effective sample size for the central 24 x 24 pixels of PHOTO, a training photo, with
          the network of the prior `ddpm`, whatever network that is, noise 0.1 and 6 levels. This
          part is measured only if a photo is given.

The sizes are the least effective sample size over the levels, a mean over the pixels. Writes
`results/particle_blocks.md` and `.json`.
"""

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from genprior import load_prior
from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.moment_matched import MomentMatched
from genprior.inverse.diffusion.smc import SMC
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.io.images import read_image
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.masks import random_keep
from genprior.priors.base import Denoiser
from genprior.priors.gmm import GMM
from genprior.priors.texture import Texture

RESULTS = Path(__file__).parent / "results"
PATCH, PATCH_NOISE, STEPS, PARTICLES = 4, 1.0, 20, 32
SIDES, BLOCKS = (8, 24, 48), (8, 16, None)
IMAGE, IMAGE_NOISE, IMAGE_RUNS = 12, 6.0, 4
TEXTURE, TEXTURE_NOISE, SAMPLES = 96, 0.05, 4
PHOTO, PHOTO_NOISE = 24, 0.1


class Patches(Denoiser):
    """Images made of independent square patches, each drawn from a mixture."""

    def __init__(self, law: GMM) -> None:
        self.law = law

    def cut(self, x: Tensor) -> Tensor:
        """Returns the patches of images, (B P, 1, 4, 4)."""
        parts = x.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))
        return parts.permute(0, 2, 4, 1, 3, 5).reshape(-1, 1, PATCH, PATCH)

    def joined(self, patches: Tensor, shape: torch.Size) -> Tensor:
        """Returns the images (B, 1, H, W) of patches."""
        rows, columns = (length // PATCH for length in shape[-2:])
        parts = patches.reshape(-1, rows, columns, 1, PATCH, PATCH)
        return parts.permute(0, 3, 1, 4, 2, 5).reshape(shape)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.joined(self.law.denoise(self.cut(x), sigma), x.shape)


def two_modes(side: int, low: float, high: float, std: float) -> GMM:
    """Returns two modes of weights 0.7 and 0.3 around two grey levels."""
    g = torch.Generator().manual_seed(0)
    levels = torch.tensor([low, high]).double().reshape(2, 1, 1, 1)
    means = levels + 0.1 * torch.randn(2, 1, side, side, generator=g, dtype=torch.float64)
    covs = std**2 * torch.eye(side**2).double().repeat(2, 1, 1)
    return GMM(torch.tensor([0.7, 0.3]).double(), means, covs)


def measured(x: Tensor, operator: Operator, noise_std: float) -> Tensor:
    """Returns the measurement of an image."""
    y = operator.A(x)
    n = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return y + noise_std * operator.mask_unmeasured(n.to(y))


def nearest_mode(x: Tensor, law: GMM) -> tuple[Tensor, Tensor]:
    """Returns which mode is nearest to images (N, 1, h, w), and the squared distance to it."""
    distance, mode = (x.flatten(1)[:, None] - law.means).square().sum(dim=2).min(dim=1)
    return mode, distance


def patches() -> list[dict]:
    """Measures the error of the weights of the modes of patches."""
    prior, rows = Patches(two_modes(PATCH, 0.2, 0.8, 0.1)), []
    for side in SIDES:
        shape = torch.Size((1, 1, side, side))
        count = (side // PATCH) ** 2
        x = prior.joined(prior.law.sample(count, torch.Generator().manual_seed(2)), shape)
        operator = Inpainting(random_keep(shape, 0.5))
        y = measured(x, operator, PATCH_NOISE)
        seen = prior.cut(operator.mask_unmeasured(torch.ones_like(y))).flatten(1) > 0
        exact = torch.stack([
            prior.law.posterior(v[keep], torch.eye(PATCH**2).double()[keep], PATCH_NOISE)
            .log_weights.exp()[1]
            for v, keep in zip(prior.cut(y).flatten(1), seen, strict=True)
        ])
        solvers: dict[str, object] = {"moment-matched": MomentMatched(STEPS)}
        for block in (block for block in BLOCKS if block is None or block < side):
            solvers[f"block {block or 'none'}"] = SMC(
                STEPS, particles=PARTICLES, root_products=3, block=block or side
            )
        row = {"side": side, "exact": (exact * (1 - exact) / PARTICLES).mean().sqrt().item()}
        for name, solver in solvers.items():
            found, size = particles(solver, y, operator, prior, PATCH_NOISE)
            share = nearest_mode(prior.cut(found), prior.law)[0]
            error = share.reshape(len(found), count).double().mean(dim=0) - exact
            row[name] = {"error": error.square().mean().sqrt().item(), "size": size}
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def particles(
    solver: object, y: Tensor, operator: Operator, prior: Denoiser, noise_std: float, seed: int = 0
) -> tuple[Tensor, float | None]:
    """Returns samples of one measurement, and the effective sample size."""
    if not isinstance(solver, SMC):
        keys = [(0, k) for k in range(PARTICLES)]
        many = y.expand(PARTICLES, -1, -1, -1)
        return solver(many, operator, prior, noise_std, Noise(seed, keys)), None
    sigma = torch.tensor([noise_std]).to(y)
    cloud, sizes = solver.cloud(y, operator, prior, sigma, Noise(seed, [0]))
    return cloud[0], sizes.item()


def image() -> list[dict]:
    """Measures the weight of a mode of the whole image."""
    law, rows = two_modes(IMAGE, 0.2, 0.8, 0.1), []
    shape = (1, 1, IMAGE, IMAGE)
    operator = Inpainting(random_keep(shape, 0.5))
    y = measured(law.sample(1, torch.Generator().manual_seed(3)), operator, IMAGE_NOISE)
    seen = operator.mask_unmeasured(torch.ones_like(y)).flatten() > 0
    A = torch.eye(IMAGE**2).double()[seen]
    exact = law.posterior(y.flatten()[seen], A, IMAGE_NOISE)
    draws = exact.sample(20000, torch.Generator().manual_seed(4))
    farthest = nearest_mode(draws, law)[1].quantile(0.999)
    for block in (4, IMAGE):
        solver = SMC(STEPS, particles=PARTICLES, root_products=3, block=block)
        runs = [particles(solver, y, operator, law, IMAGE_NOISE, k) for k in range(IMAGE_RUNS)]
        mode, distance = nearest_mode(torch.cat([found for found, _ in runs]), law)
        rows.append({
            "block": block, "exact": exact.log_weights.exp()[1].item(),
            "share": mode.double().mean().item(),
            "neither": (distance > farthest).double().mean().item(),
            "size": sum(size for _, size in runs) / IMAGE_RUNS,
        })
        print(json.dumps(rows[-1]), flush=True)
    return rows


def texture() -> list[dict]:
    """Compares samples of a colour texture with exact ones."""
    g, rows = torch.Generator().manual_seed(5), []
    white = torch.randn(1, 3, TEXTURE, TEXTURE, generator=g)
    smooth = Blur(gaussian_kernel(1.5), "circular").A(white + white.mean(dim=1, keepdim=True))
    prior = Texture.from_exemplar(0.5 + 0.5 * smooth, margin=0)
    x = prior.decode(torch.randn(prior.latent_shape(white.shape), generator=g), white.shape)
    keep = random_keep((1, 1, TEXTURE, TEXTURE), 0.5)
    keep[..., 30:54, 40:64] = False
    tasks = {"inpaint": Inpainting(keep), "deblur": Blur(gaussian_kernel(1.2), "circular")}
    keys = [(0, k) for k in range(SAMPLES)]
    for task, operator in tasks.items():
        y = measured(x, operator, TEXTURE_NOISE).expand(SAMPLES, -1, -1, -1)
        exact = GaussianPosterior()(y, operator, prior, TEXTURE_NOISE, Noise(7, keys))
        for block in (8, TEXTURE):
            solver = SMC(8, particles=4, block=block)
            found, sizes = solver.run(y, operator, prior, TEXTURE_NOISE, Noise(8, keys))
            apart = (found.mean(dim=0) - exact.mean(dim=0)).square().mean()
            explained = 2 * exact.var(dim=0).mean() / SAMPLES
            rows.append({
                "task": task, "block": block, "particles": solver.particles,
                "std": (found.var(dim=0).mean() / exact.var(dim=0).mean()).sqrt().item(),
                "mean": (apart / explained).sqrt().item(), "size": sizes.mean().item(),
            })
            print(json.dumps(rows[-1]), flush=True)
    return rows


def photo(file: Path) -> list[dict]:
    """Returns the effective sample sizes with a network, for a part of a photo."""
    x = read_image(file).pixels
    top, left = ((side - PHOTO) // 2 for side in x.shape[-2:])
    y = measured(x[..., top : top + PHOTO, left : left + PHOTO], Denoising(), PHOTO_NOISE)
    solver = SMC(6, particles=4, block=4)
    _, sizes = solver.run(y, Denoising(), load_prior("ddpm"), PHOTO_NOISE, Noise(0, [0]))
    return [{"block": solver.block, "particles": solver.particles, "size": sizes.item()}]


def markdown(record: dict) -> str:
    """Returns the record as tables."""
    names = ["moment-matched", *(f"block {block or 'none'}" for block in BLOCKS)]
    lines = [f"| image | exact | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for row in record["patches"]:
        cells = []
        for name in names:
            found = row.get(name)
            size = f" ({found['size']:.1f})" if found and found["size"] else ""
            cells.append(f"{found['error']:.3f}{size}" if found else "")
        image = f"{row['side']} x {row['side']}"
        lines.append(f"| {image} | {row['exact']:.3f} | {' | '.join(cells)} |")
    whole = ["| block | exact weight | share | in neither mode | effective sample size |",
             "|---|---|---|---|---|"]
    whole += [f"| {row['block']} | {row['exact']:.3f} | {row['share']:.3f} | "
              f"{row['neither']:.3f} | {row['size']:.1f} |" for row in record["image"]]
    colour = ["| task | block | std | mean | effective sample size |", "|---|---|---|---|---|"]
    colour += [f"| {row['task']} | {row['block']} | {row['std']:.3f} | {row['mean']:.2f} | "
               f"{row['size']:.1f} of {row['particles']} |" for row in record["texture"]]
    network = ["| block | effective sample size |", "|---|---|"]
    network += [f"| {row['block']} | {row['size']:.1f} of {row['particles']} |"
                for row in record.get("photo", ())]
    settings = "4 particles, 8 levels, and the default iterations of the solves"
    return f"""# Particle filter with weights by block

## Independent patches of two modes

RMS error of the weights of modes with {PARTICLES} particles and {STEPS} levels; in brackets the
effective sample size. One run of each.

{chr(10).join(lines)}

## Two modes of a whole image

{IMAGE_RUNS} runs of {PARTICLES} particles.

{chr(10).join(whole)}

## Colour texture of {TEXTURE} x {TEXTURE} pixels

{SAMPLES} samples, {settings}; std and mean are 1 if the samples are exact.

{chr(10).join(colour)}

## Network

{chr(10).join(network)}

```text
{__doc__.split("[--photo PHOTO]")[1].split("Writes")[0].strip()}
```

torch {record["torch"]}; {record["machine"]}.
"""


PARTS = {"patches": patches, "image": image, "texture": texture}


def main() -> None:
    """Measures the chosen rows and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", choices=[*PARTS, "photo"],
                        help="Measure these only, and keep the earlier results of the others.")
    parser.add_argument("--photo", type=Path)
    given = parser.parse_args()
    chosen, parts = given.rows, dict(PARTS)
    if given.photo is not None:
        parts["photo"] = lambda: photo(given.photo)
    torch.set_num_threads(1)
    file = RESULTS / "particle_blocks.json"
    record = json.loads(file.read_text()) if file.exists() else {}
    for name, measure in parts.items():
        if chosen in (None, name):
            record[name] = measure()
            record |= {"torch": version("torch"), "machine": f"{platform.machine()}, 1 thread"}
            file.write_text(json.dumps(record, indent=1) + "\n")
    if all(name in record for name in PARTS):
        (RESULTS / "particle_blocks.md").write_text(markdown(record))


if __name__ == "__main__":
    main()
