"""Default sampler with the Jacobian of the network, and with its symmetric part.

    python benchmarks/symmetric_jacobian.py PHOTOS [--photos N] [--samples K]

`--task NAME` and `--setting NAME` measure one row, and keep the others.

The covariance of x0 given the noisy state x is sigma^2 J, where J is the Jacobian of the exact
denoiser, which is symmetric. That of a network is not. The sampler takes products with its
transpose, from backward passes; `SymmetricJacobian` takes (J + J^T) / 2 instead, by one backward
pass and one product of forward-mode differentiation. Such a product counts as two evaluations, and
the settings with the symmetric part have at most as many evaluations as the default: they take
fewer noise levels, or fewer products at each.

PHOTOS is a folder of training photos. N of them, evenly spaced by name, are cropped to the central
48 x 48 pixels, measured, and restored with K independent samples by `moment-matched` and the prior
`ddpm`, whatever network that is. Measured are the CRPS, the PSNR of the mean, the share of pixels
in their 90 % interval (mean of the samples plus or minus t std (1 + 1/K)^(1/2), with Student's t
of K - 1 degrees of freedom) and its width. Pixels whose samples are equal do not count.

The same samples are drawn from two exact priors whose Jacobian is symmetric, a Gaussian and a
mixture of 7 x 7 pixels: the largest difference of samples is rounding.

Writes `results/symmetric_jacobian.md` and `.json`.
"""

import argparse
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from scipy.stats import t as student
from torch import Tensor

from genprior import degrade, load_prior, make_operator, restore
from genprior.core.metrics import crps, psnr
from genprior.inverse.diffusion.moment_matched import MomentMatched
from genprior.inverse.diffusion.sampler import denoise_with_vjp
from genprior.io.images import image_files, read_image
from genprior.operators.base import Operator
from genprior.operators.masks import random_keep
from genprior.priors.base import Denoiser
from genprior.priors.gmm import GMM
from genprior.priors.weights import embedded_priors

RESULTS = Path(__file__).parent / "results"
CROP, LEVEL = 48, 0.9
TASKS: dict[str, tuple[str, dict[str, Any], float]] = {
    "deblur 1.6": ("deblur", {"gaussian": 1.6, "boundary": "circular"}, 0.01),
    "denoise 25/255": ("denoise", {}, 25 / 255),
    "inpaint 0.5": ("inpaint", {"keep": random_keep((1, 1, CROP, CROP), 0.5)}, 0.0),
}
METRICS = ("crps", "psnr", "coverage", "width")
EXACT_SIDE = 7


