"""Weights that ship with the package, one checkpoint folder each; imports no torch."""

from pathlib import Path

EMBEDDED = Path(__file__).parent


def embedded_priors() -> dict[str, Path]:
    """Returns the checkpoint folders of the shipped priors by name ("ddpm", "ddpm:digits")."""
    folders = sorted(path.parent for path in EMBEDDED.glob("*/manifest.json"))
    return {folder.name.replace("-", ":", 1): folder for folder in folders}
