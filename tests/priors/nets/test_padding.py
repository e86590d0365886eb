import pytest
import torch

from genprior.priors.nets.padding import pad_to_multiple


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (8, 8), (17, 5)])
def test_padding_is_undone_by_its_crop(size):
    x = torch.rand(2, 3, *size)
    padded, crop = pad_to_multiple(x, 8)
    assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
    assert torch.equal(padded[crop], x)


def test_it_reflects_without_repeating_the_edge():
    x = torch.arange(6.0).reshape(1, 1, 1, 6).expand(1, 1, 6, 6)
    assert pad_to_multiple(x, 8)[0][0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 4, 3]
