"""Default sampler on mixtures of several modes, and on a Gaussian that is not stationary.

    python benchmarks/modes.py [--rows mixtures]

mixtures   Priors of 4 x 4 grey pixels with three modes of weights 0.6, 0.3 and 0.1, means
           0.5 + s n with s = 0.25 (near) or 1 (far), and covariances with eigenvalues from 0.0625
           down to 0.0000625 in random bases. Noise 0.2, three operators, two draws of each; 384
           samples. The sampler gets the exact denoiser. Each figure is a mean over eight runs:
           a mode of weight 0.0025 has 0 to 3 of 384 samples, so that a single run says little.
gaussian   A prior of 12 x 12 pixels with correlation exp(-distance / 3), whose standard deviation
           grows from 0.05 at one side to 0.25 at the other. Standard deviation of 256 samples over
           the exact one, RMS over the thirds of the eigenvectors of the exact posterior with the
           least, middle and largest variance.

ranks      Draws of the image from the near mixture, each with its measurement (half of the pixels
           missing, noise 0.2) and 19 independent samples: ranks of the image among its samples.

Writes `results/modes.md` and `.json`, and `docs/reliability.png` of the ranks.
"""

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from genprior.api.factory import default_solver, make_solver
from genprior.core.linalg import per_image
from genprior.core.metrics import rank_histogram
from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.calibration import sliced_wasserstein
from genprior.evaluation.reliability import reliability
from genprior.inverse.base import Solver
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser
from genprior.priors.gmm import GMM

RESULTS = Path(__file__).parent / "results"
SHAPE, NUMBERS, CHAINS, SLICES, NOISE_STD = (1, 4, 4), 16, 384, 1000, 0.2
SPREADS, DRAWS = {"near": 0.25, "far": 1.0}, (0, 1)
SIDE, GAUSSIAN_CHAINS, LEVELS = 12, 256, (0.05, 0.2)
IMAGES, SAMPLES = 80, 19
RUNS = 8
TAPS = torch.tensor([0.25, 0.5, 0.25]).double()


def mixture(spread: float, seed: int) -> GMM:
    """Returns a prior of three modes."""
    g = torch.Generator().manual_seed(seed)
    means = 0.5 + spread * torch.randn(3, *SHAPE, generator=g, dtype=torch.float64)
    values = 0.0625 * torch.logspace(0, -3, NUMBERS, dtype=torch.float64)
    bases = torch.linalg.qr(torch.randn(3, NUMBERS, NUMBERS, generator=g, dtype=torch.float64))[0]
    return GMM(torch.tensor([0.6, 0.3, 0.1]).double(), means, (bases * values) @ bases.mT)


def operators(side: int, blur: Tensor) -> dict[str, Operator]:
    """Returns the three operators for images of a side."""
    return {
        "inpaint": Inpainting(random_keep((1, 1, side, side), 0.5)),
        "deblur": Blur(blur, "circular"),
        "SR x2": SuperResolution(2, "bicubic", boundary="circular"),
    }


def matrix(operator: Operator, side: int) -> Tensor:
    """Returns A for grey images of a side, without entries that are not measured."""
    unit = torch.eye(side**2).double().reshape(-1, 1, side, side)
    A = operator.select([0] * len(unit)).A(unit).flatten(1).T
    return A[A.abs().sum(dim=1) > 0]


def draw(solver: Solver, y: Tensor, operator: Operator, prior: Denoiser, noise_std: float,
         count: int, seed: int = 0) -> Tensor:
    """Returns samples, shape (count, d)."""
    noise = Noise(seed, [(0, k) for k in range(count)])
    many = y.float().expand(count, *y.shape[1:])
    return solver(many, operator, prior, noise_std, noise).double().flatten(1)


def measured(x: Tensor, operator: Operator, noise_std: float, seed: int) -> Tensor:
    """Returns the measurement of an image."""
    y = operator.A(x)
    n = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=y.dtype)
    return y + noise_std * operator.mask_unmeasured(n)


