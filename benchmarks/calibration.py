"""Calibration of the samplers of genprior, deepinv and azula against exact Gaussian posteriors.

    python benchmarks/calibration.py [--seed 0]

The prior is a stationary Gaussian on periodic grey images of 16 x 16 pixels, with mean 0.5,
standard deviation 0.15 and a spectrum proportional to (0.01 + |f|^2)^-1.5. The noise level is
0.05. There are three operators with one measurement each. Every sampler gets the exact denoiser
and draws 64 samples. Writes `results/calibration.md` and `.json`. azula is optional:
`pip install azula==0.11.1`.
"""

import argparse
import json
import platform
import statistics
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import deepinv
import torch
from peers import azula, guided, reconstructor
from problem import (
    CHAIN_KEYS,
    CHAINS,
    NOISE,
    PIXELS,
    SHAPE,
    STEPS,
    Sampler,
    Solved,
    Task,
    tasks,
    texture,
)
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.evaluation.gaussian_theory.calibration import (
    bias_over_floor,
    misfit_ratio,
    std_ratio,
)
from genprior.priors.base import Denoiser
from genprior.priors.texture import Texture
from genprior.registry import SOLVERS, lookup

RESULTS = Path(__file__).parent / "results"
REPEATS = 200


def ours(name: str, **settings: Any) -> Sampler:
    """Returns a solver of genprior, called as users call it."""

    def run(task: Task, prior: Texture, seed: int) -> Tensor:
        solver = lookup(SOLVERS, name, "solver")(**settings)
        y, noise = task.y.expand(CHAINS, -1, -1, -1), Noise(seed, CHAIN_KEYS)
        return solver(y, task.operator, prior, NOISE, noise)

    return run


class DenoiserOnly(Denoiser):
    """Wrapper that hides all abilities of a prior but the denoiser."""

    def __init__(self, prior: Denoiser) -> None:
        self.prior = prior

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.prior.denoise(x, sigma)


def hidden(name: str, **settings: Any) -> Sampler:
    """Returns a solver of genprior that gets the denoiser alone, not the Gaussian prior."""
    run = ours(name, **settings)
    return lambda task, prior, seed: run(task, DenoiserOnly(prior), seed)


def prior_only(task: Task, prior: Texture, seed: int) -> Tensor:
    """Returns samples of the prior, which ignore the measurement."""
    z = Noise(seed, CHAIN_KEYS).normal(torch.zeros(CHAINS, *SHAPE).double())
    return prior.decode(z, z.shape)


