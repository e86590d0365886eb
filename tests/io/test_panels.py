"""Panels and uncertainty maps."""

import torch

from genprior.io.panels import GAP, panel, std_map


def test_images_are_placed_side_by_side_on_white() -> None:
    colour, grey = torch.rand(1, 3, 8, 5), torch.rand(1, 1, 8, 6)
    joined = panel([colour, grey])
    assert joined.shape == (1, 3, 8, 5 + GAP + 6)
    assert torch.equal(joined[..., :5], colour)
    assert (joined[..., 5 : 5 + GAP] == 1).all()
    assert torch.equal(joined[..., 5 + GAP :], grey.expand(-1, 3, -1, -1))


def test_a_small_measurement_is_enlarged_by_an_integer_factor() -> None:
    small, large = torch.rand(1, 1, 3, 4), torch.rand(1, 1, 11, 16)  # 11 is not 4 x 3
    left = panel([small, large])[..., :16]
    assert torch.equal(left, small.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :11, :])


def test_a_measurement_without_margin_keeps_its_size_and_is_clipped() -> None:
    y, x = torch.rand(1, 1, 6, 6) * 4 - 2, torch.rand(1, 1, 8, 8)
    joined = panel([y, x])
    assert torch.equal(joined[..., :6, :6], y.clamp(0, 1))
    assert (joined[..., 6:, :6] == 1).all()


def test_a_map_is_scaled_to_its_largest_value() -> None:
    std = torch.tensor([[0.3, 0.0], [0.1, 0.2]]).expand(1, 3, 2, 2) / 10
    grey, white = std_map(std)
    assert abs(white - 0.03) < 1e-7
    assert torch.allclose(grey * white, std[:, :1])
    flat, _ = std_map(torch.zeros(1, 3, 2, 2))
    assert (flat == 0).all()
