"""Run time as ratios, all within one run: solvers to their network, restore to solver, to deepinv.

    python benchmarks/speed.py [--sizes 64,128,256] [--batches 1] [--steps 8] [--device cpu]

1. `restore` with each sampler against the evaluations of the bare network (for solvers that
   differentiate: evaluations and backward passes), for three measurements.
2. `restore(..., samples=K)` on 24 x 24 images against the solver alone on the batch.
3. DiffPIR, DDRM, PiGDM and DPS against those of deepinv, with the same network, y and evaluations.
4. The exact posterior mean of a Gaussian prior against a dense Cholesky factorisation.

Both calls of a ratio alternate, and their smallest times are compared, so that other work on the
machine matters less. On a CPU the time is that of the process on its cores, else that of the
clock. Writes `speed.json`, `speed.md` and `speed.png` to `results/`, or to the folder `-o`.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import genprior
from genprior.api.factory import make_baseline
from genprior.core.random_streams import Noise
from genprior.inverse.base import Restoration, Solver
from genprior.operators.base import Operator
from genprior.operators.masks import random_keep
from genprior.priors.base import Denoiser
from genprior.priors.texture import Texture

RESULTS = Path(__file__).parent / "results"
FORWARD = ("hqs", "diffpir", "ddrm", "jfps", "red-diff", "pnp-dm")
BACKWARD = ("dps", "pigdm", "mmps", "tmpd", "moment-matched")
Call = Callable[[], object]


def alternating(calls: list[Call], repeats: int, device: str) -> list[float]:
    """Returns the smallest time of each call in seconds, after one warm-up; calls alternate."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    best = [float("inf")] * len(calls)
    for repeat in range(repeats + 1):
        for number, call in enumerate(calls):
            started = clock()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat:
                best[number] = min(best[number], clock() - started)
    return best


def measurements(size: int, device: str) -> dict[str, tuple[Operator, float]]:
    """Returns operators and noise levels by name."""
    keep = random_keep((1, 1, size, size), 0.5, 0).to(device)
    return {
        "inpaint": (genprior.make_operator("inpaint", keep=keep), 0.0),
        "deblur": (genprior.make_operator("deblur", gaussian=1.6), 0.01),
        "SR x2": (genprior.make_operator("superres", factor=2), 0.01),
    }


def bare(prior: Denoiser, x: Tensor, solver: Solver, operator: Operator) -> Call:
    """Returns the evaluations and backward passes of a solver, of the network alone."""
    products = solver.jacobian_products_for(operator, prior)

    def run() -> None:
        with torch.set_grad_enabled(bool(products)):
            left = products
            for step in range(solver.nfe):
                given = x.clone().requires_grad_(bool(products))
                x_hat = prior.denoise(given, 0.05)
                share = round(left / (solver.nfe - step))
                for _ in range(share):
                    torch.autograd.grad(x_hat, given, x, retain_graph=True)
                left -= share

    return run


