"""Refused commands: one line of error, an exit code, and nothing written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import SIZE, genprior, refused, save_photo, snapshot, succeed

MASK = ["--mask", "box=3x3"]
USAGE, INPUT, WEIGHTS, MEMORY = 2, 3, 4, 5


@pytest.fixture
def here(tmp_path: Path, weights: Path) -> Path:
    """A folder with a photo, masks, kernels and files that are no images."""
    save_photo(tmp_path / "a.png")
    save_photo(tmp_path / "b.png", start=200)
    for name, grey in (("white", 255), ("black", 0), ("small", 255), ("large", 255)):
        size = {"small": (5, 5), "large": (60, 61)}.get(name, SIZE)
        Image.fromarray(np.full(size, grey, np.uint8)).save(tmp_path / f"{name}.png")
    Image.fromarray(np.full((*SIZE, 4), 99, np.uint8)).save(tmp_path / "clear.png")
    (tmp_path / "notes.png").write_text("not an image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    save_photo(tmp_path / "photos" / "c.png")
    shutil.copytree(weights, tmp_path / "corrupt")
    data = bytearray((weights / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (tmp_path / "corrupt" / "model.safetensors").write_bytes(data)
    return tmp_path


CASES = {
    # what is typed (@ stands for the folder) -> exit code, parts of the message
    "inpaint @/none.png": (INPUT, "none.png: no such file or folder: check the name"),
    "inpaint @/*.jpg": (INPUT, "*.jpg: no such file or folder: check the name"),
    "inpaint @/notes.png": (INPUT, "notes.png: not an image in PNG, JPEG"),
    "inpaint @/cut.png": (INPUT, "cut.png: damaged or cut short", "get another copy"),
    "inpaint @/empty": (INPUT, "no image in", "empty"),
    "inpaint @/a.png": (INPUT, "a.png: the image has no alpha channel", "give --mask FILE"),
    "inpaint @/a.png --mask @/none.png": (USAGE, "none.png' is not a file: give a mask file"),
    "inpaint @/a.png --mask @/small.png": (
        INPUT, "a.png: the mask", "small.png is 5x5 and the image 32x24", "make them equal"
    ),
    "inpaint @/a.png --mask @/black.png": (INPUT, "nothing is missing in the mask", "black.png"),
    "inpaint @/a.png --mask @/white.png": (INPUT, "every pixel is missing", "--invert-mask"),
    "inpaint @/a.png --mask @/white.png --invert-mask": (INPUT, "nothing is missing"),
    "inpaint @/a.png --mask @/notes.png": (INPUT, "notes.png: not an image"),
    "inpaint @/a.png --mask @/empty": (INPUT, "a.png: no image in", "empty"),
    "inpaint @/a.png --mask @/photos": (
        INPUT, "a.png: there are 0 masks for this image", "photos/a.png"
    ),
    "inpaint @/a.png --max-pixels 767": (INPUT, "a.png: is 32 x 24 pixels, more than 767"),
    "inpaint @/a.png - --mask box=3x3": (USAGE, "- is standard input: give no other files"),
    "inpaint @/a.png -o - --json": (USAGE, "standard output holds the image: with --json give"),
    "inpaint @/a.png @/b.png -o -": (
        USAGE, "standard output holds one image, and there are 2 inputs: give -o a folder"
    ),
    "inpaint @/a.png --ext gif": (USAGE, "'gif' is not one of 'keep', 'png'"),
    "inpaint @/*.gif": (INPUT, "*.gif: no such file or folder"),
    "inpaint @/a.png --mask random=1.5": (
        USAGE, "the share of missing pixels must be between 0 and 1"
    ),
    "inpaint @/a.png --mask box=3": (USAGE, "write HEIGHTxWIDTH"),
    "inpaint @/a.png --mask box=30x3": (INPUT, "a.png: the box must be inside the image of 24x32"),
    "deblur @/a.png": (USAGE, "a blur needs exactly one of --gaussian, --motion and --kernel"),
    "deblur @/a.png --gaussian 1 --motion 3,0": (USAGE, "one of --gaussian"),
    "deblur @/a.png --motion 3": (USAGE, "write LENGTH,ANGLE in pixels and degrees"),
    "deblur @/a.png --motion 0.5,0": (INPUT, "at least 1 pixel long"),
    "deblur @/a.png --kernel @/none.png": (INPUT, "none.png: cannot be read"),
    "deblur @/a.png --kernel @/black.png": (INPUT, "black.png: a blur kernel must not sum to 0"),
    "deblur @/a.png --kernel @/large.png --boundary reflect": (
        INPUT, "a.png: the blur kernel must not be larger than the image", "crop the kernel"
    ),
    "deblur @/a.png --kernel @/large.png": (INPUT, "larger than the image", "crop the kernel"),
    "deblur @/a.png --gaussian 1000": (USAGE, "a blur 8000 pixels wide is too wide"),
    "deblur @/a.png --motion 5000,30": (USAGE, "a blur 5000 pixels wide is too wide"),
    "deblur @/a.png --kernel @/large.png --degrade": (INPUT, "larger than the image"),
    "superres @/a.png --factor 1": (USAGE, "--factor", "1.0 is not in the range 1<x<=1000000"),
    "superres @/a.png --factor inf": (USAGE, "--factor", "inf is not in the range 1<x<=1000000"),
    "superres @/a.png --factor 2 --size 64x48": (USAGE, "--factor and --size both set the size"),
    "superres @/a.png --size 64": (USAGE, "write WIDTHxHEIGHT, such as 640x480"),
    "superres @/a.png --size 48x64": (
        INPUT, "a.png: --size 48x64 would stretch the image of 32x24", "write --size 48x36"
    ),
    "superres @/a.png --size 32x24": (INPUT, "32x24 is not larger than the image of 32x24"),
    "superres @/a.png --size 16x12": (INPUT, "superres enlarges, and 16x12 is not larger"),
    "superres @/a.png --factor 1.001": (INPUT, "superres enlarges, and 32x24 is not larger"),
    "superres @/a.png --factor 1.5 --degrade": (USAGE, "--degrade reduces an image by a whole"),
    "superres @/a.png --size 64x48 --degrade": (USAGE, "--degrade reduces an image by a whole"),
    "degrade superres @/a.png --factor 1.5 -o @/x.png": (USAGE, "--factor", "1.5"),
    "deblur @/a.png --gaussian 5": (INPUT, "larger than the image", "choose a smaller --gaussian"),
    "deblur @/a.png --motion 60,0": (INPUT, "larger than the image", "choose a shorter --motion"),
    "upscale @/a.png": (USAGE, "No such command 'upscale'. Did you mean 'superres'?"),
    "superres @/a.png --std 1": (USAGE, "--std is the width of --filter gaussian"),
    "denoise @/a.png --degrade": (USAGE, "--degrade adds noise: give its level with --noise"),
    "denoise @/a.png --prior vae": (USAGE, "estimated by a denoiser, and VAE is not one: give"),
    "inpaint @/a.png --mask box=3x3 --noise auto": (USAGE, "DDPM cannot inpaint", "the level"),
    "denoise @/a.png --noise -1": (USAGE, "--noise", "x>=0"),
    "denoise @/a.png --noise 25": (USAGE, "and 25 is above 1", "25/255 is 0.098"),
    "degrade denoise @/a.png --noise 25 -o @/y.png": (USAGE, "levels are in units of [0, 1]"),
    "inpaint @/a.png --mask box=3x3 --degrade --noise 2": (USAGE, "and 2 is above 1"),
    "deblur @/a.png --gaussian 1 --solver posterior-mean": (USAGE, "only denoises and fills"),
    "denoise @/a.png --noise nan": (USAGE, "--noise", "nan is not a finite number"),
    "denoise @/a.png --noise 0.1 --steps 3 --solver posterior-mean": (
        USAGE, "no setting 'steps', it has views: leave"
    ),
    "inpaint @/a.png --solver dsp": (USAGE, "'dsp' is not one of 'auto'", "'dps'"),
    "inpaint @/a.png --solvr hqs": (USAGE, "No such option", "--solver"),
    "inpaint": (USAGE, "Missing argument 'FILES...'", "see genprior inpaint --help"),
    "inpant @/a.png": (USAGE, "No such command 'inpant'"),
    "inpaint @/a.png --save stds": (USAGE, "'stds' cannot be saved: choose among mean, std"),
    "inpaint @/a.png --save std,panel,q05": (USAGE, "--save std,q05 needs --samples 2 or more"),
    "inpaint @/a.png --save q00": (USAGE, "'q00' cannot be saved"),
    "inpaint @/a.png --save q5": (USAGE, "q05, q95 (any from q01 to q99)"),
    "inpaint @/a.png --samples 2 --solver hqs": (
        USAGE, "solver hqs returns one image, not 2", "choose one of ", "diffpir, pigdm, dps"
    ),
    "inpaint @/a.png --device gpu": (USAGE, "'gpu' is not a device: choose auto, cpu, cuda"),
    "inpaint @/a.png --device cuda:99": (USAGE, "'cuda:99' is not available here", "auto or cpu"),
    "inpaint @/a.png --tile 63": (USAGE, "'63': write auto, off or a side of at least 64 pixels"),
    "inpaint @/a.png --dtype half": (USAGE, "'half' is not one of 'auto', 'float32'"),
    "inpaint @/a.png -o @/out.gif": (INPUT, "out.gif: cannot write .gif: give -o a file"),
    "inpaint @/a.png @/b.png -o @/out.png": (INPUT, "out.png is one file for 2 inputs"),
    "denoise @/clear.png -o @/out.jpg": (INPUT, "clear.png: JPEG cannot hold transparency"),
    "inpaint @/a.png -o @/a.png --overwrite": (INPUT, "a.png is an input: choose another -o"),
    "denoise @/a.png --prior texture --exemplar @/b.png -o @/b.png --overwrite": (
        INPUT, "b.png is an input: choose another -o"
    ),
    "inpaint @/a.png --mask @/b.png -o @/b.png --overwrite": (INPUT, "b.png is an input"),
    "deblur @/a.png --kernel @/b.png -o @/b.png --overwrite": (INPUT, "b.png is an input"),
    "degrade denoise @/a.png -o @/a.png --overwrite": (INPUT, "a.png is an input"),
    "degrade inpaint @/a.png --mask @/b.png -o @/b.png --overwrite": (INPUT, "b.png is an input"),
    "texture @/a.png -o @/a.png --overwrite": (INPUT, "a.png is an input"),
    "sample --prior texture --exemplar @/a.png -o @/a.png --overwrite": (INPUT, "a.png is an in"),
    "denoise @/a.png -o - --samples 2 --save std": (
        USAGE, "standard output holds one image: with --save give -o a file"
    ),
    "inpaint @/a.png -o @/notes.png/x.png": (INPUT, "notes.png is not a writable folder"),
    "inpaint @/a.png @/a.png": (INPUT, "would both be written to", "restore them separately"),
    "inpaint @/a.png --prior dpm": (WEIGHTS, "unknown prior 'dpm'", "folder of a checkpoint"),
    "inpaint @/a.png --prior @/empty": (WEIGHTS, "no checkpoint in", "empty"),
    "inpaint @/a.png --prior @/corrupt": (WEIGHTS, "corrupt: sha256 is", "restore the file"),
    "priors verify @/corrupt": (WEIGHTS, "corrupt: sha256 is"),
    "priors info dpm": (WEIGHTS, "unknown prior 'dpm'"),
    "sample --prior dpm -o @/x.png": (WEIGHTS, "unknown prior 'dpm'"),
    "texture @/a.png -o @/x.png --size 1000000x1000000": (MEMORY, "memory ran out"),
    "sample -o @/x.png --size 1000000x1000000": (USAGE, "is more than 178956970 pixels"),
    "sample -o @/x.png --steps 1 --size 1000000x1000000 --max-pixels 1000000000000": (
        MEMORY, "memory ran out"
    ),
    "sample -o @/x.gif": (INPUT, "cannot write .gif"),
    "sample -o @/x.png --size 3": (USAGE, "write HEIGHTxWIDTH"),
    "degrade inpaint @/a.png --mask random=0.5 -o @/x.jpg": (INPUT, "cannot hold transparency"),
    "degrade deblur @/a.png -o @/x.png": (USAGE, "one of --gaussian"),
    "degrade deblur @/a.png --kernel @/large.png -o @/x.png": (INPUT, "a.png: the blur kernel"),
    "degrade denoise @/none.png -o @/x.png": (INPUT, "none.png: cannot be read"),
    "train ddpm @/empty -o @/run --steps 1": (INPUT, "no image in"),
    "train ddpm @ -o @/run": (USAGE, "either --steps or --time"),
    "train dpm @ -o @/run --steps 1": (USAGE, "'dpm' is not "),
    "train ddpm @ -o @/run --steps 1 --set depth=3": (USAGE, "choose one of channels, widths"),
    "train vae @/photos -o @/run --steps 1 --set channels=2": (
        USAGE, "channels must be 3 (colour) or 1 (grey), got 2"
    ),
    "train gan @/photos -o @/run --steps 1 --set loss=foo": (USAGE, "--set: "),
    f"train ddpm @ -o @/run --steps 1 --set widths={'[' * 9999}": (
        USAGE, "--set widths: it is nested too deeply: write its value as JSON"
    ),
    "train ddpm @ -o @/run --steps 1 --set widths=[3": (USAGE, "--set widths: it is not JSON"),
    f"evaluate @/photos -o @/out --task denoise:noise=0.1 --solver dps:a={'[' * 9999}": (
        USAGE, "dps:a: it is nested too deeply: write its value as JSON"
    ),
    f"evaluate @/photos -o @/out --task deepinv:Blur,a={'[' * 9999}": (
        USAGE, "Blur: it is nested too deeply: write values as JSON"
    ),
    f"evaluate @/photos -o @/{'a' * 300} --task denoise:noise=0.1 --prior none --baseline tv": (
        INPUT, "cannot be written (file name too long): choose another -o"
    ),
    "denoise @/a.png --samples 1e21": (USAGE, "--samples", "'1e21' is not a valid integer range"),
    f"denoise @/a.png --samples {10**21}": (USAGE, "is not in the range 1<=x<=100000"),
    f"denoise @/a.png --steps {10**21}": (USAGE, "is not in the range 1<=x<=1000000"),
    f"superres @/a.png --factor {10**21}": (USAGE, "is not in the range 1<x<=1000000"),
    f"evaluate @/photos -o @/out --task denoise:noise=0.1 --resize {10**21}": (
        USAGE, "is not in the range 1<=x<=1000000"
    ),
    f"evaluate @/photos -o @/out --task denoise:noise=0.1 --seeds {'9' * 5000}": (
        USAGE, "write integers >= 0 with commas"
    ),
    f"sample -o @/x.png --count {10**21}": (USAGE, "is not in the range 1<=x<=100000"),
    f"evaluate @/photos -o @/out --task denoise:noise=0.1 --samples {10**21}": (
        USAGE, "is not in the range 1<=x<=100000"
    ),
    "train ddpm @/photos -o @/run --steps 1 --set widths=3": (USAGE, "--set: "),
    "train ddpm @ -o @/run --steps 1 --set depth": (USAGE, "write NAME=VALUE"),
    "train ddpm @/photos -o @/corrupt --steps 1 --crop 8 --resume": (
        WEIGHTS, "has no record of a training", "start from its weights, --init"
    ),
}


@pytest.mark.parametrize("typed", CASES)
def test_one_line_and_a_code_and_nothing_written(here: Path, weights: Path, typed: str) -> None:
    words = [word.replace("@", str(here)) for word in typed.split()]
    restoring = words[0] in ("inpaint", "deblur", "superres", "denoise") and len(words) > 1
    if restoring and "--prior" not in words:
        words += ["--prior", str(weights)]
    masked = words[0] == "inpaint" and len(words) > 4
    if masked and "--mask" not in words and typed != "inpaint @/a.png":
        words += MASK
    before = snapshot(here)
    code, message = refused(*words)
    expected, *parts = CASES[typed]
    for part in parts:
        assert part in message
    assert code == expected
    assert snapshot(here) == before


@pytest.mark.parametrize("name", ["a.genprior.png", "a.genprior.json", "a.genprior.std.png"])
def test_nothing_is_replaced_unasked(here: Path, weights: Path, name: str) -> None:
    (here / name).write_bytes(b"mine")
    before = snapshot(here)
    options = [*MASK, "--prior", weights, "--samples", 2, "--steps", 2, "--save", "std"]
    code, message = refused("inpaint", here / "a.png", *options)
    assert (code, message) == (3, f"genprior: {here / name} exists: add --overwrite, or choose "
                                  f"another -o\n")
    assert snapshot(here) == before
    succeed("inpaint", here / "a.png", *options, "--overwrite")
    assert (here / name).read_bytes() != b"mine"


def test_sidecars_do_not_meet(here: Path, weights: Path) -> None:
    save_photo(here / "a.jpg")
    files = (here / "a.png", here / "a.jpg")
    succeed("inpaint", *files, *MASK, "--prior", weights, "--steps", 1, "--ext", "png")
    for file in files:
        record = json.loads((here / f"{file.name}.genprior.json").read_text())
        assert list(record["files"]) == [f"{file.name}.genprior.png"]


def test_a_training_is_not_mixed_with_another(here: Path) -> None:
    (here / "run" / "step-00000002").mkdir(parents=True)
    (here / "run" / "step-00000002" / "manifest.json").write_text("{}")
    code, message = refused("train", "ddpm", here, "-o", here / "run", "--steps", 1)
    assert code == 2 and "holds a training run: add --resume, or choose another -o" in message


def test_a_grey_prior_refuses_colour(here: Path) -> None:
    from genprior.priors.checkpoint import save_checkpoint
    from genprior.priors.ddpm import DDPM

    prior = DDPM(channels=1, widths=(8, 16), blocks=(1, 1))
    save_checkpoint(here / "grey", "ddpm", prior.config, prior.state_dict())
    code, message = refused("inpaint", here / "a.png", *MASK, "--prior", here / "grey")
    assert code == 3 and "a.png: this prior takes images of 1 channel" in message
    assert not (here / "a.genprior.png").exists()


def test_a_manifest_that_is_none(here: Path) -> None:
    (here / "corrupt" / "manifest.json").write_text(json.dumps({"schema": 9}))
    code, message = refused("inpaint", here / "a.png", *MASK, "--prior", here / "corrupt")
    assert code == 4 and "is not a readable checkpoint manifest" in message


def test_results_alone_are_no_photos(here: Path, weights: Path) -> None:
    save_photo(here / "empty" / "x.genprior.png")
    code, message = refused("inpaint", here / "empty", *MASK, "--prior", weights)
    assert code == 3 and "holds only results of earlier runs" in message


def test_without_arguments_there_is_help(here: Path) -> None:
    for command in ((), ("priors",), ("degrade",)):
        assert "Usage: genprior" in genprior(*command).output


def test_interrupting_is_no_crash(
    here: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genprior.commands.progress import Progress

    def press_ctrl_c(*_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "update", press_ctrl_c)
    before = snapshot(here)
    code, message = refused("inpaint", here / "a.png", *MASK, "--prior", weights)
    assert (code, message) == (130, "genprior: interrupted\n")
    assert snapshot(here) == before
