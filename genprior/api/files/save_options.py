"""What can be saved besides a restored picture. No torch."""

import re
from collections.abc import Sequence

SAVES = ("mean", "std", "samples", "panel", "q05", "q95")


def is_save(name: str) -> bool:
    """Whether there is such a thing: one of `SAVES`, or another quantile from q01 to q99."""
    return name in SAVES or bool(quantiles([name]))


def of_several(name: str) -> bool:
    """Whether one sample does not have it."""
    return name != "panel"


def quantiles(save: Sequence[str]) -> dict[str, float]:
    """The quantiles among what is saved and their levels: `q05` is 0.05."""
    found = {name: re.fullmatch(r"q(?!00)(\d\d)", name) for name in save}
    return {name: int(match[1]) / 100 for name, match in found.items() if match}
