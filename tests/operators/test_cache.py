"""The cache that copies of an operator share."""

import copy
import pickle

import torch
from torch import Tensor

from genprior import restore
from genprior.api.factory import operator_on
from genprior.inverse.baselines.total_variation import TotalVariation
from genprior.operators import separable
from genprior.operators.blur import Blur
from genprior.operators.cache import MAX_CACHED, SharedCache
from genprior.operators.kernels import gaussian_kernel
from genprior.operators.superres import SuperResolution


def test_a_value_is_built_once_and_the_cache_stays_small() -> None:
    cache: SharedCache[int] = SharedCache()
    built = []

    def build(k: int) -> int:
        built.append(k)
        return k

    assert [cache.get(1, lambda: build(1)) for _ in range(3)] == [1, 1, 1] and built == [1]
    for k in range(2, 3 * MAX_CACHED):
        assert cache.get(k, lambda k=k: build(k)) == k
    assert len(cache._values) <= MAX_CACHED


def test_copies_share_it_and_pickles_do_not() -> None:
    cache: SharedCache[int] = SharedCache()
    cache.get("a", lambda: 1)
    assert copy.deepcopy(cache) is cache
    assert pickle.loads(pickle.dumps(cache))._values == {}


def counted(monkeypatch) -> list[torch.Size]:
    seen, svd = [], separable.svd

    def counting(matrix: Tensor) -> tuple:
        seen.append(matrix.shape)
        return svd(matrix)

    monkeypatch.setattr(separable, "svd", counting)
    return seen


def test_a_copy_on_a_device_decomposes_nothing_anew(monkeypatch) -> None:
    """As the copy that `restore` makes of an operator that lies on another device."""
    y = torch.rand(1, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    for operator in (Blur(gaussian_kernel(1.0), "reflect"), SuperResolution(2)):
        seen = counted(monkeypatch)
        results = []
        for _ in range(3):
            moved = copy.deepcopy(operator).to(torch.device("cpu"))
            results.append(moved.pinv(y))
        assert len(seen) == 2  # vertical and horizontal
        assert torch.equal(results[0], results[2])


def test_an_operator_made_in_inference_mode_is_decomposed_once(monkeypatch) -> None:
    with torch.inference_mode():
        operator = Blur(gaussian_kernel(1.0), "reflect")
    seen = counted(monkeypatch)
    y = torch.rand(1, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        assert operator_on(operator, torch.device("cpu")) is not operator
        restore(y, operator, None, TotalVariation(iterations=2), 0.05)
    assert len(seen) == 2


def test_another_kernel_leaves_the_copies_alone() -> None:
    x = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    operator = Blur(gaussian_kernel(1.0), "circular")
    before = operator.A(x)
    other = copy.deepcopy(operator)
    other.kernel = gaussian_kernel(2.0).float()[None, None]
    assert not torch.allclose(other.A(x), before, atol=1e-3)
    torch.testing.assert_close(other.A(x), Blur(gaussian_kernel(2.0), "circular").A(x))
    assert torch.equal(operator.A(x), before)