def rows() -> list[tuple[str, str, int, int, str, Sampler]]:
    """Returns (library, name, evaluations, Jacobian products, approximation, sampler) per row.

    The approximation is what makes the samples of the method inexact by construction.
    """
    d, l2 = deepinv.sampling, deepinv.optim.data_fidelity.L2()
    step, weak = "step size is no likelihood", "guidance shrinks with the step"
    guess, prox = "covariance guessed isotropic", "proximal point, not a posterior mean"
    narrow = "too narrow until steps are many"
    point = "point estimate: no spread at all"
    kernel = "x0 drawn with an isotropic covariance"
    us, di, az = "genprior", "deepinv", "azula"
    latent = ours("csgm", optimiser="lbfgs", steps=100, restarts=1)
    matching, pigdm = d.MomentMatchingDataFidelity, d.PiGDMDataFidelity

    def dps(steps: int, weight: float) -> Sampler:
        return reconstructor(lambda D: d.DPS(D, num_steps=steps + 1, weight=weight))

    own_law = ours("jfps", covariance=texture())
    published = ours("pigdm", variant="published")
    daps = ours("daps", steps=20, kernel="isotropic", sigma_min=0.005)
    exact = {"steps": 17, "kernel": "exact", "sigma_min": 0.005}
    return [
        ("", "exact posterior", 0, 0, "", ours("gaussian")),
        ("", "prior, y ignored", 0, 0, "no posterior", prior_only),
        (us, "moment-matched, default", 20, 76, "", hidden("moment-matched")),
        (us, "SMC, 4 particles", 117, 1429, "", hidden("smc", steps=15, particles=4)),
        (us, "DAPS, exact kernel", 17, 85, "", hidden("daps", **exact)),
        (us, "MMPS, 3 GCR", 25, 75, narrow, ours("mmps", steps=25)),
        (us, "MMPS, 3 GCR", 100, 300, narrow, ours("mmps")),
        (us, "JFPS, covariance of photos", 100, 0, "covariance guessed", ours("jfps")),
        (us, "JFPS, covariance of the prior", 100, 0, narrow, own_law),
        (us, "TMPD", 33, 66, "covariance guessed diagonal", ours("tmpd", steps=33)),
        (us, "TMPD", 100, 200, "covariance guessed diagonal", ours("tmpd")),
        (us, "DDRM = DDNM+", 20, 0, "heuristic kernel", ours("ddrm")),
        (us, "DDRM = DDNM+", 100, 0, "heuristic kernel", ours("ddrm", steps=100)),
        (us, "DAPS, isotropic kernel", 100, 0, kernel, daps),
        (us, "DAPS, published kernel", 100, 0, f"{kernel}; tau", ours("daps", steps=20)),
        (us, "PnP-DM", 100, 0, "coupling; few sweeps", ours("pnp-dm", steps=20)),
        (us, "PnP-DM", 500, 0, "coupling", ours("pnp-dm")),
        (us, "RED-diff", 100, 0, point, ours("red-diff")),
        (us, "DPS", 100, 100, step, ours("dps", steps=100)),
        (us, "DPS", 1000, 1000, step, ours("dps", steps=1000)),
        (us, "PiGDM consistent", 50, 50, guess, ours("pigdm", steps=50)),
        (us, "PiGDM consistent", 100, 100, guess, ours("pigdm")),
        (us, "PiGDM published", 100, 100, f"{guess}; weight r^2", published),
        (us, "DiffPIR", 100, 0, prox, ours("diffpir")),
        (us, "hqs", 24, 0, point, ours("hqs", steps=24)),
        (us, "csgm", 101, 101, point, latent),
        (di, "DPS w=1", 100, 100, f"{step}; {weak}", dps(100, 1.0)),
        (di, "DPS w=1", 1000, 1000, f"{step}; {weak}", dps(1000, 1.0)),
        (di, "DPS w=100", 100, 100, f"{step}; {weak}", dps(100, 100.0)),
        (di, "DPS w=100", 1000, 1000, f"{step}; {weak}", dps(1000, 100.0)),
        (di, "DiffPIR", 100, 0, prox, reconstructor(lambda D: d.DiffPIR(D, l2, max_iter=STEPS))),
        (di, "DDRM", 100, 0, "noise divided by sqrt 2", reconstructor(d.DDRM)),
        (di, "PiGDM", 50, 50, guess, guided(pigdm, 50)),
        (di, "PiGDM", 100, 100, guess, guided(pigdm)),
        (di, "MMPS, 3 CG", 20, 80, narrow, guided(matching, 20)),
        (di, "MMPS, 3 CG", 100, 400, narrow, guided(matching)),
        (az, "DPS, batch 64", 100, 100, f"{step}; norm over the batch", azula("dps")),
        (az, "DPS, batch 1", 100, 100, step, azula("dps", batch=1)),
        (az, "PGDM eta=0", 100, 100, f"{guess}; no noise in it", azula("pgdm")),
        (az, "PGDM eta=1", 100, 100, f"{guess}; no noise in it", azula("pgdm", eta=1.0)),
        (az, "TMPD", 33, 66, "covariance guessed diagonal", azula("tmpd", steps=33)),
        (az, "TMPD", 100, 200, "covariance guessed diagonal", azula("tmpd")),
        (az, "MMPS, 1 GMRES", 33, 66, f"{narrow}; solve cut short", azula("mmps", steps=33)),
        (az, "MMPS, 1 GMRES", 100, 200, f"{narrow}; solve cut short", azula("mmps")),
        (az, "DiffPIR, 1 GMRES", 100, 0, f"{prox}; solve cut short", azula("diffpir")),
    ]


def measure(samples: Tensor, task: Solved) -> dict[str, float]:
    """Returns the measures of one set of samples; 1 is perfect."""
    x = samples.detach().double().flatten(1)
    measured = task.matrix.abs().sum(dim=0) > 0
    parts = {"std seen": measured, "std missing": ~measured}
    out = {part: std_ratio(x, task.cov, where) for part, where in parts.items() if where.any()}
    out["bias"] = bias_over_floor(x, task.mean, task.cov)
    out["misfit"] = misfit_ratio(x, task.y.flatten(), task.matrix, task.mean, task.cov)
    return out


