"""Description of the machine: versions of this package and of what computes."""

import platform

import torch

from genprior import __version__
from genprior.core.environment import environment, machine


def test_versions_are_those_that_are_imported() -> None:
    versions = environment()["versions"]
    assert versions["genprior"] == __version__
    assert versions["python"] == platform.python_version()
    assert torch.__version__.startswith(versions["torch"])


def test_the_line_names_every_version_and_the_threads() -> None:
    line = machine()
    assert "\n" not in line
    assert f"{torch.get_num_threads()} threads" in line
    for name, number in environment()["versions"].items():
        assert f"{name} {number}" in line
