"""Commands under a memory limit: smaller tiles, or exit code 5."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from repository import ROOT
from shell import photo

from genprior.priors.checkpoint import save_checkpoint
from genprior.priors.ddpm import DDPM

SIDE = 512
RUN = """
import resource, sys
from pathlib import Path

import torch

from genprior.cli import main

torch.set_num_threads(1)
main(sys.argv[2:], standalone_mode=False)  # loads all libraries
size = next(x for x in Path("/proc/self/status").read_text().splitlines() if "VmSize" in x)
limit = int(size.split()[1]) * 2**10 + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
words = [word.replace("small", "large") for word in sys.argv[2:]]
main(words)
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prior whose activations take 16 times the memory of an image, and photos."""
    here = tmp_path_factory.mktemp("little")
    prior = DDPM(widths=(48, 8), blocks=(0, 1))
    save_checkpoint(here / "weights", "ddpm", prior.config, prior.state_dict())
    for name, side in (("small", 64), ("large", SIDE)):
        pixels = np.resize(photo(size=(64, 64)), (side, side, 3))
        Image.fromarray(pixels).save(here / f"{name}.png")
    return here


def denoise(here: Path, megabytes: int) -> subprocess.CompletedProcess:
    words = ["denoise", str(here / "small.png"), "--prior", str(here / "weights"), "--noise",
             "0.1", "--solver", "hqs", "--steps", "1", "--overwrite", "--quiet"]
    root = str(ROOT)
    return subprocess.run([sys.executable, "-c", RUN, str(megabytes), *words],
                          env={"PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as those of Linux")
@pytest.mark.parametrize("megabytes", [140, 155])
def test_little_memory_makes_tiles(here: Path, megabytes: int) -> None:
    run = denoise(here, megabytes)
    assert run.returncode == 0, run.stderr
    record = json.loads((here / "large.genprior.json").read_text())
    assert record["warnings"][0] == "memory ran out: tiles of 256 pixels"
    assert record["tiles"] in (256, 128)
    with Image.open(here / "large.genprior.png") as image:
        assert image.size == (SIDE, SIDE)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as those of Linux")
@pytest.mark.parametrize("megabytes", [1, 4, 8, 20])
def test_too_little_memory_is_one_line(here: Path, megabytes: int) -> None:
    run = denoise(here, megabytes)
    assert run.returncode == 5
    assert run.stderr.startswith("genprior: ") and run.stderr.count("\n") == 1
