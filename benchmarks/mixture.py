"""Samplers on a Gaussian mixture: recovery of the modes and their weights.

    python benchmarks/mixture.py [--seeds 20] [--rows SMC]

The prior has 25 modes at (8 i, 8 j) with i, j in -2 ... 2, repeated to 8 numbers, with unit
covariance and weights randn^2. The operator is a random row with singular value U(0, 1); the noise
level is U(0, 1) times that value. The denoiser is exact. The score is the sliced Wasserstein
distance between 1000 samples and 1000 exact samples over 2000 slices, in the units of the modes.
Writes `results/mixture.md` and `.json`.

Protocol of Cardoso et al., 2024, Monte Carlo Guided Diffusion for Bayesian Linear Inverse
Problems.
"""

import argparse
import json
import math
import platform
import statistics
from importlib.metadata import version
from pathlib import Path

import deepinv
import torch
from peers import azula, guided, reconstructor
from problem import Sampler, Task
from scipy.stats import t as student
from torch import Tensor

from genprior.core.linalg import Singular
from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.calibration import sliced_wasserstein
from genprior.inverse.diffusion.dps import AUTHORS_MEASUREMENTS
from genprior.operators.external import External
from genprior.priors.gmm import GMM
from genprior.registry import SOLVERS, lookup

RESULTS = Path(__file__).parent / "results"
NUMBERS, MODES, SPACING, SAMPLES, SLICES = 8, 25, 8, 1000, 2000


class Row(External):
    """Operator that measures one number, <a, x>, of an image with a single row."""

    def __init__(self, a: Tensor) -> None:
        physics = deepinv.physics.LinearPhysics(
            A=lambda x, **_: x.flatten(1) @ a.to(x)[:, None],
            A_adjoint=lambda y, **_: (y @ a.to(y)[None])[:, None, None],
        )
        super().__init__(physics, (1, 1, NUMBERS))
        self.size, self.direction = a.norm(), a[:, None] / a.norm()

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        v = self.direction
        return Singular(
            self.size.reshape(1, 1, 1, 1),
            image=lambda x: (x.flatten(1) @ v)[:, None, None],
            back=lambda c: (c[:, 0, 0] @ v.mT)[:, None, None],
            data=lambda y: y[:, None, None],
        )


