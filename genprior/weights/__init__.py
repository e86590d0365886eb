"""Weights that ship with the package: one checkpoint folder each. No torch."""

from pathlib import Path

from genprior.errors import CheckpointError
from genprior.registry import FROM_EXEMPLAR

EMBEDDED = Path(__file__).parent


def embedded_priors() -> dict[str, Path]:
    """Checkpoint folders of the priors that ship, by name ("ddpm", "ddpm:digits")."""
    folders = sorted(path.parent for path in EMBEDDED.glob("*/manifest.json"))
    return {folder.name.replace("-", ":", 1): folder for folder in folders}


def find_prior(name: str | Path) -> Path:
    """The checkpoint folder behind a name or a path.

    Raises:
        CheckpointError: No prior of that name ships and no such folder exists.
    """
    known = embedded_priors()
    if str(name) in known:
        return known[str(name)]
    if Path(name).is_dir():
        return Path(name)
    if name in FROM_EXEMPLAR:
        raise CheckpointError(
            f"prior {name!r} has no weights, it is estimated from a picture: see --exemplar, in "
            f"Python genprior.estimate_prior"
        )
    if Path(name).is_file():
        raise CheckpointError(
            f"{name} is a file, and a prior is a folder with a manifest: make one of weights with "
            f"genprior import {name} --prior NAME -o FOLDER"
        )
    names = f"choose one of {', '.join(known)}, or " if known else ""
    raise CheckpointError(f"unknown prior {str(name)!r}: {names}give the folder of a checkpoint")
