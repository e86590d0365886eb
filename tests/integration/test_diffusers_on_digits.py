"""A DDPM of diffusers, trained by the example, restores digits from file to file."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from repository import ROOT
from shell import succeed
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import inpaint_biharmonic

from genprior import sample
from genprior.io.datasets import open_source

DIFFUSERS_MISSING = 'diffusers is missing: pip install "genprior[diffusers]"'
# Folder with t10k-images-idx3-ubyte.gz of MNIST; without it digits are drawn from a shipped prior.
DIGITS = "GENPRIOR_DIGITS"
TRAINED, RESTORED, MISSING = 9000, 8, 0.7


def digits(folder: Path) -> tuple[Path, np.ndarray]:
    """Returns a source of training images, and digits (N, 28, 28) that are not among them."""
    if DIGITS in os.environ:
        file = Path(os.environ[DIGITS]) / "t10k-images-idx3-ubyte.gz"
        held_out = open_source(file, channels=1)
        return file, np.stack([np.asarray(held_out[TRAINED + k]) for k in range(RESTORED)])
    drawn = sample("gan:digits", 3000 + RESTORED, seed=1)[:, 0]
    images = (255 * drawn.clamp(0, 1)).round().to(torch.uint8).numpy()
    np.save(folder / "digits.npy", images[RESTORED:])
    return folder / "digits.npy", images[:RESTORED]


@pytest.mark.slow
def test_it_restores_better_than_a_biharmonic_fill(tmp_path: Path) -> None:
    pytest.importorskip("diffusers", reason=DIFFUSERS_MISSING)
    source, images = digits(tmp_path)
    prior, photos = tmp_path / "ddpm", tmp_path / "photos"
    subprocess.run(
        [sys.executable, ROOT / "examples" / "train_diffusers.py", source, "-o", prior],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=True,
    )
    photos.mkdir()
    for k, image in enumerate(images):
        Image.fromarray(image).save(photos / f"{k}.png")
    hole = np.random.default_rng(0).random((28, 28)) < MISSING
    Image.fromarray(255 * hole.astype(np.uint8)).save(tmp_path / "hole.png")
    succeed("inpaint", photos, "--mask", tmp_path / "hole.png", "--prior", prior, "-o",
            tmp_path / "filled", "-q")
    ours, biharmonic = [], []
    for k, image in enumerate(images):
        with Image.open(tmp_path / "filled" / f"{k}.genprior.png") as opened:
            filled = np.asarray(opened)
        assert np.array_equal(filled[~hole], image[~hole])
        ours.append(peak_signal_noise_ratio(image / 255, filled / 255, data_range=1))
        smooth = inpaint_biharmonic(np.where(hole, 0, image / 255), hole).clip(0, 1)
        biharmonic.append(peak_signal_noise_ratio(image / 255, smooth, data_range=1))
    assert np.mean(ours) > np.mean(biharmonic)