def mixtures() -> list[dict]:
    """Measures the default sampler, and the same without weights, on the mixtures."""
    rows = []
    for distance, spread in SPREADS.items():
        for task, operator in operators(4, torch.outer(TAPS, TAPS)).items():
            for seed in DRAWS:
                prior = mixture(spread, seed)
                x = prior.sample(1, torch.Generator().manual_seed(100 + seed))
                y = measured(x, operator, NOISE_STD, 200 + seed)
                seen = operator.mask_unmeasured(torch.ones_like(y)).flatten() > 0
                law = prior.posterior(y.flatten()[seen], matrix(operator, 4), NOISE_STD)
                g = torch.Generator().manual_seed(7 + seed)
                kind = default_solver(operator, prior, 2)
                solvers = {
                    "default": make_solver(kind),
                    "1 particle": make_solver(kind, particles=1),
                }
                row = {"prior": distance, "operator": task, "draw": seed}
                row["weights"] = [round(w, 3) for w in law.log_weights.exp().tolist()]
                runs = []
                for run in range(RUNS):
                    exact, other = (law.sample(CHAINS, g).flatten(1) for _ in range(2))
                    runs.append({"exact": compared(other, exact, law)} | {
                        name: compared(
                            draw(solver, y, operator, prior, NOISE_STD, CHAINS, run), exact, law
                        )
                        for name, solver in solvers.items()
                    })
                for name, first in runs[0].items():
                    row[name] = {key: sum(r[name][key] for r in runs) / RUNS for key in first}
                rows.append(row)
                print(json.dumps(row), flush=True)
    return rows


def compared(x: Tensor, exact: Tensor, law: GMM) -> dict[str, float]:
    """Returns W2 to exact samples in units of the posterior std, kurtosis, and std."""
    weights = law.log_weights.exp()
    mean = (weights[:, None] * law.means).sum(dim=0)
    apart = law.means - mean
    within = (law.vectors * law.variances[:, None]) @ law.vectors.mT
    cov = (weights[:, None, None] * (within + apart[:, :, None] * apart[:, None])).sum(dim=0)
    values, vectors = torch.linalg.eigh(cov)
    z = (x - x.mean(dim=0)) @ vectors / values.sqrt()
    w2 = sliced_wasserstein(x, exact, torch.Generator().manual_seed(3), SLICES)
    return {
        "w2": w2 / (cov.trace() / NUMBERS).sqrt().item(),
        "kurtosis": ((z**4).mean() / (z**2).mean() ** 2).item(),
        "std": (x.var(dim=0).sum() / cov.trace()).sqrt().item(),
    }


class NonStationary(Denoiser):
    """The exact denoiser of the Gaussian prior that is not stationary."""

    def __init__(self) -> None:
        i, j = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE)).double().T
        apart = torch.hypot(i[:, None] - i, j[:, None] - j)
        std = 0.05 + 0.2 * i / (SIDE - 1)
        self.S = std[:, None] * torch.exp(-apart / 3) * std
        self.values, self.vectors = torch.linalg.eigh(self.S)

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        values, vectors = self.values.to(x), self.vectors.to(x)
        gain = values / (values + per_image(sigma, x)[:, :, 0, 0] ** 2)
        return 0.5 + (((x - 0.5).flatten(1) @ vectors * gain) @ vectors.mT).reshape(x.shape)


