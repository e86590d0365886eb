"""The VAE and the DCGAN generator of the PyTorch examples, compared with their programs."""

from pathlib import Path

import pytest
import torch
from shell import sidecar, succeed
from torch import Tensor, nn

from genprior import load_prior, sample
from genprior.core.errors import CheckpointError


class ExampleVAE(nn.Module):
    """The network of pytorch/examples, vae/main.py."""

    def __init__(self, pixels: int = 784, hidden: int = 10, latent: int = 4) -> None:
        super().__init__()
        self.pixels = pixels
        self.fc1 = nn.Linear(pixels, hidden)
        self.fc21 = nn.Linear(hidden, latent)
        self.fc22 = nn.Linear(hidden, latent)
        self.fc3 = nn.Linear(latent, hidden)
        self.fc4 = nn.Linear(hidden, pixels)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h1 = nn.functional.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def decode(self, z: Tensor) -> Tensor:
        h3 = nn.functional.relu(self.fc3(z))
        return torch.sigmoid(self.fc4(h3))


def example_generator(nz: int, ngf: int, nc: int, size: int) -> nn.Module:
    """The network of pytorch/examples, dcgan/main.py, for images of 64 or fewer pixels a side."""
    widths = [ngf * 2**k for k in reversed(range(size.bit_length() - 3))]
    layers: list[nn.Module] = [nn.ConvTranspose2d(nz, widths[0], 4, 1, 0, bias=False)]
    for a, b in zip(widths, [*widths[1:], nc], strict=True):
        layers += [nn.BatchNorm2d(a), nn.ReLU(True), nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False)]
    generator = nn.Module()
    generator.main = nn.Sequential(*layers, nn.Tanh())
    return generator


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_the_vae_of_the_examples(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    theirs, path = ExampleVAE(), tmp_path / f"vae.{kind}"
    if kind == "pth":
        torch.save(theirs.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(theirs.state_dict(), path)
    prior = load_prior(path)
    x, z = torch.rand(3, 1, 28, 28), torch.randn(3, 4)
    mean, log_variance = theirs.encode(x.reshape(-1, 784))
    torch.testing.assert_close(prior.encode(x), mean)
    images = theirs.decode(z).reshape(3, 1, 28, 28)
    torch.testing.assert_close(prior.decode(z, x.shape), images)
    # the mode of q(z | x) N(z; 0, t^2) / N(z; 0, 1)
    precision = (-log_variance).exp()
    shrunk = mean * precision / (precision + 1 / 0.5**2 - 1)
    torch.testing.assert_close(prior.reconstruct(x, 0.5), prior.decode(shrunk, x.shape))
    assert prior.decoder_std.item() == pytest.approx(0.1)
    with pytest.raises(ValueError, match="28 x 28 pixels .* got 20 x 28"):
        prior.encode(x[..., :20, :])


def test_settings_give_shape_and_likelihood(tmp_path: Path) -> None:
    path, settings = tmp_path / "vae.pth", tmp_path / "vae.pth.genprior.json"
    torch.save(ExampleVAE(3 * 4 * 5).state_dict(), path)
    with pytest.raises(CheckpointError, match="images of 60 numbers, which shape .1, 7, 7. does"):
        load_prior(path)
    settings.write_text('{"shape": [3, 4, 5], "std": 0.2}')
    prior = load_prior(path)
    assert prior.decode(torch.randn(2, 4), torch.Size((2, 3, 4, 5))).shape == (2, 3, 4, 5)
    assert prior.decoder_std.item() == pytest.approx(0.2)


@pytest.mark.parametrize(("size", "channels"), [(64, 3), (32, 1)])
def test_the_dcgan_of_the_examples(tmp_path: Path, size: int, channels: int) -> None:
    torch.manual_seed(0)
    theirs = example_generator(6, 2, channels, size)
    theirs.main(torch.randn(8, 6, 1, 1))  # moves the running statistics
    path = tmp_path / "netG_epoch_24.pth"
    torch.save({f"module.{key}": value for key, value in theirs.state_dict().items()}, path)
    prior, z = load_prior(path), torch.randn(2, 6)
    shape = torch.Size((2, channels, size, size))
    images = theirs.eval().main(z[..., None, None]) / 2 + 0.5
    torch.testing.assert_close(prior.decode(z, shape), images)
    assert prior.latent_shape(shape) == (2, 6)
    h = prior.layers(shape)[0](z)
    torch.testing.assert_close(prior.rest(h, 1, shape), images)
    assert sample(path, count=2).shape == shape


def test_a_restoration_from_the_shell(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(example_generator(6, 2, 1, 32).state_dict(), tmp_path / "netG.pth")
    succeed("sample", "--prior", tmp_path / "netG.pth", "-o", tmp_path / "a.png")
    succeed("inpaint", tmp_path / "a.png", "--prior", tmp_path / "netG.pth", "--solver", "csgm",
            "--mask", "box=8x8", "--degrade", "--steps", 5, "-q")
    assert sidecar(tmp_path / "a.genprior.png")["prior"]


def test_a_vae_fills_a_hole_from_the_shell(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "mnist_vae.pth"
    torch.save(ExampleVAE().state_dict(), path)
    succeed("sample", "--prior", path, "-o", tmp_path / "a.png")
    succeed("inpaint", tmp_path / "a.png", "--prior", path, "--mask", "box=8x8", "--degrade",
            "--steps", 2, "-q")
    found = sidecar(tmp_path / "a.genprior.png")
    assert found["prior"] == str(path) and found["solver"] == "jpmap"


def test_another_generator_is_refused(tmp_path: Path) -> None:
    state = example_generator(6, 2, 1, 32).state_dict()
    del state["main.6.weight"]
    torch.save(state, tmp_path / "netG.pth")
    with pytest.raises(CheckpointError, match="is no DCGAN generator of transposed conv"):
        load_prior(tmp_path / "netG.pth")
