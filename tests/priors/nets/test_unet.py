import torch

from genprior.priors.nets.unet import UNet


def busy_network() -> UNet:
    torch.manual_seed(0)
    network = UNet(3, (8, 12, 16), (1, 1, 2), embedding=16)
    for p in network.parameters():
        torch.nn.init.normal_(p, 0, 0.2)
    return network.double()


def test_the_images_of_a_batch_are_independent():
    network = busy_network()
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    level = torch.tensor([0.1, -0.5], dtype=torch.float64)
    assert torch.allclose(network(x, level)[1:], network(x[1:], level[1:]), atol=1e-12)


def test_a_crop_sees_what_the_whole_sees_far_from_its_border():
    network = busy_network()
    x = torch.randn(1, 3, 128, 128, dtype=torch.float64)
    level = torch.zeros(1, dtype=torch.float64)
    whole = network(x, level)[..., 60:68, 60:68]
    crop = network(x[..., 16:112, 16:112], level)[..., 44:52, 44:52]
    assert torch.allclose(whole, crop, atol=1e-10)


def test_every_parameter_gets_a_gradient():
    network = busy_network()
    network(torch.randn(1, 3, 8, 8).double(), torch.zeros(1).double()).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
