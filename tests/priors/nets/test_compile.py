import pytest
import torch
from torch import nn

from genprior.core.random_streams import Noise
from genprior.priors.base import Trainable
from genprior.priors.ddpm import DDPM
from genprior.priors.gan import GAN
from genprior.priors.glow import Glow
from genprior.priors.hvae import HVAE
from genprior.priors.nets.compile import compile_networks
from genprior.priors.vae import VAE

PRIORS = [
    DDPM(widths=(8, 16), blocks=(1, 1), holes=True), VAE(latent=2, widths=(4, 8), blocks=1),
    Glow(), HVAE(), GAN(size=(16, 16), widths=(4, 8)),
]


@pytest.mark.parametrize("prior", PRIORS, ids=lambda prior: type(prior).__name__)
def test_nearly_all_weights_are_in_compiled_modules_that_a_training_calls(
    prior: Trainable, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    compile_networks(prior)
    called: set[nn.Module] = set()
    for module in compiled:
        module.register_forward_hook(lambda module, *_: called.add(module))
    prior.losses(torch.rand(2, 3, 16, 16), Noise(0, [0, 1]))
    reached = {p for module in called for p in module.parameters()}
    counts = [sum(p.numel() for p in some) for some in (reached, prior.parameters())]
    assert called == set(compiled) and counts[0] > 0.99 * counts[1]
