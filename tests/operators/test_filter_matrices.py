"""Positions outside the image, against numpy's padding."""

import numpy as np
import pytest
import torch

from genprior.operators.filter_matrices import filter_matrix, fold_index

MODES = {"circular": "wrap", "reflect": "reflect", "symmetric": "symmetric", "replicate": "edge"}


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_positions_fold_as_numpy_pads(boundary: str, size: int) -> None:
    far = 13
    expected = np.pad(np.arange(size), far, mode=MODES[boundary])
    found = fold_index(torch.arange(-far, size + far), size, boundary)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("boundary", MODES)
def test_the_matrix_filters_the_padded_signal(boundary: str) -> None:
    x, taps = torch.rand(6, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    padded = np.pad(x.numpy(), 2, mode=MODES[boundary])
    expected = np.correlate(padded, taps.numpy(), "valid")
    positions = torch.arange(6)[:, None] + torch.arange(-2, 3)
    assert np.allclose(filter_matrix(positions, taps, 6, boundary) @ x, expected)


def test_batches_of_weights_give_batches_of_matrices() -> None:
    positions, weights = torch.tensor([[0, 1], [1, 2]]), torch.rand(4, 3, 2)
    matrices = filter_matrix(positions, weights, 3, "circular")
    assert matrices.shape == (4, 3, 2, 3)
    assert torch.equal(matrices[2, 1], filter_matrix(positions, weights[2, 1], 3, "circular"))