def problem(seed: int) -> tuple[GMM, Task]:
    """Returns the prior and a task with one measured number, shape (1, 1), in units of [0, 1]."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    def uniform() -> float:
        return torch.rand(1, generator=g, dtype=torch.float64).item()

    i, j = torch.meshgrid(torch.arange(-2.0, 3), torch.arange(-2.0, 3), indexing="ij")
    means = SPACING * torch.stack([i.flatten(), j.flatten()], dim=1).double()
    means = means.repeat(1, NUMBERS // 2).reshape(MODES, 1, 1, NUMBERS)
    unit = torch.eye(NUMBERS).double().expand(MODES, -1, -1)
    # the protocol uses the range [-1, 1]
    prior = GMM(randn(MODES) ** 2, (means + 1) / 2, unit / 4)
    a = uniform() * torch.nn.functional.normalize(randn(NUMBERS), dim=0)
    noise_std = uniform() * a.norm().item() / 2
    y = (prior.sample(1, g).flatten() @ a + noise_std * randn(1))[None]
    operator, shape = Row(a), (1, 1, NUMBERS)
    operator.physics.noise_model = deepinv.physics.GaussianNoise(noise_std)
    return prior, Task(operator, operator.physics, y, a[None], noise_std, shape, SAMPLES)


def draws(name: str, **settings: object) -> Sampler:
    """Returns a solver of genprior, called as users call it."""

    def run(task: Task, prior: GMM, seed: int) -> Tensor:
        noise = Noise(seed, [(1, k) for k in range(SAMPLES)])
        solver = lookup(SOLVERS, name, "solver")(**settings)
        return solver(task.y.expand(SAMPLES, 1), task.operator, prior, task.noise, noise)

    return run


def runs(count: int, particles: int, steps: int) -> Sampler:
    """Returns a sampler that takes all particles of several runs of the particle filter."""

    def run(task: Task, prior: GMM, seed: int) -> Tensor:
        levels = {"sigma_max": 60.0, "sigma_min": 0.1}
        work = {"iterations": 1, "root_products": 3}  # see mm()
        solver = lookup(SOLVERS, "smc", "solver")(steps, particles=particles, **work, **levels)
        noise = Noise(seed, [(1, k) for k in range(count)])
        sigma = task.y.new_full((count,), task.noise)
        cloud, _ = solver.cloud(task.y.expand(count, 1), task.operator, prior, sigma, noise)
        return cloud.flatten(0, 1)[:SAMPLES]

    return run


def rows() -> list[tuple[str, int, Sampler]]:
    """Returns (name, network evaluations and Jacobian products per sample, sampler) per row."""
    strength = 0.05 * AUTHORS_MEASUREMENTS**0.5
    d, l2 = deepinv.sampling, deepinv.optim.data_fidelity.L2()
    peer_diffpir = reconstructor(lambda D: d.DiffPIR(D, l2, max_iter=100))
    ddpm, far = {"spacing": "ddpm"}, {"prior_var": (SPACING**2 * 2 + 1) / 4}
    return [
        ("exact, other samples", 0, exact(2)),
        ("prior, y ignored", 0, exact(0)),
        ("SMC, 1 run of 1000, 30 steps", 390, runs(1, SAMPLES, 30)),
        ("SMC, 1 run of 1000, 100 steps", 1300, runs(1, SAMPLES, 100)),
        ("SMC, 16 runs of 64, 100 steps", 1300, runs(16, 64, 100)),
        ("default sampler, 20 steps", 180, draws("moment-matched", steps=20, **ddpm)),
        ("default sampler, 100 steps", 900, draws("moment-matched", steps=100, **ddpm)),
        ("moment-matched, 1 particle, 20 steps", 100,
         draws("moment-matched", steps=20, particles=1, **mm(), **ddpm)),
        ("MMPS, 100 steps", 200, draws("mmps", iterations=1, **ddpm)),
        ("DAPS, exact kernel, 50 levels", 250, draws("daps", steps=50, **daps())),
        ("PiGDM, 100 steps", 200, draws("pigdm", **ddpm)),
        ("TMPD, 100 steps", 300, draws("tmpd", **ddpm)),
        ("JFPS, isotropic, 100 steps", 100, draws("jfps", covariance="isotropic", **far, **ddpm)),
        ("DDRM, 100 steps", 100, draws("ddrm", steps=100)),
        ("DiffPIR, 100 steps", 100, draws("diffpir", **ddpm)),
        ("PnP-DM, 100 sweeps", 500, draws("pnp-dm")),
        ("DPS, zeta 0.05, 1000 steps", 2000, draws("dps", strength=strength)),
        ("deepinv PiGDM, 100 steps", 200, guided(d.PiGDMDataFidelity)),
        ("deepinv MMPS, 100 steps", 500, guided(d.MomentMatchingDataFidelity)),
        ("deepinv DiffPIR, 100 steps", 100, peer_diffpir),
        ("azula DPS, zeta 1, 1000 steps", 2000, azula("dps", steps=1000)),
        ("azula TMPD, 100 steps", 300, azula("tmpd")),
        ("azula MMPS, 1 GMRES, 100 steps", 300, azula("mmps")),
        ("azula DiffPIR, 1 GMRES, 100 steps", 100, azula("diffpir")),
    ]


def mm() -> dict:
    """Returns the settings of `moment-matched` for this problem."""
    # the covariance has three eigenvalues: two in the plane of the modes, one outside it
    exact = {"full_above": 0, "extra_noise": 0, "max_inflation": 1, "max_rescaling": 1}
    return {"iterations": 1, "root_products": 3, **exact}


def daps() -> dict:
    """Returns the settings of `daps` for this problem."""
    return {"kernel": "exact", "iterations": 1, "root_products": 3, "sigma_max": 80.0}


def exact(run: int) -> Sampler:
    """Returns a sampler of the exact posterior, or of the prior if `run` is 0.

    Each `run` > 0 gives different samples.
    """

    def sample(task: Task, prior: GMM, seed: int) -> Tensor:
        g = torch.Generator().manual_seed(10**6 * (run + 1) + seed)
        law = prior.posterior(task.y[0], task.matrix, task.noise) if run else prior
        return law.sample(SAMPLES, g)

    return sample


def distance(sampler: Sampler, seed: int) -> float:
    """Returns the sliced Wasserstein distance of a sampler to exact samples on one problem."""
    prior, task = problem(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # the samplers of other libraries use the global generator
        x, reference = (
            run(task, prior, seed).detach().double().flatten(1) for run in (sampler, exact(1))
        )
    if not x.isfinite().all():
        return math.nan
    # factor 2: the protocol uses the range [-1, 1]
    return 2 * sliced_wasserstein(x, reference, torch.Generator().manual_seed(seed), SLICES)


def markdown(record: dict) -> str:
    """Returns the record as a table."""
    lines = ["| sampler | evaluations | sliced W2 | 95 % | problems |", "|---" * 5 + "|"]
    for name, work, _ in rows():
        if values := record["values"].get(name):
            quantile = student.ppf(0.975, len(values) - 1)
            width = quantile * statistics.stdev(values) / math.sqrt(len(values))
            cells = [name, str(work), f"{statistics.mean(values):.2f}", f"{width:.2f}"]
            lines.append(f"| {' | '.join([*cells, str(len(values))])} |")
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    return f"""# Samplers on a Gaussian mixture

Mean over the problems, with the half-width of its 95 % confidence interval. The first row is the
distance of exact samples. Evaluations are network evaluations and products with its Jacobian per
sample.

{chr(10).join(lines)}

{" ".join(__doc__.split("[--rows SMC]")[1].split("Writes")[0].split())}
{versions}; {record["machine"]}.
"""


def main() -> None:
    """Runs all samplers on all problems and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rows", default="",
                        help="Measure only the rows whose names start with this text, and "
                        "keep the earlier results of the others.")
    options = parser.parse_args()
    seeds = options.seeds
    torch.set_num_threads(1)
    values, before = {}, {}
    if options.rows:
        record = json.loads((RESULTS / "mixture.json").read_text())
        values, before = record["values"], record["versions"]
        values = {name: values[name] for name, _, _ in rows() if name in values}
    for name, _, sampler in rows():
        if not name.startswith(options.rows):
            continue
        values[name] = [distance(sampler, seed) for seed in range(seeds)]
        print(name, statistics.mean(values[name]), flush=True)
        record = {
            "values": values,
            "versions": {name: _versions(name, before) for name in ("torch", "deepinv", "azula")},
            "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        }
        (RESULTS / "mixture.json").write_text(json.dumps(record, indent=1) + "\n")
        (RESULTS / "mixture.md").write_text(markdown(record))


def _versions(library: str, before: dict) -> str:
    """Returns the installed version and those of the kept rows."""
    kept = before[library].split(" / ") if library in before else []
    return " / ".join(sorted({*kept, version(library)}))


if __name__ == "__main__":
    main()
