import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shell import levels, refused, save_photo, sidecar, succeed

from genprior import degrade, make_operator
from genprior.api.factory import load_prior
from genprior.core.errors import SettingError
from genprior.evaluation.plan import Task
from genprior.evaluation.training_pairs import TrainingPairs
from genprior.inverse.amortized.amortized import Amortized
from genprior.training.crops import Crops

HALF = Task("inpaint:random=0.5", "inpaint", {"mask": ("random", 0.5)}, 0.0)
BLUR = Task("deblur:gaussian=1.6", "deblur", {"gaussian": 1.6, "boundary": "circular"}, 0.05)
TINY = ["--set", "widths=[4, 6]", "--set", "critic_widths=[4]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    save_photo(tmp_path / "photos" / "a.png", size=(40, 48))
    return tmp_path / "photos"


@pytest.mark.parametrize("task", [HALF, BLUR], ids=["mask", "blur"])
def test_a_pair_is_an_image_and_what_its_measurement_gives(folder: Path, task: Task) -> None:
    crops = Crops([folder], 16)
    pairs = TrainingPairs(crops, task, seed=3)
    batch = pairs.batch(2, 4)
    x, rough = batch.chunk(2, dim=1)
    assert torch.equal(x, crops.batch(2, 4))
    assert torch.equal(pairs.batch(2, 4, slice(1, 3)), batch[1:3])
    assert torch.equal(TrainingPairs(crops, task, seed=3).batch(2, 4), batch)
    assert not torch.equal(TrainingPairs(crops, task, seed=4).batch(2, 4)[:, 3:], rough)
    if task is HALF:
        unknown = (rough == 0.5).all(dim=1)
        assert 0.4 < unknown.float().mean() < 0.6 and not torch.equal(unknown[0], unknown[1])
        known = ~unknown[:, None].expand_as(x)
        torch.testing.assert_close(rough[known], x[known], rtol=0, atol=1e-3)
    else:
        operator = make_operator("deblur", gaussian=1.6, boundary="circular")
        y = degrade(x, operator, 0.05, seed=3, index=[8, 9, 10, 11])
        wanted = Amortized().rough(y, operator, torch.full((4,), 0.05))
        torch.testing.assert_close(rough, wanted)


def test_the_data_are_those_of_the_crops(folder: Path) -> None:
    crops = Crops([folder], 16)
    pairs = TrainingPairs(crops, HALF)
    assert (pairs.digest(), pairs.channels, len(pairs.images)) == (crops.digest(), 3, 1)
    with pytest.raises(SettingError, match="crop= in the task has no use"):
        TrainingPairs(crops, Task(HALF.text, HALF.kind, HALF.settings, 0.0, crop=8))
    with pytest.raises(SettingError, match="for white noise: give a level such as"):
        TrainingPairs(crops, Task(HALF.text, HALF.kind, HALF.settings, "poisson=10"))


def test_pix2pix_is_trained_used_and_evaluated_from_the_shell(
    folder: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "restored.png"
    train = ["train", "pix2pix", folder, "-o", run, "--task", HALF.text, "--crop", 16, "--batch",
             2, "--dtype", "float32", "-q", *TINY]
    succeed(*train, "--steps", 1)
    succeed(*train, "--steps", 2, "--resume")
    with Image.open(run / "samples" / "step-00000002.png") as preview:
        assert preview.size == (3 * 16 + 8, 3 * 16 + 8)  # reconstructions, answers and images
    prior = load_prior(run)
    assert prior.task == HALF.text
    assert prior.signature[0].item() == pytest.approx(0.5**0.5, abs=0.05)

    file = save_photo(tmp_path / "b.png", size=(21, 27))
    succeed("degrade", "inpaint", file, "--mask", "random=0.5", "-o", tmp_path / "hole.png")
    succeed("inpaint", tmp_path / "hole.png", "--prior", run, "-o", out)
    assert sidecar(out)["solver"] == "amortized" and sidecar(out)["nfe"] == 1
    known = levels(tmp_path / "hole.png")[..., 3] == 255
    np.testing.assert_array_equal(levels(out)[known], levels(file)[known])

    told = succeed("evaluate", folder, "-o", tmp_path / "results", "--prior", run, "--task",
                   HALF.text, "--task", "inpaint:random=0.9", "--baseline", "biharmonic")
    told = [line for line in told.stderr.splitlines() if "was trained for" in line]
    assert told == [f"{run} auto was trained for another task than inpaint:random=0.9"]
    report = (tmp_path / "results" / "report.md").read_text()
    assert f"outside training: {run} auto on inpaint:random=0.9" in report
    scores = json.loads((tmp_path / "results" / "report.json").read_text())
    assert f"{run} auto" in json.dumps(scores) and "biharmonic" in json.dumps(scores)


def test_the_task_is_needed_by_pix2pix_only(folder: Path, tmp_path: Path) -> None:
    common = [folder, "-o", tmp_path / "run", "--steps", 1]
    code, text = refused("train", "pix2pix", *common)
    assert code == 2 and "pix2pix is trained for one task: give it by --task" in text
    code, text = refused("train", "vae", *common, "--task", HALF.text)
    assert code == 2 and "--task is for pix2pix: leave it out" in text
    code, text = refused("train", "pix2pix", *common, "--crop", 16, "--task", "inpaint:box=70x70")
    assert code == 3 and "the box must be inside the image of 16x16" in text
