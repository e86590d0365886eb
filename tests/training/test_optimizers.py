"""Optimisers: first steps of AdamW, Muon, SGD and RMSProp against their formulas."""

import pytest
import torch
from torch import nn

from genprior.training import optimizers
from genprior.training.optimizers import build_optimizers, orthogonalised


def network(memory_format) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3), nn.Conv2d(24, 3, 3))
    return layers.to(memory_format=memory_format)


def step(layers: nn.Module, kind: str) -> list[torch.Tensor]:
    """Changes of all parameters by one step of learning rate 0.01."""
    before = [p.detach().clone() for p in layers.parameters()]
    built = build_optimizers("g", layers.parameters(), kind, 0.01)
    layers(torch.ones(1, 3, 9, 9)).square().sum().backward()
    for optimizer in built.values():
        optimizer.step()
    return [p.detach() - old for p, old in zip(layers.parameters(), before, strict=True)]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_first_step_of_adamw_has_the_sign_of_the_gradient(memory_format):
    layers = network(memory_format)
    for p, change in zip(layers.parameters(), step(layers, "adamw"), strict=True):
        expected = -0.01 * p.grad / (p.grad.abs() + 1e-8)
        torch.testing.assert_close(change, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_moves_an_inner_convolution_by_a_nearly_orthogonal_matrix(memory_format):
    layers = network(memory_format)
    moved = step(layers, "muon")
    gradient = layers[1].weight.grad.flatten(1)
    change = moved[2].flatten(1) / (-0.01 * 0.2 * 144**0.5)
    u, s, v = torch.linalg.svd(gradient.double(), full_matrices=False)
    rank = int((s > 1e-4 * s[0]).sum())
    along = (u.T @ change.double() @ v.T)[:rank, :rank]
    # Newton-Schulz leaves singular values between 0.5 and 1.5 (Jordan et al.), in bfloat16.
    large = s[:rank] > 0.05 * s[0]
    values = along.diag()[large]
    assert values.min() > 0.45 and values.max() < 1.55
    assert (along - along.diag().diag())[large][:, large].abs().max() < 0.2


@pytest.mark.parametrize("shape", [(24, 144), (144, 24)])
def test_matrices_are_orthogonalised_in_the_precision_that_is_fast(monkeypatch, shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = {}
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(optimizers, "has_bfloat16", lambda device, native=native: native)
        found[native] = orthogonalised(matrix)
        assert found[native].dtype == dtype and found[native].shape == shape
    values = torch.linalg.svdvals(found[False].double())
    assert 0.5 < values.min() and values.max() < 1.5
    assert (found[True].double() - found[False].double()).norm() < 0.05 * values.norm()


def test_muon_moves_all_else_as_adamw_does():
    muon = step(network(torch.channels_last), "muon")
    adamw = step(network(torch.channels_last), "adamw")
    assert all(torch.equal(muon[k], adamw[k]) for k in (0, 1, 3, 4, 5))
    assert not torch.equal(muon[2], adamw[2])


def test_steps_of_sgd_follow_the_gradient_and_first_ones_of_rmsprop_its_signs():
    layers = network(torch.contiguous_format)
    sgd, gradients = step(layers, "sgd"), [p.grad for p in layers.parameters()]
    for moved, gradient in zip(sgd, gradients, strict=True):
        torch.testing.assert_close(moved, -0.01 * gradient, rtol=1e-4, atol=1e-7)
    # the mean of squares is a hundredth of the first one
    rmsprop = step(network(torch.contiguous_format), "rmsprop")
    torch.testing.assert_close(rmsprop[5], -0.1 * gradients[5].sign(), rtol=1e-4, atol=0)


def test_weights_in_other_memory_formats_are_refused():
    weight = nn.Parameter(torch.zeros(32, 32, 3, 3).permute(0, 1, 3, 2).contiguous().mT)
    with pytest.raises(ValueError, match="contiguous or the channels_last format"):
        build_optimizers("g", [weight], "muon", 0.01)
