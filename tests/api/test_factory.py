"""Solvers, baselines and operators by name, and their settings."""

import math
from dataclasses import fields
from typing import get_args

import deepinv
import numpy as np
import pytest
import torch

from genprior.api.factory import as_operator, make_baseline, make_operator, make_solver
from genprior.core.errors import SettingError
from genprior.operators.external import External
from genprior.operators.inpainting import Inpainting
from genprior.operators.kernels import gaussian_kernel, motion_kernel
from genprior.registry import SOLVERS, lookup

WRONG = {
    ("dps", "steps", 2.5): "solver 'dps': steps must be a whole number, got 2.5",
    ("dps", "steps", "many"): "steps must be a whole number, got 'many'",
    ("dps", "steps", True): "steps must be a whole number, got True",
    ("dps", "steps", 0): "steps must be at least 1, got 0",
    ("dps", "strength", -1.0): "strength must be >= 0 and finite, got -1.0",
    ("dps", "strength", math.nan): "strength must be >= 0 and finite, got nan",
    ("mmps", "sigma_max", 0.001): "sigma_m",
    ("mmps", "spacing", "even"): "spacing must be 'log' or 'vp' or 'karras' or 'ddpm', got 'even'",
    ("mmps", "eta", 1.5): "eta must be between 0 and 1, got 1.5",
    ("ddrm", "eta_b", 2): "eta_b must be between 0 and 1, got 2",
    ("diffpir", "stochasticity", 1.5): "stochasticity must be between 0 and 1, got 1.5",
    ("diffpir", "coupling", 0): "coupling must be > 0 and finite, got 0",
    ("pigdm", "prior_var", -0.1): "prior_var must be > 0 and finite, got -0.1",
    ("moment-matched", "root_products", 0): "root_products must be at least 1, got 0",
    ("moment-matched", "iterations", -3): "iterations must be at least 1, got -3",
    ("moment-matched", "stochasticity", "all"): "stochasticity must be a number or left out, got",
    ("smc", "particles", 0): "particles must be at least 1, got 0",
    ("daps", "kernel", "square"): "kernel must be 'published' or 'isotropic' or 'exact'",
    ("jfps", "covariance", 3): "covariance must be a Gaussian or 'photos' or 'isotropic', got 3",
    ("posterior-mean", "views", 9): "views must be between 1 and 8, got 9",
}


@pytest.mark.parametrize("name, setting, value", WRONG)
def test_an_invalid_setting_is_named(name: str, setting: str, value: object) -> None:
    with pytest.raises(SettingError) as caught:
        make_solver(name, **{setting: value})
    assert WRONG[name, setting, value] in str(caught.value)
    assert str(caught.value).startswith(f"solver {name!r}: ")


# Factors and a radius that may be infinite.
UNBOUNDED = ("max_inflation", "max_rescaling", "radius")


@pytest.mark.parametrize("name", SOLVERS)
def test_no_number_may_be_negative_or_infinite(name: str) -> None:
    for field in fields(lookup(SOLVERS, name, "solver")):
        kinds = {field.type, *get_args(field.type)}
        numbers = [-1.0, math.nan, math.inf] if float in kinds else [-1] if int in kinds else []
        for value in numbers[:2] if field.name in UNBOUNDED else numbers:
            with pytest.raises(SettingError):
                make_solver(name, **{field.name: value})


@pytest.mark.parametrize("name", SOLVERS)
def test_the_defaults_are_valid(name: str) -> None:
    cls = lookup(SOLVERS, name, "solver")
    assert make_solver(name, **vars(cls())) == cls()


def test_numbers_may_be_whole_and_settings_none() -> None:
    assert make_solver("dps", strength=2).strength == 2
    assert make_solver("dps", steps=np.int64(9), strength=np.float32(0.5)).nfe == 9
    assert make_solver("moment-matched", stochasticity=None).stochasticity is None
    with pytest.raises(SettingError, match="baseline 'tv': weight must be a number, got 'a'"):
        make_baseline("tv", weight="a")


