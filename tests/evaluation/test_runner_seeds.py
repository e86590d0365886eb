"""Noise, masks and samples of an evaluation are seeded by (seed, index of the image)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import deepinv
import pytest
import torch
from shell import save_photo
from torch import Tensor

from genprior.core.random_streams import MEASUREMENT, Noise
from genprior.evaluation.plan import Method, Plan, Task
from genprior.evaluation.reference_images import open_reference_images
from genprior.evaluation.runner import run
from genprior.inverse.baselines.base import Baseline
from genprior.operators.base import Operator
from genprior.operators.masks import random_keep

NUMBERS, SEEDS, SIGMA, MANY = (2, 5), (0, 3), 0.1, 10**6
Seen = list[tuple[int, int, Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Spy(Baseline):
    """Baseline that records the measurement of every image, and the noise drawn for it."""

    seen: ClassVar[list[tuple[Tensor, Tensor]]] = []

    def suits(self, operator: Operator) -> bool:
        return True

    def solve(
        self, y: Tensor, operator: Operator, prior: object, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        self.seen.extend(zip(y.split(1), generator.normal(y).split(1), strict=True))
        return self.estimate(y, operator, noise_std)

    def estimate(self, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
        return operator.A_adjoint(y)


@pytest.fixture
def measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Evaluates a task on two images with two seeds; gives (seed, index, x, y, noise) of each."""
    for name, start in (("a", 0), ("b", 40)):
        save_photo(tmp_path / f"{name}.png", start=start, size=(16, 12))
    references = list(zip(NUMBERS, open_reference_images(tmp_path, MANY), strict=True))
    monkeypatch.setattr(Spy, "seen", [])

    def measured(kind: str, settings: dict[str, Any], noise: float = SIGMA) -> Seen:
        task = Task(kind, kind, settings, noise)
        plan = Plan(references, [task], [Method("spy", Spy())], SEEDS, batch=2, show=0)
        run(plan, tmp_path / "out")
        work = [(seed, number, reference) for seed in SEEDS for number, reference in references]
        return [
            (seed, number, reference.read(MANY).pixels, y, drawn)
            for (seed, number, reference), (y, drawn) in zip(work, Spy.seen, strict=True)
        ]

    return measured


def test_noise_is_seeded_by_the_seed_and_the_image(measure: Callable) -> None:
    for seed, number, x, y, drawn in measure("denoise", {}):
        noise = Noise(seed, [(number, *MEASUREMENT)]).normal(x)
        torch.testing.assert_close(y - x, SIGMA * noise, rtol=0, atol=1e-6)
        assert torch.equal(drawn, Noise(seed, [(number, 0)]).normal(x))


def test_random_masks_are_seeded_by_the_next_seed_and_the_image(measure: Callable) -> None:
    for seed, number, x, y, _ in measure("inpaint", {"mask": ("random", 0.5)}):
        keep = random_keep(x.shape, 0.5, Noise(seed + 1, [number]).generators)
        assert torch.equal(y != 0, keep.expand_as(y))


def test_a_random_physics_of_deepinv_is_seeded_by_the_next_seed(measure: Callable) -> None:
    settings = {"name": "CompressedSensing", "settings": {"m": 30}}
    for seed, _, x, y, _ in measure("deepinv", settings, 0.0):
        rng = torch.Generator().manual_seed(seed + 1)
        physics = deepinv.physics.CompressedSensing(30, tuple(x.shape[1:]), rng=rng)
        expected = physics.A(x).flatten()
        # the solver gets a measurement rescaled by the norm of the physics
        assert torch.cosine_similarity(y.flatten(), expected, dim=0) > 0.999
