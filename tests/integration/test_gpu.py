"""Tests on a CUDA device; run with -m gpu."""

import warnings

import pytest
import torch

from genprior.api.restoration import load_prior, make_operator, make_solver, restore
from genprior.core.random_streams import Noise
from genprior.inverse.baselines.deepinv_method import Peer
from genprior.operators.kernels import gaussian_kernel
from genprior.priors.ddpm import DDPM

pytestmark = pytest.mark.gpu

OPERATORS = {
    "inpaint": {"keep": torch.arange(24 * 20).reshape(1, 1, 24, 20) % 3 > 0},
    "deblur": {"kernel": gaussian_kernel(1.0), "boundary": "circular"},
    "superres": {"factor": 2},
    "superres-kernel": {"factor": 2, "kernel": gaussian_kernel(1.0)},
    "denoise": {},
}
SOLVERS = [
    "hqs", "red-diff", "diffpir", "pigdm", "dps", "mmps", "tmpd", "jfps", "ddrm", "daps",
    "pnp-dm", "flow-dps", "moment-matched",
]
# iterated until the solve converges: the error of an unfinished solve is chaotic
SETTINGS = {"jfps": {"iterations": 100}}


def truths() -> torch.Tensor:
    return torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("task", OPERATORS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_cuda_agrees_with_the_cpu(task, solver):
    prior = load_prior("ddpm").double()
    operator = make_operator(task, **OPERATORS[task]).double()
    y = operator.A(truths().double())
    method = make_solver(solver, steps=4, **SETTINGS.get(solver, {}))
    images = [
        method(y.to(at), operator.to(at), prior.to(at), 0.05, Noise(0, [0, 1])).cpu()
        for at in ("cpu", "cuda")
    ]
    assert torch.allclose(*images, atol=1e-6)


@pytest.mark.parametrize("task", OPERATORS)
@pytest.mark.parametrize("samples", [1, 2])
def test_restore_agrees_with_the_cpu(task, samples, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    prior = load_prior("ddpm")
    operator = make_operator(task, **OPERATORS[task])
    y = operator.A(truths())
    images = [
        restore(
            y, operator, prior, noise_std=0.05, samples=samples, device=device, dtype="float32"
        ).image.cpu()
        for device in ("cpu", "cuda")
    ]
    assert torch.allclose(*images, atol=2e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_reads_nothing_back_from_the_device(solver):
    prior = DDPM(widths=(8, 16), blocks=(1, 1)).cuda()
    operator = make_operator("inpaint", **OPERATORS["inpaint"]).to("cuda")
    y = operator.A(torch.rand(2, 3, 24, 20, device="cuda"))

    def syncs(steps: int) -> int:
        method = make_solver(solver, steps=steps)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                method(y, operator, prior, 0.05, Noise(0, [0, 1]))
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("called a synchronizing" in str(warning.message) for warning in caught)

    assert syncs(12) == syncs(4)


@pytest.mark.parametrize("name", ["diffpir", "ddrm", "dps", "pigdm", "mmps"])
def test_deepinv_restores_on_cuda(name):
    prior = load_prior("ddpm")
    operator = make_operator("denoise")
    result = restore(
        torch.rand(2, 3, 24, 20), operator, prior, Peer(name), noise_std=0.05, samples=2,
        device="cuda",
    )
    assert result.samples.isfinite().all()
