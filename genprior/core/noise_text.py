"""Noise of tasks by default, and laws of noise as text, such as "poisson=30". No torch.

    poisson=PEAK             Poisson noise, PEAK counts at white
    signal=GAIN,OFFSET       variance GAIN x + OFFSET at a pixel of value x
    correlated=LEVEL,WIDTH   white noise filtered by a box of WIDTH x WIDTH pixels, then scaled
"""

import math

from genprior.core.errors import SettingError

# Noise level that a task has if none is given, in units of [0, 1]; "auto" is estimated.
DEFAULT_NOISE: dict[str, float | str] = {
    "inpaint": 0.0, "denoise": "auto", "dejpeg": 0.0, "deblur": 0.01, "superres": 0.01,
    "deepinv": 0.01, "hdr": 0.0, "phase": 0.01, "gamma": 0.01, "quantise": 0.0, "colorize": 0.0,
    "demosaic": 0.0, "compressed-sensing": 0.01,
}
SYNTAX = "poisson=PEAK, signal=GAIN,OFFSET or correlated=LEVEL,WIDTH"
# The numbers of each law, and the smallest value of each; all but the offset are greater.
NUMBERS = {"poisson": ("peak",), "signal": ("gain", "offset"), "correlated": ("level", "width")}


def parse_noise(text: str) -> tuple[str, tuple[float, ...]]:
    """Returns the kind of a law and its numbers.

    Raises:
        SettingError: The text is no law, or a number is out of its range.

    >>> parse_noise("signal=0.01,0.0004")
    ('signal', (0.01, 0.0004))
    """
    kind, _, rest = text.partition("=")
    names = NUMBERS.get(kind, ())
    try:
        values = tuple(map(float, rest.split(",")))
    except ValueError:
        values = ()
    if not names or len(values) != len(names):
        raise SettingError(f"{text!r} is no law of noise: write {SYNTAX}")
    for name, value in zip(names, values, strict=True):
        valid = value >= 0 if name == "offset" else value > 0
        if not (valid and math.isfinite(value)):
            least = ">= 0" if name == "offset" else "> 0"
            raise SettingError(f"{text!r}: {name} must be {least} and finite, got {value:g}")
        if name == "width" and value != int(value):
            raise SettingError(f"{text!r}: width must be a whole number of pixels")
    return kind, values


def level_of(noise: float | str) -> float:
    """Returns a noise level, or that of a law at mid-grey, in image units.

    >>> level_of("poisson=50"), level_of(0.1)
    (0.1, 0.1)
    """
    if not isinstance(noise, str):
        return noise
    kind, (first, *others) = parse_noise(noise)
    if kind == "poisson":
        return (0.5 / first) ** 0.5
    return first if kind == "correlated" else (0.5 * first + others[0]) ** 0.5
