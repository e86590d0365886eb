"""Checks of the constructor arguments of priors, and the shapes that they give.

They may come from an untrusted manifest. So every size has a largest value, and the network
is built on the meta device, without memory, before anything is allocated for it.
"""

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from threading import get_ident
from typing import Any, get_type_hints

import msgspec
import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

LEVELS, SIDE, WIDTH, DEPTH = 16, 2**16, 2**16, 1000
# Smallest and largest value, and how many of them a sequence may hold (None: a single number).
SIZES: dict[str, tuple[int, int, range | None]] = {
    "channels": (1, 4096, None),
    "latent": (1, WIDTH, None),
    "width": (1, WIDTH, None),
    "widths": (1, WIDTH, range(1, LEVELS + 1)),
    "levels": (1, LEVELS, None),
    "depth": (1, DEPTH, None),
    "blocks": (0, DEPTH, None),
    "blocks per level": (0, DEPTH, range(1, LEVELS + 1)),
    "groups": (0, DEPTH, range(1, LEVELS + 1)),
    "critic_steps": (1, DEPTH, None),
    "size": (1, SIDE, range(2, 3)),
    "shape": (1, SIDE, range(3, 4)),
    "components": (1, 2**24, None),
    "margin": (0, SIDE, None),
}


def check_sizes(**sizes: Any) -> None:
    """Checks sizes of a network; those that are None are not checked.

    Arguments:
        sizes: Values by the names in `SIZES`.

    Raises:
        ValueError: A value is not a whole number in its range, or there are too many or too few.
    """
    for name, given in sizes.items():
        if given is None:
            continue
        many = isinstance(given, Sequence) and not isinstance(given, str)
        name = "blocks per level" if name == "blocks" and many else name
        least, most, counts = SIZES[name]
        values = given if many else [given]
        whole = all(isinstance(v, Integral) and not isinstance(v, bool) for v in values)
        if many != (counts is not None) or not whole or not all(
            least <= value <= most for value in values
        ) or (many and len(values) not in counts):
            what = "a whole number" if counts is None else f"{_span(counts)} whole numbers"
            raise ValueError(
                f"{name} must be {what} in {least} ... {most}, got {reprlib.repr(given)}"
            )


def _span(counts: range) -> str:
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def check_types(build: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Checks JSON values against the annotations of a constructor.

    Arguments:
        build: Class, or class method that builds an instance.
        arguments: Its arguments by name.

    Raises:
        ValueError: An argument has another type, or is not one of the listed values.
    """
    known = get_type_hints(build.__init__ if isinstance(build, type) else build)
    for name, value in arguments.items():
        try:
            msgspec.convert(value, known.get(name, Any))
        except msgspec.ValidationError as error:
            raise ValueError(f"{name}: {error}, got {reprlib.repr(value)}") from None
        except TypeError:  # an annotation of a plug-in that has no JSON counterpart
            continue


def shapes_of(
    build: Callable[..., Any], arguments: Mapping[str, Any], tensors: int
) -> dict[str, torch.Size]:
    """Returns the shapes of the tensors that a prior would have, without memory for them.

    Arguments:
        build: Class, or class method that builds an instance.
        arguments: Its arguments by name.
        tensors: Number of tensors that it should have. The construction ends when there are
            many more.

    Raises:
        TypeError: There is no such argument, or one is missing.
        ValueError: An argument has another type or is out of its range, or there are too many
            tensors.
    """
    check_types(build, arguments)
    try:
        with torch.device("meta"), at_most(2 * tensors + 100):
            state = build(**arguments).state_dict()
    except (RuntimeError, ArithmeticError, LookupError, AttributeError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
    return {key: value.shape for key, value in state.items()}


@contextmanager
def at_most(tensors: int) -> Iterator[None]:
    """Raises ValueError when modules get more parameter tensors in a block, in this thread."""
    thread, count = get_ident(), 0

    def check(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += get_ident() == thread
        if count > tensors:
            raise ValueError(f"it has more than {tensors} tensors, far more than its weights")

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        hook.remove()