def gaussian() -> list[dict]:
    """Measures the default sampler on the Gaussian prior, by eigenvectors of the posterior."""
    prior, rows = NonStationary(), []
    n = torch.randn(SIDE**2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = (0.5 + prior.vectors @ (prior.values.sqrt() * n)).reshape(1, 1, SIDE, SIDE)
    for task, operator in operators(SIDE, gaussian_kernel(1.0)).items():
        A = matrix(operator, SIDE)
        for noise_std in LEVELS:
            y = measured(x, operator, noise_std, 1)
            gram = A @ prior.S @ A.T + noise_std**2 * torch.eye(len(A)).double()
            cov = prior.S - prior.S @ A.T @ torch.linalg.solve(gram, A @ prior.S)
            values, vectors = torch.linalg.eigh(cov)
            solver = make_solver(default_solver(operator, prior, 2))
            samples = draw(solver, y, operator, prior, noise_std, GAUSSIAN_CHAINS)
            ratio = (samples @ vectors).var(dim=0) / values
            thirds = [third.mean().sqrt().item() for third in ratio.chunk(3)]
            row = {"operator": task, "noise": noise_std}
            row |= dict(zip(("low", "middle", "high"), thirds, strict=True))
            rows.append(row | {"evaluations": solver.nfe + solver.jacobian_products})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def ranks() -> list[dict]:
    """Returns rank histograms of images among their samples, as records of an evaluation."""
    prior, operator = mixture(SPREADS["near"], 0), operators(4, torch.outer(TAPS, TAPS))["inpaint"]
    x = prior.sample(IMAGES, torch.Generator().manual_seed(11))
    y = measured(x, operator, NOISE_STD, 12).float()
    keys = [(i, k) for i in range(IMAGES) for k in range(SAMPLES)]
    many, records = y.repeat_interleave(SAMPLES, dim=0), []
    for name, particles in (("default sampler", 16), ("without weights", 1)):
        solver = make_solver(default_solver(operator, prior, 2), particles=particles)
        samples = solver(many, operator, prior, NOISE_STD, Noise(5, keys)).double()
        histogram = rank_histogram(samples.unflatten(0, (IMAGES, SAMPLES)), x).mean(dim=0)
        records.append({"task": "a mixture of three modes, half of the pixels missing",
                        "method": name, "ranks": histogram.tolist()})
    return records


def markdown(record: dict) -> str:
    """Returns the record as tables."""
    lines = ["| prior | operator | draw | weights of the modes | W2, default | W2, 1 particle | "
             "kurtosis, default | 1 particle | exact | std, default | 1 particle |",
             "|---" * 11 + "|"]
    mean: dict[str, list[float]] = {"default": [], "1 particle": []}
    for row in record.get("mixtures", ()):
        ratios = {name: row[name]["w2"] / row["exact"]["w2"] for name in mean}
        for name, ratio in ratios.items():
            mean[name].append(ratio)
        cells = [row["prior"], row["operator"], str(row["draw"])]
        cells.append(" ".join(f"{w:.2f}" for w in row["weights"]))
        cells += [f"{ratios[name]:.2f}" for name in mean]
        cells += [f"{row[name]['kurtosis']:.1f}" for name in (*mean, "exact")]
        cells += [f"{row[name]['std']:.2f}" for name in mean]
        lines.append(f"| {' | '.join(cells)} |")
    means = [f"{sum(values) / max(1, len(values)):.2f}" for values in mean.values()]
    lines.append(f"| mean | | | | {means[0]} | {means[1]} | | | | | |")
    thirds = ["| operator | noise | low | middle | high |", "|---" * 5 + "|"]
    for row in record.get("gaussian", ()):
        values = " | ".join(f"{row[name]:.3f}" for name in ("low", "middle", "high"))
        thirds.append(f"| {row['operator']} | {row['noise']} | {values} |")
    return f"""# Default sampler where priors have several modes

W2 is the sliced Wasserstein distance to exact samples, over that of other exact samples: 1 is
perfect. So are std 1, and the kurtosis of exact samples, which is that of all numbers in the
eigenvectors of the exact covariance. "1 particle" is the sampler without weights (`particles=1`).

{chr(10).join(lines)}

# Gaussian prior that is not stationary

{chr(10).join(thirds)}

{" ".join(__doc__.split("[--rows mixtures]")[1].split("Writes")[0].split())}
torch {record["torch"]}; {record["machine"]}.
"""


PARTS = {"mixtures": mixtures, "gaussian": gaussian, "ranks": ranks}


def main() -> None:
    """Measures the chosen rows and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", choices=list(PARTS),
                        help="Measure these only, and keep the earlier results of the others.")
    chosen = parser.parse_args().rows
    torch.set_num_threads(1)
    file = RESULTS / "modes.json"
    record = json.loads(file.read_text()) if file.exists() else {}
    for name, measure in PARTS.items():
        if chosen in (None, name):
            record[name] = measure()
    record |= {"torch": version("torch"), "machine": f"{platform.machine()}, 1 thread"}
    file.write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "modes.md").write_text(markdown(record))
    reliability(record.get("ranks", ()), RESULTS.parent.parent / "docs/reliability.png")


if __name__ == "__main__":
    main()
