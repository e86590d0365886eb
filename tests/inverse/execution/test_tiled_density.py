import torch
from untrained import random, trained

from genprior import make_operator, restore
from genprior.inverse.execution.tiled_decoder import TILED
from genprior.inverse.optimization.map import MAP
from genprior.priors.base import Density
from genprior.priors.glow import Glow


def test_a_density_fills_a_small_hole_from_a_window() -> None:
    torch.manual_seed(0)
    prior = Glow(1, levels=1, depth=1, width=4).requires_grad_(False)
    keep = torch.ones(1, 1, 120, 140)
    keep[..., 60:66, 40:48] = 0
    x = torch.rand(1, 1, 120, 140)
    y, operator = keep * x, make_operator("inpaint", keep=keep)
    # the optimisation starts and ends as on the whole image, up to rounding
    result = restore(y, operator, prior, "map", steps=200)
    whole = restore(y, operator, prior, "map", steps=200, tile="off")
    assert len(result.windows[0]) == 1 and not whole.windows[0]
    top, bottom, left, right = result.windows[0][0]
    assert (bottom - top) * (right - left) < 0.5 * keep.numel()
    assert torch.equal(result.image[keep > 0], x[keep > 0])
    torch.testing.assert_close(result.image, whole.image, rtol=0, atol=1e-3)


def test_the_gradient_of_a_density_in_tiles_is_that_of_the_whole_image() -> None:
    torch.manual_seed(0)
    prior = trained(Glow(1, levels=1, depth=1, width=4))
    tiled = TILED[Density](prior, 96)
    x, slopes, values = 0.5 + 0.1 * random(2, 1, 150, 130), [], []
    for law in (prior, tiled):
        u = x.clone().requires_grad_()
        values.append(law.log_prob(u))
        slopes.append(torch.autograd.grad(values[-1].sum(), u)[0])
    assert prior.receptive_radius < 12  # an eighth of a tile is discarded at its edge
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(values[1], values[0], rtol=0.01, atol=0)
    torch.testing.assert_close(tiled.log_prob(x), values[1].detach())


def test_a_flow_restores_in_tiles() -> None:
    torch.manual_seed(0)
    prior = trained(Glow(1, levels=1, depth=1, width=4)).float()
    y, operator = 0.5 + 0.1 * random(1, 1, 150, 130).float(), make_operator("denoise")
    result = restore(y, operator, prior, MAP(20), 0.1, tile=96)
    assert result.tile == 96
    whole = restore(y, operator, prior, MAP(20), 0.1, tile="off")
    torch.testing.assert_close(result.image, whole.image, rtol=0, atol=1 / 255)
