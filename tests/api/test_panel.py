"""The panel of `genprior.show`, and what a notebook shows of a restoration."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from small import HOLE, Shrink, batch

import genprior
from genprior.core.errors import SettingError


@pytest.fixture
def result() -> genprior.Restoration:
    operator = genprior.make_operator("inpaint", keep=~HOLE)
    return genprior.restore(batch(), operator, Shrink(), "diffpir", 0.05, samples=3, steps=2)


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    pyplot.close("all")


def titles(figure: object) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def test_a_panel_has_a_caption_for_every_picture(result: genprior.Restoration) -> None:
    x = batch()
    figure = genprior.show(result, x, x, samples=2, image=1)
    names = titles(figure)
    assert [name.split(",")[0] for name in names] == [
        "measurement", "mean", "sample 0", "sample 1", "std", "reference"]
    mean = (255 * result.mean[1].clamp(0, 1)).round()
    error = (mean - (255 * x[1]).round()).square().mean().item()
    assert names[1] == f"mean, {10 * np.log10(255**2 / error):.2f} dB"
    assert f"misfit {result.misfit[1].item():.2f}" in figure.get_supxlabel()
    drawn = figure.axes[1].images[0].get_array()
    assert np.array_equal(drawn, mean.byte().permute(1, 2, 0))


def test_a_point_estimate_has_no_samples(result: genprior.Restoration) -> None:
    operator = genprior.make_operator("denoise")
    single = genprior.restore(np.full((8, 9), 0.5), operator, Shrink(), "hqs", 0.1, steps=2)
    assert titles(genprior.show(single)) == ["restored"]
    assert single._repr_html_().count("<img") == 1


def test_a_measurement_that_is_no_image_is_left_out(result: genprior.Restoration) -> None:
    assert titles(genprior.show(result, torch.rand(2, 77), samples=0))[0] == "mean"


def test_errors(result: genprior.Restoration, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="image must be below 2, got 2"):
        genprior.show(result, image=2)
    with pytest.raises(ValueError, match=r"size of the restoration, \(12, 20\), got \(11, 20\)"):
        genprior.show(result, reference=batch()[..., 1:, :])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    with pytest.raises(SettingError, match=r'pip install "genprior\[plot\]"'):
        genprior.show(result)


def test_a_notebook_shows_images_maps_and_facts(result: genprior.Restoration) -> None:
    text = result._repr_html_()
    assert text.count("<img") == 4 and text.count("<figcaption>std, white is ") == 2
    assert result.facts in text and repr(result) == f"Restoration({result.facts})"
    assert result._repr_png_().startswith(b"\x89PNG")
