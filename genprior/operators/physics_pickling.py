"""Pickling of a physics of deepinv: Python refuses its unnamed functions and random generators.

A noise model of deepinv holds a lambda, and so does every physics. A function of deepinv that
cannot be found by its name is stored as its code, and a random generator as its state.
"""

import io
import marshal
import pickle
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import Any

import torch


def pickled(value: Any, whole: type) -> bytes:
    """Pickles an object that holds a physics.

    Arguments:
        value: The object.
        whole: Its class, and that of objects inside it, which are pickled by their attributes:
            their own `__reduce__` may call this function.

    Raises:
        pickle.PicklingError, TypeError, AttributeError: Python cannot pickle a part of it.
    """
    file = io.BytesIO()
    _Pickler(file, whole).dump(value)
    return file.getvalue()


def unpickled(data: bytes) -> Any:
    """Reverses `pickled`; like `pickle.loads`, it may run any code of the data."""
    return pickle.loads(data)


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, whole: type) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.whole = whole

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, self.whole):
            return _empty, (type(value),), vars(value)
        if isinstance(value, torch.Generator):
            return _generator, (str(value.device), value.get_state())
        if isinstance(value, FunctionType) and _is_anonymous(value):
            code = marshal.dumps(value.__code__)
            return _function, (value.__module__, code, value.__name__, value.__defaults__)
        return NotImplemented


def _is_anonymous(function: FunctionType) -> bool:
    """Whether a function of deepinv has no name to be found by, and needs no variables."""
    is_theirs = function.__module__.partition(".")[0] == "deepinv"
    return is_theirs and "<" in function.__qualname__ and function.__closure__ is None


def _empty(cls: type) -> Any:
    return cls.__new__(cls)


def _generator(device: str, state: torch.Tensor) -> torch.Generator:
    generator = torch.Generator(device)
    generator.set_state(state)
    return generator


def _function(module: str, code: bytes, name: str, defaults: tuple | None) -> Callable:
    return FunctionType(marshal.loads(code), vars(import_module(module)), name, defaults)
