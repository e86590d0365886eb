"""`restore` and `degrade`: types, samples, noise, seeds, warnings and precision."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import HOLE, OPERATORS, SHAPE, Shrink, batch
from torch import Tensor

from genprior import degrade, estimate_noise, estimate_prior, load_prior, make_operator, restore
from genprior.api.factory import make_solver
from genprior.inverse.plug_and_play.hqs import HQS, SUITED
from genprior.operators.inpainting import Inpainting
from genprior.priors.ddpm import DDPM

INPAINTER = DDPM(3, widths=(4, 8), blocks=(1, 1), holes=True).eval().requires_grad_(False)
SCATTERED = torch.rand(SHAPE[1:], generator=torch.Generator().manual_seed(2)) > 0.5


@pytest.fixture(scope="module")
def prior(weights: Path) -> DDPM:
    return load_prior(weights)


@pytest.mark.parametrize("task", OPERATORS)
@pytest.mark.parametrize("solver", ["hqs", "diffpir", "pigdm"])
def test_an_image_is_restored_as_if_alone(prior: DDPM, task: str, solver: str) -> None:
    operator = make_operator(task, **OPERATORS[task])
    y = degrade(batch(3), operator, 0.05)
    options = {"prior": prior, "solver": solver, "steps": 2, "noise_std": 0.05}
    options["samples"] = 1 if solver == "hqs" else 2
    together = restore(y, operator, **options)
    for i in range(3):
        alone = restore(y[i : i + 1], operator, index=i, **options)
        assert torch.equal(alone.image[0], together.image[i])
        assert torch.equal(alone.misfit[0], together.misfit[i])
        if solver != "hqs":
            assert torch.equal(alone.samples[0], together.samples[i])
    backwards = restore(y.flip(0), operator, index=[2, 1, 0], **options)
    assert torch.equal(backwards.image.flip(0), together.image)


def test_every_image_has_its_noise_level_and_mask(prior: DDPM) -> None:
    keep = torch.rand(3, 1, 12, 20, generator=torch.Generator().manual_seed(1)) > 0.4
    levels = [0.0, 0.05, 0.2]
    y = degrade(batch(3), Inpainting(keep), levels)
    together = restore(y, Inpainting(keep), prior, "hqs", levels, steps=2)
    for i in range(3):
        operator = Inpainting(keep[i : i + 1])
        alone = restore(y[i : i + 1], operator, prior, "hqs", levels[i], steps=2)
        assert torch.equal(alone.image[0], together.image[i])
    known = keep[0].expand(SHAPE)
    assert (together.image[0] == y[0])[known].all()
    assert not (together.image[1] == y[1])[keep[1].expand(SHAPE)].any()


KINDS = {
    "tensor batch": lambda x: x,
    "tensor": lambda x: x[0],
    "float64": lambda x: x.double(),
    "uint8 tensor": lambda x: x.mul(255).byte(),
    "uint8 array": lambda x: x[0].mul(255).byte().permute(1, 2, 0).numpy(),
    "array batch": lambda x: x.permute(0, 2, 3, 1).numpy(),
    "grey array": lambda x: x[0, 0].numpy(),
    "float64 array": lambda x: x[0].permute(1, 2, 0).double().numpy(),
    "pillow": lambda x: Image.fromarray(x[0].mul(255).byte().permute(1, 2, 0).numpy()),
    "grey pillow": lambda x: Image.fromarray(x[0, 0].mul(255).byte().numpy()),
}


def shape(image: object) -> tuple[int, ...]:
    return tuple(np.asarray(image).shape)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_type_comes_back(prior: DDPM, kind: str) -> None:
    y = KINDS[kind](batch(1 if "batch" not in kind else 2))
    operator = make_operator("denoise")
    result = restore(y, operator, prior, "diffpir", 0.1, samples=3, steps=2, antithetic=False)
    for image in (result.image, result.mean):
        assert type(image) is type(y) and shape(image) == shape(y)
        assert np.asarray(image).dtype == np.asarray(y).dtype
    assert result.image is result.mean
    if isinstance(y, Image.Image):
        assert [image.size for image in result.samples] == [y.size] * 3
        assert result.image.mode == y.mode
        samples = np.stack([np.asarray(image) for image in result.samples])
    else:
        assert type(result.samples) is type(y)
        samples = np.asarray(result.samples)
        assert samples.dtype == np.asarray(y).dtype
    many = shape(y)[:1] if np.ndim(y) == 4 else ()
    assert samples.shape == (*many, 3, *shape(y)[len(many) :])
    assert isinstance(result.std, Tensor) == isinstance(y, Tensor)
    assert shape(result.std) == shape(y)
    assert np.issubdtype(np.asarray(result.std).dtype, np.floating)
    integers = np.issubdtype(samples.dtype, np.integer)
    unit = samples.astype(float) / (255 if integers else 1)
    inside = ((unit > 0) & (unit < 1)).all(len(many))
    difference = np.asarray(result.std) - unit.std(len(many), ddof=1)
    assert np.abs(difference)[inside].max() < (1 / 255 if integers else 1e-5)


def test_one_sample_has_no_spread(prior: DDPM) -> None:
    result = restore(batch(), make_operator("denoise"), prior, noise_std=0.1)
    assert result.samples is result.mean is result.std is None
    assert (result.solver, result.prior, result.nfe) == ("posterior-mean", "DDPM", 3)


def test_samples_are_their_mean_and_std(prior: DDPM) -> None:
    operator, options = make_operator("denoise"), {"noise_std": 0.1, "steps": 2}
    result = restore(batch(), operator, prior, samples=4, antithetic=False, **options)
    assert result.solver == "moment-matched"
    assert torch.allclose(result.std, result.samples.std(1))
    torch.testing.assert_close(result.image, result.samples.mean(1), rtol=0, atol=1e-4)
    assert result.std.flatten(1).amin(1).gt(0).all()
    fewer = restore(batch(), operator, prior, samples=2, **options)
    torch.testing.assert_close(fewer.samples, result.samples[:, :2], rtol=0, atol=1e-5)


def test_samples_need_not_be_kept(prior: DDPM) -> None:
    operator, options = make_operator("denoise"), {"noise_std": 0.1, "samples": 5, "steps": 2}
    kept = restore(batch(), operator, prior, quantiles=(0.05, 0.5, 0.95), **options)
    not_kept = restore(batch(), operator, prior, keep_samples=False, **options)
    assert not_kept.samples is None and not not_kept.quantiles
    assert torch.equal(not_kept.mean, kept.mean)
    assert torch.equal(not_kept.std, kept.std)
    for level, found in kept.quantiles.items():
        values = kept.samples.double().numpy()
        expected = np.quantile(values, level, axis=1, method="weibull")
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    low, high = (text for text in kept.warnings if "quantile" in text)
    assert "quantile 0.05 lies beyond 5 samples" in low and "draw 19 or more" in high
    both = restore(batch(), operator, prior, keep_samples=False, quantiles=[0.5], **options)
    assert not any("quantile" in text for text in both.warnings)
    assert both.samples is None
    assert torch.equal(both.quantiles[0.5], kept.quantiles[0.5])
    array = np.asarray(batch()[0].permute(1, 2, 0).mul(255).byte())
    spread = restore(array, operator, prior, quantiles=(0.1,), **options).quantiles[0.1]
    assert spread.shape == array.shape and spread.dtype == np.float32


@pytest.mark.parametrize("options", [{"samples": 3, "quantiles": (1.2,)}, {"quantiles": (0.5,)}])
def test_quantiles_are_of_several_samples(prior: DDPM, options: dict) -> None:
    message = "quantiles must be between 0 and 1, and need several samples"
    with pytest.raises(ValueError, match=message):
        restore(batch(), make_operator("denoise"), prior, noise_std=0.1, **options)


def test_solvers_come_by_name_as_object_or_by_default(prior: DDPM) -> None:
    operator = make_operator("inpaint", keep=~HOLE)
    y = operator.A(batch())
    default = restore(y, operator, prior)
    assert default.solver == "hqs"
    for solver in ("auto", "hqs", HQS()):
        assert torch.equal(restore(y, operator, prior, solver).image, default.image)
    assert restore(y, operator, prior, HQS(steps=2)).nfe == 2
    changed = restore(y, operator, prior, make_solver("hqs", coupling=1.0))
    assert not torch.equal(changed.image, default.image)


def test_priors_come_by_folder_or_as_object(prior: DDPM, weights: Path) -> None:
    operator, y = make_operator("denoise"), batch()
    for given in (weights, str(weights)):
        result = restore(y, operator, given, noise_std=0.1)
        assert result.prior == str(weights)
        assert torch.equal(result.image, restore(y, operator, prior, noise_std=0.1).image)


def test_any_denoiser_is_a_prior() -> None:
    y = batch()
    result = restore(y, make_operator("denoise"), Shrink(), noise_std=0.25)
    assert torch.allclose(result.image, (y + 0.5) / 2, atol=1e-6)


def test_inference_mode_is_disabled_where_derivatives_are_needed(prior: DDPM) -> None:
    options = {"prior": prior, "solver": "dps", "steps": 2, "device": torch.device("cpu")}
    with torch.inference_mode():
        operator = make_operator("inpaint", keep=~HOLE)
        inside = restore(operator.A(batch()), operator, noise_std=torch.tensor([0.1]), **options)
        found = estimate_noise(batch(), Shrink())
    operator = make_operator("inpaint", keep=~HOLE)
    outside = restore(operator.A(batch()), operator, noise_std=0.1, **options)
    assert torch.equal(inside.image, outside.image)
    assert torch.equal(found, estimate_noise(batch(), Shrink()))


@pytest.mark.parametrize("task", ["superres", "valid", "circular"])
def test_tensors_made_in_inference_mode_can_be_differentiated(task: str) -> None:
    operator = make_operator("superres", factor=2) if task == "superres" else make_operator(
        "deblur", kernel=torch.ones(3, 3) / 9, boundary=task
    )
    texture = estimate_prior("texture", batch()[:1], margin=0)
    with torch.inference_mode():
        y = degrade(batch(), operator, 0.05)
        operator.pinv(y), texture.denoise(batch(), 0.1)
    for solver in ("map", "mmps"):
        found = restore(y, operator, texture, solver, noise_std=0.05, steps=2)
        assert found.image.isfinite().all()


def test_images_in_minus_1_to_1_are_noticed() -> None:
    y = degrade(batch(3), make_operator("denoise"), 0.1)
    y[1] = 2 * y[1] - 1
    options = {"operator": make_operator("denoise"), "prior": Shrink()}
    assert not restore(y[::2], noise_std=0.1, **options).warnings
    warning, *_ = restore(y, noise_std=(0.1, 0.2, 0.1), **options).warnings
    assert warning.startswith("image 1: ")
    assert "Convert an image in [-1, 1] to (y + 1) / 2" in warning


def test_denoising_without_noise_gives_a_warning() -> None:
    result = restore(batch(), make_operator("denoise"), Shrink(), noise_std=(0.0, 0.1))
    assert torch.equal(result.image[0], batch()[0])
    assert result.warnings[0].startswith("image 0: without noise or holes there is nothing to")


def test_arguments_and_random_state_are_unchanged(prior: DDPM) -> None:
    operator = make_operator("inpaint", keep=~HOLE)
    y, sigma = operator.A(batch()), torch.tensor([0.1, 0.2])
    held = {"y": y.clone(), "sigma": sigma.clone()}
    state, law = copy.deepcopy(operator.state_dict()), copy.deepcopy(prior.state_dict())
    torch.manual_seed(5)
    random = torch.get_rng_state()
    restore(y, operator, prior, "diffpir", sigma, samples=2, steps=2)
    assert torch.equal(y, held["y"]) and torch.equal(sigma, held["sigma"])
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(v, state[k]) for k, v in operator.state_dict().items())
    assert all(torch.equal(v, law[k]) for k, v in prior.state_dict().items())


def test_seeds(prior: DDPM) -> None:
    operator, y = make_operator("denoise"), batch()
    options = {"prior": prior, "solver": "diffpir", "noise_std": 0.1, "steps": 2}
    zero, again, one = (restore(y, operator, seed=s, **options).image for s in (0, 0, 1))
    assert torch.equal(zero, again) and not torch.equal(zero, one)


def test_the_noise_of_a_measurement_is_white_and_independent() -> None:
    operator = make_operator("denoise")
    x = torch.full((4, 3, 64, 64), 0.5)
    levels = torch.tensor([0.02, 0.05, 0.1, 0.2])
    n = (degrade(x, operator, levels, seed=9) - x) / levels.reshape(-1, 1, 1, 1)
    count = n[0].numel()
    assert n.flatten(1).mean(1).abs().max() < 5 / count**0.5
    assert (n.flatten(1).std(1) - 1).abs().max() < 5 / (2 * count) ** 0.5
    correlations = torch.corrcoef(n.flatten(1)) - torch.eye(4)
    assert correlations.abs().max() < 5 / count**0.5
    alone = degrade(x[:1], operator, 0.1, seed=9, index=2)
    assert torch.allclose(alone[0], x[2] + 0.1 * n[2])


def test_a_sampler_does_not_draw_the_noise_of_the_measurement() -> None:
    drawn = []

    class Spy(Shrink):
        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            drawn.append(x)
            return super().denoise(x, sigma)

    x = torch.full((1, 3, 64, 64), 0.5)
    y = degrade(x, make_operator("denoise"), 0.1, seed=3)
    restore(y, make_operator("denoise"), Spy(), "diffpir", 0.1, steps=1, seed=3)
    pair = torch.stack([(y - x).flatten(), (drawn[0] - 0.5).flatten()])
    assert torch.corrcoef(pair)[0, 1].abs() < 5 / x.numel() ** 0.5


def test_no_noise_where_nothing_was_measured() -> None:
    y = degrade(batch(), make_operator("inpaint", keep=~HOLE), 0.1)
    assert (y[HOLE.expand_as(y)] == 0).all()


def test_misfit_reveals_a_wrong_noise_level() -> None:
    operator = make_operator("denoise")
    x = 0.5 + 0.25 * torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    y = degrade(x.clamp(0, 1), operator, 0.25)
    right = restore(y, operator, Shrink(), noise_std=0.25)
    expected = (right.image - y).square().mean((1, 2, 3)).sqrt() / 0.25
    assert torch.allclose(right.misfit, expected) and right.warnings == ()
    wrong = restore(y, operator, Shrink(), HQS(coupling=0.5), noise_std=[0.25, 0.01])
    (warning,) = wrong.warnings
    assert warning.startswith("image 1: the misfit of the restoration is ")
    assert warning.endswith("noise levels, and should be near 1: is noise_std 0.01 right?")


def test_progress_counts_every_evaluation(prior: DDPM) -> None:
    seen = []
    restore(batch(2), make_operator("denoise"), prior, "diffpir", 0.1, samples=2, steps=3,
            progress=lambda *count: seen.append(count))
    assert seen == [(k + 1, 6) for k in range(6)]  # both samples of an image in one evaluation
    seen.clear()
    mixed = torch.cat([~HOLE, SCATTERED[None, None]])
    operator = make_operator("inpaint", keep=mixed)
    restore(operator.A(batch(2)), operator, INPAINTER, quality="fast",
            progress=lambda *count: seen.append(count))
    total = sum(SUITED[kind]["fast"]["steps"] for kind in ("hole", "scattered holes"))
    assert seen == [(k + 1, total) for k in range(total)]


def test_every_image_of_a_batch_has_the_evaluations_that_it_takes() -> None:
    prior = INPAINTER
    masks = torch.cat([SCATTERED[None, None], ~HOLE, SCATTERED[None, None]])
    operator = make_operator("inpaint", keep=masks)
    y = operator.A(batch(3))
    together = restore(y, operator, prior, quality="fast")
    counts = list(together.evaluations)
    assert counts == [SUITED["scattered holes"]["fast"]["steps"],
                      SUITED["hole"]["fast"]["steps"]] + counts[:1]
    assert together.nfe == counts[0] and together.solver == "hqs"
    for i in range(3):
        alone = restore(y[i : i + 1], operator.select([i]), prior, quality="fast", index=i)
        assert torch.equal(alone.image[0], together.image[i]) and alone.nfe == counts[i]
        assert alone.methods == together.methods[i : i + 1]
    same = restore(y[:1], operator.select([0]), prior, together.methods[0])
    assert torch.equal(same.image[0], together.image[0])


def test_given_steps_are_those_of_the_solver() -> None:
    prior = INPAINTER
    operator = make_operator("inpaint", keep=SCATTERED)
    y = operator.A(batch(1))
    given = restore(y, operator, prior, steps=5)
    assert given.methods == (HQS(5),) and given.nfe == 5
    assert torch.equal(given.image, restore(y, operator, prior, HQS(5)).image)
    for steps in (None, "auto"):
        assert restore(y, operator, prior, steps=steps).methods[0] == HQS().suited(
            y, operator, prior, 0.0, "default")


def test_samples_of_an_image_are_drawn_together() -> None:
    class Spy(Shrink):
        batches: list[int] = []

        def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
            self.batches.append(len(x))
            return super().denoise(x, sigma)

    restore(batch(2), make_operator("denoise"), Spy(), "diffpir", 0.1, samples=70, steps=1)
    assert Spy.batches == [70, 70]
    Spy.batches.clear()
    large = torch.zeros(1, 3, 128, 256)
    restore(large, make_operator("denoise"), Spy(), "diffpir", 0.1, samples=5, steps=1)
    assert Spy.batches == [2, 2, 1]


@pytest.mark.parametrize("dtype, bound", [("bfloat16", 0.05), ("float16", 0.007)])
def test_precision_of_the_network(prior: DDPM, dtype: str, bound: float) -> None:
    """bfloat16 rounds eight times more coarsely than float16; the state is float32 in both."""
    for task in ("denoise", "deblur", "inpaint"):
        operator, y = make_operator(task, **OPERATORS[task]), batch()
        full, half = (restore(y, operator, prior, "hqs", 0.1, dtype=d, steps=4).image
                      for d in ("float32", dtype))
        assert half.dtype == torch.float32
        assert 0 < (full - half).abs().max() < bound
