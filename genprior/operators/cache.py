"""Cache of what an operator derives from its settings, such as singular values, shared by copies.

`restore` copies an operator to the device where it computes. Its copies share the cache, so that
the work is done once and not for every call.
"""

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch

T = TypeVar("T")
MAX_CACHED = 8


class SharedCache(Generic[T]):
    """A small cache that copies of its owner share; a pickled owner has an empty one.

    Keys must name the dtype and the device of values that hold tensors.
    """

    def __init__(self) -> None:
        self._values: dict[Hashable, T] = {}

    def get(self, key: Hashable, build: Callable[[], T]) -> T:
        """Returns the value of a key, which `build` makes if there is none."""
        if key not in self._values:
            if len(self._values) >= MAX_CACHED:
                self._values.clear()
            with torch.inference_mode(False):  # later calls may need gradients
                self._values[key] = build()
        return self._values[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> "SharedCache[T]":
        return self

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), ()
