"""Calibration of the default sampler over sizes, colours, operators and noise levels.

    python benchmarks/sampler.py

The priors are stationary Gaussians of 16 x 16 and 64 x 64 grey pixels, and of 20 x 20 colour
pixels whose three channels are filtered from one white field. Their standard deviation is 0.15 and
their spectrum is proportional to (0.01 + |f|^2)^-1.5. The sampler gets only the denoiser. For one
measurement each, 64 samples are compared with 256 exact samples and the exact mean of the solver
`gaussian`. Writes `results/sampler.md` and `.json`.
"""

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from genprior.api.factory import default_solver, make_solver
from genprior.core.random_streams import Noise
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.masks import random_keep
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser
from genprior.priors.texture import Texture

RESULTS = Path(__file__).parent / "results"
CHAINS, EXACT = 64, 256
SIZES = {"16 grey": (1, 16, 16), "64 grey": (1, 64, 64), "20 colour": (3, 20, 20)}
LEVELS = (0.01, 0.05, 0.2)


class DenoiserOnly(Denoiser):
    """Wrapper that hides all abilities of a prior but the denoiser."""

    def __init__(self, prior: Denoiser) -> None:
        self.prior = prior

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return self.prior.denoise(x, sigma)


def texture(shape: tuple[int, int, int]) -> Texture:
    """Returns the prior for images of shape (C, H, W)."""
    f = torch.fft.fftfreq(shape[1], dtype=torch.float64)
    spectrum = (0.01 + f[:, None] ** 2 + f**2) ** -1.5
    texton = torch.fft.ifft2((0.15**2 * spectrum / spectrum.mean()).sqrt()).real
    colour = torch.tensor([1.0, 0.9, 0.7][: shape[0]], dtype=torch.float64)
    mean = torch.full((shape[0],), 0.5, dtype=torch.float64)
    floor = 0.02 if shape[0] > 1 else 0.0
    return Texture(colour[:, None, None] * texton, mean, margin=0, floor=floor)


def operators(shape: tuple[int, int, int]) -> dict[str, Operator]:
    """Returns the three operators."""
    return {
        "inpaint": Inpainting(random_keep((1, 1, *shape[1:]), 0.5)),
        "deblur": Blur(gaussian_kernel(1.0), "circular"),
        "SR x2": SuperResolution(2, "bicubic", boundary="circular"),
    }


def measure(prior: Texture, operator: Operator, shape: tuple, noise_std: float) -> dict:
    """Returns the measures of calibration of the default sampler; 1 is perfect."""
    first = Noise(1, [0])
    z = first.normal(torch.zeros(prior.latent_shape(torch.Size((1, *shape)))).double())
    y = operator.A(prior.decode(z, torch.Size((1, *shape))))
    y = y + noise_std * operator.mask_unmeasured(first.normal(y))
    mean = GaussianPosterior("mean")(y, operator, prior, noise_std, first)
    noise = Noise(2, [(0, k) for k in range(EXACT)])
    exact = GaussianPosterior()(y.expand(EXACT, *y.shape[1:]), operator, prior, noise_std, noise)
    solver = make_solver(default_solver(operator, DenoiserOnly(prior), 2))
    noise = Noise(0, [(0, k) for k in range(CHAINS)])
    data = y.float().expand(CHAINS, *y.shape[1:])
    x = solver(data, operator, DenoiserOnly(prior), noise_std, noise).double()

    measured = operator.A_adjoint(torch.ones_like(y)).abs() > 0
    var, exact_var = x.var(dim=0), (exact - mean).square().mean(dim=0)
    out = {"evaluations": solver.nfe + solver.jacobian_products}
    for name, where in (("std seen", measured[0]), ("std missing", ~measured[0])):
        where = where.expand_as(exact_var)
        if where.any():
            out[name] = (var[where].sum() / exact_var[where].sum()).sqrt().item()
    out["bias"] = ((x.mean(dim=0) - mean[0]).norm() / (exact_var.sum() / CHAINS).sqrt()).item()
    fit = [(operator.A(images) - y).square().mean().sqrt().item() for images in (x, exact)]
    out["misfit"] = fit[0] / fit[1]
    return out


def markdown(record: dict) -> str:
    """Returns the record as a table."""
    keys = ["std seen", "std missing", "bias", "misfit"]
    lines = [f"| prior | operator | noise | {' | '.join(keys)} |", "|---" * 7 + "|"]
    for row in record["rows"]:
        cells = [f"{row[key]:.3f}" if key in row else "" for key in keys]
        head = f"| {row['prior']} | {row['operator']} | {row['noise']} |"
        lines.append(f"{head} {' | '.join(cells)} |")
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    return f"""# Calibration of the default sampler

Every number is 1 for a perfect sampler, up to a Monte Carlo error of about 0.01 for std and misfit
and 0.1 for bias. The bias is the distance of the mean of the samples to the exact mean, over the
distance of exact samples. A sample takes {record["rows"][0]["evaluations"]} evaluations, products
with the Jacobian included.

{chr(10).join(lines)}

{" ".join(__doc__.split("sampler.py", 1)[1].split("Writes")[0].split())}
{versions}; {record["machine"]}; {record["seconds"]:.0f} s.
"""


def main() -> None:
    """Measures all cases and writes both files."""
    torch.set_num_threads(1)
    started, rows = time.perf_counter(), []
    for name, shape in SIZES.items():
        prior = texture(shape)
        for task, operator in operators(shape).items():
            for noise_std in LEVELS:
                rows.append({"prior": name, "operator": task, "noise": noise_std})
                rows[-1] |= measure(prior, operator, shape, noise_std)
                print(json.dumps(rows[-1]), flush=True)
    record = {
        "rows": rows,
        "versions": {"torch": version("torch")},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        "seconds": time.perf_counter() - started,
    }
    (RESULTS / "sampler.json").write_text(json.dumps(record, indent=1) + "\n")
    (RESULTS / "sampler.md").write_text(markdown(record))


if __name__ == "__main__":
    main()
