"""Run time as ratios, each within one run: to the bare network, to other packages, and its growth.

    python benchmarks/speed.py [PART ...] [--sizes 64,128,256] [--batches 1] [--steps 8]
        [--minutes M] [--photos TRAIN] [--device cpu]

Parts:

solvers   `restore` with each sampler against the evaluations of the bare network (for solvers that
          differentiate: evaluations and backward passes), for three measurements.
chains    `restore(..., samples=K)` on 24 x 24 images against the solver alone on the batch.
peers     Samplers of deepinv and azula with the same network and y, time per evaluation.
best      Time until the best PSNR that any sampler of deepinv reaches, on crops of --photos.
growth    Time over pixels, batch and samples; over pixels of an exact Gaussian posterior mean.
gaussian  The exact posterior mean of a Gaussian prior against a dense Cholesky factorisation.
csgm      CSGM on 8 images against that of deepinv, with the same generator and steps.
glow      A training step, encoding and decoding of Glow against normflows.
memory    Largest memory of a process, ours and with the samplers of deepinv.

azula and normflows are optional (`pip install --no-deps --target PEERS azula normflows`); without
them their rows are skipped, with a message.

Both calls of a ratio alternate, and their smallest times are compared, so that other work on the
machine matters less. On a CPU the time is that of the process on its cores, else that of the
clock. Every row is written to `speed.json`, with tables in `speed.md` and `speed.png`, as soon as
it is measured, in `results/` or the folder `-o`. A further run skips rows that are there already,
and `--minutes` ends it early, so that the table can be filled in pieces. Rows of another network
or machine are removed; `--again` removes those of the parts that are run.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import json
import math
import multiprocessing
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import genprior
from genprior.api.factory import make_baseline
from genprior.core.metrics import psnr
from genprior.core.random_streams import Noise
from genprior.inverse.base import Restoration, Solver
from genprior.operators.base import Operator
from genprior.operators.masks import random_keep
from genprior.priors.base import Denoiser
from genprior.priors.texture import Texture

RESULTS = Path(__file__).parent / "results"
FORWARD = ("hqs", "diffpir", "ddrm", "jfps", "red-diff", "pnp-dm")
BACKWARD = ("dps", "pigdm", "mmps", "tmpd", "moment-matched")
# Parts whose rows do not depend on the network of `ddpm`.
OTHER_NETWORKS = ("gaussian", "csgm", "glow")
Call = Callable[[], object]


class Record:
    """Rows by part, in a JSON file; a row is measured once.

    Arguments:
        folder: Folder of the file.
        about: Machine and libraries.
        network: Digest of the layers of the network; rows of other layers are removed.
        minutes: Time after which no further row is measured.
    """

    def __init__(self, folder: Path, about: str, network: str, minutes: float) -> None:
        self.folder, self.about, self.network = folder, about, network
        self.end = time.monotonic() + 60 * minutes
        self.parts: dict[str, list[dict[str, Any]]] = {}
        file = folder / "speed.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        if known.get("about") == about:
            same = known.get("network") == network
            self.parts = {part: rows for part, rows in known["parts"].items()
                          if same or part in OTHER_NETWORKS}

    def row(self, part: str, measure: Callable[[], dict[str, Any]], **key: object) -> None:
        """Adds a row, of `key` and of what `measure` returns, unless it is there."""
        rows = self.parts.setdefault(part, [])
        if any(key.items() <= row.items() for row in rows):
            return
        if time.monotonic() > self.end:
            self.write()
            sys.exit("the time is over: the same command measures the other rows")
        rows.append(key | measure())
        print(json.dumps({"part": part} | rows[-1]), flush=True)
        self.write()

    def write(self) -> None:
        """Writes the JSON file and the tables."""
        record = {"about": self.about, "network": self.network, "parts": self.parts}
        (self.folder / "speed.json").write_text(json.dumps(record, indent=1) + "\n")
        (self.folder / "speed.md").write_text(markdown(self.about, self.parts))


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


def solver_of(name: str, steps: int) -> Solver:
    """Returns a solver with `steps` evaluations, or a quarter if each step has several passes."""
    fewer = name in BACKWARD or name == "pnp-dm"
    return genprior.make_solver(name, steps=max(2, steps // 4) if fewer else steps)


def overheads(given: argparse.Namespace, record: Record, prior: Denoiser) -> None:
    """Measures each sampler against its network."""
    for size in given.sizes:
        for batch in given.batches:
            x = torch.rand(batch, 3, size, size, device=given.device)
            tasks = measurements(size, given.device)
            tasks["denoise"] = genprior.make_operator("denoise"), 0.1
            for task, (operator, noise_std) in tasks.items():
                denoise = task == "denoise"
                for name in ["posterior-mean"] if denoise else given.solvers:
                    solver = (genprior.make_solver(name) if denoise
                              else solver_of(name, given.steps))

                    def measure(
                        x: Tensor = x, operator: Operator = operator, solver: Solver = solver,
                        noise_std: float = noise_std,
                    ) -> dict[str, Any]:
                        y = genprior.degrade(x, operator, noise_std)
                        ours, network = alternating(
                            [lambda: genprior.restore(y, operator, prior, solver, noise_std,
                                                      device=given.device),
                             bare(prior, x, solver, operator)], given.repeats, given.device,
                        )
                        return {"seconds": ours, "ratio": ours / network}

                    record.row("solvers", measure, solver=name, measurement=task, size=size,
                               batch=batch, evaluations=solver.nfe)


def texture_of(side: int) -> Texture:
    """Returns a periodic texture with the spectrum of photos."""
    f = torch.fft.fftfreq(side, dtype=torch.float64)
    spectrum = (0.01 + f[:, None] ** 2 + f**2) ** -1.5
    return Texture.from_spectrum(spectrum * 0.15**2 / spectrum.mean(), mean=0.5)


def chains(given: argparse.Namespace, record: Record, prior: Denoiser) -> None:
    """Measures `samples=K` against the solver alone on a batch of K."""
    texture = texture_of(24).to(given.device, torch.float32)
    for name, model, count, channels in (("texture", texture, 64, 1), ("ddpm", prior, 8, 3)):
        x = torch.rand(1, channels, 24, 24, device=given.device)
        keep = random_keep((1, 1, 24, 24), 0.5, 0).to(given.device)
        operator = genprior.make_operator("inpaint", keep=keep)
        y = genprior.degrade(x, operator, 0.05)
        solver = genprior.make_solver("diffpir", steps=8)
        many = y.expand(count, *y.shape[1:]).clone()

        def through(y: Tensor = y, operator: Operator = operator, model: object = model,
                    solver: Solver = solver, count: int = count) -> None:
            genprior.restore(y, operator, model, solver, 0.05, count, device=given.device)

        def alone(many: Tensor = many, operator: Operator = operator, model: object = model,
                  solver: Solver = solver, count: int = count) -> None:
            solver(many, operator, model, 0.05, Noise(0, [(0, k) for k in range(count)]))

        # a call takes some 10 milliseconds for the texture, less than the slices of a scheduler
        repeats = given.repeats + (100 if name == "texture" else 2)

        def measure(through: Call = through, alone: Call = alone,
                    repeats: int = repeats) -> dict[str, Any]:
            ours, batch = alternating([through, alone], repeats, given.device)
            return {"seconds": ours, "ratio": ours / batch}

        record.row("chains", measure, prior=name, samples=count)


def azula_sampler(
    name: str, prior: Denoiser, y: Tensor, operator: Operator, noise_std: float, steps: int
) -> Call:
    """Returns a sampler of azula, which works in the range [-1, 1], as a call."""
    from azula.denoise import Denoiser as Model
    from azula.denoise import DiracPosterior
    from azula.guidance import diffpir, dps, mmps
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import VPSchedule
    from azula.sample import DDPMSampler

    class Adapter(Model):
        schedule = VPSchedule()

        def forward(self, x_t: Tensor, t: Tensor, **_: object) -> DiracPosterior:
            alpha, sigma = self.schedule(t)
            return DiracPosterior(2 * prior.denoise((x_t / alpha + 1) / 2, sigma / alpha / 2) - 1)

    shape, variance = operator.image_shape(y.shape), (2 * noise_std) ** 2
    problem = Adapter(), 2 * y - operator.A(y.new_ones(shape)), operator.A
    options = {"steps": steps, "silent": True, "device": y.device}
    if name == "dps":
        sampler = dps.DPSSampler(*problem, **options)
    elif name == "mmps":
        guided = mmps.MMPSDenoiser(*problem, IsotropicCovariance(variance))
        sampler = DDPMSampler(guided, **options)
    else:
        sampler = DDPMSampler(diffpir.DiffPIRDenoiser(*problem, variance), **options)
    return lambda: sampler(sampler.init(shape))


def peers(given: argparse.Namespace, record: Record, prior: Denoiser) -> None:
    """Measures samplers of other packages with the same network and y; times per evaluation."""
    steps = given.steps
    sigmas = tuple(torch.linspace(1, 0.01, steps).tolist())
    settings = {"diffpir": {"max_iter": steps}, "ddrm": {"sigmas": sigmas},
                "pigdm": {"num_steps": steps}, "dps": {"num_steps": steps + 1}}
    names = [("deepinv", name) for name in settings]
    names += [("azula", name) for name in ("dps", "diffpir", "mmps") if installed("azula")]
    for size in given.sizes:
        x = torch.rand(1, 3, size, size, device=given.device)
        operator, _ = measurements(size, given.device)["inpaint"]
        y = genprior.degrade(x, operator, 0.01)
        for package, name in names:
            # one product with the Jacobian for each evaluation, as in azula
            one = {"iterations": 1} if name == "mmps" else {}
            ours = genprior.make_solver(name, steps=steps, **one)

            def run(method: Solver, y: Tensor = y, operator: Operator = operator) -> Restoration:
                return genprior.restore(y, operator, prior, method, 0.01, device=given.device)

            if package == "azula":
                theirs, counts = azula_sampler(name, prior, y, operator, 0.01, steps), [steps] * 2
            else:
                peer = make_baseline(f"deepinv:{name}", **settings[name])
                theirs, counts = (lambda peer=peer, run=run: run(peer)), []

            def measure(
                ours: Solver = ours, theirs: Call = theirs, run: Callable = run,
                counts: list[int] = counts,
            ) -> dict[str, Any]:
                n, m = counts or (run(ours).nfe, theirs().nfe)
                times = alternating([lambda: run(ours), theirs], given.repeats, given.device)
                return {"peer_evaluations": m, "seconds": times[0],
                        "ratio": (times[0] / n) / (times[1] / m)}

            record.row("peers", measure, package=package, solver=name, size=size,
                       evaluations=ours.nfe)


def installed(package: str) -> bool:
    """Returns whether a package is installed; prints that its rows are skipped if not."""
    found = importlib.util.find_spec(package) is not None
    if not found:
        print(f"{package} is not installed: its rows are skipped", flush=True)
    return found


def best_quality(given: argparse.Namespace, record: Record, prior: Denoiser) -> None:
    """Measures PSNR and time of samplers over their number of evaluations, on photos."""
    if given.photos is None:
        print("best: give --photos, a folder; its rows are skipped", flush=True)
        return
    from steps import crop_of

    from genprior.io.images import image_files

    files = sorted(image_files(given.photos))
    files = files[:: max(1, len(files) // given.limit)][: given.limit]
    clock = time.process_time if given.device == "cpu" else time.perf_counter
    for size in given.sizes:
        tasks = measurements(size, given.device)
        prior.denoise(torch.rand(1, 3, size, size, device=given.device), 0.1)  # a warm-up
        for task in given.tasks:
            operator, _ = tasks[task]
            for name, counts in (("hqs", (1, 2, 4, 8, 16, 24)), ("ddrm", (2, 4, 8, 16)),
                                 ("deepinv:diffpir", given.counts), ("deepinv:ddrm", given.counts),
                                 ("deepinv:pigdm", given.counts), ("deepinv:dps", given.counts)):
                if name == "deepinv:ddrm" and task != "inpaint":
                    continue  # it takes masks and circular blur
                for count in counts:

                    def measure(
                        name: str = name, count: int = count, operator: Operator = operator,
                        size: int = size,
                    ) -> dict[str, Any]:
                        method = method_of(name, count)
                        quality, seconds = [], []
                        for number, file in enumerate(files):
                            x = crop_of(file, size).to(given.device)
                            y = genprior.degrade(x, operator, 0.01, index=number)
                            started = clock()
                            image = genprior.restore(y, operator, prior, method, 0.01,
                                                     index=number, device=given.device).image
                            seconds.append(clock() - started)
                            known = x if image.shape == x.shape else operator.crop_margin(x)
                            quality.append(psnr(image.clamp(0, 1), known).item())
                        return {"photos": len(files), "psnr": sum(quality) / len(files),
                                "seconds": sum(seconds) / len(files)}

                    record.row("best", measure, solver=name, evaluations=count,
                               measurement=task, size=size)


def method_of(name: str, count: int) -> Solver:
    """Returns a solver of genprior, or of deepinv, with a number of evaluations."""
    sigmas = tuple(torch.linspace(1, 0.01, count).tolist())
    settings = {"deepinv:diffpir": {"max_iter": count}, "deepinv:ddrm": {"sigmas": sigmas},
                "deepinv:pigdm": {"num_steps": count}, "deepinv:dps": {"num_steps": count + 1}}
    if name in settings:
        return make_baseline(name, **settings[name])
    return genprior.make_solver(name, steps=count)


def growth(given: argparse.Namespace, record: Record, prior: Denoiser) -> None:
    """Measures time over pixels, batch and samples, one at a time."""
    solver = genprior.make_solver("diffpir", steps=2)
    points = [("pixels", size, 1, 1) for size in given.growth_sizes]
    points += [("batch", 64, count, 1) for count in (1, 2, 4, 8, 16, 32)]
    points += [("samples", 64, 1, count) for count in (1, 2, 4, 8, 16, 32)]
    for axis, size, batch, samples in points:

        def measure(
            size: int = size, batch: int = batch, samples: int = samples
        ) -> dict[str, Any]:
            operator, _ = measurements(size, given.device)["inpaint"]
            y = operator.A(torch.rand(batch, 3, size, size, device=given.device))
            [seconds] = alternating(
                [lambda: genprior.restore(y, operator, prior, solver, 0.0, samples,
                                          device=given.device)], 1, given.device,
            )
            return {"seconds": seconds}

        count = {"pixels": size**2, "batch": batch, "samples": samples}[axis]
        record.row("growth", measure, axis=axis, count=count)
    for side in (32, 64, 128, 256, 512, 1024):

        def exact(side: int = side) -> dict[str, Any]:
            operator, _ = measurements(side, given.device)["inpaint"]
            y = operator.A(torch.rand(1, 1, side, side, device=given.device))
            texture = texture_of(side).to(given.device, torch.float32)
            solver = genprior.make_solver("gaussian", mode="mean")
            [seconds] = alternating(
                [lambda: genprior.restore(y, operator, texture, solver, 0.05,
                                          device=given.device)], 1, given.device,
            )
            return {"seconds": seconds}

        record.row("growth", exact, axis="pixels, exact Gaussian", count=side**2)


def exact_gaussian(given: argparse.Namespace, record: Record, _: Denoiser) -> None:
    """Measures the exact posterior mean of a texture against a dense factorisation."""
    for side in (16, 32, 48):

        def measure(side: int = side) -> dict[str, Any]:
            prior, keep = texture_of(side), random_keep((1, 1, side, side), 0.5, 0)
            operator = genprior.make_operator("inpaint", keep=keep)
            y = keep * torch.rand(1, 1, side, side, dtype=torch.float64)
            pixels, seen = side**2, keep.flatten()

            def dense() -> Tensor:
                S = prior.cov(torch.eye(pixels).double().reshape(-1, *y.shape[1:])).flatten(1)
                noisy = S[seen][:, seen] + 0.05**2 * torch.eye(int(seen.sum())).double()
                factor = torch.linalg.cholesky(noisy)
                r = (y.flatten()[seen] - 0.5)[:, None]
                return 0.5 + S[:, seen] @ torch.cholesky_solve(r, factor)

            solver = genprior.make_solver("gaussian", mode="mean")
            ours, cholesky = alternating(
                [lambda: genprior.restore(y, operator, prior, solver, 0.05), dense],
                given.repeats, "cpu",
            )
            return {"seconds": ours, "ratio": ours / cholesky}

        record.row("gaussian", measure, pixels=side**2)


def csgm(given: argparse.Namespace, record: Record, _: Denoiser) -> None:
    """Measures CSGM for 8 images against deepinv's, which takes one at a time."""
    steps, side = given.csgm_steps, 64

    def measure() -> dict[str, Any]:
        from deepinv.models import CSGMGenerator

        prior = genprior.load_prior("gan", given.device)
        shape = torch.Size((1, 3, side, side))
        latents = prior.latent_shape(shape)

        class Generator(nn.Module):
            nz = math.prod(latents)

            def forward(self, z: Tensor) -> Tensor:
                return prior.decode(z.reshape(latents), shape)

        x = torch.rand(8, *shape[1:], device=given.device)
        operator, _ = measurements(side, given.device)["inpaint"]
        y = operator.A(x)
        physics = genprior.to_deepinv(operator)
        peer = CSGMGenerator(Generator(), inf_max_iter=steps, inf_tol=0.0, inf_lr=0.1).eval()
        solver = genprior.make_solver("csgm", steps=steps, restarts=1)
        ours, theirs = alternating(
            [lambda: genprior.restore(y, operator, prior, solver, 0.0, device=given.device),
             lambda: [peer(one, physics) for one in y.split(1)]], given.repeats, given.device,
        )
        return {"seconds": ours, "ratio": ours / theirs}

    record.row("csgm", measure, images=8, size=side, steps=steps)


