"""If memory runs out, batches and tiles get smaller, and the result stays the same."""

import gc

import pytest
import torch
from torch import Tensor, nn

from genprior import load_prior, make_operator, restore
from genprior.inverse.diffusion.moment_matched import MomentMatched
from genprior.inverse.diffusion.smc import SMC
from genprior.inverse.execution import executor, memory
from genprior.inverse.execution.tiled_decoder import activation_bytes
from genprior.inverse.plug_and_play.hqs import HQS
from genprior.priors.base import Denoiser
from genprior.priors.ddpm import DDPM
from genprior.priors.gan import GAN
from genprior.priors.glow import Glow


class Narrow(Denoiser):
    """Runs out of memory above a number of pixels, from a given call on."""

    def __init__(self, prior: DDPM, pixels: int, error: type[Exception], fails_at: int = 1):
        self.prior, self.pixels, self.error = prior, pixels, error
        self.receptive_radius, self.stride = prior.receptive_radius, prior.stride
        self.calls, self.fails_at = 0, fails_at

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        self.calls += 1
        if self.calls >= self.fails_at and x.shape[0] * x.shape[-2:].numel() > self.pixels:
            raise self.error("Tried to allocate 20.00 GiB. GPU 0 has 4 GiB")
        return self.prior.denoise(x, sigma)


@pytest.fixture(scope="module")
def prior(weights) -> DDPM:
    return load_prior(weights)


def images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
@pytest.mark.parametrize("fails_at", [1, 3])
def test_the_batch_is_halved_then_cut_into_tiles(
    prior: DDPM, error: type[Exception], fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(executor.CHUNKS, "cpu", 3 * 128 * 256)
    monkeypatch.setitem(executor.MIXED, "cpu", True)
    y, operator = images(4, 3, 128, 256), make_operator("denoise")
    options = {"solver": "diffpir", "steps": 3, "noise_std": 0.1}
    expected = restore(y, operator, prior, **options)
    assert expected.reduced == () and expected.tile is None
    counts = []
    few = restore(y, operator, Narrow(prior, 128 * 256, error, fails_at), **options,
                  progress=lambda *count: counts.append(count))
    assert few.reduced == ("memory ran out: 2 images at a time",
                           "memory ran out: 1 images at a time")
    assert torch.allclose(few.image, expected.image, atol=1e-5)
    assert counts[-1][0] == counts[-1][1]
    least = restore(y[:1], operator, Narrow(prior, 128 * 128, error, fails_at), **options)
    assert least.reduced == ("memory ran out: tiles of 128 pixels",) and least.tile == 128
    assert (least.image - expected.image[:1]).abs().max() < 1e-4


def test_windows_are_tried_again(prior: DDPM) -> None:
    keep = torch.ones(1, 1, 200, 180)
    keep[..., 90:170, 90:96] = 0
    operator = make_operator("inpaint", keep=keep)
    y, counts = operator.A(images(1, 3, 200, 180)), []
    expected = restore(y, operator, prior, "diffpir", steps=2)
    narrow = Narrow(prior, 4000, MemoryError)
    result = restore(y, operator, narrow, "diffpir", steps=2,
                     progress=lambda *count: counts.append(count))
    assert result.windows == expected.windows and len(result.windows[0]) == 1
    assert result.tile == 100 and counts[-1] == (2, 2)
    assert (result.image - expected.image).abs().max() < 0.02


def test_methods_that_need_more_memory_have_smaller_batches() -> None:
    device, shape = torch.device("cuda"), (1, 3, 256, 256)
    plain, backward, particles = (
        executor.chunk_size(shape, device, method)
        for method in (HQS(), MomentMatched(), SMC(particles=16))
    )
    assert plain == executor.chunk_size(shape, device) == 256
    assert backward == 85 and particles == 5
    assert executor.chunk_size(shape, torch.device("cpu"), HQS()) == 1


def test_an_error_if_nothing_more_can_be_reduced(prior: DDPM) -> None:
    y, operator = images(1, 3, 130, 70), make_operator("denoise")
    none = Narrow(prior, 0, MemoryError)
    message = r"not enough memory for an image of 70 x 130 pixels \(Tried to allocate 20\): allow"
    with pytest.raises(MemoryError, match=message):
        restore(y, operator, none, "hqs", 0.1)
    with pytest.raises(MemoryError, match="allow tiles"):
        restore(y, operator, Narrow(prior, 70 * 129, MemoryError), "hqs", 0.1, tile="off")


def test_little_memory_on_a_cpu(prior: DDPM, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU torch raises RuntimeError, and numpy tests whether memory can be allocated."""
    monkeypatch.setattr(memory, "BYTES_PER_PIXEL", 10**15)  # more than any machine has
    y, operator = images(1, 3, 130, 70), make_operator("denoise")
    narrow = Narrow(prior, 70 * 70, RuntimeError)
    assert restore(y, operator, narrow, "hqs", 0.1, steps=1).tile == 65


def test_errors_are_told_apart_by_type(prior: DDPM) -> None:
    with pytest.raises(RuntimeError, match="Tried to allocate") as caught:
        restore(images(1, 3, 130, 70), make_operator("denoise"),
                Narrow(prior, 0, RuntimeError), "hqs", 0.1)
    assert type(caught.value) is RuntimeError


def test_libraries_of_a_gpu_say_that_memory_ran_out(prior: DDPM) -> None:
    runner = executor.Executor(HQS(), prior, 0, [0], "auto", "float32", 1)
    there = torch.empty(1, device="meta")
    for text, lacked in (
        ("cuFFT error: CUFFT_ALLOC_FAILED", True), ("CUDA error: out of memory", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate", True),
        ("CUDA error: an illegal memory access was encountered", False),
    ):
        assert runner._lacked_memory(RuntimeError(text), torch.Size((1, 3, 8, 8)), there) is lacked


def test_large_images_are_tiled_by_default(prior: DDPM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(memory.TILES, "cpu", (64, 64 * 80))
    method = HQS(steps=1)
    for size, tile in (((64, 80), None), ((65, 80), 64)):
        y = images(1, 3, *size)
        assert restore(y, make_operator("denoise"), prior, method, 0.1).tile == tile


@pytest.mark.parametrize(
    "prior", [GAN(latent=2, widths=(4, 4)), Glow(levels=2, depth=1, width=4)], ids=["gan", "glow"]
)
def test_measuring_the_activation_bytes_leaks_no_tensors(prior: nn.Module) -> None:
    def alive() -> int:
        gc.collect()
        return sum(type(thing) is Tensor for thing in gc.get_objects())

    activation_bytes(prior, 3, torch.zeros(()))
    before = alive()
    activation_bytes(prior, 3, torch.zeros(()))
    assert alive() == before
