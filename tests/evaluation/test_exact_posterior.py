import pytest
import torch
from oracles import Dense
from torch import Tensor

from genprior.core.random_streams import Noise
from genprior.evaluation.exact_posterior import exact_scores
from genprior.inverse.gaussian.posterior import GaussianPosterior
from genprior.operators.base import Operator
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep
from genprior.priors.gmm import GMM
from genprior.priors.texture import Texture

SIZE, COUNT, NOISE_STD = (1, 1, 4, 4), 40, 0.1


def texture() -> Texture:
    i = torch.arange(4).double()
    texton = 0.1 * torch.exp(-(i[:, None] + i))[None]
    return Texture(texton, torch.tensor([0.5]).double(), margin=0, floor=0.02)


def mixture() -> GMM:
    n = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    means = torch.tensor([0.2, 0.8]).double().reshape(2, 1, 1, 1).expand(2, 1, 4, 4)
    return GMM(torch.tensor([0.3, 0.7]).double(), means, 2e-4 * n @ n.mT)


def exact(name: str, op: Operator, y: Tensor, prior: object) -> Tensor:
    """Draws exact samples by other streams than `exact_scores`."""
    if name == "texture":
        noise = Noise(9, [(3, k) for k in range(COUNT)])
        rows = op.select([0] * COUNT)
        return GaussianPosterior()(y.expand(COUNT, *y.shape[1:]), rows, prior, NOISE_STD, noise)
    seen = op.mask.flatten() > 0.5
    law = prior.posterior(y.flatten()[seen], torch.eye(16).double()[seen], NOISE_STD)
    return law.sample(COUNT, torch.Generator().manual_seed(9))


@pytest.mark.parametrize("name", ["texture", "mixture"])
def test_exact_samples_score_one_and_wrong_ones_do_not(name: str) -> None:
    prior = {"texture": texture, "mixture": mixture}[name]()
    op = Inpainting(random_keep(SIZE, 0.5))
    y = op.A(torch.full(SIZE, 0.6).double())
    x = exact(name, op, y, prior)
    found = exact_scores(x, y, op, prior, NOISE_STD)
    assert 0.3 < found["bias"] < 2 and found["std"] == pytest.approx(1, abs=0.15)
    assert 0.7 < found["w2"] < 1.5
    wide = exact_scores(x.mean(dim=0) + 2 * (x - x.mean(dim=0)), y, op, prior, NOISE_STD)
    assert wide["std"] == pytest.approx(2 * found["std"]) and wide["w2"] > 2
    shifted = exact_scores(x + 0.5, y, op, prior, NOISE_STD)
    assert shifted["std"] == pytest.approx(found["std"])
    assert shifted["bias"] > 10 and shifted["w2"] > 3


def test_unknown_posteriors_have_no_scores() -> None:
    op = Inpainting(random_keep(SIZE, 0.5))
    y, x = torch.zeros(SIZE).double(), torch.zeros(3, 1, 4, 4).double()
    assert exact_scores(x, y, op, Dense(), NOISE_STD) == {}  # it has no exact posterior
    assert exact_scores(x, y, op, mixture(), 0.0) == {}  # it needs noise
