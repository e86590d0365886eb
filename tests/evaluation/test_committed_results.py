"""Tables in `benchmarks/results` agree with the committed values."""

import json

import pytest
from repository import ROOT
from scipy.stats import ttest_1samp

RESULTS = ROOT / "benchmarks" / "results"


def test_the_means_of_the_mixture_have_intervals_of_students_t() -> None:
    values = json.loads((RESULTS / "mixture.json").read_text())["values"]
    lines = (RESULTS / "mixture.md").read_text().splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert {name for name, *_ in cells} == values.keys()
    for name, _, mean, width, count in cells:
        interval = ttest_1samp(values[name], 0).confidence_interval(0.95)
        assert float(mean) == pytest.approx((interval.low + interval.high) / 2, abs=0.0051)
        assert float(width) == pytest.approx((interval.high - interval.low) / 2, abs=0.0051)
        assert int(count) == len(values[name])
