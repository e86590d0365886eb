"""Every block of code in README and docs runs, with small images, networks and few steps.

Lines that need files of others, a network or a browser are parsed only: `PARSED`.
"""

import ast
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib import pyplot
from PIL import Image
from repository import ROOT
from shell import photo, save_photo

import genprior
from genprior import registry
from genprior.cli import main

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"", "python", "toml", "text"}
# What ends a command of a shell line.
ENDS = {"&&", "||", ";", "|"}
# Pages with blocks without a language that are no lines for a shell: a table of contents, a plan.
OF_OTHER_KINDS = {"index.md", "architecture.md"}
PYTHON = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


def blocks(page: Path, language: str) -> list[str]:
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [text for kind, text in found if kind == language]


def shell_lines(page: Path) -> list[str]:
    """The commands of genprior in the blocks without a language."""
    lines = "".join(blocks(page, "")).replace("\\\n", " ").splitlines()
    return [line[line.index("genprior "):] for line in lines
            if re.match(r"(.*&& |.*-m )?genprior ", line)]


def given() -> dict[str, Any]:
    """The names that the pages use for what the reader has."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 24, 24, generator=draw)
    mask = torch.zeros(24, 24, dtype=torch.bool)
    mask[8:14, 8:14] = True
    return {
        "x": x, "y": x.clone(), "image": x, "mask": mask, "known": ~mask,
        "kernel": torch.ones(3, 3), "operator": genprior.make_operator("inpaint", mask=mask),
    }


def given_for_mri() -> dict[str, Any]:
    """The names in the block about complex images."""
    import deepinv

    mask = torch.zeros(256, 256)
    mask[:, ::2] = 1
    noise = deepinv.physics.GaussianNoise(0.01)
    return {"deepinv": deepinv, "genprior": genprior, "torch": torch, "mask": mask,
            "noise": noise, "x": torch.rand(1, 2, 256, 256) - 0.5}


@pytest.mark.filterwarnings("ignore::genprior.core.errors.PrecisionWarning")
@pytest.mark.filterwarnings("ignore:image 0. no interval:genprior.core.errors.RestorationWarning")
@pytest.mark.parametrize("page", PYTHON, ids=lambda page: page.name)
def test_python_runs(
    page: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the blocks of a page one after the other, with a small prior in place of ddpm."""
    shipped = registry.embedded_priors() | {"ddpm": weights}
    monkeypatch.setattr(registry, "embedded_priors", lambda: shipped)
    monkeypatch.chdir(tmp_path)
    names = given()
    Image.fromarray((255 * names["x"][0].permute(1, 2, 0)).byte().numpy()).save("photo.jpg")
    Path("calibration.json").write_text('{"calibration": 1, "coverage": 0.9, "entries": []}')
    with torch.compiler.set_stance("force_eager"):
        for code in blocks(page, "python"):
            if not torch.cuda.is_available():
                code = code.replace('"cuda"', '"cpu"')
            if "MRI(" in code:
                names |= given_for_mri()
            exec(compile(code, str(page), "exec"), names)
    pyplot.close("all")


# Lines that are parsed only: they need the internet, files of other packages, whose reading
# tests/priors/external tests, or a browser, which tests/web has.
PARSED = re.compile(
    r"hf:|\.pth|edm\.pt|FOLDER_OF_DIFFUSERS|--prior FOLDER|WHERE|--push|--onnx|digits-ddpm| serve"
    r"|\.\.\.")
# What makes a command short. A later option replaces an earlier one.
TRAIN = "--steps 2 --crop 16 --batch 2 --warmup 1 --dtype float32".split()
SMALL = {"ddpm": ["--set", "widths=[8,16]", "--set", "blocks=[1,1]"],
         "pix2pix": ["--set", "widths=[8,16]", "--set", "critic_widths=[8]"]}


def words_of(line: str) -> tuple[list[str], str | None]:
    """Returns the words of a command without redirections, and the file it reads as input."""
    words, given = [], None
    rest = iter(shlex.split(line, comments=True)[1:])
    for word in rest:
        if word == "<":
            given = next(rest)
        elif word == ">":
            next(rest)
        elif word in ENDS:
            break
        else:
            words.append(word)
    return words, given


