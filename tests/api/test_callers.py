"""Calls with unusual modes, types and user-defined priors."""

import shutil
from dataclasses import dataclass

import deepinv
import numpy as np
import pytest
import torch
from PIL import Image
from small import Shrink, batch
from torch import Tensor, nn

from genprior import degrade, estimate_prior, load_prior, make_operator, make_solver, restore
from genprior.api.factory import prior_on
from genprior.priors.base import Decoder, Denoiser, Density
from genprior.training.crops import Crops
from genprior.training.loop import Settings


@pytest.mark.parametrize("solver", ["hqs", "diffpir", "moment-matched"])
@pytest.mark.parametrize("task", ["deblur", "superres"])
def test_a_surrounding_autocast_changes_nothing(task, solver):
    settings = {"deblur": {"kernel": torch.ones(3, 3)}, "superres": {"factor": 2}}[task]
    operator = make_operator(task, **settings)
    method = make_solver(solver, steps=3)

    def both() -> Tensor:
        y = degrade(batch(), operator, 0.1)
        return restore(y, operator, Shrink(), method, 0.1).image

    expected = both()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(both(), expected)


class Noisy(nn.Module, Denoiser):
    """A user's network in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(3), nn.Dropout(0.5)
        self.conv = nn.utils.weight_norm(nn.Conv2d(3, 3, 1))  # its weight is not a parameter

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return x - 0.1 * self.conv(self.drop(self.norm(x)))


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_a_network_in_training_mode_is_evaluated_and_left_as_it_was():
    prior, operator = Noisy(), make_operator("denoise")
    before, state = {k: v.clone() for k, v in prior.state_dict().items()}, torch.get_rng_state()
    first, second = (restore(batch(), operator, prior, noise_std=0.1).image for _ in range(2))
    assert torch.equal(first, second) and torch.equal(state, torch.get_rng_state())
    assert prior.training and prior.norm.training
    assert all(torch.equal(value, before[key]) for key, value in prior.state_dict().items())


@pytest.mark.parametrize("several", [1, 2])
def test_a_physics_of_double_precision_measures_single_precision(several):
    kernel = torch.from_numpy(np.ones((1, 1, 3, 3)) / 9)
    kernel = torch.cat([kernel, kernel.tril().triu()])[:several]
    physics = deepinv.physics.Blur(filter=kernel, padding="circular")
    y = physics.A(batch().double())
    alike = deepinv.physics.Blur(filter=kernel.float(), padding="circular")
    result, expected = (
        restore(y.float(), op, Shrink(), noise_std=0.05, samples=2) for op in (physics, alike)
    )
    assert torch.allclose(result.image, expected.image, atol=1e-4)


def test_weights_are_single_precision_whatever_the_default_is(weights):
    torch.set_default_dtype(torch.float64)
    try:
        found = {value.dtype for value in load_prior(weights).state_dict().values()}
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == {torch.float32}


class Blind(Shrink):
    @torch.no_grad()
    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return super().denoise(x, sigma)


class Grey(Shrink):
    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        return super().denoise(x, sigma).mean(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("prior", "solver", "message"),
    [(Blind(), "mmps", "which gives no gradients: choose one without"),
     (Grey(), "diffpir", r"Grey must return images of the shape .*, but it returned \(1, 1,")],
)
def test_unsuitable_denoisers_are_refused(prior, solver, message):
    with pytest.raises(TypeError, match=message):
        restore(batch(), make_operator("denoise"), prior, solver, 0.1)


@dataclass(frozen=True)
class Flat(Decoder, Density):
    """A frozen decoder of one number to a grey image that calls itself by keyword."""

    level: float = 0.5

    def latent_shape(self, image_shape: torch.Size) -> tuple[int, ...]:
        return (1,)

    def decode(self, z: Tensor, image_shape: torch.Size) -> Tensor:
        return self.level + 0.1 * z.reshape(-1, 1, 1, 1).expand(len(z), *image_shape[1:])

    def log_prob(self, x: Tensor) -> Tensor:
        z = torch.zeros(len(x), 1).to(x)
        return -(x - self.decode(z, image_shape=x.shape)).square().flatten(1).sum(dim=1)


def test_a_search_takes_a_frozen_prior_that_names_its_arguments():
    operator = make_operator("deblur", kernel=torch.ones(3, 3))
    result = restore(operator.A(batch()), operator, Flat(), "map", 0.05, steps=5)
    assert result.image.isfinite().all()


def test_arrays_and_strings_may_replace_sequences(tmp_path):
    result = restore(
        batch(), make_operator("denoise"), Shrink(), noise_std=0.1, samples=4,
        quantiles=np.array([0.05, 0.95]),
    )
    assert list(result.quantiles) == [0.05, 0.95]
    file = tmp_path / "images.npy"
    np.save(file, np.zeros((2, 16, 16, 3), np.uint8))
    assert [Crops(source, 16).batch(0, 1).shape for source in (file, str(file))] == [
        (1, 3, 16, 16)
    ] * 2


def test_the_highest_noise_level_is_accepted():
    operator = make_operator("denoise")
    y = degrade(torch.rand(1, 3, 256, 256), operator, 1.0)
    assert restore(y, operator, Shrink(), noise_std=1.0).image.isfinite().all()


def test_the_mean_of_a_gaussian_is_not_several_samples():
    texture = estimate_prior("texture", torch.rand(3, 12, 12))
    mean = make_solver("gaussian", mode="mean")
    with pytest.raises(ValueError, match="samples"):
        restore(batch(), make_operator("denoise"), texture, mean, 0.1, samples=3)


def test_a_prior_by_name_is_cached_until_its_checkpoint_changes(weights, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(weights, folder)
    y, operator = batch(), make_operator("denoise")

    def first() -> nn.Module:
        with torch.inference_mode():  # later calls use the same tensors
            return prior_on(folder, torch.device("cpu"))[1]

    kept = first()
    assert first() is kept
    (folder / "manifest.json").touch()
    assert first() is not kept
    assert restore(y, operator, folder, "mmps", 0.1, steps=2).prior == str(folder)


def flipped(values: Tensor) -> np.ndarray:
    return np.flip(values.flip(0, 1).numpy().astype(">f8"), (0, 1))


def test_masks_and_kernels_have_the_types_of_images():
    keep = torch.rand(12, 20, generator=torch.Generator().manual_seed(0)) > 0.5
    picture = Image.fromarray(keep.numpy())
    masks = [make_operator("inpaint", keep=k).mask for k in (keep, flipped(keep), picture)]
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])
    kernel = torch.tensor([[1.0, 2, 0], [0, 3, 1]])
    kernels = [make_operator("deblur", kernel=k).kernel for k in (kernel, flipped(kernel))]
    assert torch.equal(*kernels)
    image = torch.rand(3, 12, 20)
    textures = [estimate_prior("texture", image, keep=k[None, None]).texton
                for k in (keep, keep.numpy())]
    assert torch.equal(*textures)


@pytest.mark.parametrize(
    ("work", "message"),
    [(lambda: make_operator("inpaint", keep=None), "keep must be a tensor or an array, got None"),
     (lambda: make_operator("deblur", kernel=3.0), r"must have shape .* got \(\)"),
     (lambda: make_operator("inpaint", keep=torch.eye(8) > 0).A(torch.rand(3, 8, 8)),
      "must be a batch .*, got shape .3, 8, 8."),
     (lambda: restore(batch(), make_operator("denoise"), Shrink(), noise_std=0.1, index=-1),
      "index must not be negative, got -1"),
     (lambda: Settings(steps=0), "steps must be positive, got 0"),
     (lambda: Settings(steps=5, batch=0), "batch must be positive, got 0")],
)
def test_invalid_arguments_are_refused(work, message):
    with pytest.raises(ValueError, match=message):
        work()