def overheads(given: argparse.Namespace, prior: Denoiser) -> list[dict]:
    """Measures each sampler against its network."""
    rows = []
    for size in given.sizes:
        for batch in given.batches:
            x = torch.rand(batch, 3, size, size, device=given.device)
            for task, (operator, noise_std) in measurements(size, given.device).items():
                y = genprior.degrade(x, operator, noise_std)
                for name in given.solvers:
                    steps = given.steps if name in FORWARD else max(2, given.steps // 4)
                    solver = genprior.make_solver(name, steps=steps)

                    def restore(y: Tensor = y, operator: Operator = operator,
                                noise_std: float = noise_std, solver: Solver = solver) -> None:
                        genprior.restore(y, operator, prior, solver, noise_std,
                                         device=given.device)

                    ours, network = alternating(
                        [restore, bare(prior, x, solver, operator)], given.repeats, given.device
                    )
                    rows.append({"solver": name, "measurement": task, "size": size,
                                 "batch": batch, "evaluations": solver.nfe,
                                 "seconds": ours, "ratio": ours / network})
                    print(json.dumps(rows[-1]), flush=True)
            y = x + 0.1 * torch.randn_like(x)
            solver = genprior.make_solver("posterior-mean")
            operator = genprior.make_operator("denoise")
            ours, network = alternating(
                [lambda y=y, s=solver: genprior.restore(y, operator, prior, s, 0.1,  # noqa: B023
                                                        device=given.device),
                 bare(prior, x, solver, operator)], given.repeats, given.device
            )
            rows.append({"solver": "posterior-mean", "measurement": "denoise", "size": size,
                         "batch": batch, "evaluations": solver.nfe, "seconds": ours,
                         "ratio": ours / network})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def chains(given: argparse.Namespace, prior: Denoiser) -> list[dict]:
    """Measures `samples=K` against the solver alone on a batch of K."""
    frequency = torch.fft.fftfreq(24, dtype=torch.float64)
    spectrum = (0.01 + frequency[:, None] ** 2 + frequency**2) ** -1.5
    texture = Texture.from_spectrum(spectrum * 0.15**2 / spectrum.mean(), mean=0.5)
    texture = texture.to(given.device, torch.float32)
    rows = []
    for name, model, count, channels in (("texture", texture, 64, 1), ("ddpm", prior, 8, 3)):
        x = torch.rand(1, channels, 24, 24, device=given.device)
        keep = random_keep((1, 1, 24, 24), 0.5, 0).to(given.device)
        operator = genprior.make_operator("inpaint", keep=keep)
        y = genprior.degrade(x, operator, 0.05)
        solver = genprior.make_solver("diffpir", steps=given.steps)
        many = y.expand(count, *y.shape[1:]).clone()

        def through(y: Tensor = y, operator: Operator = operator, model: object = model,
                    solver: Solver = solver, count: int = count) -> None:
            genprior.restore(y, operator, model, solver, 0.05, count, device=given.device)

        def alone(many: Tensor = many, operator: Operator = operator, model: object = model,
                  solver: Solver = solver, count: int = count) -> None:
            solver(many, operator, model, 0.05, Noise(0, [(0, k) for k in range(count)]))

        ours, batch = alternating([through, alone], given.repeats + 2, given.device)
        rows.append({"prior": name, "samples": count, "seconds": ours, "ratio": ours / batch})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def beside_deepinv(given: argparse.Namespace, prior: Denoiser) -> list[dict]:
    """Measures samplers of deepinv with the same network and y; times are per evaluation."""
    size, steps = min(given.sizes), given.steps
    x = torch.rand(1, 3, size, size, device=given.device)
    operator, _ = measurements(size, given.device)["inpaint"]
    y = genprior.degrade(x, operator, 0.01)
    sigmas = tuple(torch.linspace(1, 0.01, steps).tolist())
    peers = {"diffpir": {"max_iter": steps}, "ddrm": {"sigmas": sigmas},
             "pigdm": {"num_steps": steps}, "dps": {"num_steps": steps + 1}}
    rows = []
    for name, settings in peers.items():
        methods = genprior.make_solver(name, steps=steps), make_baseline(f"deepinv:{name}",
                                                                         **settings)

        def run(method: Solver) -> Restoration:
            return genprior.restore(y, operator, prior, method, 0.01, device=given.device)

        counts = [run(method).nfe for method in methods]
        times = alternating(
            [lambda method=method: run(method) for method in methods], given.repeats, given.device
        )
        ours, theirs = (t / count for t, count in zip(times, counts, strict=True))
        rows.append({"solver": name, "size": size, "evaluations": counts[0],
                     "deepinv_evaluations": counts[1], "ratio": ours / theirs})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def beside_cholesky(given: argparse.Namespace) -> list[dict]:
    """Measures the exact posterior mean of a texture against a dense factorisation."""
    rows = []
    for side in (16, 32, 48):
        f = torch.fft.fftfreq(side, dtype=torch.float64)
        spectrum = (0.01 + f[:, None] ** 2 + f**2) ** -1.5
        prior = Texture.from_spectrum(spectrum * 0.15**2 / spectrum.mean(), mean=0.5)
        keep = random_keep((1, 1, side, side), 0.5, 0)
        operator = genprior.make_operator("inpaint", keep=keep)
        y = keep * torch.rand(1, 1, side, side, dtype=torch.float64)
        pixels = side**2
        seen = keep.flatten()

        def dense(prior: Texture = prior, y: Tensor = y, seen: Tensor = seen,
                  pixels: int = pixels) -> Tensor:
            S = prior.cov(torch.eye(pixels).double().reshape(-1, *y.shape[1:])).flatten(1)
            noisy = S[seen][:, seen] + 0.05**2 * torch.eye(int(seen.sum())).double()
            factor = torch.linalg.cholesky(noisy)
            r = (y.flatten()[seen] - 0.5)[:, None]
            return 0.5 + S[:, seen] @ torch.cholesky_solve(r, factor)

        solver = genprior.make_solver("gaussian", mode="mean")
        ours, cholesky = alternating(
            [lambda y=y, o=operator, p=prior, s=solver: genprior.restore(y, o, p, s, 0.05), dense],
            given.repeats, "cpu",
        )
        rows.append({"pixels": pixels, "seconds": ours, "ratio": ours / cholesky})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def markdown(record: dict) -> str:
    """Returns the tables."""
    lines = ["# Run time", "", record["about"], "",
             "Ratio of `restore` to its network alone:", "",
             "| solver | measurement | side | batch | evaluations | ratio |",
             "|---|---|---|---|---|---|"]
    lines += [f"| {r['solver']} | {r['measurement']} | {r['size']} | {r['batch']} "
              f"| {r['evaluations']} | {r['ratio']:.2f} |" for r in record["solvers"]]
    lines += ["", "Ratio of `restore(..., samples=K)` of 24 x 24 images to the solver alone on "
              "the batch (`diffpir`):", "", "| prior | K | ratio |", "|---|---|---|"]
    lines += [f"| {r['prior']} | {r['samples']} | {r['ratio']:.2f} |" for r in record["chains"]]
    lines += ["", "Time an evaluation, ours / deepinv's, half of the pixels missing:", "",
              "| solver | side | ratio |", "|---|---|---|"]
    lines += [f"| {r['solver']} | {r['size']} | {r['ratio']:.2f} |" for r in record["deepinv"]]
    lines += ["", "Exact posterior mean of a texture, ours / dense Cholesky factorisation:", "",
              "| pixels | ratio |", "|---|---|"]
    lines += [f"| {r['pixels']} | {r['ratio']:.3f} |" for r in record["gaussian"]]
    return "\n".join(lines) + "\n"


def picture(record: dict, path: Path) -> None:
    """Draws the ratios of the solvers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = record["solvers"]
    names = list(dict.fromkeys((r["solver"], r["measurement"]) for r in rows))
    figure, axes = pyplot.subplots(figsize=(7, 0.28 * len(names) + 1), layout="constrained")
    for size in dict.fromkeys(r["size"] for r in rows):
        found = {(r["solver"], r["measurement"]): r["ratio"] for r in rows if r["size"] == size}
        axes.plot([found.get(name) for name in names], range(len(names)), "o", ms=4,
                  label=f"{size} x {size}")
    axes.set_yticks(range(len(names)), [" ".join(name) for name in names], fontsize=7)
    axes.axvline(1, color="grey", lw=0.8)
    axes.set(xlabel="time of restore / time of its network")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    parser.add_argument("--sizes", type=numbers, default=[64, 128, 256])
    parser.add_argument("--batches", type=numbers, default=[1])
    parser.add_argument("--solvers", type=lambda text: text.split(","),
                        default=[*FORWARD, *BACKWARD])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    torch.manual_seed(0)
    prior = genprior.load_prior("ddpm", given.device)
    about = (f"{platform.machine()}, {torch.get_num_threads()} thread(s), "
             f"{torch.cuda.get_device_name() if given.device == 'cuda' else 'CPU'}, torch "
             f"{torch.__version__}, float32")
    record = {"about": about, "solvers": overheads(given, prior), "chains": chains(given, prior),
              "deepinv": beside_deepinv(given, prior), "gaussian": beside_cholesky(given)}
    (given.output / "speed.json").write_text(json.dumps(record, indent=1) + "\n")
    (given.output / "speed.md").write_text(markdown(record))
    picture(record, given.output / "speed.png")


if __name__ == "__main__":
    main()
