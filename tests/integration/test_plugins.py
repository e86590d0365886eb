"""Operators, priors and solvers of another package, found by its entry points."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT
from shell import SIZE, levels, save_photo

MODULE = '''
from dataclasses import dataclass

import torch

from genprior.inverse.base import Solver, setting
from genprior.operators.denoising import Denoising
from genprior.priors.base import Denoiser


@dataclass(frozen=True)
class OneStep(Solver):
    """One evaluation of the denoiser at a fixed level."""

    needs = Denoiser
    stochastic = False
    summary = "one evaluation"
    level: float = setting(0.1, gt=0)

    @property
    def nfe(self):
        return 1

    def solve(self, y, operator, prior, noise_std, generator):
        with torch.no_grad():
            return prior.denoise(operator.pinv(y), self.level)


class Half(torch.nn.Module, Denoiser):
    """A denoiser that returns half of the image."""

    def __init__(self, share=0.5):
        super().__init__()
        self.register_buffer("share", torch.tensor(share))

    def denoise(self, x, sigma):
        return self.share * x


class Twin(Denoising):
    """The identity under another name."""
'''
ENTRIES = """
[genprior.solvers]
one-step = toy:OneStep
dps = toy:OneStep
broken = toy:Absent
[genprior.priors]
half = toy:Half
[genprior.operators]
twin = toy:Twin
"""
CHECK = """
import torch, genprior, toy
from genprior.registry import PRIORS, SOLVERS, lookup
operator = genprior.make_operator("twin")
assert type(operator) is toy.Twin
assert lookup(PRIORS, "half", "prior") is toy.Half
assert lookup(SOLVERS, "dps", "solver").__module__ == "genprior.inverse.diffusion.dps"
y = torch.full((1, 3, 4, 4), 0.8)
solver = genprior.make_solver("one-step", level=0.2)
result = genprior.restore(y, operator, toy.Half(), noise_std=0.1, solver=solver)
torch.testing.assert_close(result.image, 0.5 * y)
for name, settings, message in (
    ("one-step", {"level": 0.0}, "level must be > 0 and finite, got 0.0"),
    ("broken", {}, "is a plug-in, and toy:Absent cannot be imported"),
):
    try:
        genprior.make_solver(name, **settings)
    except ValueError as error:
        assert message in str(error), error
    else:
        raise AssertionError(name)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a Python in which the toy package is installed."""
    site = tmp_path_factory.mktemp("site")
    (site / "toy.py").write_text(MODULE)
    about = site / "toy-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}


def test_classes_of_another_package_work_and_replace_none(environment: dict[str, str]) -> None:
    subprocess.run([sys.executable, "-c", CHECK], env=environment, check=True)


def test_a_solver_of_another_package_works_from_the_shell(
    environment: dict[str, str], weights: Path, tmp_path: Path
) -> None:
    photo = save_photo(tmp_path / "a.png")
    words = ["denoise", str(photo), "--prior", str(weights), "--noise", "0.1", "-q"]
    run = [sys.executable, "-m", "genprior"]
    subprocess.run([*run, *words, "--solver", "one-step"], env=environment, check=True)
    assert levels(tmp_path / "a.genprior.png").shape[:2] == SIZE[:2]
    listed = subprocess.run([*run, "solvers"], env=environment, capture_output=True, text=True)
    assert listed.returncode == 0 and "one-step" in listed.stdout
    assert "solver 'broken' is a plug-in, and toy:Absent cannot be imported" in listed.stderr
