"""Grey images through colour networks."""

import pytest
import torch

from genprior.priors.nets.channels import check_channels, from_network, to_network


def test_grey_images_go_there_and_back() -> None:
    x = torch.rand(2, 1, 3, 4)
    colours = to_network(x, 3)
    assert torch.equal(colours, torch.cat([x, x, x], dim=1))
    assert torch.allclose(from_network(colours, 1), x)


def test_the_grey_of_colours_is_their_mean() -> None:
    x = torch.rand(2, 3, 3, 4)
    assert torch.equal(from_network(x, 1), x.mean(dim=1, keepdim=True))


def test_images_with_the_channels_of_the_network_stay() -> None:
    x = torch.rand(2, 3, 3, 4)
    assert to_network(x, 3) is x
    assert from_network(x, 3) is x


@pytest.mark.parametrize("given", [2, 4])
def test_other_numbers_of_channels_are_refused(given: int) -> None:
    with pytest.raises(ValueError, match=f"got {given} channels"):
        check_channels(given, 3)
    with pytest.raises(ValueError, match=f"got {given} channels"):
        to_network(torch.rand(1, given, 2, 2), 3)
