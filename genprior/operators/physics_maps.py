"""Adapter from a physics with any type of measurement to maps between real tensors."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]
# Errors that a physics may raise for tensors that it does not support.
REFUSALS = (RuntimeError, ValueError, IndexError, AssertionError)


class Maps:
    """A and A_adjoint of a physics, as maps between real tensors.

    A complex number is packed as two real ones, and several measurements of an image as one
    vector. `unpack` uses the layout of the measurements that were packed last.

    Arguments:
        physics: An object with `A` and `A_adjoint`.
    """

    def __init__(self, physics: Any) -> None:
        self.physics = physics
        self.needs_double = False  # it needs float64, though no tensor of it was found
        self._complex = False
        self._list: type = list
        self._parts: list[tuple[torch.Size, bool]] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Returns A x, packed."""
        return self.pack(self.physics.A(x))

    def adjoint(self, y: Tensor) -> Tensor:
        """Returns A^T y for packed measurements y."""
        return self.physics.A_adjoint(self.unpack(y))

    def pack(self, y: Any) -> Tensor:
        """Packs measurements into one real tensor (B, ...)."""
        if isinstance(y, Tensor):
            self._parts, self._complex = None, y.is_complex()
            return _real(y)
        self._list = type(y)
        self._parts = [(part.shape[1:], part.is_complex()) for part in y]
        return torch.cat([_real(part).flatten(1) for part in y], dim=1)

    def unpack(self, v: Tensor) -> Any:
        """Restores the format of the physics from packed measurements."""
        if self._parts is None:
            return torch.view_as_complex(v.contiguous()) if self._complex else v
        sizes = [size.numel() * (1 + is_complex) for size, is_complex in self._parts]
        parts = []
        for part, (size, is_complex) in zip(v.split(sizes, dim=1), self._parts, strict=True):
            part = part.reshape(len(v), *size, 2) if is_complex else part.reshape(len(v), *size)
            parts.append(torch.view_as_complex(part.contiguous()) if is_complex else part)
        return self._list(parts)

    def tensor_options(self) -> dict[str, Any]:
        """Returns the dtype and the device that the physics works with."""
        if isinstance(self.physics, torch.nn.Module):
            tensors = [*self.physics.parameters(), *self.physics.buffers()]
        else:
            attributes = getattr(self.physics, "__dict__", {}).values()
            tensors = [value for value in attributes if isinstance(value, Tensor)]
        dtypes = [t.dtype.to_real() for t in tensors if t.is_floating_point() or t.is_complex()]
        narrowest = torch.float64 if self.needs_double else torch.float32
        return {
            "dtype": functools.reduce(torch.promote_types, dtypes, narrowest),
            "device": tensors[0].device if tensors else None,
        }

    def apply(self, linear: Map, v: Tensor) -> Tensor:
        """Applies a map of the physics to v, in the dtype of the physics if that is wider."""
        wide = torch.promote_types(v.dtype, self.tensor_options()["dtype"])
        if wide == v.dtype:
            return linear(v)
        result, real = linear(v.to(wide)), v.dtype.to_real()
        return result.to(real.to_complex() if result.is_complex() else real)


def differentiable(linear: Map, adjoint_map: Map, v: Tensor) -> Tensor:
    """Applies a linear map, written in any library, to v; its adjoint gives the derivative."""
    return _Linear.apply(v, linear, adjoint_map)


def treats_all_alike(A: Map, u: Tensor, Au: Tensor, tolerance: float) -> bool:
    """Returns whether A treats images u alike, alone or at any position of a batch."""
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
    def forward(ctx: Any, v: Tensor, linear: Map, adjoint_map: Map) -> Tensor:
        ctx.maps = linear, adjoint_map
        return linear(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        linear, adjoint_map = ctx.maps
        return _Linear.apply(gradients[0], adjoint_map, linear), None, None


def _real(y: Tensor) -> Tensor:
    return torch.view_as_real(y) if y.is_complex() else y
