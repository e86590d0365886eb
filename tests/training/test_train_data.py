"""Training of every prior, and evaluation, on every kind of data source."""

import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from shell import levels, refused, succeed

from genprior.api.restoration import load_prior
from genprior.evaluation.reference_images import collection_name, open_reference_images
from genprior.io.limits import MAX_PIXELS
from genprior.training.crops import Crops

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
    """The same images in four kinds of sources."""
    root = tmp_path_factory.mktemp("data")
    images = np.random.default_rng(0).integers(0, 256, (5, 20, 18), dtype=np.uint8)
    idx = struct.pack(">HBB3I", 0, 8, 3, *images.shape) + images.tobytes()
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (root / "folder").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(root / "folder" / f"{number}.png")
    np.save(root / "array.npy", images)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx)
        labels = struct.pack(">HBBI", 0, 8, 1, len(images)) + bytes(len(images))
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


@pytest.mark.parametrize("prior", ["vae", "pca", "texture"])
def test_a_prior_of_grey_data_is_grey(prior: str, data: dict, tmp_path: Path) -> None:
    words = [word for text in SMALL[prior] for word in ("--set", text)]
    length = ["--steps", 1, "--batch", 2, "--no-preview"] if prior == "vae" else []
    made = [tmp_path / kind for kind in data]
    for out, name in zip(made, data.values(), strict=True):
        succeed("train", prior, name, "-o", out, "--crop", 16, "-q", *length, *words)
        assert load_prior(out).channels == 1
    if prior == "vae":
        drawn = tmp_path / "drawn.png"
        succeed("sample", "--prior", made[0], "-o", drawn, "-q")
        assert levels(drawn).shape == (16, 16)
        again = ["train", prior, data["folder"], "--crop", 16, "-q", *length[2:], *words]
        succeed(*again, "-o", tmp_path / "rgb", "--steps", 1, "--set", "channels=3")
        succeed(*again, "-o", tmp_path / "rgb", "--steps", 2, "--resume")  # stays in colour
        assert load_prior(tmp_path / "rgb").channels == 3


