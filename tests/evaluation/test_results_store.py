import json
import os
from pathlib import Path

import msgspec
import pytest

from genprior.core.errors import SettingError
from genprior.evaluation.results_store import KEYS, Result, ResultsStore, holds


class Line(msgspec.Struct):
    image: int
    method: str


LINE = {"index": 0, "image": "a.png", "task": "denoise:noise=0.1", "seed": 0, "method": "tv",
        "prior": None, "baseline": True, "device": "cpu", "machine": "m", "solver": None,
        "psnr": 30.5, "ssim": None, "nfe": 0, "another": 1}


def store_in(folder: Path) -> ResultsStore:
    return ResultsStore(folder, ("image", "method"), Line)


def test_an_incomplete_line_of_a_killed_process_is_dropped(tmp_path):
    store = store_in(tmp_path)
    store.open({"steps": 3})
    store.append([{"image": 0, "method": "a", "psnr": 1.0}], rank=0)
    file = tmp_path / "results.0.jsonl"
    file.write_bytes(file.read_bytes() + b'{"image": 1, "meth')
    assert list(store.read()) == [(0, "a")]
    store.append([{"image": 1, "method": "a", "psnr": 2.0}], rank=0)
    assert [r["psnr"] for r in store.read().values()] == [1.0, 2.0]


def test_merging_sorts_by_key_and_loses_nothing(tmp_path):
    store = store_in(tmp_path)
    store.open({})
    for rank, image in ((1, 0), (0, 2), (1, 1)):
        store.append([{"image": image, "method": "a"}], rank)
    store.merge()
    store.append([{"image": 0, "method": "b"}], 0)
    store.merge()
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    keys = [(r["image"], r["method"]) for r in map(json.loads, lines)]
    assert keys == [(0, "a"), (0, "b"), (1, "a"), (2, "a")]
    assert not list(tmp_path.glob("results.*.jsonl"))


def test_settings_must_stay_but_dictionaries_may_grow(tmp_path):
    store = store_in(tmp_path)
    store.open({"steps": 3, "weights": {"a": "1f"}})
    store.open({"steps": 3, "weights": {"b": "2f"}})
    with pytest.raises(SettingError, match="results with steps = 3, now it is 4: give the old"):
        store.open({"steps": 4, "weights": {}})
    with pytest.raises(SettingError, match='results with weights a = "1f", now it is "3f"'):
        store.open({"steps": 3, "weights": {"a": "3f"}})
    with pytest.raises(SettingError, match="results with lpips = null, now it is true"):
        store.open({"steps": 3, "weights": {}, "lpips": True})
    store.clear()
    store.open({"steps": 4})


def test_dictionaries_grow_at_every_depth(tmp_path):
    store = store_in(tmp_path)
    store.open({"methods": {"m": {"A": 1}}})
    store.open({"methods": {"m": {"B": 1}}})
    with pytest.raises(SettingError, match="results with methods m A = 1, now it is 2"):
        store.open({"methods": {"m": {"A": 2}}})


def test_results_without_settings_are_not_touched(tmp_path):
    (tmp_path / "results.jsonl").write_text("{}\n")
    with pytest.raises(SettingError, match="holds results without settings.json"):
        store_in(tmp_path).open({})


def without(name: str) -> dict[str, object]:
    return {key: value for key, value in LINE.items() if key != name}


@pytest.mark.parametrize(("text", "message"), [
    ("[" * 9999, "line 2: it is nested too deeply: restore this file, choose another folder, or"),
    ('{"a":' * 99 + "1" + "}" * 99, "line 2: it is nested too deeply"),
    ("\0", "line 2: it is not JSON"),
    ("[]", "line 2: Expected `object`, got `array`"),
    (without("index"), "line 2: .*missing required field `index`"),
    (without("method"), "line 2: .*missing required field `method`"),
    (without("machine"), "line 2: .*missing required field `machine`"),
    (without("psnr"), "line 2: neither `failed` nor `psnr` is there"),
    (LINE | {"index": None}, "line 2: Expected `int`, got `null`"),
    (LINE | {"index": -1}, "line 2: Expected `int` >= 0"),
    (LINE | {"method": ["tv"]}, "line 2: Expected `str`, got `array`"),
    (LINE | {"psnr": "high"}, "line 2: Expected `float | null`, got `str`"),
    (LINE | {"ssim": float("nan")}, "line 2: `ssim` is nan, not a finite number"),
    (LINE | {"baseline": False}, "line 2: `solver` is missing"),
    (LINE | {"failed": None}, "line 2: Expected `str`, got `null`"),
])
def test_damaged_lines_are_named(
    tmp_path: Path, text: str | dict[str, object], message: str
) -> None:
    line = text if isinstance(text, str) else json.dumps(text)
    (tmp_path / "results.3.jsonl").write_text(f"{json.dumps(LINE)}\n{line}\n")
    with pytest.raises(SettingError, match=f"results.3.jsonl: {message}"):
        ResultsStore(tmp_path, KEYS, Result).read()


def test_sound_lines_are_returned_whole(tmp_path: Path) -> None:
    failed = {key: LINE[key] for key in list(LINE)[:9]} | {"seed": 1, "failed": "diverged"}
    (tmp_path / "results.jsonl").write_text(f"{json.dumps(LINE)}\n{json.dumps(failed)}\n")
    assert list(ResultsStore(tmp_path, KEYS, Result).read().values()) == [LINE, failed]


@pytest.mark.skipif(os.name != "posix", reason="needs devices")
def test_files_that_never_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.9.jsonl").symlink_to("/dev/zero")
    with pytest.raises(SettingError, match="results.9.jsonl: .*is not a regular file: restore"):
        ResultsStore(tmp_path, KEYS, Result).read()
    os.mkfifo(tmp_path / "settings.json")
    assert not holds(tmp_path / "settings.json", ())
    with pytest.raises(SettingError, match="settings.json: .*is not a regular file"):
        ResultsStore(tmp_path, KEYS, Result).open({})


@pytest.mark.parametrize("text", ["[" * 9999, "{", "[]", '{"a":' * 99 + "1" + "}" * 99])
def test_damaged_settings_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.json").write_text(text)
    assert not holds(tmp_path / "settings.json", ())
    with pytest.raises(SettingError, match="settings.json: .*: restore this file"):
        store_in(tmp_path).open({"steps": 3})
