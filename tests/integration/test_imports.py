"""What is imported on the way of the shell's commands: start-up must be quick."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT
from shell import save_photo

# Each takes from a third of a second to five seconds to import.
SLOW = ("deepinv", "matplotlib", "pandas", "scipy.optimize", "scipy.stats", "skimage", "sympy",
        "torch._dynamo", "torch.distributed.elastic", "torchmetrics", "torchvision.models")
REPORT = "import sys; print(*(name for name in {slow} if name in sys.modules))"
RUN = """
import sys
from genprior.cli import main
main({words}, standalone_mode=False)
"""


def loaded(code: str) -> list[str]:
    """The slow packages that a program has loaded at its end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{REPORT.format(slow=SLOW)}"],
        env=environment, capture_output=True, text=True, check=True,
    )
    return run.stdout.split()


def test_the_python_interface_loads_nothing_slow() -> None:
    names = "restore degrade sample load_prior make_operator make_solver estimate_noise"
    lines = [f"genprior.{name}" for name in names.split()]
    assert loaded("\n".join(["import genprior", *lines])) == []


@pytest.mark.parametrize("command", ["denoise", "inpaint", "deblur", "superres"])
def test_a_restoration_from_the_shell_loads_nothing_slow(
    command: str, weights: Path, tmp_path: Path
) -> None:
    photo = str(save_photo(tmp_path / "a.png"))
    options = {"inpaint": ["--mask", "random=0.5", "--degrade"], "deblur": ["--gaussian", "1"],
               "superres": ["--factor", "2"]}
    words = [command, photo, "--prior", str(weights), "-q", *options.get(command, ())]
    assert loaded(RUN.format(words=words)) == []
