import sys
from types import ModuleType

import pytest
import torch

from genprior.api.restoration import restore
from genprior.core.errors import SettingError
from genprior.inverse.baselines import bm3d
from genprior.inverse.baselines.bm3d import BM3D
from genprior.operators.denoising import Denoising


def rand(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_the_package_gets_each_image_and_its_level(monkeypatch):
    package, calls = ModuleType("bm3d"), []

    def denoise(array, sigma):
        calls.append((array.shape, sigma))
        return array[..., 0] / 2 if array.shape[-1] == 1 else array / 2

    package.bm3d = package.bm3d_rgb = denoise
    monkeypatch.setitem(sys.modules, "bm3d", package)
    y = rand(2, 3, 6, 7)
    result = restore(y, Denoising(), None, BM3D(), [0.1, 0.25]).image
    torch.testing.assert_close(result, y / 2)
    assert [shape for shape, _ in calls] == [(6, 7, 3)] * 2
    assert [sigma for _, sigma in calls] == pytest.approx([0.1, 0.25])
    grey = restore(y[:, :1], Denoising(), None, BM3D(), 0.1).image
    torch.testing.assert_close(grey, y[:, :1] / 2)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    with pytest.raises(SettingError, match="pip install bm3d, or choose nlm"):
        restore(rand(1, 3, 6, 7), Denoising(), None, BM3D(), 0.1)
    assert bm3d.BM3D().suits(Denoising())
