"""Solvers with operators that are not linear, or that round."""

import pytest
import torch
from linear import linear
from nonlinear import Affine
from oracles import Crooked, Dense, Replay, normals
from torch import Tensor

from genprior import make_operator, make_solver
from genprior.api.factory import default_solver
from genprior.core.errors import SettingError
from genprior.core.random_streams import Noise
from genprior.inverse.base import INSTEAD, USES
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.clipping import Clipping
from genprior.operators.inpainting import Inpainting
from genprior.operators.jpeg import JPEG
from genprior.operators.masks import random_keep
from genprior.operators.phase_retrieval import CodedDiffraction, PhaseRetrieval
from genprior.operators.quantisation import Quantisation
from genprior.priors.base import Decoder, Denoiser, Density
from genprior.registry import SOLVERS, lookup

SHAPE = (3, 6, 8)
SHIFT = 0.25
# Short runs of the solvers that take operators with a gradient.
SHORT = {
    "hqs": {"steps": 4}, "diffpir": {"steps": 4}, "dps": {"steps": 4},
    "daps": {"steps": 2, "langevin_steps": 3}, "red-diff": {"steps": 4},
    "csgm": {"steps": 20, "restarts": 2}, "glowip": {"steps": 20}, "langevin": {"steps": 8},
    "image-langevin": {"steps": 8}, "map": {"steps": 6},
}
LINEAR = {
    "blur": Blur(torch.tensor([[1.0, 2, 1], [0, 5, 0]]), "circular"),
    "mask": Inpainting(random_keep((1, 1, 6, 8), 0.4)),
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("operator", LINEAR)
@pytest.mark.parametrize("noise_std", [0.0, 0.1])
def test_an_affine_operator_gives_what_its_linear_part_gives(
    name: str, operator: str, noise_std: float
) -> None:
    op, prior, keys = LINEAR[operator], Dense(), [(0, 0), (1, 0)]
    y = op.A(prior.draw(2, SHAPE)) + noise_std * normals(1, 2, *SHAPE, seed=7)[0]
    y = op.mask_unmeasured(y)
    solver = make_solver(name, **SHORT[name])
    expected = solver(y, op, prior, noise_std, Noise(0, keys))
    found = solver(y + SHIFT, Affine(op, SHIFT), prior, noise_std, Noise(0, keys))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("operator", LINEAR)
@pytest.mark.parametrize("variant", ["consistent", "published"])
def test_pigdm_of_an_affine_operator_without_noise_is_that_of_its_linear_part(
    operator: str, variant: str
) -> None:
    op, prior, noise = LINEAR[operator], Dense(), Noise(0, [(0, 0), (1, 0)])
    y = op.A(prior.draw(2, SHAPE))
    solver = make_solver("pigdm", steps=4, variant=variant)
    expected = solver(y, op, prior, 0.0, noise)
    found = solver(y + SHIFT, Affine(op, SHIFT), prior, 0.0, Noise(0, [(0, 0), (1, 0)]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("op", [JPEG(10), Quantisation(4), Clipping(2.0, 0.5)],
                         ids=["jpeg", "quantise", "hdr"])
def test_pigdm_takes_the_pseudo_inverse_of_the_paper(op: Operator) -> None:
    """One step of the algorithm: h^+ h h^+ = h^+ is what it asks of the pseudo-inverse."""
    prior, (x, first) = Crooked(), normals(2, 1, 1, 16, 16)
    y = op.A(0.5 + 0.2 * x)
    torch.testing.assert_close(op.A(op.pinv(y)), y, rtol=0, atol=1.1 / 255)
    solver = make_solver("pigdm", steps=1)
    sigma, = solver.sigmas
    state = (0.5 + (0.25 + sigma**2) ** 0.5 * first).requires_grad_()
    x_hat = prior.denoise(state, sigma)
    away = (op.pinv(y) - op.pinv(op.A(x_hat))).detach()
    gradient = torch.autograd.grad((away * x_hat).sum(), state)[0]
    # the bound on r^2 is all the variance that the only step removes
    expected = x_hat + gradient
    found = solver(y, op, prior, 0.0, Replay([first]))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-12)


def test_pigdm_takes_noise_from_linear_operators_only() -> None:
    with pytest.raises(SettingError, match="PiGDM takes noise from linear operators only"):
        make_solver("pigdm")(torch.rand(1, 1, 8, 8), Clipping(), Dense(), 0.1, Noise(0, [0]))


def names_of(uses: str) -> list[str]:
    return [name for name in SOLVERS.own if lookup(SOLVERS, name, "solver").uses == uses]


@pytest.mark.parametrize("name", SOLVERS.own)
def test_a_solver_refuses_what_it_cannot_use(name: str) -> None:
    solver = make_solver(name)
    cls = type("Any", (solver.needs,), {})
    cls.__abstractmethods__ = frozenset()
    prior = cls.__new__(cls)
    allowed = USES.index(solver.uses)
    for op, has, what in (
        (PhaseRetrieval(), "gradient", "needs a linear operator, and PhaseRetrieval is not"),
        (Quantisation(), "prox", "(needs a linear operator|with a gradient), and Quantisation"),
    ):
        y = op.A(torch.rand(1, 1, 8, 8))
        if allowed < USES.index(has):
            with pytest.raises(SettingError, match=what) as caught:
                solver.check_compatible(op, prior, y)
            assert str(caught.value).endswith(f"choose {INSTEAD[has]}")
            assert "\n" not in str(caught.value)
        elif name != "dithered-mean" or has == "prox":
            solver.check_compatible(op, prior, y)


def test_the_solvers_that_an_error_names_take_such_operators() -> None:
    for has, text in INSTEAD.items():
        named = text.replace(" or ", ", ").split(", ")
        for name in named:
            assert USES.index(lookup(SOLVERS, name, "solver").uses) >= USES.index(has), name


@pytest.mark.parametrize("kernel", ["isotropic", "exact"])
def test_kernels_of_daps_that_are_gaussian_need_a_linear_operator(kernel: str) -> None:
    op = Clipping()
    with pytest.raises(SettingError, match="of daps needs a linear operator, and Clipping is not"):
        make_solver("daps", kernel=kernel)(
            torch.zeros(1, 1, 4, 4), op, Dense(), 0.1, Noise(0, [0])
        )


@pytest.mark.parametrize("op", [Clipping(2.0, 0.5), PhaseRetrieval(1.5)], ids=["hdr", "phase"])
def test_dps_takes_the_gradient_of_the_paper(op: Operator) -> None:
    """One step of the algorithm, with autograd through prior and operator."""
    prior, (x, first) = Crooked(), normals(2, 2, 1, 4, 6)
    y = op.A(0.5 + 0.2 * x)
    solver = make_solver("dps", steps=1, strength=0.1)
    sigma = solver.sigmas[0]
    state = (0.5 + (0.25 + sigma**2) ** 0.5 * first).requires_grad_()
    distances = (y - op.A(prior.denoise(state, sigma))).flatten(1).norm(dim=1)
    gradient = torch.autograd.grad(distances.sum(), state)[0]
    zeta = 0.1 * (y[0].numel() / (3 * 256 * 256)) ** 0.5 * solver.unscale(sigma, 0.0)
    guided, free = (
        make_solver("dps", steps=1, strength=s)(y, op, prior, 0.1, Replay([first]))
        for s in (0.1, 0.0)
    )
    torch.testing.assert_close(guided - free, -zeta * gradient, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", SHORT)
def test_images_of_a_batch_are_independent(name: str) -> None:
    op, prior, keys = Clipping(2.0), Dense(), [(4, 0), (9, 0)]
    y = op.A(prior.draw(2, SHAPE))
    solver = make_solver(name, **SHORT[name])
    together = solver(y, op, prior, 0.05, Noise(0, keys))
    assert together.isfinite().all() and not together.requires_grad
    for i in range(2):
        alone = solver(y[i : i + 1], op, prior, 0.05, Noise(0, keys[i : i + 1]))
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("name", "settings"), [
    ("hqs", {"steps": 20}), ("map", {"steps": 60}), ("red-diff", {"steps": 100}),
    ("diffpir", {"steps": 50}), ("pigdm", {"steps": 50}),
])
def test_clipped_highlights_are_restored_under_a_gaussian_prior(name: str, settings: dict) -> None:
    op, prior = Clipping(4.0), Dense(std=0.2, length=8.0)  # the limit is below the mean
    x = prior.draw(4, (1, 9, 10)).clamp(0, 1)
    noise_std = 0.0 if name == "pigdm" else 0.02
    y = op.A(x) + noise_std * normals(1, 4, 1, 9, 10, seed=7)[0]
    answer = make_solver(name, **settings)(y, op, prior, noise_std, Noise(0, range(4)))
    start = op.pinv(y)
    before, after = ((v - x).square().mean() for v in (start, answer))
    assert after < (before / 2 if name == "red-diff" else before)


class Numbered(PhaseRetrieval):
    """Phase retrieval whose first start is start `k` of others."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def expansion_point(self, y: Tensor, start: int = 0) -> Tensor:
        return super().expansion_point(y, self.k + start)


def test_of_several_starts_the_one_that_fits_is_kept() -> None:
    prior, op = Dense(std=0.2, length=3.0), PhaseRetrieval()
    y = op.A(prior.draw(4, (1, 6, 8))) + 0.05 * normals(1, 4, 1, 12, 16, seed=7)[0]

    def solved(k: int, starts: int) -> Tensor:
        solver = make_solver("hqs", steps=6, starts=starts)
        assert solver.evaluations(prior, op) == 6 * starts
        return solver(y, Numbered(k), prior, 0.05, Noise(0, range(4)))

    alone = torch.stack([solved(k, 1) for k in range(3)])
    misfits = torch.stack([(op.A(x) - y).flatten(1).norm(dim=1) for x in alone])
    best = misfits.argmin(dim=0)
    assert len(set(best.tolist())) > 1
    expected = alone[best, torch.arange(4)]
    torch.testing.assert_close(solved(0, 3), expected, rtol=0, atol=1e-9)


def test_the_defaults() -> None:
    denoiser, (decoder, _) = Dense(), linear((1, 3, 3), 0.1)
    assert isinstance(denoiser, Denoiser | Decoder | Density)
    assert default_solver(Clipping(), denoiser, 1) == "hqs"
    assert default_solver(Clipping(), denoiser, 4) == "diffpir"
    assert default_solver(Quantisation(), denoiser, 1) == "dithered-mean"
    assert default_solver(PhaseRetrieval(), denoiser, 1) == "hqs"
    for prior in (denoiser, decoder):
        assert default_solver(PhaseRetrieval(), prior, 4) == "daps"
    assert default_solver(CodedDiffraction(), denoiser, 1) == "daps"
    assert make_operator("phase", oversampling=1.5).oversampling == 1.5


def test_a_hidden_number_of_a_measurement_is_not_used() -> None:
    op, prior = Clipping(2.0, white=0.9), Dense()
    y = torch.full((1, 1, 6, 6), 0.95, dtype=torch.float64)
    y[..., :3] = 0.4

    def restored(y: Tensor) -> Tensor:
        return make_solver("hqs", steps=4)(y, op, prior, 0.0, Noise(0, [0]))

    brighter = y.clone()
    brighter[..., 3:] = 1.0  # clipped in either case
    torch.testing.assert_close(restored(brighter), restored(y), rtol=0, atol=1e-12)
