"""Every block of code in README and docs: Python runs, and lines for a shell are parsed."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from matplotlib import pyplot
from PIL import Image
from repository import ROOT

import genprior
from genprior import registry
from genprior.cli import main

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"", "python", "toml", "text"}
# What ends a command of a shell line.
ENDS = {"&&", "||", ";", "|", "<", ">"}
# Pages whose Python shows names of a package of the reader.
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


def prepared(words: list[str]) -> list[str]:
    """Creates the files and folders that a line names, in the current folder."""
    command: list[str] = []
    for word in words:
        if word in ENDS:
            break
        command.append(word)
    for word in command[1:]:
        path = Path(word)
        if path.is_absolute() or word.startswith("-") or path.exists():
            continue
        if path.suffix in (".png", ".jpg"):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
        elif path.suffix in (".toml", ".pth", ".npy"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        elif word.endswith("/") or re.fullmatch(r"[A-Z_]{3,}", word):
            path.mkdir(parents=True)
    return command


LINES = [(page.name, line) for page in PAGES for line in shell_lines(page)]


@pytest.mark.parametrize("page, line", LINES, ids=[f"{page}: {line}" for page, line in LINES])
def test_shell_lines_are_parsed(
    page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands, options and their values exist; nothing is computed."""
    monkeypatch.chdir(tmp_path)
    if "..." in line:
        line = line.split("...")[0]
        pytest.skip("the line is shortened") if not line.strip().startswith("genprior") else None
    words = prepared(shlex.split(line, comments=True))[1:]
    context: click.Context = main.make_context("genprior", words)
    rest = [*context._protected_args, *context.args]
    command: click.Command = main
    while isinstance(command, click.Group):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)
        rest = [*context._protected_args, *context.args]


def test_there_are_blocks_and_their_languages_are_known() -> None:
    assert len(LINES) > 25 and len(PYTHON) > 5
    for page in PAGES:
        kinds = {kind for kind, _ in BLOCK.findall(page.read_text(encoding="utf-8"))}
        assert kinds <= LANGUAGES, page.name
        for code in blocks(page, "python"):
            ast.parse(code)


def test_every_page_shows_an_image_that_exists() -> None:
    """Images of the gallery are made by its build: there the page that draws them must exist."""
    folders = {"gallery": "gallery", "gallery_lecture": "lecture"}
    for page in [*PAGES, *sorted((ROOT / "docs").glob("*.rst"))]:
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
