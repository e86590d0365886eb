import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from small import Shrink, batch

import genprior
from genprior.transforms import Restore


def test_it_restores_as_restore_does_and_keeps_the_type() -> None:
    operator = genprior.make_operator("denoise")
    transform = Restore("denoise", Shrink(), noise_std=0.1, solver="hqs", steps=2)
    x = batch()
    expected = genprior.restore(x, operator, Shrink(), "hqs", 0.1, steps=2).image
    assert torch.equal(transform(x), expected)
    assert torch.equal(transform(x[0]), expected[0])
    image = Image.fromarray(np.full((9, 8, 3), 100, np.uint8))
    assert isinstance(transform(image), Image.Image) and transform(image).size == (8, 9)


def test_the_operator_may_depend_on_the_image() -> None:
    def centre(image: torch.Tensor) -> genprior.operators.base.Operator:
        hole = torch.zeros(image.shape[-2:], dtype=torch.bool)
        hole[4:6, 4:6] = True
        return genprior.make_operator("inpaint", mask=hole)

    x = batch(1)[0]
    filled = Restore(centre, Shrink(), solver="hqs", steps=2)(x)
    changed = (filled != x).any(dim=0)
    assert changed[4:6, 4:6].all() and changed.sum() == 4


def test_it_is_pickled_for_workers_and_no_part_of_a_state_dict() -> None:
    transform = Restore("denoise", "ddpm:digits", noise_std=0.1, steps=2)
    assert not transform.state_dict()
    assert repr(transform) == "Restore(Denoising, prior=ddpm:digits, noise_std=0.1, steps=2)"
    x = torch.rand(1, 28, 28)
    assert torch.equal(pickle.loads(pickle.dumps(transform))(x), transform(x))


def test_errors() -> None:
    with pytest.raises(TypeError, match="Restore takes no 'samples': choose among antithetic, "):
        Restore("denoise", Shrink(), samples=3)
    with pytest.raises(ValueError, match="unknown operator 'none'"):
        Restore("none", Shrink())
