"""Functions to run commands in tests, and photographs to run them on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from PIL import Image
from skimage import data

from genprior.cli import main

SIZE = (24, 32)


def genprior(*arguments: object) -> Result:
    """Runs a command; raises any exception other than `SystemExit`."""
    words = list(map(str, arguments))
    return CliRunner().invoke(main, words, prog_name="genprior", catch_exceptions=False)


def succeed(*arguments: object) -> Result:
    result = genprior(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: object) -> tuple[int, str]:
    """Returns exit code and message of a command that must fail with one line."""
    result = genprior(*arguments)
    assert result.stdout == ""
    assert result.stderr.startswith("genprior: ") and result.stderr.count("\n") == 1
    return result.exit_code, result.stderr


def photo(channels: int = 3, size: tuple[int, int] = SIZE, start: int = 100) -> np.ndarray:
    """Returns a crop of a real photograph, uint8 (H, W, C)."""
    crop = data.astronaut()[start : start + size[0], 200 : 200 + size[1]]
    return crop if channels == 3 else crop[:, :, :1]


def save_photo(path: Path, **about: Any) -> Path:
    array = photo(**about)
    Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(path)
    return path


def levels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def sidecar(path: Path) -> dict[str, Any]:
    return json.loads(path.with_suffix(".json").read_text())


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
