import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_photo_is_the_one_its_script_makes(tmp_path):
    missing = load("make_photo").main(tmp_path)
    assert missing == pytest.approx(0.073, abs=5e-4)
    for name in ("photo.png", "hole.png"):
        made, kept = (np.asarray(Image.open(p / name)) for p in (tmp_path, EXAMPLES))
        assert np.array_equal(made, kept)


def test_restoring_beats_the_smooth_fill_even_in_few_steps():
    ours, biharmonic = load("restore_photo").main(size=48, steps=8)
    assert ours > biharmonic
