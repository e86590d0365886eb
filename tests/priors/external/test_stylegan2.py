"""StyleGAN2 files in the layout of rosinality's program, against its formulas written out."""

import argparse
import json
import math
from pathlib import Path

import pytest
import torch
from shell import refused, save_photo, sidecar, succeed
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu

from genprior import load_prior, sample
from genprior.core.errors import EXIT_WEIGHTS, CheckpointError

DIM, SIDE, DEPTH = 8, 16, 3


def layout(channels: int = 3, side: int = SIDE, mapping: int = DEPTH) -> dict[str, Tensor]:
    """A state dictionary with the names, shapes and buffers of the program."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = taps[:, None] * taps / taps.sum() ** 2 * 4
    widths = [12, 10, 6, 4]
    state = {}
    for k in range(1, mapping + 1):
        state[f"style.{k}.weight"] = draw(DIM, DIM) / 0.01
        state[f"style.{k}.bias"] = draw(DIM)
    state["input.input"] = draw(1, widths[0], 4, 4)

    def convolution(name: str, inputs: int, outputs: int, up: bool) -> None:
        state[f"{name}.conv.weight"] = draw(1, outputs, inputs, 3, 3)
        if up:
            state[f"{name}.conv.blur.kernel"] = kernel
        state[f"{name}.conv.modulation.weight"] = draw(inputs, DIM)
        state[f"{name}.conv.modulation.bias"] = 1 + 0.1 * draw(inputs)
        state[f"{name}.noise.weight"] = draw(1)
        state[f"{name}.activate.bias"] = draw(outputs)

    def to_rgb(name: str, inputs: int, up: bool) -> None:
        state[f"{name}.bias"] = draw(1, channels, 1, 1)
        if up:
            state[f"{name}.upsample.kernel"] = kernel
        state[f"{name}.conv.weight"] = draw(1, channels, inputs, 1, 1)
        state[f"{name}.conv.modulation.weight"] = draw(inputs, DIM)
        state[f"{name}.conv.modulation.bias"] = torch.ones(inputs)

    convolution("conv1", widths[0], widths[0], False)
    to_rgb("to_rgb1", widths[0], False)
    state["noises.noise_0"] = draw(1, 1, 4, 4)
    for k in range(int(math.log2(side)) - 2):
        convolution(f"convs.{2 * k}", widths[k], widths[k + 1], True)
        convolution(f"convs.{2 * k + 1}", widths[k + 1], widths[k + 1], False)
        to_rgb(f"to_rgbs.{k}", widths[k + 1], True)
        for j in (1, 2):
            state[f"noises.noise_{2 * k + j}"] = draw(1, 1, 8 << k, 8 << k)
    return state


def mapped(state: dict[str, Tensor], z: Tensor, count: int = DEPTH) -> Tensor:
    h = z / (z.square().mean(dim=1, keepdim=True) + 1e-8).sqrt()
    for k in range(1, count + 1):
        weight = state[f"style.{k}.weight"] * (0.01 / math.sqrt(DIM))
        h = 2**0.5 * leaky_relu(h @ weight.T + 0.01 * state[f"style.{k}.bias"], 0.2)
    return h


def filtered(x: Tensor, kernel: Tensor, up: int, before: int, after: int) -> Tensor:
    """Inserts zeros, pads and convolves, channel by channel."""
    b, c, h, w = x.shape
    spread = torch.zeros(b, c, up * h, up * w)
    spread[:, :, ::up, ::up] = x
    padded = torch.nn.functional.pad(spread, (before, after, before, after))
    flat = conv2d(padded.flatten(0, 1)[:, None], kernel.flip(0, 1)[None, None])
    return flat.reshape(b, c, *flat.shape[2:])


def theirs(state: dict[str, Tensor], latent: Tensor) -> Tensor:
    """Images of latents (B, styles, DIM): weights are modulated, one image at a time."""

    def convolve(name: str, h: Tensor, w: Tensor, demodulate: bool = True) -> Tensor:
        weight = state[f"{name}.weight"][0]
        scale = 1 / math.sqrt(weight[0].numel())
        s = w @ (state[f"{name}.modulation.weight"] / math.sqrt(DIM)).T
        s = s + state[f"{name}.modulation.bias"]
        out = []
        for image, style in zip(h.split(1), s, strict=True):
            k = scale * weight * style[None, :, None, None]
            if demodulate:
                k = k / (k.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).sqrt()
            if f"{name}.blur.kernel" in state:
                y = conv_transpose2d(image, k.transpose(0, 1), stride=2)
                out.append(filtered(y, state[f"{name}.blur.kernel"], 1, 1, 1))
            else:
                out.append(conv2d(image, k, padding=k.shape[-1] // 2))
        return torch.cat(out)

    def styled(name: str, h: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        h = convolve(f"{name}.conv", h, w) + state[f"{name}.noise.weight"] * noise
        return 2**0.5 * leaky_relu(h + state[f"{name}.activate.bias"].reshape(1, -1, 1, 1), 0.2)

    h = state["input.input"].repeat(len(latent), 1, 1, 1)
    h = styled("conv1", h, latent[:, 0], state["noises.noise_0"])
    image = convolve("to_rgb1.conv", h, latent[:, 1], False) + state["to_rgb1.bias"]
    for k, i in enumerate(range(1, latent.shape[1] - 2, 2)):
        h = styled(f"convs.{2 * k}", h, latent[:, i], state[f"noises.noise_{i}"])
        h = styled(f"convs.{2 * k + 1}", h, latent[:, i + 1], state[f"noises.noise_{i + 1}"])
        rgb = convolve(f"to_rgbs.{k}.conv", h, latent[:, i + 2], False)
        rgb = rgb + state[f"to_rgbs.{k}.bias"]
        image = rgb + filtered(image, state[f"to_rgbs.{k}.upsample.kernel"], 2, 2, 1)
    return image


def save(
    path: Path, state: dict[str, Tensor], average: Tensor | None = None, **told: object
) -> Path:
    torch.save({"g": {}, "g_ema": state,
                **({} if average is None else {"latent_avg": average})}, path)
    if told:
        path.with_name(f"{path.name}.genprior.json").write_text(json.dumps(told))
    return path


@pytest.mark.parametrize(("channels", "side"), [(3, 16), (1, 8)])
@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_images_are_those_of_the_program(
    tmp_path: Path, channels: int, side: int, space: str
) -> None:
    state, average = layout(channels, side), torch.linspace(-1, 1, DIM)
    path = save(tmp_path / "model.pt", state, average, space=space, truncation=0.6)
    prior, shape = load_prior(path), torch.Size((2, channels, side, side))
    v = torch.randn(prior.latent_shape(shape), generator=torch.Generator().manual_seed(1))
    count = 2 * int(math.log2(side)) - 2
    if space == "z":
        w = mapped(state, v)
    else:
        h = prior.mean + v.reshape(-1, DIM) @ prior.root
        w = 2**0.5 * leaky_relu(h, 0.2)
    w = (average + 0.6 * (w - average)).reshape(2, -1, DIM).expand(-1, count, -1)
    expected = (theirs(state, w) + 1) / 2
    torch.testing.assert_close(prior.decode(v, shape), expected, atol=1e-5, rtol=1e-5)
    assert v.shape[1] == (count if space == "w+" else 1) * DIM


def test_styles_have_the_mean_and_covariance_of_mapped_latents(tmp_path: Path) -> None:
    state = layout()
    prior = load_prior(save(tmp_path / "model.pt", state))
    z = torch.randn(40_000, DIM, generator=torch.Generator().manual_seed(7))
    w = mapped(state, z)
    h = torch.where(w > 0, w, w / 0.2) / 2**0.5  # before the last rectifier
    scale = h.T.cov().diag().max()
    assert (h.mean(dim=0) - prior.mean).abs().max() < 5 * (scale / 10_000) ** 0.5
    torch.testing.assert_close(prior.root @ prior.root.T, h.T.cov(), rtol=0,
                               atol=0.1 * scale.item())
    # without latent_avg in the file, it is the mean of the mapped latents
    assert (w.mean(dim=0) - prior.average).abs().max() < 5 * (w.var(dim=0).max() / 10_000) ** 0.5


def test_a_file_without_noise_maps_and_a_restoration_from_the_shell(tmp_path: Path) -> None:
    state = {key: value for key, value in layout().items() if not key.startswith("noises.")}
    path = save(tmp_path / "model.pt", state)
    assert sample(path, count=2).shape == (2, 3, SIDE, SIDE)
    photo = save_photo(tmp_path / "a.png", size=(SIDE, SIDE))
    succeed("inpaint", photo, "--prior", path, "--solver", "csgm", "--mask", "box=4x4",
            "--degrade", "--steps", 3, "-q")
    assert str(path) in json.dumps(sidecar(tmp_path / "a.genprior.png"))
    about = json.loads(succeed("priors", "info", path).stdout)
    assert about["format"] == "stylegan2" and about["size"] == [SIDE, SIDE]
    assert "csgm" in about["solvers"] and about["latent_avg"] == "mean of 10000 styles"


def test_defects_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"g_ema": layout(), "args": argparse.Namespace(size=SIDE)}, path)
    code, line = refused("priors", "info", path)
    assert code == EXIT_WEIGHTS and "argparse.Namespace" in line
    assert "nothing in it was run" in line
    for change, told, message in (
        ({"conv1.noise.weight": torch.zeros(2)}, {}, "1 tensors have other shapes"),
        ({"convs.9.conv.weight": torch.zeros(1, 2, 2, 3, 3)}, {}, "cannot be built as a Style"),
        ({"convs.x.conv.weight": torch.zeros(1)}, {}, "convs are not numbered up to 24"),
        ({}, {"truncation": 1.5}, "truncation must be in"),
        ({}, {"space": "y"}, "it may set space, truncation"),
    ):
        save(path, layout() | change, **told)
        with pytest.raises(CheckpointError, match=message):
            load_prior(path)
    path.with_name("model.pt.genprior.json").unlink()
    save(path, layout(), torch.zeros(DIM + 1))
    with pytest.raises(CheckpointError, match="latent_avg has not 8 numbers"):
        load_prior(path)