def glow(given: argparse.Namespace, record: Record, _: Denoiser) -> None:
    """Measures a training step, encoding and decoding of Glow against normflows."""
    if not installed("normflows"):
        return
    for what in ("training step", "encoding", "decoding"):

        def measure(what: str = what) -> dict[str, Any]:
            from training_peers import FLOW, normflows_glow

            from genprior.priors.glow import Glow

            x = torch.rand(8, 3, 32, 32, device=given.device)
            ours, (theirs, _) = Glow(**FLOW).to(given.device), normflows_glow(x, 1, "float32")
            streams = Noise(0, list(range(len(x))))
            z = torch.randn(ours.latent_shape(x.shape), device=given.device)
            with torch.no_grad():  # the first call sets the scales of actnorm
                theirs.log_prob(x, None)
                ours.losses(x, streams)

            def train_ours() -> None:
                ours.zero_grad()
                sum(loss for loss in ours.losses(x, streams).values()).backward()

            def train_theirs() -> None:
                theirs.zero_grad()
                theirs.forward_kld(x - 0.5 + torch.rand_like(x) / 255).backward()

            def without_grad(call: Call) -> Call:
                return torch.no_grad()(call)

            calls = {
                "training step": [train_ours, train_theirs],
                "encoding": [without_grad(lambda: ours.log_prob(x)),
                             without_grad(lambda: theirs.log_prob(x, None))],
                "decoding": [without_grad(lambda: ours.decode(z, x.shape)),
                             without_grad(lambda: theirs.sample(len(x)))],
            }[what]
            seconds, peer = alternating(calls, given.repeats, given.device)
            return {"seconds": seconds, "ratio": seconds / peer}

        record.row("glow", measure, what=what, images=8, size=32)


