import warnings

import pytest
import torch
from oracles import normals
from small import OPERATORS, batch
from torch import Tensor, nn

from genprior import degrade, make_operator, restore
from genprior.api.factory import default_solver
from genprior.core.errors import RestorationWarning, SettingError
from genprior.core.random_streams import Noise
from genprior.inverse.amortized.amortized import LEAST_NOISE, PIXEL_STD, Amortized
from genprior.operators.base import Operator
from genprior.priors.base import PROBES, ConditionalGenerator

NOISE = Noise(0, [0, 1])


class Shift(nn.Module, ConditionalGenerator):
    """Adds a tenth to every pixel, and keeps what it is given."""

    def __init__(self, task: str = "", signature: Tensor | None = None) -> None:
        super().__init__()
        self.task = task
        self.register_buffer("signature", torch.zeros(3) if signature is None else signature)
        self.seen: list[Tensor] = []

    def translate(self, u: Tensor) -> Tensor:
        self.seen.append(u)
        return u + 0.1


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_the_rough_reconstruction_is_the_mean_of_independent_pixels(
    name: str, level: float
) -> None:
    operator = make_operator(name, **OPERATORS[name])
    x = batch(1).double()
    y = operator.mask_unmeasured(operator.A(x) + level * normals(1, *operator.A(x).shape)[0])
    basis = torch.eye(x.numel(), dtype=x.dtype).reshape(-1, *x.shape[1:])
    A = torch.cat([operator.A(image[None]).flatten(1) for image in basis]).mT
    noise = max(level, LEAST_NOISE)
    gram = PIXEL_STD**2 * A @ A.mT + noise**2 * torch.eye(len(A), dtype=A.dtype)
    grey = torch.full((x.numel(),), 0.5, dtype=x.dtype)
    gain = torch.linalg.solve(gram, PIXEL_STD**2 * A).mT
    wanted = grey + gain @ (y.flatten() - A @ grey)
    found = Amortized().rough(y, operator, torch.tensor([level], dtype=x.dtype))
    atol = 2e-5 if name == "deblur" else 1e-9  # which iterates to a tolerance
    torch.testing.assert_close(found, wanted.reshape(x.shape), rtol=0, atol=atol)


def test_the_answer_is_the_generator_of_it_and_known_pixels_stay() -> None:
    operator, prior = make_operator("inpaint", **OPERATORS["inpaint"]), Shift().eval()
    x = batch()
    y = degrade(x, operator)
    result = restore(y, operator, prior, noise_std=0.0)
    assert (result.solver, result.nfe, result.prior) == ("amortized", 1, "Shift")
    keep = OPERATORS["inpaint"]["keep"].expand(x.shape)
    assert torch.equal(result.image[keep], x[keep])
    torch.testing.assert_close(result.image[~keep], torch.full_like(x[~keep], 0.6))
    with pytest.warns(RestorationWarning, match="misfit"):  # a tenth is two noise levels
        noisy = restore(y[:1], operator, prior, noise_std=0.05)
    torch.testing.assert_close(noisy.image, prior.seen[-1] + 0.1)


def test_a_decompressed_file_is_its_own_rough_reconstruction() -> None:
    operator, y = make_operator("jpeg", quality=30), batch(1)
    assert torch.equal(Amortized().rough(y, operator, torch.zeros(1)), y)
    assert default_solver(operator, Shift(), 1) == "amortized"


@pytest.mark.parametrize("name, lost", [
    ("denoise", 0.16 / 1.16),  # the weight of grey, noise 0.1 to a pixel's 0.25
    ("inpaint", (3 * 6 * 9 / (3 * 12 * 20)) ** 0.5),
])
def test_the_signature_is_what_a_measurement_loses(name: str, lost: float) -> None:
    operator, level = make_operator(name, **OPERATORS[name]), 0.1 * torch.ones(1).double()
    found = Amortized().signature(operator, torch.Size((1, 3, 12, 20)), level)
    assert found.shape == (1, len(PROBES))
    tolerance = 1e-12 if name == "denoise" else 0.1  # the hole holds 54 random numbers
    known = 0.16 / 1.16 * (1 - lost**2) ** 0.5 if name == "inpaint" else 0.0
    assert found[0, 0].item() == pytest.approx((lost**2 + known**2) ** 0.5, abs=tolerance)


def tasks() -> dict[str, tuple[Operator, float]]:
    masks = {share: torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(5)) > share
             for share in (0.5, 0.8)}
    return {
        "inpaint 0.5": (make_operator("inpaint", keep=masks[0.5]), 0.0),
        "inpaint 0.8": (make_operator("inpaint", keep=masks[0.8]), 0.0),
        "blur 1.6": (make_operator("deblur", gaussian=1.6, boundary="circular"), 0.01),
        "blur 3": (make_operator("deblur", gaussian=3.0, boundary="circular"), 0.01),
        "half": (make_operator("superres", factor=2), 0.01),
        "quarter": (make_operator("superres", factor=4), 0.01),
        "noise 0.1": (make_operator("denoise"), 0.1),
        "noise 0.2": (make_operator("denoise"), 0.2),
        "quality 10": (make_operator("jpeg", quality=10), 0.0),
        "quality 50": (make_operator("jpeg", quality=50), 0.0),
    }


@pytest.mark.parametrize("trained", tasks())
def test_another_measurement_than_those_of_the_training_gives_a_warning(trained: str) -> None:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    solver, known = Amortized(), tasks()
    operator, level = known[trained]
    prior = Shift(trained, solver.signature(operator, x.shape, torch.tensor([level]))[0])
    for name, (other, noise) in known.items():
        doubts = solver.doubts(other.A(x), other, prior, torch.tensor([noise]))
        assert len(doubts) == (name != trained), (trained, name)
    large = solver.signature(operator.select([0]), x.shape, torch.tensor([level]))
    torch.testing.assert_close(large[0], prior.signature)


def test_restore_tells_that_the_measurement_is_another_one() -> None:
    prior = Shift("denoise:noise=0.1", torch.full((3,), 0.16 / 1.16))
    y = degrade(batch(), make_operator("denoise"), 0.1)
    with warnings.catch_warnings(action="ignore"):
        found = restore(y, make_operator("denoise"), prior, noise_std=[0.1, 0.25]).warnings
    told = [text for text in found if "Shift was trained for denoise:noise=0.1" in text]
    assert len(told) == 1 and told[0].startswith("image 1: ")


def test_a_wide_hole_keeps_what_the_generator_drew() -> None:
    keep = torch.ones(1, 1, 48, 48, dtype=torch.bool)
    keep[..., 10:38, 10:38] = False
    rows = torch.arange(48) % 4 / 4  # a texture that patches of the known part would continue
    y = degrade(rows.expand(1, 1, 48, 48), make_operator("inpaint", keep=keep))
    found = restore(y, make_operator("inpaint", keep=keep), Shift().eval()).image
    torch.testing.assert_close(found[~keep], torch.full((28 * 28,), 0.6))


def test_it_draws_no_samples() -> None:
    y = batch(1)
    with pytest.raises(SettingError, match="returns one image, not 4 posterior samples"):
        restore(y, make_operator("denoise"), Shift(), noise_std=0.1, samples=4)