class _Symmetric(torch.autograd.Function):
    """Identity on x_hat = D(x), whose backward pass is a given map instead of v -> J^T v."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, x_hat: Tensor, product: Callable[[Tensor], Tensor]  # noqa: ANN401
    ) -> Tensor:
        ctx.product = product
        return x_hat.clone()

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return ctx.product(v), None, None


class SymmetricJacobian(Denoiser):
    """A denoiser that is differentiated as if its Jacobian were (J + J^T) / 2."""

    def __init__(self, prior: Denoiser) -> None:
        self.prior = prior
        self.receptive_radius, self.stride = prior.receptive_radius, prior.stride
        self.is_inpainter, self.symmetries = prior.is_inpainter, prior.symmetries

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.prior.denoise(x, sigma)
        x_hat, vjp = denoise_with_vjp(self.prior.denoise, x, sigma)
        at = x.detach()

        def product(v: Tensor) -> Tensor:
            _, Jv = torch.func.jvp(lambda x: self.prior.denoise(x, sigma), (at,), (v,))
            return (Jv + vjp(v)) / 2

        return _Symmetric.apply(x, x_hat, product)

    def denoise_masked(self, x: Tensor, sigma: float | Tensor, unknown: Tensor) -> Tensor:
        return self.prior.denoise_masked(x, sigma, unknown)


def evaluations(solver: MomentMatched, operator: Operator, prior: Denoiser) -> int:
    """Returns network evaluations and products with the Jacobian; symmetric ones count twice."""
    each = 2 if isinstance(prior, SymmetricJacobian) else 1
    return solver.nfe + each * solver.jacobian_products_for(operator, prior)


def settings(operator: Operator, prior: Denoiser) -> dict[str, tuple[MomentMatched, Denoiser]]:
    """Returns the solvers to compare, all with at most the evaluations of the default.

    The last has the levels and products of one with the symmetric part, but fewer evaluations.
    """
    symmetric, most = SymmetricJacobian(prior), evaluations(MomentMatched(), operator, prior)
    few = {"iterations": 2, "root_products": 1}
    chosen = {"J^T (default)": (MomentMatched(), prior)}
    for name, options in (("(J + J^T) / 2, fewer levels", {}),
                          ("(J + J^T) / 2, fewer products", few)):
        affordable = [
            solver for steps in range(1, MomentMatched().steps + 1)
            if evaluations(solver := MomentMatched(steps, **options), operator, symmetric) <= most
        ]
        chosen[name] = affordable[-1], symmetric
    chosen["J^T, fewer levels"] = chosen["(J + J^T) / 2, fewer levels"][0], prior
    return chosen


def scores(samples: Tensor, x: Tensor) -> dict[str, list[float]]:
    """Returns the metrics of samples (B, K, C, H, W) for each image."""
    count = samples.shape[1]
    mean, std = samples.mean(dim=1), samples.std(dim=1)
    half = student.ppf((1 + LEVEL) / 2, count - 1) * (1 + 1 / count) ** 0.5 * std
    counted = (std > 0).flatten(1)
    inside = ((mean - x).abs() <= half).flatten(1) & counted
    return {
        "crps": crps(samples, x).tolist(),
        "psnr": psnr(mean.clamp(0, 1), x).tolist(),
        "coverage": (inside.sum(dim=1) / counted.sum(dim=1)).tolist(),
        "width": (2 * half.flatten(1).sum(dim=1) / counted.sum(dim=1)).tolist(),
    }


def photos(folder: Path, count: int) -> Tensor:
    """Returns the central crops of `count` photos, shape (count, 3, 48, 48)."""
    files, crops = image_files(folder), []
    for file in files[:: len(files) // count][:count]:
        x = read_image(file).pixels
        top, left = ((side - CROP) // 2 for side in x.shape[-2:])
        crops.append(x[..., top : top + CROP, left : left + CROP])
    return torch.cat(crops)


def measure(
    x: Tensor, prior: Denoiser, task: str, count: int, setting: str | None
) -> list[dict]:
    """Measures a task on images x with `count` samples, with one of the settings or all."""
    kind, options, noise_std = TASKS[task]
    operator = make_operator(kind, **options)
    y, rows = degrade(x, operator, noise_std), []
    for name, (solver, denoiser) in settings(operator, prior).items():
        if setting not in (None, name):
            continue
        found = restore(y, operator, denoiser, solver, noise_std, samples=count, antithetic=False)
        row = {"task": task, "jacobian": name, "levels": solver.steps,
               "iterations": solver.iterations, "root_products": solver.root_products,
               "evaluations": evaluations(solver, operator, denoiser),
               "photos": len(x), "samples": count, "seconds": found.seconds}
        rows.append(row | scores(found.samples, x))
        print(json.dumps({key: sum(v) / len(v) if isinstance(v, list) else v
                          for key, v in rows[-1].items()}), flush=True)
    return rows


def exact_priors() -> list[dict]:
    """Returns the largest difference of samples from priors with a symmetric Jacobian."""
    g, numbers = torch.Generator().manual_seed(0), EXACT_SIDE**2
    values = 0.0625 * torch.logspace(0, -3, numbers)
    bases = torch.linalg.qr(torch.randn(3, numbers, numbers, generator=g))[0]
    means = 0.5 + 0.25 * torch.randn(3, 1, EXACT_SIDE, EXACT_SIDE, generator=g)
    covs, rows = (bases * values) @ bases.mT, []
    laws = {"Gaussian": GMM(torch.ones(1), means[:1], covs[:1]),
            "mixture of three": GMM(torch.tensor([0.6, 0.3, 0.1]), means, covs)}
    operator = make_operator("deblur", gaussian=0.6, boundary="circular")
    for name, prior in laws.items():
        y = degrade(prior.sample(4, g), operator, 0.05)
        a, b = (
            restore(y, operator, law, MomentMatched(), 0.05, samples=4, antithetic=False).samples
            for law in (prior, SymmetricJacobian(prior))
        )
        rows.append({"prior": name, "largest difference": (a - b).abs().max().item(),
                     "std": a.std(dim=1).mean().item()})
    return rows


def markdown(record: dict) -> str:
    """Returns the record as tables."""
    lines = ["| task | covariance / sigma^2 | levels, iterations, root products | evaluations | "
             "CRPS | PSNR of the mean, dB | coverage of 90 % | width | n |", "|---" * 9 + "|"]
    for row in record["photos"]:
        first = next(other for other in record["photos"] if other["task"] == row["task"])
        cells = [row["task"], row["jacobian"],
                 f"{row['levels']}, {row['iterations']}, {row['root_products']}",
                 str(row["evaluations"])]
        for metric, digits in zip(METRICS, (5, 2, 3, 4), strict=True):
            value = torch.tensor(row[metric]).double()
            apart = value - torch.tensor(first[metric]).double()
            text = f"{value.mean():.{digits}f}"
            if row is not first:
                error = apart.std() / len(apart) ** 0.5
                text += f" ({apart.mean():+.{digits}f} ± {error:.{digits}f})"
            cells.append(text)
        lines.append(f"| {' | '.join(cells)} | {row['photos']} x {row['samples']} |")
    exact = ["| prior | largest difference of samples | their std |", "|---|---|---|"]
    for row in record["exact"]:
        exact.append(f"| {row['prior']} | {row['largest difference']:.1e} | {row['std']:.3f} |")
    return f"""# Default sampler with the symmetric part of a network's Jacobian