def memory(given: argparse.Namespace, record: Record, _: Denoiser) -> None:
    """Measures the largest memory of a process of its own that restores an image."""
    for size in given.sizes:
        for name in ("hqs", "dps", "deepinv:diffpir", "deepinv:dps"):

            def measure(name: str = name, size: int = size) -> dict[str, Any]:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    return {"megabytes": pool.apply(peak, (name, size, given.device))}

            record.row("memory", measure, solver=name, size=size)


def peak(name: str, size: int, device: str) -> float:
    """Returns the memory in MB that a restoration of two evaluations takes, without weights."""
    torch.set_num_threads(1)
    prior = genprior.load_prior("ddpm", device)
    operator, _ = measurements(size, device)["inpaint"]
    y = operator.A(torch.rand(1, 3, size, size, device=device))
    method = method_of(name, 2)
    small, _ = measurements(16, device)["inpaint"]  # loads all modules
    genprior.restore(y[..., :16, :16], small, prior, method, 0.01, device=device)

    def used() -> float:
        if device == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    before = used()
    genprior.restore(y, operator, prior, method, 0.01, device=device)
    return round(used() - before, 1)


PARTS: dict[str, Callable[[argparse.Namespace, Record, Denoiser], None]] = {
    "solvers": overheads, "chains": chains, "peers": peers, "best": best_quality,
    "growth": growth, "gaussian": exact_gaussian, "csgm": csgm, "glow": glow, "memory": memory,
}
TABLES = {
    "solvers": ("Ratio of `restore` to its network alone",
                ("solver", "measurement", "size", "batch", "evaluations", "ratio")),
    "chains": ("Ratio of `restore(..., samples=K)` of 24 x 24 images to the solver alone on the "
               "batch (`diffpir`)", ("prior", "samples", "ratio")),
    "peers": ("Time an evaluation, ours / theirs, half of the pixels missing",
              ("package", "solver", "size", "evaluations", "peer_evaluations", "ratio")),
    "best": ("PSNR in dB and seconds by evaluations, mean over photos, noise 0.01",
             ("solver", "measurement", "size", "photos", "evaluations", "psnr", "seconds")),
    "growth": ("Seconds of `restore` (`diffpir`, two evaluations, half of the pixels missing)",
               ("axis", "count", "seconds")),
    "gaussian": ("Exact posterior mean of a texture, ours / dense Cholesky factorisation",
                 ("pixels", "ratio")),
    "csgm": ("CSGM, ours / deepinv's", ("images", "size", "steps", "ratio")),
    "glow": ("Glow, ours / normflows", ("what", "images", "size", "ratio")),
    "memory": ("Memory that a restoration takes, two evaluations, half of the pixels missing",
               ("solver", "size", "megabytes")),
}


