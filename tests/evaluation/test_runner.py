"""Evaluation from the command line: correct scores, resume, several processes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import ONE_THREAD, on_two_nodes
from PIL import Image
from shell import genprior, levels, photo, refused, save_photo, succeed
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.restoration import inpaint_biharmonic

from genprior.commands.task_syntax import Task
from genprior.core.random_streams import Noise
from genprior.operators.masks import random_keep

MASK = "inpaint:random=0.5"
SCALE = "superres:factor=2,noise=0.01"


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for k in range(4):
        save_photo(folder / f"{k}.png", start=40 * k)
    return folder


def results(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def values(folder: Path) -> dict:
    """Returns the scores that must not depend on the number of processes."""
    return {
        (r["index"], r["task"], r["seed"], r["method"]): (r["psnr"], r["ssim"], r["misfit"])
        for r in results(folder) if "failed" not in r
    }


def command(photos: Path, out: Path, weights: Path, *more: object) -> list[object]:
    return ["evaluate", photos, "-o", out, "--prior", weights, "--steps", 2, "--crop", 20,
            "--solver", "hqs", "--task", MASK, "--task", SCALE,
            "--baseline", "biharmonic,bicubic", "-q", *more]


@pytest.fixture(scope="module")
def whole(photos, weights, tmp_path_factory) -> Path:
    """Runs an evaluation without interruption."""
    out = tmp_path_factory.mktemp("whole")
    succeed(*command(photos, out, weights))
    return out


def test_a_baseline_gets_the_numbers_of_scikit_image(photos, whole):
    record = values(whole)[2, MASK, 0, "biharmonic"]
    truth = levels(photos / "2.png")[2:22, 6:26] / 255
    keep = random_keep((1, 3, 20, 20), 0.5, Noise(1, [2]).generators)[0, 0].numpy()
    x = inpaint_biharmonic(truth * keep[..., None], ~keep, channel_axis=2).clip(0, 1)
    assert record[0] == pytest.approx(peak_signal_noise_ratio(truth, x, data_range=1), abs=1e-4)
    expected = structural_similarity(truth, x, data_range=1, channel_axis=2)
    assert record[1] == pytest.approx(expected, abs=1e-5)


def test_every_method_is_run_on_every_task_that_it_supports(whole):
    found = {(r["task"], r["method"].split()[-1]) for r in results(whole)}
    assert found == {(MASK, "hqs"), (SCALE, "hqs"), (MASK, "biharmonic"), (SCALE, "bicubic")}
    assert {r["nfe"] for r in results(whole)} == {0, 2}
    report = (whole / "report.md").read_text()
    assert "biharmonic on superres" in report and "bicubic on inpaint" in report
    sheet = levels(whole / "contact.png")
    assert sheet.shape[0] > 8 * 192 and sheet.shape[1] >= 4 * 192 and np.ptp(sheet) == 255
    assert len(json.loads((whole / "report.json").read_text())["rows"]) == 4


def test_images_in_batches_and_one_by_one_agree(photos, weights, whole, tmp_path):
    succeed(*command(photos, tmp_path, weights, "--batch", 3))
    one, many = values(whole), values(tmp_path)
    assert one.keys() == many.keys()
    for key in one:
        assert one[key] == pytest.approx(many[key], abs=1e-4), key
    assert {r["nfe"] for r in results(tmp_path)} == {0, 2}


def test_a_killed_evaluation_is_resumed(photos, weights, whole, tmp_path):
    words = list(map(str, command(photos, tmp_path, weights)))
    process = subprocess.Popen([sys.executable, "-m", "genprior", *words], env=ONE_THREAD)
    part = tmp_path / "results.0.jsonl"
    deadline = time.monotonic() + 120
    while not (part.exists() and part.read_bytes().count(b"\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = part.read_bytes()
    assert not (tmp_path / "report.md").exists()
    succeed(*words)
    assert values(tmp_path) == values(whole)
    kept = [json.loads(line) for line in before.split(b"\n")[:-1]]
    assert all(record in results(tmp_path) for record in kept)


def test_two_nodes_find_what_one_finds(photos, weights, whole, tmp_path):
    words = list(map(str, command(photos, tmp_path, weights)))
    assert on_two_nodes(*words).returncode == 0
    assert values(tmp_path) == values(whole)
    text = (tmp_path / "report.csv").read_text().splitlines()
    assert len(text) == 5 and not list(tmp_path.glob("results.*.jsonl"))


def test_a_changed_setting_is_refused_and_overwrite_starts_anew(photos, weights, tmp_path):
    words = ["evaluate", photos, "-o", tmp_path, "--prior", "none", "--baseline", "bicubic",
             "--task", SCALE, "--every", 2]
    succeed(*words, "-q")
    code, message = refused(*words, "--crop", 16)
    assert code == 2 and f"results with tasks {SCALE} = [0.01, null], now it is" in message
    succeed(*words, "--crop", 16, "--overwrite", "-q")
    assert [r["index"] for r in results(tmp_path)] == [0, 2]
    succeed(*words, "--crop", 16, "--seeds", "0,1", "-q")
    assert len(results(tmp_path)) == 4


def test_other_pixels_or_another_mask_of_the_same_name_are_refused(photos, tmp_path):
    folder, mask, out = tmp_path / "photos", tmp_path / "mask.png", tmp_path / "out"
    folder.mkdir()
    save_photo(folder / "a.png")
    size = levels(folder / "a.png").shape[:2]
    Image.fromarray(np.eye(*size, dtype=np.uint8) * 255).save(mask)
    words = ["evaluate", folder, "-o", out, "--prior", "none", "--baseline", "biharmonic",
             "--task", f"inpaint:mask={mask}", "-q"]
    succeed(*words)
    succeed(*words)
    Image.fromarray(np.eye(*size, 3, dtype=np.uint8) * 255).save(mask)
    assert "results with tasks inpaint:mask=" in refused(*words)[1]
    succeed(*words, "--overwrite")
    save_photo(folder / "a.png", start=7)
    assert 'results with images 0 = ["a.png", ' in refused(*words)[1]


def test_a_method_that_supports_no_task_is_left_out(photos, tmp_path):
    result = succeed("evaluate", photos, "-o", tmp_path, "--prior", "none", "--every", 4,
                     "--baseline", "biharmonic", "--baseline", "wiener", "--task", MASK,
                     "--task", SCALE)
    assert "wiener supports none of the tasks: left out" in result.stderr
    assert {r["method"] for r in results(tmp_path)} == {"biharmonic"}
    assert "wiener on superres" in (tmp_path / "report.md").read_text()


def test_a_solver_is_left_out_of_tasks_that_it_does_not_support(photos, tmp_path):
    succeed("evaluate", photos, "-o", tmp_path, "--every", 4, "--solver",
            "posterior-mean:views=1,hqs:steps=1,ddrm:steps=1", "--task", "denoise:noise=0.1",
            "--task", "deblur:motion=3,30", "--crop", 16)
    tasks = {}
    for record in results(tmp_path):
        tasks.setdefault(record["method"].split(":")[0], set()).add(record["task"].split(":")[0])
    assert tasks == {"ddpm posterior-mean": {"denoise"}, "ddpm hqs": {"denoise", "deblur"},
                     "ddpm ddrm": {"denoise"}}
    report = (tmp_path / "report.md").read_text()
    assert "- left out: ddpm posterior-mean:views=1 on deblur" in report


def test_a_method_that_diverges_does_not_end_the_others(photos, tmp_path, monkeypatch):
    from genprior.evaluation import runner
    whole_restore = runner.restore

    def restore(y, operator, model, solver, *rest, index, **more):
        if type(solver).__name__ == "TotalVariation" and index == [1]:
            raise FloatingPointError("it diverged")
        return whole_restore(y, operator, model, solver, *rest, index=index, **more)

    monkeypatch.setattr(runner, "restore", restore)
    words = ["evaluate", photos, "-o", tmp_path, "--prior", "none", "--baseline",
             "tv:iterations=2,biharmonic", "--task", MASK, "--crop", 20]
    told = succeed(*words).stderr
    assert "tv:iterations=2 failed on the images that the report lists: it diverged" in told
    report = (tmp_path / "report.md").read_text()
    assert f"- failed: tv:iterations=2 on {MASK} of 1.png (it diverged)" in report
    rows = {line.split(" | ")[1]: line.split(" | ")[2] for line in report.splitlines()
            if line.startswith(f"| {MASK}")}
    assert rows == {"tv:iterations=2": "3", "biharmonic": "4"}
    found = [r for r in results(tmp_path) if "failed" in r]
    assert [r["index"] for r in found] == [1]
    assert "psnr" not in found[0] and "torch" in found[0]["machine"]


def test_an_evaluation_without_any_result_is_an_error(photos, tmp_path, monkeypatch):
    def restore(*_, **__):
        raise FloatingPointError("it diverged")

    monkeypatch.setattr("genprior.evaluation.runner.restore", restore)
    told = genprior("evaluate", photos, "-o", tmp_path, "--prior", "none", "--baseline", "tv",
                    "--task", MASK, "--crop", 20)
    assert told.exit_code == 6 and "every restoration failed" in told.stderr
    assert (tmp_path / "report.md").exists()


@pytest.mark.parametrize("damaged", [0, 2])
def test_a_damaged_image_fails_alone(photos, tmp_path, damaged):
    folder, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(photos, folder)
    file = folder / f"{damaged}.png"
    file.write_bytes(file.read_bytes()[:100])
    words = ["evaluate", folder, "-o", out, "--prior", "none", "--baseline", "biharmonic",
             "--task", MASK, "--crop", 20, "--batch", 3]
    told = succeed(*words)
    failed = {r["index"]: r["failed"] for r in results(out) if "failed" in r}
    assert list(failed) == [damaged] and f"{damaged}.png: damaged" in failed[damaged]
    assert f"{damaged}.png: damaged" in told.stderr
    assert f"{damaged}.png" in (out / "report.md").read_text()
    succeed("evaluate", photos, "-o", tmp_path / "sound", *words[4:], "-q")
    sound = values(tmp_path / "sound")
    assert values(out) == {key: sound[key] for key in sound if key[0] != damaged}


def test_images_of_which_none_can_be_read_are_an_error(photos, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes((photos / "0.png").read_bytes()[:100])
    code, message = refused("evaluate", folder, "-o", tmp_path / "out", "--prior", "none",
                            "--baseline", "tv", "--task", MASK)
    assert code == 3 and "a.png: damaged" in message


def test_steps_of_a_solver_take_precedence_over_steps_of_all(photos, weights, tmp_path):
    succeed("evaluate", photos, "-o", tmp_path, "--prior", weights, "--every", 4, "--crop", 20,
            "--solver", "hqs:steps=3,hqs:coupling=0.2,hqs", "--steps", 2, "--task", MASK,
            "--show", 0, "-q")
    assert [r["nfe"] for r in sorted(results(tmp_path), key=lambda r: r["method"])] == [2, 2, 3]


def test_samples_are_scored_by_coverage_and_crps(photos, weights, tmp_path):
    result = succeed("evaluate", photos, "-o", tmp_path, "--prior", weights, "--steps", 2,
                     "--every", 4, "--task", SCALE, "--solver", "auto,hqs", "--samples", 3,
                     "--baseline", "deepinv:diffpir:max_iter=2", "--json", "--show", 0)
    by_name = {r["method"].split()[-1]: r for r in results(tmp_path)}
    assert by_name["auto"]["solver"] == "moment-matched" and by_name["auto"]["nfe"] == 6
    assert 0 <= by_name["auto"]["coverage"] <= 1 and by_name["auto"]["crps"] > 0
    assert by_name["hqs"]["samples"] == 1 and "crps" not in by_name["hqs"]
    theirs = by_name["deepinv:diffpir:max_iter=2"]
    assert theirs["nfe"] == 6 and 0 <= theirs["coverage"] <= 1
    meaning = json.loads(result.stdout)["definitions"]["coverage"]
    assert "50% of the time" in meaning and not (tmp_path / "contact.png").exists()
    assert theirs["coverage50"] == theirs["coverage95"] == theirs["coverage"]  # of 3 samples
    assert theirs["width"] > 0 and len(theirs["ranks"]) == 4
    assert sum(theirs["ranks"]) == pytest.approx(1, abs=1e-5)
    (row,) = [r for r in json.loads(result.stdout)["rows"] if r["method"] == theirs["method"]]
    assert row["ranks"] == pytest.approx(theirs["ranks"])
    assert (levels(tmp_path / "reliability.png") < 128).any()


def test_a_prior_is_combined_with_the_solvers_that_support_it(photos, weights, tmp_path):
    succeed("evaluate", photos, "-o", tmp_path, "--prior", f"{weights},texture", "--steps", 2,
            "--every", 4, "--crop", 20, "--solver", "hqs,csgm,gaussian:mode=mean",
            "--task", "inpaint:box=4x4", "--show", 0, "-q")
    # a texture can do what each of these needs, a network only denoises
    assert {r["method"] for r in results(tmp_path)} == {
        f"{weights} hqs", "texture hqs", "texture csgm", "texture gaussian:mode=mean",
    }
    assert "| texture gaussian:mode=mean |" in (tmp_path / "report.md").read_text()


def test_baselines_are_tuned_on_separate_images(photos, tmp_path):
    others = tmp_path / "others"
    others.mkdir()
    save_photo(others / "a.png", start=10)
    task = "deblur:gaussian=1,boundary=circular,noise=0.02"
    out = tmp_path / "out"
    succeed("evaluate", photos, "-o", out, "--prior", "none", "--task", task, "--every", 4,
            "--baseline", "wiener,richardson-lucy", "--tune", others, "-q")
    tuned = json.loads((out / "tuning.json").read_text())["found"]
    best = tuned[f"wiener, {task}"]["balance"]
    from genprior.api.restoration import degrade, restore
    from genprior.core.metrics import psnr
    from genprior.inverse.baselines.wiener import BALANCES, Wiener
    operator = Task().convert(task, None, None)
    from genprior.api.tasks import blurring
    operator = blurring(**operator.settings)([], True)
    x = torch.from_numpy(photo(start=10) / 255).float().permute(2, 0, 1)[None]
    y = degrade(x, operator, 0.02)
    scores = {b: psnr(restore(y, operator, None, Wiener(b)).image.clamp(0, 1), x).item()
              for b in BALANCES}
    assert best == max(scores, key=scores.get)
    assert "tuning: on 1 images of others" in (out / "report.md").read_text()
    save_photo(others / "b.png", start=30)
    _, message = refused("evaluate", photos, "-o", out, "--prior", "none", "--task", task,
                         "--every", 4, "--baseline", "wiener,richardson-lucy", "--tune", others)
    remedy = "give those images, another folder, or --overwrite"
    assert f"was tuned on 1 other images: {remedy}" in message


@pytest.mark.parametrize("words, message", [
    (["--prior", "none", "--task", MASK], "nothing to evaluate: give --prior or --baseline"),
    (["--prior", "none", "--baseline", "bicubic", "--task", MASK],
     "no method (bicubic) supports any of the tasks"),
    (["--prior", "none", "--baseline", "deepinv:dps", "--task", MASK], "needs a --prior that is"),
    (["--prior", "none", "--baseline", "tv:weigth=3", "--task", MASK], "no setting 'weigth'"),
    (["--prior", "nothing", "--task", MASK], "unknown prior 'nothing'"),
    (["--prior", "glow", "--solver", "hqs", "--task", MASK], "solvers works with --prior glow"),
    (["--prior", "glow", "--solver", "map,hqs", "--task", MASK], "solver hqs works with none of"),
    (["--prior", "none", "--baseline", "tv", "--crop", "900", "--task", MASK], "too few for a c"),
])
def test_errors(photos, tmp_path, words, message):
    _, error = refused("evaluate", photos, "-o", tmp_path / "out", *words)
    assert message in error
    assert not list(tmp_path.rglob("report*"))


def test_a_physics_of_deepinv_is_a_task(photos, weights, tmp_path):
    task = "deepinv:CompressedSensing,m=300,noise=0.01,crop=12"
    succeed("evaluate", photos, "-o", tmp_path / "out", "--prior", weights, "--solver", "hqs",
            "--steps", 2, "--task", task, "--every", 2, "-q")
    found = results(tmp_path / "out")
    assert [(r["index"], r["task"], r["nfe"]) for r in found] == [(0, task, 2), (2, task, 2)]
    assert all(r["psnr"] > 8 for r in found)
    assert task in (tmp_path / "out" / "report.md").read_text()


def test_networks_are_compiled_on_request(photos, weights, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    words = ("evaluate", photos, "-o", tmp_path, "--prior", weights, "--solver", "hqs,diffpir",
             "--steps", 2, "--crop", 20, "--task", MASK, "-q")
    succeed(*words, "--compile")
    assert len(compiled) == 1 and "compiled" in (tmp_path / "report.md").read_text()
    assert "compile = true" in refused(*words)[1]