@pytest.mark.parametrize(
    "task, settings, message",
    [
        ("superres", {"factr": 4}, "operator 'superres' has no setting 'factr', it has factor"),
        ("denoise", {"sigma": 1}, "operator 'denoise' has no setting 'sigma', it has none"),
        ("deblur", {}, "operator 'deblur' needs kernel"),
        ("deblur", {"kernel": None}, "a blur kernel must be a tensor or an array, got None"),
        ("superres", {"factor": None}, "must be an integer of at least 2, got None"),
        ("superres", {"factor": math.inf}, "must be an integer of at least 2, got inf"),
        ("superres", {"factor": 2, "image_size": (7,)}, "must be .height, width., got .7,."),
        ("superres", {"factor": 2, "kernel": "gaussian", "std": 0.0}, "must be positive"),
    ],
)
def test_an_invalid_operator_is_refused(task: str, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_operator(task, **settings)


def test_a_mask_may_be_an_array() -> None:
    keep = np.eye(5)[None, None]
    for mask in (keep, keep[0, 0], keep[0, 0] > 0):
        assert torch.equal(make_operator("inpaint", keep=mask).mask, torch.eye(5)[None, None])


def test_equivalent_physics_become_operators_of_genprior() -> None:
    assert as_operator(deepinv.physics.Denoising()).is_identity
    mask = torch.eye(6, 7).repeat(2, 1, 1, 1)
    operator = as_operator(deepinv.physics.Inpainting(img_size=(1, 6, 7), mask=mask))
    assert isinstance(operator, Inpainting) and torch.equal(operator.mask, mask)
    assert not operator.measures_images
    halves = as_operator(deepinv.physics.Inpainting(img_size=(1, 6, 7), mask=mask / 2))
    whole = as_operator(deepinv.physics.Inpainting(img_size=(1, 6, 7), mask=torch.ones(6, 7)))
    assert type(halves) is type(whole) is External


def test_blurs_and_masks_as_in_the_shell() -> None:
    assert torch.equal(
        make_operator("deblur", gaussian=1.2, boundary="reflect").kernel,
        make_operator("deblur", kernel=gaussian_kernel(1.2)).kernel,
    )
    assert torch.equal(
        make_operator("deblur", motion=(7, 30)).kernel,
        make_operator("deblur", kernel=motion_kernel(7, 30)).kernel,
    )
    assert make_operator("deblur", gaussian=None, motion=[3, 0]).kernel.shape == (1, 1, 1, 3)
    kernel = [[1, 2, 0], [0, 3, 1]]
    for whole in (kernel, torch.tensor(kernel), np.array(kernel, np.uint16)):
        scaled = make_operator("deblur", kernel=whole).kernel
        torch.testing.assert_close(scaled[0, 0], torch.tensor(kernel) / 7)


@pytest.mark.parametrize(
    "task, settings, message",
    [
        ("inpaint", {}, "operator 'inpaint' needs keep or mask"),
        ("inpaint", {"mask": None}, "operator 'inpaint' needs keep or mask"),
        ("inpaint", {"mask": [[1, 0]], "keep": [[1, 0]]}, "give only one of keep, mask"),
        ("inpaint", {"hole": [[1, 0]]}, "no setting 'hole', it has keep, mask"),
        ("deblur", {}, "operator 'deblur' needs kernel or gaussian or motion"),
        ("deblur", {"gaussian": 1, "motion": (3, 0)}, "give only one of kernel, gaussian, motion"),
        ("deblur", {"motion": 15}, "motion must be .length in pixels, angle in degrees., got 15"),
        ("deblur", {"gaussian": "2"}, "gaussian must be a standard deviation in pixels, got '2'"),
        ("deblur", {"gaussian": 1e6}, "a blur 8000000 pixels wide is too wide"),
        ("superres", {"factor": 2, "output_size": 9}, "output_size must be .height, width., got"),
    ],
)
def test_what_an_operator_needs_is_said(task: str, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_operator(task, **settings)
