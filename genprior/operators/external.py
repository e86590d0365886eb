"""Adapter that makes an operator of a linear physics of deepinv or of a user."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from genprior.core.foreign_classes import is_instance
from genprior.core.linalg import Singular, cg, per_image
from genprior.operators.base import Operator
from genprior.operators.chebyshev import largest_singular, near_gram_inverse
from genprior.operators.decomposable import Decomposition, decomposition, holds
from genprior.operators.physics_maps import REFUSALS, Maps, differentiable, treats_all_alike
from genprior.operators.physics_pickling import pickled, unpickled

# Largest relative errors: of linearity (rounding), and of adjoints, which may be approximate.
LINEAR, ADJOINT = 1e-3, 0.2


class External(Operator, nn.Module):
    """Operator that calls A and A_adjoint of a physics.

    The solves are conjugate gradients, or closed forms for a `deepinv.physics.DecomposablePhysics`
    (MRI, BlurFFT ...) whose singular vectors pass a numerical check.

    The physics is neither copied nor changed. Its noise model is not used here; `restore` takes
    the noise level from it. Moving this
    operator to a device also moves the physics, as with any submodule. Entries of a measurement
    that are 0 for every image count as unmeasured. The physics need not be written in torch:
    derivatives are computed with `A_adjoint`. A complex measurement is stored as two real
    numbers, and several measurements of an image (a `TensorList`) as one tensor.

    Arguments:
        physics: An object with `A` and `A_adjoint`, such as a `deepinv.physics.LinearPhysics`.
        image_shape: Shape (C, H, W) of the images; None infers it from `A_adjoint`.
        iterations: Maximum number of iterations of a solve.
        tolerance: A solve ends when the residual is this fraction of the right-hand side.

    Raises:
        TypeError: The object has no `A` or `A_adjoint`.
    """

    measures_images = False
    takes_float64 = False

    def __init__(
        self,
        physics: object,
        image_shape: tuple[int, int, int] | None = None,
        iterations: int = 100,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__()
        for name in ("A", "A_adjoint"):
            if not callable(getattr(physics, name, None)):
                raise TypeError(
                    f"a linear physics must have the methods A and A_adjoint, "
                    f"{type(physics).__name__} has no {name}: pass a deepinv physics, or an "
                    f"operator from make_operator"
                )
        self.physics = physics
        self.maps = Maps(physics)
        self.iterations, self.tolerance = iterations, tolerance
        self._image_shape = tuple(image_shape) if image_shape is not None else None
        self._shapes: dict[torch.Size, torch.Size] = {}
        self._unmeasured: dict[tuple, Tensor] = {}
        self._batch_size: int | None = None
        self._num_axes: int | None = None
        self._divisor: Tensor | None = None
        self._norm: Tensor | None = None

    def __reduce__(self) -> tuple:
        return unpickled, (pickled(self, External),)

    def __copy__(self) -> "External":
        other = type(self).__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __deepcopy__(self, memo: dict[int, Any]) -> "External":
        other = memo[id(self)] = type(self).__new__(type(self))
        vars(other).update(copy.deepcopy(vars(self), memo))
        return other

    def select(self, images: Sequence[int]) -> Operator:
        """See `Operator.select`; `check_shape` detects a physics that differs between images."""
        if self._batch_size is None or list(images) == list(range(self._batch_size)):
            return self
        return _Selected(self, images, self._batch_size)

    def is_batch(self, shape: torch.Size) -> bool:
        try:
            return self.A_adjoint(torch.zeros(shape, **self.maps.tensor_options())).ndim == 4
        except REFUSALS:
            return False

    def check_shape(self, measurement_shape: torch.Size) -> None:
        """Tests the physics on random images.

        Raises:
            TypeError: A is not linear, or A_adjoint is not its adjoint.
            ValueError: The physics has no measurements of that shape.
        """
        name = type(self.physics).__name__
        try:
            u, Au, nonlinearity, back = self._probe(measurement_shape)
        except REFUSALS as error:
            raise ValueError(
                f"{name} does not accept measurements of shape {tuple(measurement_shape)}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if Au.shape != measurement_shape:
            raise ValueError(
                f"{name} makes measurements of shape {tuple(Au.shape)}, got "
                f"{tuple(measurement_shape)}"
            )
        if not nonlinearity.norm() <= LINEAR * Au.norm():
            raise TypeError(f"{name} is not linear: A(u + v) is not A(u) + A(v)")
        power = Au.square().sum()
        if not (power - (u * back).sum()).abs() <= ADJOINT * power:
            raise TypeError(f"{name}: A_adjoint is not the adjoint of A: <A u, A u> is not "
                            f"<u, A_adjoint(A u)>")
        self._decomposition(Au)

    def _probe(self, measurement_shape: torch.Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns u, A u, A (u + v) - A u - A v and A^T A u, for random images u and v."""
        try:
            shape = self.image_shape(measurement_shape)
            u, v = (self._random(shape, seed) for seed in (0, 1))
            Au = self.A(u)
        except REFUSALS:
            if self.maps.needs_double:
                raise
            self.maps.needs_double = True
            return self._probe(measurement_shape)
        self._batch_size = None if treats_all_alike(self.A, u, Au, LINEAR) else len(u)
        return u, Au, self.A(u + v) - Au - self.A(v), self.A_adjoint(Au)

    def rescaled(self, measurement_shape: torch.Size) -> tuple[Operator, Tensor]:
        """See `Operator.rescaled`; the divisor is a power of 2 that makes ||A|| about 1."""
        size = [self._batch_size or 1, *measurement_shape[1:]]
        u = self._random(self.image_shape(torch.Size(size))[1:], 0).expand(size[0], -1, -1, -1)
        norm = largest_singular(self.A, self.A_adjoint, u)
        divisor = torch.where(norm > 0, 2 ** norm.log2().round(), 1)  # power of 2: exact
        scaled = copy.copy(self)
        scaled._divisor = None if (divisor == 1).all() else divisor
        scaled._norm = norm / divisor
        return scaled, divisor

    def pack(self, y: Any) -> Tensor:
        return self.maps.pack(y)

    def unpack(self, y: Tensor) -> Any:
        return self.maps.unpack(y)

    def A(self, x: Tensor) -> Tensor:
        return differentiable(self._forward, self._backward, x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return differentiable(self._backward, self._forward, y)

    def _forward(self, x: Tensor) -> Tensor:
        y = self._apply_map(self.maps.forward, x)
        return y if self._divisor is None else y / per_image(self._divisor, y)

    def _backward(self, y: Tensor) -> Tensor:
        y = y if self._divisor is None else y / per_image(self._divisor, y)
        return self._apply_map(self.maps.adjoint, y)

    def _apply_map(self, linear: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        return self.maps.apply(linear, v)

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        if self._image_shape is not None:
            return torch.Size((measurement_shape[0], *self._image_shape))
        if measurement_shape not in self._shapes:
            y = torch.zeros(measurement_shape, **self.maps.tensor_options())
            self._shapes[measurement_shape] = self.A_adjoint(y).shape
        return self._shapes[measurement_shape]

    def mask_unmeasured(self, v: Tensor) -> Tensor:
        key = v.shape, v.dtype, v.device
        if key not in self._unmeasured:
            with torch.inference_mode(False):  # later calls may need gradients
                u = self._random(self.image_shape(v.shape), 0).to(v.dtype).to(v.device)
                self._unmeasured[key] = self.A(u) == 0
        return torch.where(self._unmeasured[key], 0, v)

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        if svd := self._decomposition(like):
            return svd.singular
        return super().singular(image_shape, like)

    def pinv(self, y: Tensor) -> Tensor:
        if svd := self._decomposition(y):
            return svd.pinv(y)
        return self._least_squares(y, 0.0)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        if svd := self._decomposition(y):
            return svd.prox(x, y, rho)
        return x + self._least_squares(y - self.A(x), rho)

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        if svd := self._decomposition(v):
            return svd.solve_gram(v, c, sigma2)
        if isinstance(sigma2, Tensor) or sigma2 == 0:
            # at sigma2 = 0 the system is singular: solve it for the part of v in the range of A
            reached = self.A(self.pinv(v))
            v = torch.where(per_image(sigma2, v) > 0, v, reached)
        c, sigma2 = per_image(c, v), per_image(sigma2, v)
        return self._cg(lambda w: c * self.A(self.A_adjoint(w)) + sigma2 * w, v)

    def precondition(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        if svd := self._decomposition(v):
            return svd.solve_gram(v, c, sigma2)
        if self._norm is None:
            return v
        return near_gram_inverse(self.A, self.A_adjoint, v, c, sigma2, self._norm)

    def _decomposition(self, y: Tensor) -> Decomposition | None:
        """Returns the SVD of A in the dtype of measurements y; None if it is not known."""
        if self._num_axes is None:
            with torch.inference_mode(False):
                self._num_axes = self._count_axes(y.shape)
        return self._build_decomposition(y.dtype, self._num_axes) if self._num_axes else None

    def _count_axes(self, measurement_shape: torch.Size) -> int:
        """Returns the number of axes of the singular coordinates; 0 if no SVD of A is known."""
        if not is_instance(self.physics, "deepinv.physics.DecomposablePhysics"):
            return 0
        x = self._random(self.image_shape(measurement_shape), 0)
        y = self._random(measurement_shape, 1)
        try:
            axes = self.physics.V_adjoint(x).ndim
            svd = self._build_decomposition(y.dtype, axes)
            return axes if holds(svd, self.A, self.A_adjoint, x, y) else 0
        except (*REFUSALS, AttributeError, TypeError):  # a subclass may lack an SVD
            return 0

    def _build_decomposition(self, dtype: torch.dtype, axes: int) -> Decomposition:
        mask = self._mask(axes)
        if self._divisor is not None:
            mask = mask / self._divisor.reshape(-1, *[1] * (axes - 1))
        return decomposition(self.physics, self._apply_map, mask, dtype)

    def _mask(self, axes: int) -> Tensor:
        """Returns the singular values as deepinv stores them, possibly complex, with all axes."""
        mask = self.physics.mask
        return mask.reshape(*[1] * (axes - mask.ndim), *mask.shape)

    def _least_squares(self, y: Tensor, rho: float | Tensor) -> Tensor:
        # CG from 0 without a preconditioner stays in the range of A^T: smallest norm
        b = self.A_adjoint(y)
        rho = per_image(rho, b)
        return self._cg(lambda u: self.A_adjoint(self.A(u)) + rho * u, b)

    def _cg(self, matrix: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
        return cg(matrix, b, iterations=self.iterations, tolerance=self.tolerance)

    def _random(self, shape: torch.Size, seed: int) -> Tensor:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return x.to(**self.maps.tensor_options())


class _Selected(External):
    """Operator of selected images, for a physics with separate parameters for each image.

    The physics always receives a full batch, with 0 for the images that are not selected. If one
    image is selected, any number of its measurements is accepted.

    Arguments:
        whole: The operator of the full batch.
        images: Indices of the images, in that order; repeats allowed.
        batch_size: Number of images in the full batch.
    """

    def __init__(self, whole: External, images: Sequence[int], batch_size: int) -> None:
        super().__init__(whole.physics, whole._image_shape, whole.iterations, whole.tolerance)
        self.maps, self._num_axes = whole.maps, whole._num_axes
        self._whole, self._images, self._batch_size = whole, list(images), batch_size
        calls: list[list[int]] = []  # positions per call of the physics, no image twice
        for position, image in enumerate(self._images):
            earlier = self._images[:position].count(image)
            calls += [[]] * (earlier == len(calls))
            calls[earlier] = [*calls[earlier], position]
        device = self.maps.tensor_options()["device"]
        self._calls = [
            (torch.tensor(positions, device=device),
             torch.tensor([self._images[position] for position in positions], device=device))
            for positions in calls
        ]
        self._indices = torch.tensor(self._images, device=device)
        for name in ("_divisor", "_norm"):
            if (values := getattr(whole, name)) is not None:
                setattr(self, name, values[self._indices.to(values.device)])
        self._order = torch.tensor(sum(calls, []), device=device).argsort()

    def select(self, images: Sequence[int]) -> Operator:
        return self._whole.select([self._images[i] for i in images])

    def _mask(self, axes: int) -> Tensor:
        mask = super()._mask(axes)
        return mask if len(mask) == 1 else mask[self._indices.to(mask.device)]

    def _apply_map(self, linear: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        if len(self._images) == 1 < len(v):
            return torch.cat([self._apply_map(linear, one) for one in v.split(1)])
        results = []
        for positions, images in self._calls:
            positions, images = positions.to(v.device), images.to(v.device)
            batch = v.new_zeros(self._batch_size, *v.shape[1:]).index_copy(0, images, v[positions])
            results.append(super()._apply_map(linear, batch)[images])
        return torch.cat(results)[self._order.to(v.device)]