def test_a_colour_image_among_grey_ones_is_seen(data: dict, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("grey", "mixed"):
        shutil.copytree(data["folder"], tmp_path / name)
        grey = rng.integers(0, 65536, (20, 20), dtype=np.uint16)
        Image.fromarray(grey).save(tmp_path / name / "deep.png")
        tifffile.imwrite(tmp_path / name / "deep.tif", grey)
    colours = rng.integers(0, 65536, (20, 20, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "mixed" / "z.tif", colours, photometric="rgb")
    assert Crops([tmp_path / "grey"], 16, channels=None).channels == 1
    assert Crops([tmp_path / "mixed"], 16, channels=None).channels == 3
    assert Crops([tmp_path / "grey", tmp_path / "mixed"], 16, channels=None).channels == 3


def test_a_crop_that_is_too_large_names_the_size_of_the_images(data: dict, tmp_path: Path) -> None:
    for name in data.values():
        code, message = refused("train", "vae", name, "-o", tmp_path / "run", "--steps", 1)
        assert "at least 64 pixels wide and high, the largest is 18x20" in message
        assert "choose a smaller crop (--crop 18)" in message and code == 3


def test_all_images_that_cannot_be_read_are_listed(data: dict, tmp_path: Path) -> None:
    shutil.copytree(data["folder"], tmp_path / "photos")
    whole = Path(data["folder"], "0.png").read_bytes()
    broken = {"empty.png": b"", "cut.png": whole[: len(whole) // 2], "text.jpg": b"none",
              "no-pixels.png": whole[:20], "z-empty.jpg": b""}
    for name, content in broken.items():
        (tmp_path / "photos" / name).write_bytes(content)
    words = ["-q", "--crop", 16, "--steps", 1, "--batch", 2, "--no-preview", "--set", "widths=[4]"]
    done = succeed("train", "vae", tmp_path / "photos", "-o", tmp_path / "run", *words)
    warnings = done.stderr.splitlines()
    assert len(warnings) == len(broken)
    for name in broken:
        assert any(line.startswith("warning: left out: ") and name in line for line in warnings)
    for path in (tmp_path / "photos").glob("?.png"):
        path.unlink()
    _, message = refused("train", "vae", tmp_path / "photos", "-o", tmp_path / "none", *words)
    assert "none of the 5 images in" in message and "can be read; the first: " in message


def test_a_renamed_data_folder_resumes(data: dict, tmp_path: Path) -> None:
    for name in ("photos", "judge"):
        shutil.copytree(data["folder"], tmp_path / name)
    for path in (tmp_path / "judge").glob("*.png"):
        Image.fromarray(255 - levels(path)).save(path)
    words = ["-q", "--crop", 16, "--batch", 2, "--no-preview", "--set", "widths=[4]"]
    words = ["-o", tmp_path / "run", *words]
    succeed("train", "vae", tmp_path / "photos", "--validate", tmp_path / "judge", "--steps", 1,
            *words)
    for name in ("photos", "judge"):
        (tmp_path / name).rename(tmp_path / f"{name}-moved")
    photos, judge = (tmp_path / f"{name}-moved" for name in ("photos", "judge"))
    succeed("train", "vae", photos, "--validate", judge, "--resume", "--steps", 2, *words)
    Image.fromarray(levels(photos / "3.png") // 2).save(photos / "3.png")
    photos.rename(tmp_path / "other")
    _, message = refused("train", "vae", tmp_path / "other", "--validate", judge, "--resume",
                         "--steps", 3, *words)
    assert "data was ['photos-moved'], now it is ['other']" in message


def test_the_digest_is_of_the_images(data: dict, tmp_path: Path) -> None:
    for name in ("array", "idx", "folder"):
        one = Path(data["npy" if name == "array" else name])
        other = tmp_path / f"other-{one.name}"
        shutil.copytree(one, other) if one.is_dir() else shutil.copy(one, other)
        assert Crops([one], 16).digest() == Crops([other], 16).digest()
    images = np.load(data["npy"])
    np.save(tmp_path / "changed.npy", 255 - images)
    digests = {Crops([tmp_path / "changed.npy"], 16).digest(), Crops([data["npy"]], 16).digest()}
    assert len(digests) == 2


def test_all_kinds_of_data_are_evaluated_alike(data: dict, tmp_path: Path) -> None:
    task = ["--task", "inpaint:random=0.5", "--prior", "none", "--baseline", "biharmonic"]
    found = []
    for kind, name in data.items():
        out = tmp_path / kind
        succeed("evaluate", name, "-o", out, "-q", "--crop", 16, "--every", 2, *task)
        records = map(json.loads, (out / "results.jsonl").read_text().splitlines())
        found.append([(r["index"], r["psnr"], r["ssim"]) for r in records])
    assert [index for index, *_ in found[0]] == [0, 2, 4]
    assert found[0] == found[1] == found[2] == found[3]


def test_images_of_an_array_keep_their_floats(tmp_path: Path) -> None:
    images = np.random.default_rng(1).random((2, 5, 4, 3), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    references = open_reference_images(tmp_path / "images.npy", MAX_PIXELS)
    assert [reference.name for reference in references] == ["images.npy[0]", "images.npy[1]"]
    pixels = references[1].read(MAX_PIXELS).pixels
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), images[1])


def test_a_folder_may_have_the_name_of_a_file(data: dict, tmp_path: Path) -> None:
    for name in ("a-idx", "b.npy"):
        (tmp_path / name).symlink_to(data["folder"])
        assert len(open_reference_images(tmp_path / name, MAX_PIXELS)) == 5


def test_the_name_of_a_data_set() -> None:
    assert collection_name("torchvision:MNIST:/home/me/data") == "MNIST"
    assert collection_name("/home/me/digits.npy") == "digits.npy"


def test_the_texture_of_one_image_is_not_resized(data: dict, tmp_path: Path) -> None:
    words = ["train", "texture", Path(data["folder"]) / "0.png", "-o", tmp_path / "t"]
    assert "drop --resize" in refused(*words, "--resize", 8)[1]


def test_one_image_is_a_collection(data: dict) -> None:
    (reference,) = open_reference_images(Path(data["folder"]) / "3.png", MAX_PIXELS)
    assert reference.name == "3.png" and reference.read(MAX_PIXELS).pixels.shape == (1, 1, 20, 18)


@pytest.mark.parametrize("name, message", [
    ("there-is-none", "is not a folder"), ("none.npy", "cannot be read as an array"),
    ("torchvision:NoSuchThing", "has no data set 'NoSuchThing'"),
    ("empty.npy", "there is no image in"), ("bytes.npy", "bytes.npy[0]: "),
])
def test_missing_collections(name: str, message: str, tmp_path: Path) -> None:
    options = ["-o", tmp_path / "out", "--task", "denoise:noise=0.1", "--prior", "none"]
    np.save(tmp_path / "empty.npy", np.zeros((0, 8, 8), np.uint8))
    np.save(tmp_path / "bytes.npy", np.full((2, 8, 8), 100.0))
    where = name if ":" in name else tmp_path / name
    assert message in refused("evaluate", where, *options, "--baseline", "tv")[1]
    assert not (tmp_path / "out").exists()


def test_a_resized_training_is_one_on_resized_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for name, size in {"wide": (24, 40), "tall": (33, 21), "small": (12, 12)}.items():
        picture = Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8))
        shorter = min(picture.size)
        side = tuple(round(n * 16 / shorter) for n in picture.size)
        for folder, image in {"full": picture, "done": picture.resize(side, 3)}.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            image.save(tmp_path / folder / f"{name}.png")
    options = ["--set", "widths=[4,8]", "--set", "blocks=[1,1]", "--steps", 2, "--batch", 3]
    options += ["--crop", 16, "--no-preview", "-q"]
    succeed("train", "ddpm", tmp_path / "full", "-o", tmp_path / "a", "--resize", 16, *options)
    succeed("train", "ddpm", tmp_path / "done", "-o", tmp_path / "b", *options)
    ours, expected = (load_prior(tmp_path / name).state_dict() for name in "ab")
    assert all(value.equal(expected[key]) for key, value in ours.items())
    manifest = next((tmp_path / "a").glob("step-*/manifest.json"))
    assert json.loads(manifest.read_text())["resize"] == 16
    for made, change, word in [
        ("a", [], "resize was 16, now it is None"),
        ("b", ["--resize", 16], "resize was None, now it is 16"),
    ]:
        data = tmp_path / ("full" if made == "a" else "done")
        _, message = refused(
            "train", "ddpm", data, "-o", tmp_path / made, *options, *change, "--resume"
        )
        assert word in message


def test_a_resumed_training_keeps_its_validation_data(tmp_path: Path) -> None:
    for seed, name in enumerate(("photos", "judge", "other")):
        (tmp_path / name).mkdir()
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name / "a.png")
    options = ["-o", tmp_path / "run", "--set", "widths=[4,8]", "--set", "blocks=[1,1]"]
    options += ["--batch", 2, "--crop", 16, "--no-preview", "-q"]
    command = ["train", "ddpm", tmp_path / "photos", *options]
    succeed(*command, "--steps", 1, "--validate", tmp_path / "judge")
    _, message = refused(
        *command, "--steps", 2, "--resume", "--validate", tmp_path / "other"
    )
    assert "validation was ['judge'], now it is ['other']" in message
    succeed(*command, "--steps", 2, "--resume", "--validate", tmp_path / "judge")


def test_evaluation_on_resized_images(data: dict, tmp_path: Path) -> None:
    options = ["--task", "denoise:noise=0.1", "--prior", "none", "--baseline", "measurement"]
    out = tmp_path / "out"
    succeed("evaluate", data["folder"], "-o", out, "-q", *options, "--resize", 36)
    with Image.open(next((out / "pictures").glob("00000-*.png"))) as picture:
        assert picture.size == (36, 40)
    assert "resize = " in refused("evaluate", data["folder"], "-o", out, *options)[1]
