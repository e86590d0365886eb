from pathlib import Path

import numpy as np
import torch
from PIL import Image

from genprior.core.metrics import central_interval, coverage, rank_histogram
from genprior.evaluation.reliability import curve, reliability


def test_the_curve_is_the_coverage_of_all_central_intervals() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(1, 19, 1, 40, 40, generator=generator)
    truth = 1.5 * torch.randn(1, 1, 40, 40, generator=generator)
    points = dict(curve(rank_histogram(samples, truth)[0].tolist()))
    assert len(points) == 9 + 2
    for level in (0.5, 0.8, 0.9):
        nominal = central_interval(19, level)[1]
        found = coverage(samples, truth, level).item()
        assert abs(points[round(nominal, 12)] - found) < 1e-6


def test_the_image_shows_the_methods_with_samples(tmp_path: Path) -> None:
    calibrated = {"task": "t", "method": "a", "ranks": [0.2] * 5}
    narrow = {"task": "t", "method": "b", "ranks": [0.4, 0.1, 0.0, 0.1, 0.4]}
    point = {"task": "u", "method": "c", "ranks": None}
    assert reliability([calibrated, narrow, point], tmp_path / "both.png")
    assert reliability([calibrated, point], tmp_path / "one.png")
    assert not reliability([point], tmp_path / "none.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both.png", "one.png"]
    both, one = (
        np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("both", "one")
    )
    red = np.array([0xD6, 0x27, 0x28])  # of the second method
    assert (both == red).all(axis=2).sum() > 100 and not (one == red).all(axis=2).any()
