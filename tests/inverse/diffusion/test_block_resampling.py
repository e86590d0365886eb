import pytest
import torch
from oracles import normals

from genprior.core.random_streams import Noise
from genprior.inverse.diffusion.block_resampling import (
    blocks,
    choose,
    effective_sizes,
    in_place,
    resample,
)


def test_blocks_are_squares_of_a_shifted_grid() -> None:
    runs, side = 200, 4
    cut = blocks(torch.zeros(runs, 3, 7, 10), side, Noise(0, range(runs)))
    edges = (cut.index[:, 1:] != cut.index[:, :-1]).float()
    for index in cut.index:
        for number in index.unique():
            rows, columns = (index == number).nonzero().T
            assert rows.max() - rows.min() < side and columns.max() - columns.min() < side
            assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
        assert index.max() < cut.count
    # every row is an edge in a quarter of the runs
    assert (edges.mean(dim=(0, 2)) - 1 / side).abs().max() < 4 * (3 / 16 / runs) ** 0.5


def test_an_image_of_one_block_uses_no_random_numbers() -> None:
    noise = Noise(0, [0])
    assert blocks(torch.zeros(1, 1, 4, 3), 4, noise).count == 1
    like = torch.zeros(1, 5)
    assert torch.equal(noise.normal(like), Noise(0, [0]).normal(like))


def test_sums_maps_and_means_of_blocks() -> None:
    shares = normals(1, 2, 3, 9, 6)[0]
    cut = blocks(shares[:, :1], 4, Noise(1, [0, 1]))
    sums = cut.sums(shares)
    maps = cut.maps(sums)
    for run in range(2):
        for i, j in ((0, 0), (4, 3), (8, 5)):
            same = cut.index[run] == cut.index[run, i, j]
            torch.testing.assert_close(maps[run, :, i, j], shares[run][:, same].sum(dim=1))
    torch.testing.assert_close(cut.means(sums[..., 0]), maps[:, 0].mean(dim=(1, 2)))


def test_joined_particles_have_the_blocks_of_those_chosen() -> None:
    x = torch.arange(2 * 5).reshape(2, 5, 1, 1, 1).expand(-1, -1, 3, 8, 7)
    cut = blocks(x[:, 0], 3, Noise(0, [0, 1]))
    chosen = torch.randint(0, 5, (2, cut.count, 4), generator=torch.Generator().manual_seed(0))
    found = cut.joined(x, chosen)
    assert found.shape == (2, 4, 3, 8, 7)
    for run in range(2):
        for k in range(4):
            expected = 5 * run + chosen[run, cut.index[run], k]
            assert torch.equal(found[run, k], expected.expand(3, -1, -1))


def test_resampling_keeps_likely_particles_and_skips_blocks_of_even_weights() -> None:
    w = torch.tensor([[0.97, 0.01, 0.01, 0.01], [0.3, 0.25, 0.25, 0.2]]).double()[None]
    index, uneven = resample(w, Noise(0, [0]))
    assert uneven.flatten().tolist() == [True, False]
    assert index[0, 0].tolist().count(0) >= 3
    assert index[0, 1].tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(effective_sizes(w)[0, 1], 1 / w[0, 1].square().sum())


@pytest.mark.parametrize("answers", [1, 4])
def test_blocks_of_particles_are_chosen_by_weight(answers: int) -> None:
    runs = 2000
    w = torch.tensor([[0.1, 0.1, 0.8], [0.5, 0.2, 0.3]]).double().expand(runs, -1, -1)
    found = choose(w, answers, Noise(0, range(runs)))
    for block in range(2):
        counts = torch.bincount(found[:, block].flatten(), minlength=3) / (runs * answers)
        tolerance = 4 * (w[0, block] * (1 - w[0, block]) / runs).sqrt()
        assert ((counts - w[0, block]).abs() < tolerance).all()


def test_chosen_particles_keep_their_places() -> None:
    g = torch.Generator().manual_seed(0)
    chosen = torch.randint(0, 9, (300, 2, 9), generator=g).sort(dim=-1).values
    found = in_place(chosen)
    assert torch.equal(found.sort(dim=-1).values, chosen)
    present = torch.zeros(300, 2, 9, dtype=torch.bool).scatter(-1, chosen, True)
    places = torch.arange(9).expand_as(found)
    assert torch.equal(found[present], places[present])