def markdown(about: str, parts: dict[str, list[dict[str, Any]]]) -> str:
    """Returns the tables."""
    lines = ["# Run time", "", about]
    for part, (title, columns) in TABLES.items():
        rows = parts.get(part, [])
        if not rows:
            continue
        lines += ["", f"{title}:", "", f"| {' | '.join(columns)} |".replace("peer_", "peer's "),
                  "|---" * len(columns) + "|"]
        lines += ["| " + " | ".join(_text(row.get(column, "")) for column in columns) + " |"
                  for row in rows]
        if part == "best":
            lines += ["", *_times_to_best(rows)]
        if part == "growth":
            lines += ["", *_exponents(rows)]
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def _times_to_best(rows: list[dict[str, Any]]) -> list[str]:
    """Returns a sentence for each measurement: our time to the best PSNR of any peer."""
    lines = []
    for task, size in dict.fromkeys((row["measurement"], row["size"]) for row in rows):
        here = [row for row in rows if (row["measurement"], row["size"]) == (task, size)]
        theirs = [row for row in here if row["solver"].startswith("deepinv")]
        if not theirs:
            continue
        best = max(theirs, key=lambda row: row["psnr"])
        reach = [row for row in here if row not in theirs and row["psnr"] >= best["psnr"]]
        text = (f"{task}, {size} px: the best peer is {best['solver']} with "
                f"{best['evaluations']} evaluations, {best['psnr']:.2f} dB in "
                f"{best['seconds']:.2f} s")
        if not reach:
            lines.append(f"- {text}; ours do not reach it.")
            continue
        first = min(reach, key=lambda row: row["seconds"])
        lines.append(f"- {text}; {first['solver']} with {first['evaluations']} evaluations "
                     f"reaches {first['psnr']:.2f} dB in {first['seconds']:.2f} s, "
                     f"{first['seconds'] / best['seconds']:.3f} times that time.")
    return lines


