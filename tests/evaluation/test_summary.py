import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from genprior.evaluation.report import as_csv, as_json, markdown, table
from genprior.evaluation.summary import summarise

PSNR = {"ours auto": [30.0, 31.0, 35.0], "tv": [29.0, 30.5, 33.0], "bicubic": [28.0, 31.5, 30.0]}


def records() -> list[dict]:
    rows = []
    for method, values in PSNR.items():
        for index, value in enumerate(values):
            for seed, change in ((0, -0.5), (1, 0.5)):
                rows.append({
                    "task": "denoise:noise=0.1", "method": method, "index": index, "seed": seed,
                    "psnr": value + change, "ssim": value / 40, "nfe": 3, "coverage": None,
                    "baseline": method in ("tv", "bicubic"),
                    "prior": None if method in ("tv", "bicubic") else "ours",
                    "solver": None if method in ("tv", "bicubic") else "hqs",
                })
    return rows


def test_means_are_over_images_after_seeds():
    row = summarise(records())[0]
    assert (row.label, row.scores["psnr"].images) == ("ours hqs", 3)
    assert row.scores["psnr"].value == pytest.approx(32.0)
    low, high = stats.t.interval(0.95, 2, loc=32, scale=stats.sem(PSNR["ours auto"]))
    assert row.scores["psnr"].half == pytest.approx((high - low) / 2)
    assert "coverage" not in row.scores


def test_the_gain_is_paired_with_the_best_baseline():
    ours, tv, _ = summarise(records())
    difference = np.subtract(PSNR["ours auto"], PSNR["tv"])
    low, high = stats.t.interval(0.95, 2, loc=difference.mean(), scale=stats.sem(difference))
    assert ours.against == "tv"
    assert ours.gain.value == pytest.approx(difference.mean())
    assert ours.gain.half == pytest.approx((high - low) / 2)
    assert tv.gain is None


def test_the_best_baseline_has_results_for_the_most_images():
    rows = [row for row in records() if (row["method"], row["index"]) != ("tv", 2)]
    assert summarise(rows)[0].against == "bicubic"


def test_an_infinite_psnr_is_not_averaged_away():
    rows = records()
    rows[0]["psnr"] = None
    assert summarise(rows)[0].scores["psnr"].value is None
    assert " inf " in table(summarise(rows))
    assert summarise(rows)[0].gain.value is None
    assert table(summarise(rows)).splitlines()[1].count("inf") == 1


def test_bold_is_the_largest_psnr_of_methods_with_all_images():
    rows = records()
    lucky = [{**row, "method": "lucky", "psnr": 40.0} for row in rows[:2]]
    report = markdown(summarise(rows + lucky), 1, {})
    assert "| lucky | 1 | 40.00 |" in report and "| **32.00 ±" in report
    lucky[0]["psnr"] = None
    more = [{**row, "method": "exact", "psnr": None} for row in rows[:6]]
    report = markdown(summarise(rows + lucky + more), 1, {})
    assert "| exact | 3 | **inf** |" in report and report.count("**") == 2


def test_every_form_of_the_report_says_the_same():
    rows = summarise(records())
    text = table(rows)
    half = rows[0].scores["psnr"].half
    assert f"32.00 ± {half:.2f}" in text and text.count("denoise:noise=0.1") == 1
    report = markdown(rows, 1, {"images": "three"})
    assert f"| ours hqs | 3 | **32.00 ± {half:.2f}** |" in report
    assert "- PSNR, dB: 10 log10(1 / MSE)" in report and "- images: three" in report
    lines = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert float(lines[0]["psnr"]) == 32 and float(lines[0]["psnr ±"]) == half
    assert lines[0]["against"] == "tv" and lines[1]["gain"] == ""
    data = json.loads(as_json(rows, 1, {}))
    assert data["rows"][1]["scores"]["psnr"]["value"] == pytest.approx(30.8333, abs=1e-4)
    assert set(data["definitions"]) >= {"psnr", "ssim", "nfe", "mean", "gain"}