def scatter(task: Solved, seed: int) -> dict[str, float]:
    """Returns the standard deviation of every measure over many sets of exact samples."""
    values, vectors = torch.linalg.eigh(task.cov)
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(REPEATS, CHAINS, PIXELS, generator=generator, dtype=torch.float64)
    x = task.mean + z * values.clamp(min=0).sqrt() @ vectors.mT
    sets = [measure(samples, task) for samples in x]
    return {key: statistics.stdev(s[key] for s in sets) for key in sets[0]}


def evaluate(run: Sampler, task: Solved, prior: Texture, seed: int) -> dict[str, float] | str:
    """Returns the measures of a method, or the name of the error that it raises."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.simplefilter("ignore")
        try:
            samples = run(task, prior, seed)
        except ModuleNotFoundError as error:
            return f"{error.name} is not installed"
        except Exception as error:
            return type(error).__name__
    return measure(samples, task) if samples.isfinite().all() else "not finite"


def markdown(record: dict) -> str:
    """Returns the record as a table with a legend."""
    columns = [(name, key) for name, spread in record["scatter"].items() for key in spread]
    head = ["method", "evaluations", "products", *(f"{name}: {key}" for name, key in columns)]
    lines = [f"| {' | '.join(head)} | by construction |", "|---" * (len(head) + 1) + "|"]
    scatter = {"library": "", "name": "scatter of 64 exact samples", "nfe": 0, "note": "1 sd"}
    scatter["products"] = 0
    for row in [*record["rows"], scatter | record["scatter"]]:
        cells = [f"{row['library']} {row['name']}".strip(), str(row["nfe"]), str(row["products"])]
        cells += [v if isinstance(v := row[n], str) else f"{v[k]:.2f}" for n, k in columns]
        lines.append(f"| {' | '.join([*cells, row['note']])} |")
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    return f"""# Calibration of samplers against exact Gaussian posteriors

Every number is 1 for a perfect sampler, up to the Monte Carlo error in the last row.

- std: standard deviation of the samples over the exact one; below 1 is overconfident.
- bias: distance of the mean of the samples to the exact mean, over its Monte Carlo error.
- misfit: RMS(A x - y) over its exact value; below 1 means that the samples fit the noise.

"evaluations" counts evaluations of the denoiser, "products" those with its Jacobian, which take
one backward pass each. "by construction" is the approximation of the method.

{chr(10).join(lines)}

{record["problem"]} Seed {record["seed"]}; {versions}; {record["machine"]}.
"""


def earlier(seed: int) -> dict[tuple, dict]:
    """Returns the rows of the last run if it had this seed and these versions of the libraries.

    Delete `results/calibration.json` to measure them again.
    """
    file = RESULTS / "calibration.json"
    record = json.loads(file.read_text()) if file.exists() else {"rows": []}
    same = record.get("seed") == seed and record.get("versions") == versions()
    return {(r["library"], r["name"], r["nfe"]): r for r in record["rows"]} if same else {}


def versions() -> dict[str, str]:
    """Returns the versions of the installed libraries."""
    return {lib: version(lib) for lib in ("torch", "deepinv", "azula") if find_spec(lib)}


def main() -> None:
    """Runs all methods on all tasks and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    torch.set_num_threads(1)
    prior = texture()
    problems, done, known = tasks(prior, seed), [], earlier(seed)
    for library, name, nfe, products, note, run in rows():
        done.append(known.get((library, name, nfe), {}) | {
            "library": library, "name": name, "nfe": nfe, "products": products, "note": note
        })
        for task in problems.keys() - done[-1].keys():
            done[-1][task] = evaluate(run, problems[task], prior, seed)
        print(json.dumps(done[-1]), flush=True)
    record = {
        "problem": " ".join(__doc__.split("\n\n")[2].split("Writes")[0].split()),
        "seed": seed,
        "versions": versions(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        "rows": done,
        "scatter": {name: scatter(task, seed) for name, task in problems.items()},
    }
    (RESULTS / "calibration.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "calibration.md").write_text(markdown(record))


if __name__ == "__main__":
    main()
