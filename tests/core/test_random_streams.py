from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from small import Shrink, batch

from genprior import degrade, estimate_prior, load_prior, make_operator, restore, sample
from genprior.api.estimated_priors import draw_texture
from genprior.core.random_streams import Noise, partner, partners


def test_an_image_gets_the_same_noise_alone_and_in_a_batch():
    batch = Noise(0, [0, 1, 2]).normal(torch.empty(3, 1, 2, 2))
    alone = Noise(0, [1]).normal(torch.empty(1, 1, 2, 2))
    assert torch.equal(batch[1:2], alone)


def test_seeds_images_and_samples_differ():
    like = torch.empty(1, 64)
    draws = [Noise(s, [k]).normal(like) for s, k in ((0, 0), (1, 0), (0, 1), (0, (0, 1)))]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert abs(np.corrcoef(a.flatten(), b.flatten())[0, 1]) < 0.5


def test_the_global_state_is_not_touched():
    before = torch.random.get_rng_state()
    Noise(3, [0]).normal(torch.empty(1, 5))
    assert torch.equal(before, torch.random.get_rng_state())


def test_numbers_are_standard_normal():
    x = Noise(0, range(4)).normal(torch.empty(4, 10_000, dtype=torch.float64))
    assert abs(x.mean()) < 5 / 200
    assert abs(x.square().mean() - 1) < 5 * 2**0.5 / 200


def test_uniform_numbers_fill_the_unit_interval():
    x = Noise(0, range(4)).uniform(torch.empty(4, 10_000, dtype=torch.float64))
    assert 0 <= x.min() and x.max() < 1
    assert abs(x.mean() - 0.5) < 5 / 200 / 12**0.5
    assert x.var() == pytest.approx(1 / 12, rel=0.03)


def test_errors():
    with pytest.raises(ValueError, match="0 or a positive integer, got -1"):
        Noise(-1, [0])
    with pytest.raises(ValueError, match="random streams for 2 images, but the batch has 3"):
        Noise(0, [0, 1]).normal(torch.empty(3, 4))


def test_a_mirrored_row_has_the_negated_normal_numbers_of_its_key():
    like = torch.empty(2, 3, 4)
    noise, plain = Noise(5, [(1, 0), (1, 0)], [False, True]), Noise(5, [(1, 0), (1, 0)])
    drawn, expected = noise.normal(like), plain.normal(like)
    assert torch.equal(drawn[0], expected[0]) and torch.equal(drawn[1], -expected[1])
    assert torch.equal(noise.uniform(like), plain.uniform(like))


def test_two_samples_are_independent_and_the_next_two_are_their_partners():
    assert [partner(k) for k in range(8)] == [None, None, 0, 1, None, None, 4, 5]
    assert partners(2) == [] and partners(5) == [(0, 2), (1, 3)]


def test_any_number_of_threads_draws_the_same(monkeypatch):
    noise = [Noise(2, [(k // 2, k % 2) for k in range(6)]) for _ in range(2)]
    like = torch.empty(6, 3, 5)
    alone = [noise[0].normal(like), noise[0].uniform(like)]
    monkeypatch.setattr("genprior.core.random_streams.PER_THREAD", 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    with torch.inference_mode():
        together = [noise[1].normal(like), noise[1].uniform(like)]
    assert all(map(torch.equal, alone, together))


def test_rows_with_the_same_key_have_the_same_numbers_at_every_draw():
    like = torch.empty(3, 4, 4)
    noise, alone = Noise(1, [0, 5, (0,)]), Noise(1, [0])
    for _ in range(2):
        drawn = noise.normal(like)
        assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
        assert torch.equal(drawn[:1], alone.normal(like[:1]))


def test_no_two_purposes_share_a_stream(weights: Path, monkeypatch: pytest.MonkeyPatch):
    seeds = []

    def note(self: Noise, fill: object, like: torch.Tensor) -> torch.Tensor:
        seeds.extend(generator.initial_seed() for generator in self.generators)
        return whole(self, fill, like)

    whole = Noise._numbers
    monkeypatch.setattr(Noise, "_numbers", note)
    keep = torch.ones(1, 1, 96, 121)
    keep[..., 40:46, 60:65] = keep[..., 3:5, 1:4] = 0
    holes, denoise = make_operator("inpaint", keep=keep), make_operator("denoise")
    options = {"samples": 4, "steps": 1, "antithetic": False}
    purposes = {
        "measurements": lambda: degrade(batch(5), denoise, 0.1),
        "samples": lambda: restore(batch(5), denoise, Shrink(), "diffpir", 0.1, **options),
        "windows": lambda: restore(
            keep.expand(2, 3, -1, -1), holes, load_prior(weights), "diffpir", **options),
        "draws": lambda: sample(Shrink(), 5, (4, 4), steps=1),
        "textures": lambda: [draw_texture(estimate_prior("texture", batch(1)), (9, 9))],
    }
    streams = {}
    for name, draw in purposes.items():
        seeds.clear()
        draw()
        streams[name] = set(seeds)
    assert list(map(len, streams.values())) == [5, 20, 2 * 4 * 2, 5, 1]
    assert streams.pop("textures") < streams["draws"]
    assert all(a.isdisjoint(b) for a, b in combinations(streams.values(), 2))


def test_trailing_zeros_of_a_key_do_not_count():
    noise = Noise(1, [5, (5, 0), (5, 0, 0), (5, 0, 0, 1), (5, 0, 1)])
    first, *others = (generator.initial_seed() for generator in noise.generators)
    assert [other == first for other in others] == [True, True, False, False]


def test_selected_rows_share_their_streams():
    like = torch.zeros(4, 3)
    keys, signs = [(0, 0), (0, 1), (7, 0), (0, 0)], [False, False, False, True]
    noise, other = Noise(1, keys, signs), Noise(1, keys, signs)
    part = noise.select([3, 2])
    assert part.images == [0, 7]
    drawn, whole = part.normal(like[:2]), other.normal(like)
    assert torch.equal(drawn, whole[[3, 2]])
    # the streams have advanced for the others, too
    assert torch.equal(noise.normal(like)[[0, 2, 3]], other.normal(like)[[0, 2, 3]])
    assert torch.equal(Noise(1, keys, signs).select([0]).normal(like[:1]), -drawn[:1])
