"""Holes of a large image are filled from windows around them, with the same result."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from recording import Recording
from repository import ROOT
from skimage import data
from torch import Tensor
from torch.nn.functional import interpolate

import genprior
from genprior import load_prior, make_operator, restore
from genprior.inverse.diffusion.jfps import JFPS
from genprior.inverse.execution.hole_windows import around
from genprior.priors.ddpm import DDPM

SHAPE = (1, 3, 96, 121)


@given(st.lists(st.tuples(st.integers(0, 89), st.integers(0, 130)), min_size=1, max_size=9),
       st.integers(0, 20), st.sampled_from([1, 4, 8]))
def test_windows_hold_the_holes_and_their_margin(spots: list, margin: int, stride: int) -> None:
    hole = torch.zeros(90, 131, dtype=torch.bool)
    for row, column in spots:
        hole[row, column] = True
    covered = torch.zeros(90, 131, dtype=torch.int)
    for top, bottom, left, right in around(hole, margin, stride):
        assert 0 <= top < bottom <= 90 and 0 <= left < right <= 131
        assert not any(n % stride for n in (top, left, 90 - bottom, 131 - right))
        covered[top:bottom, left:right] += 1
    assert covered.max() == 1
    for row, column in spots:
        near = covered[max(row - margin, 0):row + margin + 1,
                       max(column - margin, 0):column + margin + 1]
        assert near.all()


@pytest.fixture(scope="module")
def prior(weights) -> DDPM:
    return load_prior(weights)


def image(count: int = 1) -> Tensor:
    return torch.rand((count, *SHAPE[1:]), generator=torch.Generator().manual_seed(0))


def with_holes(*boxes: tuple[int, int, int, int]) -> Tensor:
    keep = torch.ones(1, 1, *SHAPE[2:])
    for top, bottom, left, right in boxes:
        keep[..., top:bottom, left:right] = 0
    return keep


SMALL = (40, 46, 60, 65)


def test_only_windows_are_evaluated_and_the_result_is_the_same(prior: DDPM) -> None:
    keep = with_holes(SMALL, (3, 5, 1, 4))
    operator = make_operator("inpaint", keep=keep)
    # a smooth image: its initial image, which is computed from all of it, is the same in windows
    smooth = interpolate(image()[..., :4, :5], SHAPE[2:], mode="bicubic").clamp(0, 1)
    y = operator.A(smooth)
    seen = Recording(prior)
    whole = restore(y, operator, seen, "hqs", steps=8, tile="off")
    assert set(seen.seen) == {SHAPE[2:], SHAPE[:1:-1]} and whole.windows == ((),)
    seen.seen.clear()
    progress = []
    parts = restore(y, operator, seen, "hqs", steps=8,
                    progress=lambda *count: progress.append(count))
    ((first, second),) = parts.windows
    assert first == (0, 28, 0, 27) and second[0] <= 40 - 11 and second[1] >= 46 + 11
    assert max(map(max, seen.seen)) <= 56 and len(seen.seen) == 16
    assert progress[-1] == (16, 16)
    assert (parts.image == y)[keep.expand_as(y) > 0].all()
    assert (parts.image - whole.image).abs().max() < 1 / 255
    assert (parts.image != y)[keep.expand_as(y) == 0].all()


def test_no_windows_for_large_holes_noise_or_blur(prior: DDPM) -> None:
    wide = make_operator("inpaint", keep=with_holes((0, 80, 0, 100)))
    small = make_operator("inpaint", keep=with_holes(SMALL))
    blur = make_operator("deblur", kernel=torch.ones(3, 3), boundary="reflect")
    for operator, sigma in ((wide, 0), (small, 0.1), (blur, 0), (make_operator("denoise"), 0)):
        result = restore(image(), operator, prior, "hqs", sigma, steps=2)
        assert result.windows == ((),)


def test_no_windows_with_a_covariance_of_the_whole_image(prior: DDPM) -> None:
    texture = genprior.estimate_prior("texture", image(), margin=0)
    operator = make_operator("inpaint", keep=with_holes(SMALL))
    for solver, count in ((JFPS(2, covariance=texture), 0), (JFPS(2), 1)):
        result = restore(operator.A(image()), operator, prior, solver)
        assert len(result.windows[0]) == count and result.image.isfinite().all()


def test_every_image_has_its_own_windows_and_noise(prior: DDPM) -> None:
    keep = torch.cat([with_holes(SMALL), with_holes((0, 80, 0, 100)), with_holes(SMALL)])
    operator = make_operator("inpaint", keep=keep)
    y = operator.A(image(3))
    together = restore(y, operator, prior, "diffpir", samples=2, steps=2)
    assert [len(w) for w in together.windows] == [1, 0, 1]
    assert not torch.equal(together.samples[:, 0], together.samples[:, 1])
    for i in range(3):
        alone = restore(y[i:i + 1], operator.select([i]), prior, "diffpir", samples=2, steps=2,
                        index=i)
        assert torch.equal(alone.samples[0], together.samples[i])
    assert torch.equal(restore(y, operator, prior, "diffpir", samples=2, steps=2).std,
                       together.std)


@pytest.mark.slow
def test_12_megapixels_with_a_small_hole(tmp_path: Path) -> None:
    """Runs in another process to measure its memory."""
    photo = np.tile(data.astronaut(), (6, 8, 1))[:3000, :4000]
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[1400:1420, 2000:2030] = mask[300:310, 500:510] = 255
    for name, array in (("photo", photo), ("mask", mask)):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    words = ["inpaint", "photo.png", "--mask", "mask.png", "--steps", "2", "-q"]
    code = ("import resource; from genprior.cli import main; "
            f"main({words!r}, standalone_mode=False); "
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment,
                         capture_output=True, text=True, check=True)
    assert int(run.stdout) < 3000  # MiB
    record = json.loads((tmp_path / "photo.genprior.json").read_text())
    assert len(record["windows"]) == 2
    written = np.asarray(Image.open(tmp_path / "photo.genprior.png"))
    changed = (written != photo).any(2)
    assert not changed[mask == 0].any() and changed[mask > 0].any()
