"""What must hold on a CUDA device; run with -m gpu."""

import pytest
import torch

from genprior.api import make_operator, make_solver, restore
from genprior.operators.kernels import gaussian_kernel
from genprior.priors.ddpm import DDPM

pytestmark = pytest.mark.gpu

OPERATORS = {
    "inpaint": {"keep": torch.arange(24 * 20).reshape(1, 1, 24, 20) % 3 > 0},
    "deblur": {"kernel": gaussian_kernel(1.0), "boundary": "circular"},
    "superres": {"factor": 2},
    "denoise": {},
}

SOLVERS = [
    "hqs", "red-diff", "diffpir", "pigdm", "dps", "mmps", "tmpd", "jfps", "ddrm", "daps",
    "pnp-dm", "moment-matched",
]


@pytest.mark.parametrize("task", OPERATORS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_cuda_agrees_with_the_cpu(task, solver):
    torch.manual_seed(0)
    prior = DDPM(widths=(8, 16), blocks=(1, 1))
    operator = make_operator(task, **OPERATORS[task])
    y = operator.A(torch.rand(2, 3, 24, 20))
    method = make_solver(solver, steps=4)
    images = [
        restore(y, operator, prior, method, noise_std=0.05, device=device, dtype="float32").image
        for device in ("cpu", "cuda")
    ]
    assert torch.allclose(*images, atol=2e-3)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_step_reads_nothing_back_from_the_device(solver):
    prior = DDPM(widths=(8, 16), blocks=(1, 1)).cuda()
    operator = make_operator("inpaint", **OPERATORS["inpaint"]).to("cuda")
    y = operator.A(torch.rand(2, 3, 24, 20, device="cuda"))
    from genprior.noise import Noise

    def syncs(steps: int) -> int:
        method = make_solver(solver, steps=steps)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with pytest.warns(UserWarning) as caught:
                method(y, operator, prior, 0.05, Noise(0, [0, 1]))
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return len(caught)

    assert syncs(12) == syncs(4)