def shortened(words: list[str]) -> list[str]:
    """Returns a command with few steps and a small network."""
    if words[0] == "train":
        if "--time" in words:
            at = words.index("--time")
            words = words[:at] + words[at + 2 :]
        if "--resize" in words:
            words[words.index("--resize") + 1] = "32"
        small = [] if "--init" in words else SMALL[words[1]]
        return [*words, *TRAIN, *small]
    if words[0] == "calibrate":
        words[words.index("--crop") + 1] = "16"
    if "--adapt" in words:
        words[words.index("--adapt") + 1] = "1"
    options = options_of(words)
    if "--overwrite" in options:
        words = [*words, "--overwrite"]
    return [*words, "--steps", "2"] if "--steps" in options and "--quality" not in words else words


def options_of(words: list[str]) -> set[str]:
    """Returns the options of a command, or of the command of a group."""
    command: click.Command = main.commands[words[0]]
    if isinstance(command, click.Group):
        command = command.commands[words[1]]
    return {name for option in command.params for name in option.opts}


def pictures(folder: Path, weights: Path) -> None:
    """Writes the files that the lines name: photos, masks, a mosaic, a run, a calibration."""
    hole = np.zeros((32, 32), np.uint8)
    hole[10:20, 12:18] = 255
    image = photo(size=(32, 32))
    for name in ("photo.png", "noisy.png", "overexposed.jpg", "counts.png", "scan.png",
                 "photos/x.jpg", "photos/a/x.jpg"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    larger = Image.fromarray(photo(size=(64, 64)))
    larger.save(folder / "photo.jpg", quality=20)
    with Image.open(folder / "photo.jpg") as once:
        once.save(folder / "downloaded.png")
    for name in ("hole.png", "person.png", "masks/x.png", "masks/a/x.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(hole).save(folder / name)
    for name in ("raw.png", "grey.jpg"):
        Image.fromarray(image[..., 1]).save(folder / name)
    Image.fromarray(image[:12, :12]).save(folder / "small.png")
    (folder / "examples").mkdir()
    Image.fromarray(np.dstack([image, 255 - hole])).save(folder / "examples" / "photo.png")
    for name in ("PHOTOS", "TEST", "FOLDER"):
        (folder / name).mkdir()
        for k in range(9 if name == "PHOTOS" else 2):  # calibrate needs 9
            Image.fromarray(photo(size=(32, 32), start=40 * k)).save(folder / name / f"{k}.png")
    shutil.copytree(weights, folder / "run")


LINES = [(page, line) for page in PAGES for line in shell_lines(page)]
RUN = sorted({page for page, line in LINES if not PARSED.search(line)})


@pytest.mark.filterwarnings("ignore::genprior.core.errors.PrecisionWarning")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_shell_lines_run(
    page: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the commands of a page one after the other, with a small prior in place of ddpm."""
    ships = registry.embedded_priors()
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path, weights)
    for line in shell_lines(page):
        if PARSED.search(line):
            continue
        words, source = words_of(line)
        if words[0] == "train":
            shutil.rmtree("run")
        # doctor checks the priors that ship, and only a prior that inpaints can be adapted
        shipped = words[0] == "doctor" or "--adapt" in words
        given = ships if shipped else ships | {"ddpm": weights}
        monkeypatch.setattr(registry, "embedded_priors", lambda given=given: given)
        data = None if source is None else Path(source).read_bytes()
        result = CliRunner().invoke(
            main, shortened(words), input=data, prog_name="genprior", catch_exceptions=False)
        assert result.exit_code == 0, f"{line}\n{result.stderr}"
        if "> " in line:
            Path(line.split("> ")[1].split()[0]).write_bytes(result.stdout_bytes)


def prepared(words: list[str]) -> list[str]:
    """Creates the files and folders that a line names, in the current folder."""
    for word in words[1:]:
        path = Path(word)
        if path.is_absolute() or word.startswith("-") or path.exists():
            continue
        if path.suffix in (".png", ".jpg"):
            save_photo(path)
        elif path.suffix in (".pt", ".pth"):
            path.touch()
        elif re.fullmatch(r"[A-Z_]{3,}", word):
            path.mkdir(parents=True)
    return words


ONLY_PARSED = [(page.name, line) for page, line in LINES if PARSED.search(line)]


@pytest.mark.parametrize("page, line", ONLY_PARSED,
                         ids=[f"{page}: {line}" for page, line in ONLY_PARSED])
def test_other_shell_lines_are_parsed(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, options and their values exist; nothing is computed."""
    monkeypatch.chdir(tmp_path)
    if "..." in line:
        line = line.split("...")[0]
        pytest.skip("the line is shortened") if not line.strip().startswith("genprior") else None
    words = prepared(words_of(line)[0])
    context: click.Context = main.make_context("genprior", words)
    rest = [*context._protected_args, *context.args]
    command: click.Command = main
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args]


def test_every_other_line_for_a_shell_is_known() -> None:
    """They install extras that exist, or run a script of the examples."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = set(extras["optional-dependencies"])
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        text = page.read_text(encoding="utf-8")
        for wanted in re.findall(r'"(?:genprior|\.)\[([\w,-]+)\]"', text):
            assert set(wanted.split(",")) <= names, f"{page.name}: {wanted}"
        for script in re.findall(r"python (examples/\S+\.py)", text):
            assert (ROOT / script).exists(), f"{page.name}: {script}"
        for line in "".join(blocks(page, "")).replace("\\\n", " ").splitlines():
            known = re.match(r"(.*&& |.*-m )?genprior |pip install -e |python examples/", line)
            if code := re.fullmatch(r'python -c "(.*)"', line):  # with files of other packages
                known = ast.parse(code[1])
            assert known or page.name in OF_OTHER_KINDS, f"{page.name}: {line}"


def test_there_are_blocks_and_their_languages_are_known() -> None:
    assert len(LINES) - len(ONLY_PARSED) > 25 and len(PYTHON) > 5
    for page in PAGES:
        kinds = {kind for kind, _ in BLOCK.findall(page.read_text(encoding="utf-8"))}
        assert kinds <= LANGUAGES, page.name
        for code in blocks(page, "python"):
            ast.parse(code)


def test_every_page_shows_an_image_that_exists() -> None:
    """Images of the gallery are made by its build: there the page that draws them must exist."""
    folders = {"gallery": "gallery", "gallery_lecture": "lecture"}
    built = ROOT / "docs" / "sg_execution_times.rst"  # left by a build of the documentation
    for page in [*PAGES, *sorted(set((ROOT / "docs").glob("*.rst")) - {built})]:
        text = page.read_text(encoding="utf-8")
        images = re.findall(r"!\[[^\]]*\]\(([^)]+)\)|^\.\. image:: (\S+)", text, re.MULTILINE)
        assert images, f"{page.name} has no image"
        for image in map("".join, images):
            drawn = re.fullmatch(r"(\w+)/images/sphx_glr_(\w+)_\d{3}\.png", image)
            file = page.parent / image if drawn is None else (
                ROOT / "examples" / folders[drawn[1]] / f"{drawn[2]}.py")
            assert file.exists(), f"{page.name}: {image}"


def test_options_named_in_the_docs_exist() -> None:
    known = {
        name for command in [*main.commands.values(), *main.commands["priors"].commands.values()]
        for option in command.params for name in (*option.opts, *option.secondary_opts)
    } | {"--help", "--version"}
    of_others = {"--nproc-per-node", "--index-url"}
    for page in PAGES:
        text = re.sub(BLOCK, "", page.read_text(encoding="utf-8"))
        spans = re.findall(r"`([^`]+)`", text)
        code = " ".join(span for span in spans if not span.startswith(("python ", "pip ")))
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", code))
        assert named <= known | of_others, page.name
