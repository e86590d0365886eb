"""Every prior is trained on every kind of data."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import succeed

from genprior.api import load_prior

SMALL = {
    "ddpm": ["widths=[4,8]", "blocks=[1,1]"],
    "vae": ["latent=2", "widths=[4,8]"],
    "gan": ["latent=2", "widths=[4,8]"],
    "glow": ["levels=2", "depth=1", "width=4"],
    "pca": ["components=3", "images=8"],
    "texture": ["images=8"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, str]:
    """The same pictures in four kinds of places."""
    root = tmp_path_factory.mktemp("data")
    pictures = np.random.default_rng(0).integers(0, 256, (5, 20, 18), dtype=np.uint8)
    idx = struct.pack(">HBB3I", 0, 8, 3, *pictures.shape) + pictures.tobytes()
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (root / "folder").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(root / "folder" / f"{number}.png")
    np.save(root / "array.npy", pictures)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx)
        labels = struct.pack(">HBBI", 0, 8, 1, len(pictures)) + bytes(len(pictures))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return {
        "folder": str(root / "folder"), "npy": str(root / "array.npy"),
        "idx": str(raw / "train-images-idx3-ubyte"), "torchvision": f"torchvision:MNIST:{root}",
    }


@pytest.mark.parametrize("prior", list(SMALL))
def test_all_kinds_of_data_train_the_same_prior(prior: str, data: dict, tmp_path: Path) -> None:
    words = [word for text in ["channels=1", *SMALL[prior]] for word in ("--set", text)]
    length = [] if prior in ("pca", "texture") else ["--steps", 2, "--batch", 2, "--no-preview"]
    states = []
    for kind, name in data.items():
        succeed("train", prior, name, "-o", tmp_path / kind, "--crop", 16, "-q", *length, *words)
        states.append(load_prior(tmp_path / kind).state_dict())
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(value.equal(states[0][key]) for key, value in state.items())
