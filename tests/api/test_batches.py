"""Independence of the images of a batch, for every solver through the public calls."""

from functools import cache

import pytest
import torch
from latents import LinearLatents
from torch import Tensor, nn

from genprior import degrade, make_operator, restore
from genprior.inverse.base import Solver
from genprior.inverse.execution import executor
from genprior.operators.base import Operator
from genprior.priors.base import ABILITIES
from genprior.priors.ddpm import DDPM
from genprior.priors.gan import GAN
from genprior.priors.glow import Glow
from genprior.priors.pca import PCA
from genprior.priors.pix2pix import Pix2Pix
from genprior.priors.vae import VAE
from genprior.registry import SOLVERS, lookup

SHAPE = (1, 8, 12)
SETTINGS = {
    "gaussian": {},
    "amortized": {},
    "posterior-mean": {},
    "smc": {"steps": 3, "particles": 3},
    "daps": {"steps": 3, "ode_steps": 2, "langevin_steps": 3},
    "resample": {"steps": 12, "interval": 2, "latent_steps": 3},
    "iagan": {"steps": 3, "restarts": 2, "refinements": 2},
}
# With little noise, `tmpd` amplifies rounding errors where rows of its covariance cancel.
LEVELS = {"tmpd": [0.4, 0.5, 0.8]}
PRIORS = {
    "gaussian": lambda: pca(),
    "denoiser": lambda: DDPM(1, widths=(4, 8), blocks=(1, 1), holes=True),
    "decoder": lambda: GAN(1, 3, (4, 6), size=SHAPE[1:]),
    "layered": lambda: GAN(1, 3, (4, 6), size=SHAPE[1:]),
    "variational": lambda: VAE(1, 3, (4,), size=SHAPE[1:]),
    "latent-denoiser": lambda: LinearLatents(SHAPE, (2, 2, 3)),
    "density": lambda: Glow(1, levels=1, depth=1, width=4),
    "conditional": lambda: Pix2Pix(1, (4, 6), (4,)),
}


def pca() -> PCA:
    directions = torch.linalg.qr(torch.randn(96, 5, generator=generator()).double()).Q
    values = torch.linspace(0.5, 2, 5).double()
    return PCA(torch.full(SHAPE, 0.5).double(), directions.mT.reshape(5, *SHAPE), values, 0.1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def whole_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU restores images one by one, a GPU all at once."""
    monkeypatch.setitem(executor.CHUNKS, "cpu", 2**20)
    monkeypatch.setitem(executor.MIXED, "cpu", True)


@cache
def prior(ability: str) -> nn.Module:
    """Not trained, but every weight is random, so that nothing is the identity."""
    torch.manual_seed(0)
    model = PRIORS[ability]()
    if ability != "gaussian":
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=generator())
    return model.float().eval().requires_grad_(False)


def ability_of(solver: Solver) -> str:
    return next(name for name, ability in ABILITIES.items() if ability is solver.needs)


@pytest.mark.parametrize("name", sorted({*SOLVERS} - {"dithered-mean"}))
def test_an_image_does_not_depend_on_its_batch(name: str) -> None:
    check(name, make_operator("inpaint", keep=keep()))


def test_a_denoised_image_does_not_depend_on_its_batch() -> None:
    check("posterior-mean", make_operator("denoise"))


@pytest.mark.parametrize("name", ["dithered-mean", "hqs", "diffpir"])
def test_a_decompressed_image_does_not_depend_on_its_batch(name: str) -> None:
    check(name, make_operator("jpeg", quality=30), levels=[0.0, 0.0, 0.0])


@pytest.mark.parametrize("name", ["hqs", "moment-matched"])
def test_masks_of_whole_pixels_may_be_mixed_with_masks_of_channels(name: str) -> None:
    masks = torch.rand(3, 3, *SHAPE[1:], generator=generator()) > 0.3
    masks[1] = masks[1, :1]
    operator = make_operator("inpaint", keep=masks)
    torch.manual_seed(0)
    colour = DDPM(3, widths=(4, 8), blocks=(1, 1), holes=True).eval().requires_grad_(False)
    y = degrade(torch.rand(3, 3, *SHAPE[1:], generator=generator()), operator, 0.05)
    together = restore(y, operator, colour, name, noise_std=0.05).image
    for i in range(3):
        alone = restore(y[i : i + 1], operator.select([i]), colour, name, 0.05, index=i).image
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=2e-5)


def keep() -> Tensor:
    return torch.rand(1, 1, *SHAPE[1:], generator=generator()) > 0.3


def check(name: str, operator: Operator, levels: list[float] | None = None) -> None:
    solver = lookup(SOLVERS, name, "solver")(**SETTINGS.get(name, {"steps": 3}))
    levels = levels or LEVELS.get(name, [0.02, 0.05, 0.1])
    y = degrade(torch.rand(3, *SHAPE, generator=generator()), operator, levels)
    options = {"prior": prior(ability_of(solver)), "solver": solver}
    options["samples"] = 2 if solver.stochastic else 1
    together = restore(y, operator, noise_std=levels, **options)
    assert not torch.allclose(together.image[0], together.image[1], atol=1e-2)
    for i, level in enumerate(levels):
        alone = restore(y[i : i + 1], operator, noise_std=level, index=i, **options)
        pairs: list[tuple[Tensor, Tensor]] = [(alone.image[0], together.image[i])]
        if solver.stochastic:
            pairs += [(alone.samples[0], together.samples[i]), (alone.std[0], together.std[i])]
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=0, atol=2e-5)