def _exponents(rows: list[dict[str, Any]]) -> list[str]:
    """Returns a sentence for each axis: its largest growth from one point to the next."""
    lines = []
    for axis in dict.fromkeys(row["axis"] for row in rows):
        points = sorted((row["count"], row["seconds"]) for row in rows if row["axis"] == axis)
        slopes = [
            (math.log(t / s) / math.log(m / n), n, m)
            for (n, s), (m, t) in zip(points, points[1:], strict=False)
        ]
        if slopes:
            slope, n, m = max(slopes)
            lines.append(f"- {axis}: time grows at most with the power {slope:.2f}, from {n} to "
                         f"{m}.")
    return lines


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Draws the ratios of the solvers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys((r["solver"], r["measurement"]) for r in rows))
    figure, axes = pyplot.subplots(figsize=(7, 0.28 * len(names) + 1), layout="constrained")
    for size in dict.fromkeys(r["size"] for r in rows):
        found = {(r["solver"], r["measurement"]): r["ratio"] for r in rows
                 if r["size"] == size and r["batch"] == 1}
        axes.plot([found.get(name) for name in names], range(len(names)), "o", ms=4,
                  label=f"{size} x {size}")
    axes.set_yticks(range(len(names)), [" ".join(name) for name in names], fontsize=7)
    axes.axvline(1, color="grey", lw=0.8)
    axes.set(xlabel="time of restore / time of its network")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def digest(prior: nn.Module) -> str:
    """Returns eight digits that identify the layers of a network, whatever their weights are."""
    shapes = [(name, list(tensor.shape)) for name, tensor in prior.state_dict().items()]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    def words(text: str) -> list[str]:
        return text.split(",")

    parser.add_argument("--sizes", type=numbers, default=[64, 128, 256])
    parser.add_argument("--batches", type=numbers, default=[1])
    parser.add_argument("--solvers", type=words, default=[*FORWARD, *BACKWARD])
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--growth-sizes", type=numbers, default=[64, 128, 256, 512])
    parser.add_argument("--csgm-steps", type=int, default=30)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--limit", type=int, default=4, help="photos of the part best")
    parser.add_argument("--tasks", type=words, default=["inpaint"], help="of the part best")
    parser.add_argument("--counts", type=numbers, default=[8, 16, 32, 64])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: choose of {', '.join(PARTS)}")
    torch.manual_seed(0)
    prior = genprior.load_prior("ddpm", given.device)
    about = (f"{platform.machine()}, {torch.get_num_threads()} thread(s), "
             f"{torch.cuda.get_device_name() if given.device == 'cuda' else 'CPU'}, torch "
             f"{torch.__version__}, float32")
    record = Record(given.output, about, digest(prior), given.minutes)
    chosen = given.parts or list(PARTS)
    for part in chosen if given.again else ():
        record.parts.pop(part, None)
    try:
        for part in chosen:
            PARTS[part](given, record, prior)
    finally:
        if rows := record.parts.get("solvers"):
            with contextlib.suppress(ImportError):  # matplotlib is optional
                picture(rows, given.output / "speed.png")


if __name__ == "__main__":
    main()
