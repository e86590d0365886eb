"""A and A_adjoint of a physics, whatever it measures, as maps between real tensors."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from deepinv.utils import TensorList
from torch import Tensor

Map = Callable[[Tensor], Tensor]
# What a physics raises at tensors that it can't work with.
REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)


class Maps:
    """The two maps of a physics.

    Complex numbers count as two, and several measurements of an image as one long one; how that
    is undone is remembered from the last ones seen.

    Arguments:
        physics: An object with `A` and `A_adjoint`.
    """

    def __init__(self, physics: Any) -> None:
        self.physics = physics
        self.double = False  # it takes nothing else, though none of its tensors is found
        self._complex = False
        self._parts: list[tuple[torch.Size, bool]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """A x, packed."""
        return self.pack(self.physics.A(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y of packed measurements."""
        return self.physics.A_adjoint(self.unpack(y))

    def pack(self, y: Tensor | TensorList) -> Tensor:
        """Measurements as one real tensor (B, ...)."""
        if isinstance(y, Tensor):
            self._parts, self._complex = None, y.is_complex()
            return _real(y)
        self._parts = [(part.shape[1:], part.is_complex()) for part in y]
        return torch.cat([_real(part).flatten(1) for part in y], dim=1)

    def unpack(self, v: Tensor) -> Tensor | TensorList:
        """Measurements as the physics has them."""
        if self._parts is None:
            return torch.view_as_complex(v.contiguous()) if self._complex else v
        sizes = [size.numel() * (1 + is_complex) for size, is_complex in self._parts]
        parts = []
        for part, (size, is_complex) in zip(v.split(sizes, dim=1), self._parts, strict=True):
            part = part.reshape(len(v), *size, 2) if is_complex else part.reshape(len(v), *size)
            parts.append(torch.view_as_complex(part) if is_complex else part)
        return TensorList(parts)

    def likeness(self) -> dict[str, Any]:
        """The type of numbers and the device that the physics works with."""
        if isinstance(self.physics, torch.nn.Module):
            held = [*self.physics.parameters(), *self.physics.buffers()]
        else:
            attributes = getattr(self.physics, "__dict__", {}).values()
            held = [value for value in attributes if isinstance(value, Tensor)]
        dtypes = [t.dtype.to_real() for t in held if t.is_floating_point() or t.is_complex()]
        least = torch.float64 if self.double else torch.float32
        return {
            "dtype": functools.reduce(torch.promote_types, dtypes, least),
            "device": held[0].device if held else None,
        }

    def apply(self, linear: Map, v: Tensor) -> Tensor:
        """A map of the physics, which may hold numbers of more digits than v."""
        wide = torch.promote_types(v.dtype, self.likeness()["dtype"])
        if wide == v.dtype:
            return linear(v)
        result, real = linear(v.to(wide)), v.dtype.to_real()
        return result.to(real.to_complex() if result.is_complex() else real)


def differentiable(there: Map, back: Map, v: Tensor) -> Tensor:
    """A linear map of v, to be differentiated by its adjoint: it may be any code at all."""
    return _Linear.apply(v, there, back)


def treats_all_alike(A: Map, u: Tensor, Au: Tensor, tolerance: float) -> bool:
    """Whether A does the same to every image of a batch u, alone and in any place of it."""
    if len(u) == 1:
        return True
    try:
        alone, moved = A(u[:1]), A(u.roll(1, dims=0))
    except REFUSALS:
        return False
    same = [(alone, Au[:1]), (moved, Au.roll(1, dims=0))]
    return all(a.shape == b.shape and (a - b).norm() <= tolerance * b.norm() for a, b in same)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, there: Map, back: Map) -> Tensor:
        ctx.maps = there, back
        return there(v)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        there, back = ctx.maps
        return _Linear.apply(slopes[0], back, there), None, None


def _real(y: Tensor) -> Tensor:
    return torch.view_as_real(y) if y.is_complex() else y
