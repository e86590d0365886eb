"""UNets of other widths with the weights of a trained one."""

import pytest
import torch
from torch import nn

from genprior.priors.nets.pruning import prune_unet
from genprior.priors.nets.unet import UNet

WIDTHS, BLOCKS = (6, 8, 10), (1, 2, 1)


def trained(holes: bool) -> UNet:
    """A network none of whose weights is zero."""
    torch.manual_seed(0)
    network = UNet(3, WIDTHS, BLOCKS, embedding=16, holes=holes)
    for p in network.parameters():
        nn.init.normal_(p, std=0.2)
    return network


def outputs(network: UNet) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 16, 16, generator=generator)
    unknown = (x[:, :1] > 0).float() if hasattr(network, "holes") else None
    with torch.no_grad():
        return network(x, torch.tensor([-0.5, 0.1]), unknown)


def with_widths(network: UNet, widths: tuple[int, ...]) -> UNet:
    new = UNet(3, widths, BLOCKS, embedding=16, holes=hasattr(network, "holes"))
    new.load_state_dict(prune_unet(network.state_dict(), new.state_dict()))
    return new


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("widths", [(7, 8, 10), (6, 8, 25), (9, 17, 11)])
def test_a_wider_network_gives_the_same_images(widths, holes):
    network = trained(holes)
    wider = with_widths(network, widths)
    torch.testing.assert_close(outputs(wider), outputs(network), rtol=1e-4, atol=1e-4)
    new = wider.encoder[2][0].conv1.weight[WIDTHS[2] :].abs().flatten(1)
    assert (new.amax(dim=1) > 0).all()  # so that they can learn


@pytest.mark.parametrize("holes", [False, True])
def test_channels_that_are_not_used_go_first(holes):
    network = trained(holes)
    wider = with_widths(network, (9, 12, 15))
    state = wider.state_dict()
    order = [torch.randperm(n, generator=torch.Generator().manual_seed(n)) for n in (9, 12, 15)]
    # move the unused channels between the others
    for index, stacks in enumerate((wider.encoder, wider.decoder)):
        for level, stack in enumerate(stacks):
            for b in range(len(stack)):
                name = f"{('encoder', 'decoder')[index]}.{level}.{b}"
                state[f"{name}.conv1.weight"] = state[f"{name}.conv1.weight"][:, order[level]]
                state[f"{name}.conv2.weight"] = state[f"{name}.conv2.weight"][order[level]]
                state[f"{name}.conv2.bias"] = state[f"{name}.conv2.bias"][order[level]]
    for name in ("head.weight", "head.bias", *(["holes.weight"] if holes else [])):
        state[name] = state[name][order[0]]
    state["tail.weight"] = state["tail.weight"][:, order[0]]
    for k in range(2):
        state[f"down.{k}.weight"] = state[f"down.{k}.weight"][order[k + 1]][:, order[k]]
        state[f"down.{k}.bias"] = state[f"down.{k}.bias"][order[k + 1]]
        state[f"up.{k}.weight"] = state[f"up.{k}.weight"][order[k + 1]][:, order[k]]
        state[f"up.{k}.bias"] = state[f"up.{k}.bias"][order[k]]
    wider.load_state_dict(state)
    torch.testing.assert_close(outputs(wider), outputs(network), rtol=1e-4, atol=1e-4)
    narrow = with_widths(wider, WIDTHS)
    torch.testing.assert_close(outputs(narrow), outputs(network), rtol=1e-4, atol=1e-4)


def test_of_a_narrower_network_the_channels_with_small_weights_are_missing():
    network = trained(False)
    with torch.no_grad():
        network.encoder[0][0].conv2.weight[[1, 4]] *= 1e-3
        network.decoder[0][0].conv2.weight[[1, 4]] *= 1e-3
        network.up[0].weight[:, [1, 4]] *= 1e-3
        network.head.weight[[1, 4]] *= 1e-3
    narrow = with_widths(network, (4, 8, 10))
    kept = [0, 2, 3, 5]
    assert torch.equal(narrow.head.weight, network.head.weight[kept])
    assert torch.equal(narrow.tail.weight, network.tail.weight[:, kept])
    assert torch.equal(narrow.up[0].bias, network.up[0].bias[kept])
