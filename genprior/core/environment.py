"""Library versions and machine description, for reports."""

import platform
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from genprior import __version__

LIBRARIES = ("torch", "deepinv", "scikit-image")


def environment() -> dict[str, Any]:
    """Returns the versions of libraries, the processor and the GPU."""
    versions = {"genprior": __version__, "python": platform.python_version()}
    return {
        "versions": {**versions, **{name: version(name) for name in LIBRARIES}},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@cache
def machine() -> str:
    """Returns machine and versions in one line."""
    here = environment()
    versions = ", ".join(f"{name} {number}" for name, number in here["versions"].items())
    return f"{here['machine']}, {here['gpu'] or 'no GPU'}; {versions}"
