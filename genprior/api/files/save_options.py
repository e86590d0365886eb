"""Extra outputs that can be saved besides a restored image. Does not import torch."""

import re
from collections.abc import Sequence

SAVES = ("mean", "std", "samples", "panel", "lower", "upper", "q05", "q95")
OF_CALIBRATION = ("lower", "upper")


def is_save(name: str) -> bool:
    """Returns whether a name is one of `SAVES`, or another quantile from q01 to q99."""
    return name in SAVES or bool(quantiles([name]))


def of_several(name: str) -> bool:
    """Returns whether an extra output needs more than one sample."""
    return name != "panel"


def quantiles(save: Sequence[str]) -> dict[str, float]:
    """Returns the quantiles among the extra outputs, with their levels: `q05` has 0.05."""
    found = {name: re.fullmatch(r"q(?!00)(\d\d)", name) for name in save}
    return {name: int(match[1]) / 100 for name, match in found.items() if match}
