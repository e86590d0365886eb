"""Solvers inside deepinv, and the two directions compared with direct calls."""

import importlib.util
import sys
from types import ModuleType

import deepinv
import pytest
import torch
from repository import ROOT

import genprior
from genprior.api.deepinv_models import to_deepinv
from genprior.operators.denoising import Denoising
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.masks import random_keep
from genprior.registry import SOLVERS

SIZE = (1, 16, 16)
PRIOR = "ddpm:digits"


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(0))


def noisy(physics: deepinv.physics.Physics, sigma: float) -> deepinv.physics.Physics:
    generator = torch.Generator().manual_seed(1)
    physics.set_noise_model(deepinv.physics.GaussianNoise(sigma, rng=generator))
    return physics


@pytest.mark.parametrize("solver", ["auto", "diffpir", genprior.make_solver("mmps", 2)])
def test_a_solver_is_a_reconstructor(x: torch.Tensor, solver: object) -> None:
    physics = noisy(deepinv.physics.BlurFFT(SIZE, gaussian_kernel(1.0)[None, None].float()), 0.05)
    steps = 3 if isinstance(solver, str) else None
    model = to_deepinv(solver, PRIOR, seed=4, steps=steps)
    assert isinstance(model, deepinv.models.Reconstructor) and not list(model.parameters())
    y = physics(x)
    direct = genprior.restore(y, physics, PRIOR, solver, noise_std=0.05, seed=4, steps=steps)
    assert torch.equal(model(y, physics), direct.image)


def test_the_trainer_of_deepinv_tests_it() -> None:
    physics, digits = noisy(deepinv.physics.Denoising(), 0.1), genprior.sample(PRIOR, 2, steps=20)
    found = deepinv.test(
        to_deepinv("auto", PRIOR), torch.utils.data.DataLoader([{"x": image} for image in digits]),
        physics, online_measurements=True, device="cpu", metrics=[deepinv.loss.PSNR()],
        compare_no_learning=True, verbose=False, show_progress_bar=False,
        non_blocking_transfers=False,
    )
    assert found["PSNR"] > found["PSNR no learning"]


def test_our_prior_in_diffpir_and_plug_and_play_of_deepinv(x: torch.Tensor) -> None:
    keep = random_keep((1, 1, *SIZE[1:]), 0.5)
    operator, prior = Inpainting(keep), genprior.load_prior(PRIOR)
    y, model = operator.A(x), to_deepinv(prior)
    physics = to_deepinv(operator)
    term = deepinv.optim.PnP(denoiser=model)
    method = deepinv.optim.optim_builder(
        "HQS", prior=term, data_fidelity=deepinv.optim.L2(), max_iter=2, early_stop=False,
        params_algo={"stepsize": 2.0, "g_param": 0.2},
        custom_init=lambda y, physics: {"est": (y, y)},
    )
    u = y
    for _ in range(2):
        u = prior.denoise(operator.prox(u, y, 0.5), 0.2)
    torch.testing.assert_close(method(y, physics), u, rtol=0, atol=1e-5)

    seen = []

    class Watched(deepinv.models.Denoiser):
        def forward(self, z: torch.Tensor, sigma: object, **_: object) -> torch.Tensor:
            seen.append((z, sigma))
            return prior.denoise(z, torch.as_tensor(sigma).flatten()[0])

    physics.noise_model = deepinv.physics.GaussianNoise(0.05)
    for cls, settings in (
        (deepinv.sampling.DiffPIR,
         {"max_iter": 3, "sigma": 0.05, "data_fidelity": deepinv.optim.L2()}),
        (deepinv.sampling.DPS, {"num_steps": 3, "dtype": torch.float32}),
    ):
        found = []
        for denoiser in (model, Watched()):
            method = cls(denoiser, verbose=False, **settings)
            torch.manual_seed(0)
            found.append(method(y, physics))
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
    assert seen


def test_a_physics_of_deepinv_in_our_solvers(x: torch.Tensor) -> None:
    keep = random_keep((1, 1, *SIZE[1:]), 0.5)
    physics = deepinv.physics.Inpainting(SIZE, mask=keep[0].float())
    y = keep * x
    for solver in ("hqs", "dps", "mmps"):
        theirs, ours = (
            genprior.restore(y, operator, PRIOR, solver, noise_std=0.05, steps=3).image
            for operator in (physics, Inpainting(keep))
        )
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)


def test_the_file_for_the_leaderboards(x: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    benchopt = ModuleType("benchopt")
    benchopt.BaseSolver = object
    monkeypatch.setitem(sys.modules, "benchopt", benchopt)
    path = ROOT / "examples" / "deepinv_benchmark" / "solvers" / "genprior.py"
    spec = importlib.util.spec_from_file_location("leaderboard_solver", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    solver, physics = module.Solver(), noisy(deepinv.physics.Denoising(), 0.1)
    for name, _ in solver.parameters["solver, samples"]:
        assert name == "auto" or name in SOLVERS
    solver.solver, solver.samples, solver.prior = "auto", 1, PRIOR
    solver.set_objective(physics=physics)
    solver.run(None)
    model, y = solver.get_result()["model"].eval(), physics(x)
    direct = genprior.restore(y, Denoising(), PRIOR, noise_std=0.1)
    torch.testing.assert_close(model(y, physics), direct.image, rtol=0, atol=1e-5)


def test_what_is_neither_is_refused() -> None:
    assert genprior.to_deepinv is to_deepinv
    with pytest.raises(TypeError, match="an operator, a prior that is a denoiser, or a solver; g"):
        to_deepinv("ddpm")
    with pytest.raises(TypeError, match="with a solver only, and Denoising.. is none"):
        to_deepinv(Denoising(), prior="ddpm")
