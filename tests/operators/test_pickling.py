"""Operators and priors after pickling: torch.save, and the pickler of spawned processes."""

import copy
import io
import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import deepinv
import pytest
import torch
from torch import Tensor, nn

from genprior import estimate_prior, load_prior, make_operator
from genprior.operators.external import External
from genprior.priors.pca import PCA

SHAPE = (3, 8, 12)
BOX = torch.ones(1, 1, 3, 3) / 9


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def saved(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def spawned(value: Any) -> Any:
    return pickle.loads(bytes(ForkingPickler.dumps(value)))


WAYS = {"torch.save": saved, "spawn": spawned, "pickle": lambda v: pickle.loads(pickle.dumps(v))}
OURS = {
    "inpaint": lambda: make_operator("inpaint", keep=rand(2, 8, 12) > 0.4),
    "deblur": lambda: make_operator("deblur", kernel=rand(3, 3)),
    "circular": lambda: make_operator("deblur", kernel=rand(3, 3), boundary="circular"),
    "separable": lambda: make_operator("deblur", gaussian=0.7, boundary="reflect"),
    "superres": lambda: make_operator("superres", factor=2),
    "denoise": lambda: make_operator("denoise"),
    "demosaic": lambda: make_operator("demosaic"),
    "kernel": lambda: make_operator("superres-kernel", factor=2, kernel=rand(3, 3)),
    "sensing": lambda: make_operator("compressed-sensing", ratio=0.5),
}
P = deepinv.physics
THEIRS = {
    "Blur": lambda: P.Blur(BOX, padding="circular", noise_model=P.GaussianNoise(0.1)),
    "Blurs": lambda: P.Blur(rand(2, 1, 3, 3), padding="valid"),
    "generator": lambda: P.Blur(
        BOX, padding="circular", noise_model=P.GaussianNoise(0.1, rng=torch.Generator())
    ),
    "BlurFFT": lambda: P.BlurFFT(img_size=SHAPE, filter=BOX),
    "CompressedSensing": lambda: P.CompressedSensing(m=40, img_size=SHAPE),
    "Downsampling": lambda: P.Downsampling(img_size=SHAPE, factor=2, filter="bicubic"),
    "Stacked": lambda: P.StackedLinearPhysics([
        P.Blur(BOX, padding="circular", noise_model=P.GaussianNoise(0.3)),
        P.Downsampling(img_size=SHAPE, factor=2, filter="bicubic"),
    ]),
    "Decolorize": lambda: P.Decolorize(),
}


def used(operator: Any, x: Tensor) -> list[Tensor]:
    y = operator.A(x)
    return [y, operator.prox(x, y, 0.1), operator.solve_gram(y, 1.0, 0.1),
            operator.mask_unmeasured(y)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OURS)
def test_an_operator_is_the_same_after_pickling(name: str, way: str) -> None:
    operator, x = OURS[name](), rand(2, *SHAPE)
    for _ in ("new", "used"):
        other = WAYS[way](operator)
        assert all(map(torch.equal, used(other, x), used(operator, x)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", THEIRS)
def test_a_physics_of_deepinv_is_the_same_after_pickling(name: str, way: str) -> None:
    operator, x = External(THEIRS[name]()), rand(2, *SHAPE)
    fresh = WAYS[way](operator)
    operator.check_shape(operator.A(x).shape)
    scaled, _ = operator.rescaled(operator.A(x).shape)
    some = scaled.select([1, 0, 1])
    pairs = [(operator, fresh, x), (scaled, WAYS[way](scaled), x),
             (some, WAYS[way](some), x[[1, 0, 1]])]
    for one, other, images in pairs:
        assert all(map(torch.equal, used(other, images), used(one, images)))
    parts = getattr(operator.physics, "physics_list", [operator.physics])
    others = getattr(fresh.physics, "physics_list", [fresh.physics])
    for one, other in zip(parts, others, strict=True):
        assert type(one.noise_model) is type(other.noise_model)
        level = getattr(one.noise_model, "sigma", None)
        assert level is None or torch.equal(level, other.noise_model.sigma)


def test_the_state_of_a_generator_is_kept() -> None:
    operator = External(THEIRS["generator"]())
    operator.physics.noise_model.rng.manual_seed(7)
    other = saved(operator)
    x = rand(1, *SHAPE)
    assert torch.equal(other.physics(x), operator.physics(x))
    assert torch.equal(other.physics(x), operator.physics(x))


def test_copies_share_the_physics_or_have_their_own() -> None:
    operator = External(THEIRS["Blur"]())
    assert copy.copy(operator).physics is operator.physics
    other = copy.deepcopy(operator)
    assert other.physics is not operator.physics and other.maps.physics is other.physics
    assert pickle.loads(pickle.dumps(operator)).maps.physics is not operator.physics


def test_what_python_cannot_pickle_is_named() -> None:
    class Local:
        def A(self, x: Tensor) -> Tensor:
            return x

        A_adjoint = A

    with pytest.raises((pickle.PicklingError, AttributeError), match="Local"):
        pickle.dumps(External(Local()))


def gaussian() -> PCA:
    side = torch.eye(288).reshape(288, *SHAPE)[:40]
    return PCA(torch.full(SHAPE, 0.5), side, torch.full((40,), 1 / 12), 0.05)


PRIORS = {
    "texture": lambda weights: estimate_prior("texture", rand(*SHAPE)),
    "pca": lambda weights: gaussian(),
    "ddpm": load_prior,
    "vae": lambda weights: load_prior("vae"),
    "gan": lambda weights: load_prior("gan"),
    "glow": lambda weights: load_prior("glow"),
}


def evaluated(prior: nn.Module, x: Tensor) -> Tensor:
    if hasattr(prior, "denoise"):
        return prior.denoise(x, 0.1)
    z = rand(*prior.latent_shape(x.shape), seed=3)
    return prior.decode(z, x.shape)


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_is_the_same_after_pickling(
    name: str, weights: Path, way: Callable = saved
) -> None:
    prior = PRIORS[name](weights)
    with torch.no_grad():
        x = rand(1, *SHAPE)
        expected = evaluated(prior, x)
        assert torch.equal(evaluated(way(prior), x), expected)
