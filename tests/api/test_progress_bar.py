import io
import sys

import pytest
from small import Shrink, batch

import genprior


def test_true_shows_a_bar_that_counts_all_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", screen)
    operator = genprior.make_operator("denoise")
    genprior.restore(batch(), operator, Shrink(), "diffpir", 0.1, steps=3, progress=True)
    assert "6/6" in screen.getvalue() or "3/3" in screen.getvalue()
    before = screen.getvalue()
    genprior.restore(batch(), operator, Shrink(), "diffpir", 0.1, steps=3, progress=False)
    genprior.sample(Shrink(), 1, (8, 8), 3, steps=3, progress=False)
    assert screen.getvalue() == before
    genprior.sample(Shrink(), 1, (8, 8), 3, steps=5, progress=True)
    assert "5/5" in screen.getvalue()
