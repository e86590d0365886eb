"""Progress bar of `restore` and `sample`, in a notebook and in a terminal."""

from collections.abc import Callable
from typing import Any

from genprior.core.errors import SettingError


class ProgressBar:
    """Bar of network evaluations; a function of (evaluations done, total).

    In a notebook with ipywidgets it is a widget, else text.
    """

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        if self._bar is None or done < self._bar.n:
            self._bar = _bar(total)
        self._bar.total = total
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()


def _bar(total: int) -> Any:
    from tqdm import auto, std

    try:
        return auto.tqdm(total=total, unit="NFE")
    except ImportError:  # a notebook without ipywidgets
        return std.tqdm(total=total, unit="NFE")


def as_callback(progress: Any) -> Callable[[int, int], object] | None:
    """Returns the function to call after each evaluation; True is a new bar, False is none.

    Raises:
        SettingError: It is neither a function nor a bool.
    """
    if isinstance(progress, bool):
        return ProgressBar() if progress else None
    if not (progress is None or callable(progress)):
        raise SettingError(f"progress must be a function of two numbers, got {progress!r}")
    return progress
