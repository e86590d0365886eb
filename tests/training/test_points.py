from pathlib import Path

import numpy as np
import pytest
import torch
from shell import refused, succeed

from genprior.api.factory import load_prior
from genprior.core.errors import ImageError, SettingError
from genprior.training.points import Points


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "points.npy"
    rng = np.random.default_rng(0)
    side = np.where(rng.random((4000, 1)) < 0.5, -2.0, 2.0)
    np.save(path, np.hstack([side, 0 * side]) + 0.4 * rng.standard_normal((4000, 2)))
    return path


def test_a_batch_depends_on_seed_and_number_only(data: Path) -> None:
    points = Points([data], seed=1)
    batch = points.batch(3, 6)
    assert batch.shape == (6, 1, 1, 2) and batch.dtype == torch.float32
    assert torch.equal(points.batch(3, 6, slice(2, 4)), batch[2:4])
    assert torch.equal(Points([str(data)], seed=1).batch(3, 6), batch)
    assert not torch.equal(points.batch(4, 6), batch)
    known = {tuple(row) for row in np.load(data).astype(np.float32)}
    assert all(tuple(row.tolist()) in {tuple(map(float, k)) for k in known}
               for row in batch[:, 0, 0])
    assert points.dimension == 2 and points.digest() == Points([data]).digest()


@pytest.mark.parametrize("kind", ["planar", "radial"])
def test_a_flow_is_trained_from_the_shell(kind: str, data: Path, tmp_path: Path) -> None:
    succeed("train", "planar", data, "-o", tmp_path / "run", "--steps", 120, "--batch", 128,
            "--lr", 0.03, "--warmup", 10, "--ema", 0.9, "--dtype", "float32", "-q",
            "--set", "depth=8", "--set", f"kind={kind}")
    x = Points([data], seed=5).batch(0, 2000)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(x).flatten(1).sum(dim=1).mean()
    assert load_prior(tmp_path / "run").log_prob(x).mean() > normal + 1
    assert (tmp_path / "run" / "progress.png").exists()


def test_errors(data: Path, tmp_path: Path) -> None:
    def saved(array: np.ndarray) -> Path:
        np.save(tmp_path / "other.npy", array)
        return tmp_path / "other.npy"

    with pytest.raises(SettingError, match=r"shape \(N, n\), got \[2, 3, 4\]"):
        Points([saved(np.zeros((2, 3, 4)))])
    with pytest.raises(SettingError, match=r"same dimension, got \[2, 3\]"):
        Points([data, saved(np.zeros((2, 3)))])
    with pytest.raises(ImageError, match="NaN or infinite"):
        Points([saved(np.full((2, 2), np.nan))])
    with pytest.raises(SettingError, match="must hold numbers"):
        Points([saved(np.full((2, 2), "a"))])
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(ImageError, match="is not an array of points"):
        Points([tmp_path / "text.npy"])
    code, message = refused("train", "planar", saved(np.zeros((3, 3))), "-o", tmp_path / "run",
                            "--steps", 1)
    assert code == 2 and "points of 3 numbers need --set dimension=3" in message