In brackets: the difference from the default on the same photos, and its standard error over the
photos. n is photos x samples.

{chr(10).join(lines)}

# Priors whose Jacobian is symmetric

{chr(10).join(exact)}

{" ".join(__doc__.split("keep the others.")[1].split("Writes")[0].split())}
The weights of `ddpm` are those with the SHA-256 {record["weights"]}.
torch {record["torch"]}; {record["machine"]}.
"""


def main() -> None:
    """Measures the chosen tasks and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, metavar="PHOTOS")
    parser.add_argument("--task", choices=list(TASKS), help="Measure this one only.")
    parser.add_argument("--setting", help="Measure this one only, by its name in the table.")
    parser.add_argument("--photos", type=int, default=6, dest="count")
    parser.add_argument("--samples", type=int, default=4)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / "symmetric_jacobian.json"
    record = json.loads(file.read_text()) if file.exists() else {"photos": []}
    prior, x = load_prior("ddpm"), photos(chosen.photos, chosen.count)
    for task in TASKS:
        if chosen.task in (None, task):
            rows = measure(x, prior, task, chosen.samples, chosen.setting)
            measured = [(row["task"], row["jacobian"]) for row in rows]
            others = [r for r in record["photos"] if (r["task"], r["jacobian"]) not in measured]
            record["photos"] = others + rows
    if "exact" not in record:
        record["exact"] = exact_priors()
    manifest = json.loads((embedded_priors()["ddpm"] / "manifest.json").read_text())
    weights = manifest["files"]["model.safetensors"]["sha256"]
    record |= {"weights": weights, "torch": version("torch"),
               "machine": f"{platform.machine()}, 1 thread"}
    file.write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "symmetric_jacobian.md").write_text(markdown(record))


if __name__ == "__main__":
    main()
