"""Any linear physics of deepinv, or of a user, as an operator."""

import copy
from collections.abc import Callable, Sequence

import deepinv
import torch
from deepinv.utils import TensorList
from torch import Tensor

from genprior.core.linalg import Singular, cg, per_image
from genprior.operators.base import Operator
from genprior.operators.chebyshev import largest_singular, near_gram_inverse
from genprior.operators.decomposable import Decomposition, decomposition, holds
from genprior.operators.physics_maps import REFUSALS, Maps, differentiable, treats_all_alike

# Relative errors: rounding, and adjoints that are but good approximations.
LINEAR, ADJOINT = 1e-3, 0.2


class External(Operator, deepinv.physics.LinearPhysics):
    """Forwards A and A_adjoint of a physics.

    The solves are conjugate gradients, or closed forms for a `deepinv.physics.DecomposablePhysics`
    (MRI, BlurFFT ...) whose singular vectors prove to be those of A.

    The physics is neither copied nor changed, and its noise model is not used. As with any
    module inside a module, moving this operator to a device moves the physics. What it measures
    as 0 whatever the image is counts as not measured. It need not be of torch: derivatives are
    those of `A_adjoint`. Complex measurements count as two, several of an image (a `TensorList`)
    as one.

    Arguments:
        physics: An object with `A` and `A_adjoint`, such as a `deepinv.physics.LinearPhysics`.
        image_shape: Shape (C, H, W) of the images; None finds it out from `A_adjoint`.
        iterations: Largest number of iterations of a solve.
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
                    f"{type(physics).__name__} has no {name}: pass one of deepinv, or an operator "
                    f"by make_operator"
                )
        self.physics = physics
        self.maps = Maps(physics)
        self.iterations, self.tolerance = iterations, tolerance
        self._image_shape = tuple(image_shape) if image_shape is not None else None
        self._shapes: dict[torch.Size, torch.Size] = {}
        self._empty: dict[tuple, Tensor] = {}
        self._several: int | None = None
        self._axes: int | None = None
        self._unit: Tensor | None = None
        self._norm: Tensor | None = None

    def select(self, images: Sequence[int]) -> Operator:
        """See `Operator.select`; `check_shape` tells whether the physics tells images apart."""
        if self._several is None or list(images) == list(range(self._several)):
            return self
        return _Selected(self, images, self._several)

    def is_batch(self, shape: torch.Size) -> bool:
        try:
            return self.A_adjoint(torch.zeros(shape, **self.maps.likeness())).ndim == 4
        except REFUSALS:
            return False

    def check_shape(self, measurement_shape: torch.Size) -> None:
        """Tries the physics out on random images.

        Raises:
            TypeError: A is not linear, or A_adjoint not its adjoint.
            ValueError: It has no measurements of such a shape.
        """
        name = type(self.physics).__name__
        try:
            u, Au, excess, back = self._tried(measurement_shape)
        except REFUSALS as error:
            raise ValueError(
                f"{name} does not go with measurements of shape {tuple(measurement_shape)}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if Au.shape != measurement_shape:
            raise ValueError(
                f"{name} makes measurements of shape {tuple(Au.shape)}, got "
                f"{tuple(measurement_shape)}"
            )
        if not excess.norm() <= LINEAR * Au.norm():
            raise TypeError(f"{name} is not linear: A(u + v) is not A(u) + A(v)")
        power = Au.square().sum()
        if not (power - (u * back).sum()).abs() <= ADJOINT * power:
            raise TypeError(f"{name}: A_adjoint is not the adjoint of A, <A u, A u> is not "
                            f"<u, A_adjoint(A u)>")
        self._decomposition(Au)

    def _tried(self, measurement_shape: torch.Size) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """An image u, A u, A (u + v) - A u - A v and A^T A u."""
        try:
            shape = self.image_shape(measurement_shape)
            u, v = (self._random(shape, seed) for seed in (0, 1))
            Au = self.A(u)
        except REFUSALS:
            if self.maps.double:
                raise
            self.maps.double = True
            return self._tried(measurement_shape)
        self._several = None if treats_all_alike(self.A, u, Au, LINEAR) else len(u)
        return u, Au, self.A(u + v) - Au - self.A(v), self.A_adjoint(Au)

    def rescaled(self, measurement_shape: torch.Size) -> tuple[Operator, Tensor]:
        """See `Operator.normalised`: ||A|| is about 1 then, where it differs by factors."""
        size = [self._several or 1, *measurement_shape[1:]]
        u = self._random(self.image_shape(torch.Size(size))[1:], 0).expand(size[0], -1, -1, -1)
        norm = largest_singular(self.A, self.A_adjoint, u)
        unit = torch.where(norm > 0, 2 ** norm.log2().round(), 1)  # exact: a power of 2
        scaled = copy.copy(self)
        scaled._unit = None if (unit == 1).all() else unit
        scaled._norm = norm / unit
        return scaled, unit

    def pack(self, y: Tensor | TensorList) -> Tensor:
        return self.maps.pack(y)

    def unpack(self, y: Tensor) -> Tensor | TensorList:
        return self.maps.unpack(y)

    def A(self, x: Tensor) -> Tensor:
        return differentiable(self._forward, self._backward, x)

    def A_adjoint(self, y: Tensor) -> Tensor:
        return differentiable(self._backward, self._forward, y)

    def _forward(self, x: Tensor) -> Tensor:
        y = self._applied(self.maps.forward, x)
        return y if self._unit is None else y / per_image(self._unit, y)

    def _backward(self, y: Tensor) -> Tensor:
        y = y if self._unit is None else y / per_image(self._unit, y)
        return self._applied(self.maps.adjoint, y)

    def _applied(self, linear: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        return self.maps.apply(linear, v)

    def image_shape(self, measurement_shape: torch.Size) -> torch.Size:
        if self._image_shape is not None:
            return torch.Size((measurement_shape[0], *self._image_shape))
        if measurement_shape not in self._shapes:
            y = torch.zeros(measurement_shape, **self.maps.likeness())
            self._shapes[measurement_shape] = self.A_adjoint(y).shape
        return self._shapes[measurement_shape]

    def mask_unmeasured(self, v: Tensor) -> Tensor:
        key = v.shape, v.dtype, v.device
        if key not in self._empty:
            with torch.inference_mode(False):  # later calls may want gradients
                u = self._random(self.image_shape(v.shape), 0).to(v.dtype).to(v.device)
                self._empty[key] = self.A(u) == 0
        return torch.where(self._empty[key], 0, v)

    def singular(self, image_shape: torch.Size, like: Tensor) -> Singular:
        if known := self._decomposition(like):
            return known.singular
        return super().singular(image_shape, like)

    def pinv(self, y: Tensor) -> Tensor:
        if known := self._decomposition(y):
            return known.pinv(y)
        return self._least_squares(y, 0.0)

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        if known := self._decomposition(y):
            return known.prox(x, y, rho)
        return x + self._least_squares(y - self.A(x), rho)

    def solve_gram(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        if known := self._decomposition(v):
            return known.solve_gram(v, c, sigma2)
        if isinstance(sigma2, Tensor) or sigma2 == 0:
            # what A cannot reach would make the singular system at 0 inconsistent
            reached = self.A(self.pinv(v))
            v = torch.where(per_image(sigma2, v) > 0, v, reached)
        c, sigma2 = per_image(c, v), per_image(sigma2, v)
        return self._cg(lambda w: c * self.A(self.A_adjoint(w)) + sigma2 * w, v)

    def precondition(self, v: Tensor, c: float | Tensor, sigma2: float | Tensor) -> Tensor:
        if known := self._decomposition(v):
            return known.solve_gram(v, c, sigma2)
        if self._norm is None:
            return v
        return near_gram_inverse(self.A, self.A_adjoint, v, c, sigma2, self._norm)

    def _decomposition(self, y: Tensor) -> Decomposition | None:
        """The singular vectors of A in the type of measurements y; None if they are not known."""
        if self._axes is None:
            with torch.inference_mode(False):
                self._axes = self._count_axes(y.shape)
        return self._decomposed(y.dtype, self._axes) if self._axes else None

    def _count_axes(self, measurement_shape: torch.Size) -> int:
        """Axes of the singular coordinates; 0 if the physics has none that are those of A."""
        if not isinstance(self.physics, deepinv.physics.DecomposablePhysics):
            return 0
        x = self._random(self.image_shape(measurement_shape), 0)
        y = self._random(measurement_shape, 1)
        try:
            axes = self.physics.V_adjoint(x).ndim
            known = self._decomposed(y.dtype, axes)
            return axes if holds(known, self.A, self.A_adjoint, x, y) else 0
        except (*REFUSALS, AttributeError, TypeError):  # a subclass may have none
            return 0

    def _decomposed(self, dtype: torch.dtype, axes: int) -> Decomposition:
        mask = self._mask(axes)
        if self._unit is not None:
            mask = mask / self._unit.reshape(-1, *[1] * (axes - 1))
        return decomposition(self.physics, self._applied, mask, dtype)

    def _mask(self, axes: int) -> Tensor:
        """The singular values as deepinv keeps them, complex ones included, with all axes."""
        mask = self.physics.mask
        return mask.reshape(*[1] * (axes - mask.ndim), *mask.shape)

    def _least_squares(self, y: Tensor, rho: float | Tensor) -> Tensor:
        # from 0 and without a preconditioner, CG stays in the range of A^T: smallest norm
        b = self.A_adjoint(y)
        rho = per_image(rho, b)
        return self._cg(lambda u: self.A_adjoint(self.A(u)) + rho * u, b)

    def _cg(self, matrix: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
        return cg(matrix, b, iterations=self.iterations, tolerance=self.tolerance)

    def _random(self, shape: torch.Size, seed: int) -> Tensor:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return x.to(**self.maps.likeness())


class _Selected(External):
    """Some images of a physics that holds something for each: it is shown all, others as 0.

    One image goes with any number of measurements.

    Arguments:
        whole: The operator of all.
        images: Which, in that order, repeats allowed.
        several: How many there are.
    """

    def __init__(self, whole: External, images: Sequence[int], several: int) -> None:
        super().__init__(whole.physics, whole._image_shape, whole.iterations, whole.tolerance)
        self.maps, self._axes = whole.maps, whole._axes
        self._whole, self._images, self._several = whole, list(images), several
        rounds: list[list[int]] = []  # in each of which no image comes twice
        for place, image in enumerate(self._images):
            earlier = self._images[:place].count(image)
            rounds += [[]] * (earlier == len(rounds))
            rounds[earlier] = [*rounds[earlier], place]
        device = self.maps.likeness()["device"]
        self._rounds = [
            (torch.tensor(places, device=device),
             torch.tensor([self._images[place] for place in places], device=device))
            for places in rounds
        ]
        self._indices = torch.tensor(self._images, device=device)
        for name in ("_unit", "_norm"):
            if (held := getattr(whole, name)) is not None:
                setattr(self, name, held[self._indices.to(held.device)])
        self._order = torch.tensor(sum(rounds, []), device=device).argsort()

    def select(self, images: Sequence[int]) -> Operator:
        return self._whole.select([self._images[i] for i in images])

    def _mask(self, axes: int) -> Tensor:
        mask = super()._mask(axes)
        return mask if len(mask) == 1 else mask[self._indices.to(mask.device)]

    def _applied(self, linear: Callable[[Tensor], Tensor], v: Tensor) -> Tensor:
        if len(self._images) == 1 < len(v):
            return torch.cat([self._applied(linear, one) for one in v.split(1)])
        results = []
        for places, images in self._rounds:
            places, images = places.to(v.device), images.to(v.device)
            batch = v.new_zeros(self._several, *v.shape[1:]).index_copy(0, images, v[places])
            results.append(super()._applied(linear, batch)[images])
        return torch.cat(results)[self._order.to(v.device)]
