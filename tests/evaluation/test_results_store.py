import json
from pathlib import Path

import pytest

from genprior.core.errors import SettingError
from genprior.evaluation.results_store import ResultsStore


def store_in(folder: Path) -> ResultsStore:
    return ResultsStore(folder, ("image", "method"))


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
