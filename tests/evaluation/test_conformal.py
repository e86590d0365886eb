from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import Dense

from genprior.api.calibration import predicted_width
from genprior.api.factory import make_solver
from genprior.api.restoration import degrade, restore
from genprior.core.errors import SettingError
from genprior.evaluation.conformal import calibrate
from genprior.evaluation.plan import Method, Task
from genprior.evaluation.reference_images import open_reference_images
from genprior.operators.inpainting import Inpainting
from genprior.operators.masks import random_keep


def test_intervals_of_a_wrong_prior_cover_new_photos_as_promised(tmp_path: Path) -> None:
    # the prior has half the standard deviation of the images, so that its samples are too narrow
    true, wrong, count = Dense(), Dense(std=0.125, dtype=torch.float32), 40
    images = true.draw(count, (1, 8, 8)).float().clamp(0, 1)
    np.save(tmp_path / "photos.npy", images[:, 0].numpy())
    task = Task("inpaint:random=0.5", "inpaint", {"mask": ("random", 0.5), "invert": False}, 0.0)
    references = list(enumerate(open_reference_images(tmp_path / "photos.npy", 10**6)))
    method = Method("wrong", "moment-matched", "wrong", wrong, None)
    found = calibrate([task], references, method, 4, 0.9, steps=3)
    (entry,) = found.entries
    assert entry.images == count and entry.size == (8, 8) and entry.operator == "mask"

    new = Dense().draw(3 * count, (1, 8, 8)).float()[count:].clamp(0, 1)
    op = Inpainting(random_keep(new.shape, 0.5))
    y = degrade(new, op)
    result = restore(y, op, wrong, make_solver("moment-matched", steps=3), 0.0, 4)
    width = predicted_width(result.std)
    inside = width > 0
    within = (new - result.mean).abs() <= entry.scale * width
    share = torch.stack([within[i][inside[i]].float().mean() for i in range(len(new))])
    assert 0.9 - 3 * share.std() / len(new) ** 0.5 < share.mean() < 0.97
    narrow = (new - result.mean).abs() <= 1.645 * 1.12 * width
    assert narrow[inside].float().mean() < 0.8


def test_errors(tmp_path: Path) -> None:
    method = Method("p", "moment-matched", "p", Dense(), None)
    with pytest.raises(SettingError, match="needs at least 9 photos, got 3"):
        calibrate([], [(k, None) for k in range(3)], method, 4, 0.9)
