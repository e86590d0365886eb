"""Weights that ship with the package: one checkpoint folder each. No torch."""

from pathlib import Path

EMBEDDED = Path(__file__).parent


def embedded_priors() -> dict[str, Path]:
    """Checkpoint folders of the priors that ship, by name ("ddpm", "ddpm:digits")."""
    folders = sorted(path.parent for path in EMBEDDED.glob("*/manifest.json"))
    return {folder.name.replace("-", ":", 1): folder for folder in folders}
