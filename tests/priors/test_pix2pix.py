from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gaussians import generator, noise
from torch import Tensor

from genprior.api.factory import load_prior
from genprior.core.errors import CheckpointError
from genprior.priors.checkpoint import newest
from genprior.priors.nets.pix2pix import UNetGenerator
from genprior.priors.pix2pix import Pix2Pix
from genprior.training.loop import Settings, fit

SMALL = {"widths": (4, 6, 6), "critic_widths": (4, 6)}


def prior(scale: float = 0.1, **settings: object) -> Pix2Pix:
    torch.manual_seed(0)
    model = Pix2Pix(**(SMALL | settings)).double()
    for p in model.parameters():
        p.data += scale * torch.randn(p.shape, generator=generator(p.numel()), dtype=p.dtype)
    return model.eval()


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64)


class Batch:
    """A source that gives the same pairs at every step."""

    def __init__(self, pairs: Tensor) -> None:
        self.pairs = pairs

    def batch(self, number: int, count: int, rows: slice | None = None) -> Tensor:
        return self.pairs[:count][rows or slice(None)]


def test_the_losses_are_those_of_the_paper() -> None:
    model, x, u = prior(l1=7.0), images(3, 3, 16, 8), images(3, 3, 16, 8, seed=2)
    found = model.losses(torch.cat((x, u), dim=1), noise(x))
    given, real = 2 * u - 1, 2 * x - 1
    fake = model.generator(given)
    s_real, s_fake = (torch.sigmoid(model.critic(given, image)) for image in (real, fake))
    critic = -s_real.log().mean() - (1 - s_fake).log().mean()
    assert found["critic"].item() == pytest.approx(critic.item(), rel=1e-12)
    wanted = -s_fake.log().mean() + 7 * (real - fake).abs().sum() / real.numel()
    assert found["generator"].item() == pytest.approx(wanted.item(), rel=1e-12)


def test_the_critic_compares_pairs_and_does_not_train_the_generator() -> None:
    model, x, u = prior(), images(2, 3, 16, 16), images(2, 3, 16, 16, seed=2)
    first, other = model.critic(u, x), model.critic(u.flip(0), x)
    assert (first - other).abs().max() > 1e-3, "the logit should depend on the input image"
    assert first.shape == (2, 1, 4, 4)  # a logit for each patch
    loss = model.losses_of(["critic"], torch.cat((x, u), dim=1), noise(x))
    assert list(loss) == ["critic"]
    loss["critic"].backward()
    assert all(p.grad is None for p in model.generator.parameters())
    assert model.updates() == [["critic"], ["generator"]]


@pytest.mark.parametrize("levels, side", [(1, 8), (2, 18), (3, 38)])
def test_a_logit_depends_on_a_patch(levels: int, side: int) -> None:
    model, u = prior(critic_widths=(4,) * levels), images(1, 3, 64, 64)
    v = images(1, 3, 64, 64, seed=2).requires_grad_()
    logits = model.critic(u, v)
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    rows = v.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == side


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (31, 18)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_grey_and_colour(size: tuple[int, int], channels: int) -> None:
    model, u = prior(), images(2, channels, *size)
    x = model.translate(u)
    assert x.shape == u.shape and x.dtype == torch.float64 and (x - u).abs().max() > 1e-3
    torch.testing.assert_close(model.translate(u[1:])[0], x[1], rtol=0, atol=1e-12)


def test_a_grey_prior_refuses_colours() -> None:
    with pytest.raises(ValueError, match="1 channel"):
        prior(channels=1).translate(images(1, 3, 8, 8))


def test_a_new_generator_returns_its_input() -> None:
    u = images(2, 3, 9, 14).float()
    torch.testing.assert_close(Pix2Pix(**SMALL).eval().translate(u), u)


def test_skip_connections_carry_details() -> None:
    """Without them a network of three levels sees details of a pixel only by its bottleneck."""
    torch.manual_seed(0)
    network = UNetGenerator(1, (4, 6, 6)).double().eval()
    torch.nn.init.normal_(network.tail[1].weight)
    u = images(1, 1, 16, 16)
    before = network(u) - u
    for up in network.up:  # what comes from coarser levels is lost, what skips them is not
        torch.nn.init.zeros_(up[2].weight)
    moved = u.clone()
    moved[0, 0, 8, 8] += 1
    changed = ((network(moved) - moved) - (network(u) - u)).abs()[0, 0] > 1e-12
    assert (before - (network(u) - u)).abs().max() > 1e-3
    rows, columns = changed.nonzero().T
    assert 6 <= rows.min() and rows.max() <= 10 and 6 <= columns.min() and columns.max() <= 10
    assert changed[8, 8]


def test_it_learns_four_images_by_heart() -> None:
    x = images(4, 1, 8, 8).float()
    hole = torch.zeros(8, 8, dtype=torch.bool)
    hole[2:6, 2:6] = True
    u = torch.where(hole, 0.5, x)
    torch.manual_seed(0)
    model = Pix2Pix(1, (16, 32), (8, 16)).train()
    optimizers = {name: torch.optim.Adam(list(group), 5e-3, (0.5, 0.999))
                  for name, group in model.groups().items()}
    for step in range(60):
        for group in ("critic", "generator"):
            loss = model.losses_of([group], torch.cat((x, u), dim=1), noise(x, step))[group]
            optimizers[group].zero_grad()
            loss.backward()
            optimizers[group].step()
    error = (model.eval().translate(u) - x).abs()[..., hole].mean().item()
    assert error < 0.25 * (u - x).abs()[..., hole].mean().item()


def run(
    pairs: Tensor, out: Path, steps: int, resume: bool = False, report: Callable | None = None,
    **settings: object,
) -> Path:
    torch.manual_seed(0)
    chosen = Settings(steps=steps, batch=2, dtype="float32", warmup=1, save_minutes=0)
    model = Pix2Pix(3, **(SMALL | settings))
    return fit("pix2pix", model, Batch(pairs), out, chosen, resume=resume, report=report)


def test_a_resumed_training_gives_the_same_weights(tmp_path: Path) -> None:
    def stop(step: int, done: float, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    pairs = images(2, 6, 16, 16).float()
    whole = load_prior(run(pairs, tmp_path / "whole", 4)).state_dict()
    with pytest.raises(KeyboardInterrupt):
        run(pairs, tmp_path / "parts", 4, report=stop)
    assert newest(tmp_path / "parts").name == "step-00000002"
    parts = load_prior(run(pairs, tmp_path / "parts", 4, resume=True)).state_dict()
    assert all(torch.equal(value, parts[key]) for key, value in whole.items())
    assert (whole["generator.tail.1.weight"] != 0).all(), "it should have been trained"


def test_a_training_is_not_resumed_for_another_task(tmp_path: Path) -> None:
    pairs = images(2, 6, 16, 16).float()
    run(pairs, tmp_path / "run", 1, task="inpaint:random=0.5")
    with pytest.raises(CheckpointError, match="task was inpaint:random=0.5.*--task"):
        run(pairs, tmp_path / "run", 2, resume=True, task="inpaint:random=0.8")
    assert load_prior(tmp_path / "run").task == "inpaint:random=0.5"


@pytest.mark.parametrize("settings, message", [
    ({"l1": 0.0}, "l1 must be > 0"),
    ({"widths": ()}, "widths must be"),
    ({"critic_widths": (0,)}, "widths must be"),
])
def test_errors(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pix2Pix(**settings)
