"""Host synchronisation: no step of a solver waits for the device; counted on the CPU."""

import pytest
import torch
from oracles import Dense
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genprior.api.factory import make_solver
from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.sampler import DiffusionSolver
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.denoising import Denoising
from genprior.operators.external import External
from genprior.operators.inpainting import Inpainting
from genprior.operators.jpeg import JPEG
from genprior.operators.superres import SuperResolution
from genprior.priors.base import Denoiser
from genprior.priors.ddpm import DDPM
from genprior.registry import SOLVERS, lookup

# reading a number back, shapes that depend on values, and the error checks of LAPACK
STOPS = ("_local_scalar_dense", "nonzero", "_linalg_check_errors", "masked_select", "_unique2")
INDEXING = ("index", "index_put_", "index_put")
LEVELS = {
    name: lookup(SOLVERS, name, "solver")
    for name in SOLVERS
    if lookup(SOLVERS, name, "solver").needs is Denoiser
}
SETTINGS = {
    "daps": {"kernel": "exact"},
    "pnp-dm": {"inner": 2},
    "smc": {"particles": 2, "iterations": 1, "root_products": 2},
    "posterior-mean": {},
}


class Linear(Dense):
    """The exact denoiser, without reading values back to the host."""

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        values, vectors = self._spectrum(x.shape[1:], x)
        sigma2 = sigma.reshape(-1, 1) ** 2 if isinstance(sigma, Tensor) else sigma**2
        gain = values / (values + sigma2)
        centred = (x - 0.5).flatten(1)
        return 0.5 + ((centred @ vectors * gain) @ vectors.mT).reshape(x.shape)


class Count(TorchDispatchMode):
    """How often the host would wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.stops: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        name = func.__name__.split(".")[0]
        masks = name in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in STOPS or masks:
            self.stops.append(name)
        return func(*args, **(kwargs or {}))


def stops(
    name: str, steps: int, op: Operator, y: Tensor, prior: Denoiser | None = None
) -> list[str]:
    """Operations in `solve` that stop the host, without input checks, in a second call."""
    settings = dict(SETTINGS.get(name, {}))
    if name == "posterior-mean":
        settings["views"] = steps
    else:
        settings["steps"] = steps
    solver, prior = make_solver(name, **settings), prior or Linear(dtype=y.dtype)
    sigma = y.new_full((len(y),), 0.05)
    for mode in (Count(), Count()):
        with mode:
            solver.solve(y, op, prior, sigma, Noise(0, list(range(len(y)))))
    return mode.stops


def test_operations_that_synchronise_are_counted() -> None:
    with Count() as mode:
        float(torch.ones(1).sum())
        torch.ones(3)[torch.tensor([True, False, True])]
    assert mode.stops == ["_local_scalar_dense", "index"]


OPERATORS = {
    "mask": Inpainting(torch.rand(2, 1, 4, 6, generator=torch.Generator().manual_seed(0)) > 0.5),
    "superres": SuperResolution(2),
    "circular blur": Blur(torch.tensor([[1.0, 2], [0, 3]]), "circular"),
}


@pytest.mark.parametrize("task", OPERATORS)
@pytest.mark.parametrize("name", sorted(set(LEVELS) - {"posterior-mean", "dithered-mean"}))
def test_a_step_does_not_synchronise_with_the_host(name: str, task: str) -> None:
    op = OPERATORS[task]
    y = op.A(Linear(dtype=torch.float32).draw(2, (1, 4, 6)))
    few, many = stops(name, 2, op, y), stops(name, 5, op, y)
    assert many == few, f"{len(many) - len(few)} in 3 more steps"


def test_denoising_does_not_synchronise_with_the_host() -> None:
    y = Linear(dtype=torch.float32).draw(2, (1, 4, 6))
    few = stops("posterior-mean", 1, Denoising(), y)
    assert stops("posterior-mean", 4, Denoising(), y) == few


@pytest.mark.parametrize("name", ["dithered-mean", "hqs", "diffpir"])
def test_decompressing_does_not_synchronise_with_the_host(name: str) -> None:
    op = JPEG(30)
    y = op.A(Linear(dtype=torch.float32).draw(2, (3, 16, 16)).float())
    assert stops(name, 5, op, y) == stops(name, 2, op, y)


@pytest.mark.parametrize("name", ["posterior-mean", "hqs"])
def test_filling_holes_by_an_inpainter_does_not_synchronise_with_the_host(name: str) -> None:
    op = OPERATORS["mask"]
    y = op.A(Linear(dtype=torch.float32).draw(2, (1, 4, 6)))
    prior = DDPM(1, widths=(4, 8), blocks=(1, 1), holes=True).requires_grad_(False)
    assert stops(name, 8, op, y, prior) == stops(name, 3, op, y, prior)


@pytest.mark.parametrize("name", ["mmps", "moment-matched", "smc", "tmpd", "dps", "jfps"])
def test_external_physics_does_not_synchronise_with_the_host(name: str) -> None:
    assert issubclass(LEVELS[name], DiffusionSolver)
    op = External(SuperResolution(2), (1, 4, 6))
    y = op.A(Linear(dtype=torch.float32).draw(2, (1, 4, 6)))
    assert stops(name, 5, op, y) == stops(name, 2, op, y)
