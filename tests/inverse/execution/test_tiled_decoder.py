"""A tiled decoder equals the decoder on the whole image, and so do its gradients."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from untrained import random, trained

from genprior import degrade, make_operator, restore
from genprior.core.errors import SettingError
from genprior.inverse.execution import memory
from genprior.inverse.execution.tiled_decoder import TILED, activation_bytes
from genprior.inverse.optimization.csgm import CSGM
from genprior.inverse.optimization.glowip import GlowIP
from genprior.inverse.optimization.iagan import IAGAN
from genprior.inverse.optimization.ilo import ILO
from genprior.inverse.optimization.jpmap import JPMAP, PnPHVAE
from genprior.inverse.optimization.langevin import Langevin
from genprior.inverse.optimization.map import MAP
from genprior.priors.base import Decoder, Layered, Variational
from genprior.priors.gan import GAN
from genprior.priors.glow import Glow
from genprior.priors.hvae import HVAE
from genprior.priors.vae import VAE

# Networks with a receptive radius of at most 14 pixels, which tiles of 112 pixels discard.
SMALL = {
    "vae": lambda: VAE(latent=2, widths=(4, 6), blocks=0),
    "gan": lambda: GAN(latent=2, widths=(4, 4)),
    "glow": lambda: Glow(levels=2, depth=1, width=4),
    "hvae": lambda: HVAE(latent=2, widths=(4, 4), groups=(1, 1), blocks=0),
}
SIZE = (150, 205)
SIDE = 112


@pytest.fixture(params=SMALL)
def prior(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return trained(SMALL[request.param]())


def changed(function: Callable[[Tensor], Tensor], x: Tensor, column: int) -> list[int]:
    """Columns of the output that depend on a column of the input."""
    y = x.clone()
    y[..., column] += 1
    return (function(y) != function(x)).flatten(0, -2).any(dim=0).nonzero().flatten().tolist()


RADIUS_CASES = {
    "vae": lambda: VAE(latent=2, widths=(4, 4, 4), blocks=1),
    "gan": lambda: GAN(latent=2, widths=(4, 4, 4)),
    "gan, transposed": lambda: GAN(latent=2, widths=(4, 4, 4), upsampling="transposed"),
    "glow": lambda: Glow(levels=2, depth=3, width=4),
    "realnvp": lambda: Glow(levels=2, depth=2, width=4, architecture="realnvp"),
    "hvae": lambda: HVAE(latent=2, widths=(4, 4, 4), groups=(1, 0, 2), blocks=1),
}


@pytest.mark.parametrize("name", RADIUS_CASES)
def test_the_receptive_radius_of_a_decoder(name: str) -> None:
    torch.manual_seed(0)
    prior = trained(RADIUS_CASES[name]())
    size = 2 * prior.receptive_radius // prior.stride * prior.stride + 4 * prior.stride
    shape, farthest = torch.Size((1, 3, prior.stride, size)), 0
    if isinstance(prior, Variational):
        x = 0.5 + 0.1 * random(*shape)
        for column in range(size // 2, size // 2 + prior.stride):
            found = changed(prior.reconstruct, x, column)
            farthest = max(farthest, column - found[0], found[-1] - column)
    else:
        z, begin = random(*prior.latent_shape(shape)).flatten(1), 0
        for channels, f in prior.latent_maps:
            rows, columns = prior.stride // f, size // f
            end = begin + channels * rows * columns

            def decode(part: Tensor, begin: int = begin, end: int = end) -> Tensor:
                whole = torch.cat((z[:, :begin], part.flatten(1), z[:, end:]), dim=1)
                return prior.decode(whole.reshape(prior.latent_shape(shape)), shape)

            site = columns // 2
            found = changed(decode, z[:, begin:end].reshape(1, channels, rows, columns), site)
            farthest = max(farthest, site * f - found[0], found[-1] - (site + 1) * f + 1)
            begin = end
    slack = 2 if name == "glow" else 0  # the conditional prior of split-off latents adds no radius
    assert prior.receptive_radius - slack <= farthest <= prior.receptive_radius


@pytest.mark.parametrize("size", [SIZE, (40, 113)])
def test_tiles_of_a_decoder_are_the_whole(prior: nn.Module, size: tuple[int, int]) -> None:
    assert prior.receptive_radius <= 14
    for shape in (torch.Size((2, 3, *size)), torch.Size((2, 1, *size))):
        z, v = random(*prior.latent_shape(shape)).requires_grad_(), random(*shape, seed=1)
        ability = Layered if isinstance(prior, Layered) else Decoder
        tiled = TILED[ability](prior, SIDE)
        images = [p.decode(z, shape) for p in (prior, tiled)]
        gradients = [torch.autograd.grad(x, z, v)[0] for x in images]
        for whole, tiles in (images, gradients):
            assert (whole - tiles).abs().max() < 1e-11 * whole.abs().max()


@pytest.mark.parametrize("name", ["vae", "hvae"])
def test_tiles_of_an_autoencoder_are_the_whole(name: str) -> None:
    torch.manual_seed(0)
    prior = trained(SMALL[name]())
    tiled = TILED[Variational](prior, SIDE)
    assert tiled.decoder_std == prior.decoder_std
    for size in (SIZE, (113, 50)):
        x = 0.5 + 0.1 * random(2, 3, *size)
        assert torch.allclose(tiled.encode(x), prior.encode(x), rtol=0, atol=1e-12)
        whole, tiles = prior.reconstruct(x, 0.7), tiled.reconstruct(x, 0.7)
        assert torch.allclose(whole, tiles, rtol=0, atol=1e-12)


class Recording(nn.Module, Layered):
    """Records the number of pixels of each call."""

    def __init__(self, prior: GAN) -> None:
        super().__init__()
        self.prior, self.seen = prior, []
        self.latent_maps, self.receptive_radius, self.stride = (
            prior.latent_maps,
            prior.receptive_radius,
            prior.stride,
        )

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return self.prior.latent_shape(image_shape)

    def layers(self, image_shape: torch.Size) -> list[Callable[[Tensor], Tensor]]:
        return self.prior.layers(image_shape)

    def rest(self, h: Tensor, first: int, image_shape: torch.Size) -> Tensor:
        self.seen.append(image_shape[0] * image_shape[-2:].numel())
        return self.prior.rest(h, first, image_shape)


CASES = [
    ("vae", JPMAP(steps=2, descent=2, final=3)), ("vae", PnPHVAE(steps=3)),
    ("hvae", JPMAP(steps=1, descent=2, final=2)), ("gan", CSGM(steps=3, restarts=2)),
    ("gan", IAGAN(steps=2, restarts=2, refinements=2)),
    ("gan", ILO(steps=2, restarts=2, stages=2, stage_steps=2)),
    ("glow", GlowIP(steps=4)), ("gan", Langevin(steps=6)),
]


@pytest.mark.parametrize("name, solver", CASES)
def test_solvers_find_the_same_in_tiles(name: str, solver: object) -> None:
    torch.manual_seed(0)
    prior = trained(SMALL[name]()).float()
    operator = make_operator("superres", factor=2)
    clean = 0.5 + 0.2 * random(1, 3, *SIZE).float()
    y = degrade(clean[..., :100, :120], operator, 0.05)
    whole = restore(y, operator, prior, solver, 0.05, tile="off")
    tiles = restore(y, operator, prior, solver, 0.05, tile=SIDE)
    assert (whole.tile, tiles.tile) == (None, SIDE)
    assert (whole.image - tiles.image).abs().max() < 1e-4


def test_many_starts_are_decoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    seen = Recording(trained(SMALL["gan"]()).float()).eval()
    monkeypatch.setattr(memory, "BYTES_PER_PIXEL", activation_bytes(seen, 3, torch.zeros(())))
    monkeypatch.setattr(memory, "NARROWEST", 64)
    y, operator = 0.5 + 0.1 * random(1, 3, 64, 80).float(), make_operator("denoise")
    for solver, cap in ((CSGM(steps=1, restarts=8), 2**21), (ILO(1, 0.1, 8, stages=1), 3 * 5120)):
        monkeypatch.setitem(memory.TILES, "cpu", (128, cap))
        seen.seen.clear()
        result = restore(y, operator, seen, solver, 0.1)
        assert result.tile is None
        at_once = max(seen.seen[1:])  # the first call measures the bytes per pixel
        assert at_once == (8 if cap == 2**21 else 3) * 5120
    # 4 times the memory per pixel: tiles of half the side
    monkeypatch.setattr(memory, "BYTES_PER_PIXEL", memory.BYTES_PER_PIXEL / 4)
    monkeypatch.setitem(memory.TILES, "cpu", (144, 64 * 64))
    assert restore(y, operator, seen, CSGM(steps=1, restarts=1), 0.1).tile == 72


class Exponential(Decoder):
    """exp z, which stores only its result for the gradient."""

    latent_maps, receptive_radius = ((3, 1),), 0

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return tuple(image_shape)

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        return z.exp()


def test_activation_bytes_are_measured() -> None:
    assert activation_bytes(Exponential(), 3, torch.zeros(())) == 12
    assert activation_bytes(Exponential(), 1, random()) == 8
    deep, shallow = (Glow(levels=1, depth=depth, width=8) for depth in (8, 4))
    assert (
        1.8
        < activation_bytes(deep, 3, torch.zeros(()))
        / activation_bytes(shallow, 3, torch.zeros(()))
        < 2.2
    )
    assert (
        activation_bytes(deep.with_checkpointing(), 3, torch.zeros(()))
        < activation_bytes(deep, 3, torch.zeros(())) / 10
    )


def test_checkpointing_gives_the_same_prior() -> None:
    torch.manual_seed(0)
    prior = trained(SMALL["glow"]())
    recomputing, x = prior.with_checkpointing(), 0.5 + 0.1 * random(2, 3, 10, 14)
    assert not any(p.requires_grad for p in recomputing.parameters()) and not recomputing.training
    for mine, other in zip(prior.parameters(), recomputing.parameters(), strict=True):
        assert mine.data_ptr() == other.data_ptr()
    gradients = []
    for flow in (prior, recomputing):
        u = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(flow.log_prob(u).sum(), u)[0])
    assert torch.allclose(*gradients, rtol=1e-9)


def test_large_images_make_a_flow_use_checkpointing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    prior = trained(SMALL["glow"]()).float()
    monkeypatch.setattr(memory, "BYTES_PER_PIXEL", activation_bytes(prior, 3, torch.zeros(())) / 2)
    monkeypatch.setitem(memory.TILES, "cpu", (64, 64 * 64))
    checkpointed = []
    monkeypatch.setattr(Glow, "with_checkpointing", lambda self: checkpointed.append(self) or self)
    for side, solver in ((44, MAP(2)), (46, MAP(2)), (46, GlowIP(2))):
        y = 0.5 + 0.1 * random(1, 3, side, side).float()
        result = restore(y, make_operator("denoise"), prior, solver, 0.1)
        assert (len(checkpointed), result.tile) == (side > 45, None)
        checkpointed.clear()


class Narrow(VAE):
    """Runs out of memory above a number of pixels."""

    pixels = 0

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        if image_shape[-2:].numel() > self.pixels:
            raise MemoryError("Tried to allocate 20.00 GiB. GPU 0 has 4 GiB")
        return super().decode(z, image_shape)


def test_decoders_use_tiles_if_memory_runs_out() -> None:
    torch.manual_seed(0)
    prior = trained(Narrow(latent=2, widths=(4, 6), blocks=0)).float()
    y, operator = 0.5 + 0.1 * random(1, 3, 130, 190).float(), make_operator("denoise")
    prior.pixels = 10**9
    solver = JPMAP(steps=1, descent=1, final=2)
    expected = restore(y, operator, prior, solver, 0.1)
    prior.pixels = 96 * 96
    result = restore(y, operator, prior, solver, 0.1)
    assert result.reduced == ("memory ran out: tiles of 95 pixels",) and result.tile == 95
    assert (result.image - expected.image).abs().max() < 1e-4
    prior.pixels = 30
    with pytest.raises(MemoryError, match="190 x 130 pixels .Tried to allocate 20.: allow tiles"):
        restore(y, operator, prior, solver, 0.1)


def test_a_flow_uses_checkpointing_if_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    prior = trained(SMALL["glow"]()).float()
    y, operator = 0.5 + 0.1 * random(1, 3, 32, 32).float(), make_operator("denoise")
    expected, log_prob = restore(y, operator, prior, MAP(3), 0.1), Glow.log_prob

    def narrow(self: Glow, x: Tensor) -> Tensor:
        if not self.config["recompute"]:
            raise MemoryError("Tried")
        return log_prob(self, x)

    monkeypatch.setattr(Glow, "log_prob", narrow)
    result = restore(y, operator, prior, MAP(3), 0.1)
    assert result.reduced == ("memory ran out: activations are recomputed",)
    assert torch.allclose(result.image, expected.image, atol=1e-5)
    with pytest.raises(MemoryError, match="allow tiles, or make it smaller"):
        restore(y, operator, prior, MAP(3), 0.1, tile="off")


def test_holes_are_filled_from_windows() -> None:
    torch.manual_seed(0)
    prior = trained(SMALL["vae"]()).float()
    keep = torch.ones(1, 1, *SIZE)
    keep[..., 60:70, 80:90] = 0
    operator = make_operator("inpaint", keep=keep)
    y = operator.A(0.5 + 0.1 * random(1, 3, *SIZE).float())
    result = restore(y, operator, prior, JPMAP(steps=1, descent=1, final=2))
    ((top, bottom, left, right),) = result.windows[0]
    assert top <= 60 - 7 and bottom >= 70 + 7 and left <= 80 - 7 and right >= 90 + 7
    assert (bottom - top) * (right - left) < 60 * 60
    known = keep.expand_as(y) > 0
    assert (result.image == y)[known].all() and (result.image != y)[~known].any()
    assert restore(y, operator, prior, PnPHVAE(steps=1), tile="off").windows == ((),)


def test_decoders_that_cannot_be_tiled() -> None:
    y, operator = 0.5 + 0.1 * random(1, 3, 64, 64).float(), make_operator("denoise")
    vector = VAE(latent=2, widths=(4,), size=(64, 64)).eval().requires_grad_(False)
    with pytest.raises(SettingError, match="JPMAP takes images as a whole here: leave tile"):
        restore(y, operator, vector, JPMAP(), 0.1, tile=64)
    deep = GAN(latent=2, widths=(2,) * 5).eval().requires_grad_(False)
    with pytest.raises(SettingError, match="a side of at least 128 pixels, got 100"):
        restore(y, operator, deep, CSGM(1), 0.1, tile=100)
