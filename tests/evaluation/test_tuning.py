"""Tuning of baselines: settings that the user did not type, on separate images."""

import json
from pathlib import Path

import pytest
from shell import refused, save_photo, succeed

from genprior.core.distributed import Ranks
from genprior.evaluation.plan import Method, Plan, Task
from genprior.evaluation.reference_images import open_reference_images
from genprior.evaluation.runner import _units
from genprior.inverse.baselines.total_variation import TotalVariation

TASK = "denoise:noise=0.1"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name, start in (("photos", 0), ("others", 60)):
        (tmp_path / name).mkdir()
        save_photo(tmp_path / name / "a.png", start=start, size=(16, 16))
    return tmp_path / "photos"


def test_settings_that_the_user_typed_are_not_tuned(photos: Path, tmp_path: Path) -> None:
    words = ["evaluate", photos, "-o", tmp_path / "out", "--prior", "none", "--task", TASK,
             "--tune", tmp_path / "others", "-q"]
    typed = "tv:weight=0.01:iterations=5,tv:weight=0.5:iterations=5"
    succeed(*words, "--baseline", typed)
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len({json.loads(line)["psnr"] for line in lines}) == 2
    assert "There was nothing to tune." in (tmp_path / "out" / "report.md").read_text()
    succeed(*words, "--baseline", "tv:iterations=5", "--overwrite")
    assert "tv:iterations=5 on denoise" in (tmp_path / "out" / "report.md").read_text()


def test_evaluated_images_are_refused_for_tuning(photos: Path, tmp_path: Path) -> None:
    words = ["evaluate", photos, "-o", tmp_path / "out", "--prior", "none", "--task", TASK]
    code, message = refused(*words, "--baseline", "tv", "--tune", photos)
    assert code == 2 and "1 of its images are also evaluated" in message
    code, message = refused(*words, "--baseline", "tv", "--exemplar", tmp_path / "nowhere.png")
    assert code == 2 and "--exemplar needs --prior texture" in message


def test_two_processes_share_every_method(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genprior.evaluation import runner

    references = list(enumerate(open_reference_images(photos, 10**6) * 8))
    methods = [Method(name, TotalVariation()) for name in ("slow", "quick")]
    plan = Plan(references, [Task(TASK, "denoise", {}, 0.1)], methods)
    monkeypatch.setattr(runner, "not_suited", lambda plan: [])
    assert [unit.method.name for unit in _units(plan, set())] == 8 * ["slow", "quick"]
    shares = [runner.shared(list(_units(plan, set())), Ranks(rank, 2)) for rank in (0, 1)]
    assert sorted(unit.references[0][0] for share in shares for unit in share) == sorted(
        2 * list(range(8)))
    for share in shares:
        assert {unit.method.name for unit in share} == {"slow", "quick"} and len(share) == 8


@pytest.mark.parametrize(("text", "message"), [
    ("[" * 9999, "was not written by genprior evaluate"),
    ('{"images": 3, "found": {}}', "tuning.json: Expected `array`, got `int`"),
    ('{"images": [["a.png", null]], "found": {}}', "tuning.json: Expected `str`, got `null`"),
    ('{"images": IMAGES, "found": {"tv, denoise:noise=0.1": []}}', "Expected `object`, got `arr"),
    ('{"images": IMAGES, "found": {"tv, denoise:noise=0.1": {"weight": 3.3}}}',
     "tuning.json has settings for tv, denoise:noise=0.1 that are not among those to try"),
    ('{"images": IMAGES, "found": {"tv, denoise:noise=0.1": {"step": 0}}}', "not among those"),
])
def test_damaged_tuning_is_named(photos: Path, tmp_path: Path, text: str, message: str) -> None:
    (tuned,) = open_reference_images(tmp_path / "others", 10**6)
    out = tmp_path / "out"
    out.mkdir()
    images = json.dumps([[tuned.name, tuned.digest()]])
    (out / "tuning.json").write_text(text.replace("IMAGES", images))
    code, line = refused("evaluate", photos, "-o", out, "--prior", "none", "--task", TASK,
                         "--baseline", "tv", "--tune", tmp_path / "others", "-q")
    assert code == 2 and message in line
