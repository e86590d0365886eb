"""What a solver is, and what a restoration returns.

A solver turns a measurement y = A x + sigma n into images, given the operator A, a prior
on x and sigma. It knows none of them by name: it declares the ability it `needs`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.operators.base import Operator
from genprior.priors.base import ABILITIES

# Settings that several solvers have, by what values they may take.
COUNTS = ("steps", "iterations", "root_products", "particles", "ode_steps", "langevin_steps")
SHARES = ("eta", "eta_b", "stochasticity")
POSITIVE = (
    "coupling", "rate", "rate_end", "prior_var", "tau", "weight", "tolerance", "sigma_max",
    "sigma_min", "exact_max", "exact_min", "informed_max", "ode_min", "rho_max", "rho_min",
)
NOT_NEGATIVE = ("strength", "relaxation", "full_above", "extra_noise")


@dataclass(frozen=True)
class Solver(ABC):
    """A method of reconstruction; fields are its settings, with the paper's defaults.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs: ClassVar[type]
    stochastic: ClassVar[bool]
    summary: ClassVar[str]
    # Its noise is all from the streams that it is given: chains of opposite noise may be paired.
    supports_antithetic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in COUNTS and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
            if name in SHARES and value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {value}")
            if name in POSITIVE and value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} must be > 0 and finite, got {value}")
            if name in NOT_NEGATIVE and not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be >= 0 and finite, got {value}")

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Evaluations of the prior's network per image."""

    def evaluations(self, prior: object) -> int:
        """Evaluations of this prior's network, where that may be fewer."""
        return self.nfe

    @property
    def jacobian_products(self) -> int:
        """Products with the network's Jacobian per image; each costs a backward pass."""
        return 0

    def jacobian_products_for(self, operator: Operator, prior: object) -> int:
        """Products for this measurement and this prior, where those may be fewer."""
        return self.jacobian_products

    @property
    def batch_multiplier(self) -> int:
        """Images that the network is shown at once for each measurement.

        It is 0 where the network is shown parts of them, a bounded number at a time.
        """
        return 1

    def check_compatible(self, operator: Operator, prior: object, y: Tensor) -> None:
        """Refuses a prior or a measurement that the method is not made for.

        Raises:
            TypeError: The prior lacks the ability.
            SettingError: It is such a measurement.
        """
        if not isinstance(prior, self.needs):
            names = (name for name, kind in ABILITIES.items() if kind is self.needs)
            ability = next(names, self.needs.__name__)
            raise TypeError(
                f"solver {type(self).__name__} needs a prior that is a {ability}, and "
                f"{type(prior).__name__} is not: choose another solver or prior"
            )

    @property
    def supports_windows(self) -> bool:
        """Whether a part of an image, with what is around it, may be restored alone."""
        return True

    @abstractmethod
    def solve(
        self, y: Tensor, operator: Operator, prior: object, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        """The method itself; arguments have been checked, `noise_std` has shape (B,)."""

    def __call__(
        self,
        y: Tensor,
        operator: Operator,
        prior: object,
        noise_std: float | Tensor,
        generator: Noise,
    ) -> Tensor:
        """Restores a batch of measurements.

        Arguments:
            y: Measurements, shape (B, ...); what is at places where nothing was measured does
                not matter.
            operator: How they were made.
            prior: Prior on the images; must have the ability in `needs`.
            noise_std: Standard deviation of the noise in y, in units of the image range
                [0, 1], >= 0; a number or shape (B,).
            generator: Random streams, one per image.

        Returns:
            Images, shape (B, C, H, W), not clipped.

        Raises:
            TypeError: The prior lacks the ability.
            SettingError: The method is not made for such a measurement.
            ValueError: y is empty or holds NaN or infinity, or the noise level is negative or not
                finite.
        """
        if not len(y):
            raise ValueError("there is no measurement: the batch is empty")
        self.check_compatible(operator, prior, y)
        y = operator.mask_unmeasured(y)
        if not y.isfinite().all():
            raise ValueError("the measurement holds NaN or infinite numbers: repair it first")
        sigma = per_image(noise_std, y.reshape(len(y), 1, 1, -1)).flatten()
        if not (sigma.isfinite().all() and (sigma >= 0).all()):
            raise ValueError(
                f"noise_std must be >= 0 and finite, in units of the image range [0, 1]; "
                f"got {noise_std}"
            )
        return self.solve(y, operator, prior, sigma, generator)


@dataclass(frozen=True)
class Restoration:
    """What `restore` returns; images have the type and range that were given to it.

    Arguments:
        image: The restored images: the solver's answer, or the mean of several samples.
        samples: All samples, shape (B, K, C, H, W) as a tensor, or None if K = 1 or they were
            not kept.
        mean: Mean of the samples, or None if K = 1.
        std: Standard deviation of the samples per pixel, in image units, or None if K = 1; an
            unbiased estimate of its square, see `antithetic`.
        misfit: RMS(A x - y) / noise_std per image, shape (B,); near 1 of samples that fit the
            data as well as the noise allows, less of a single answer where few numbers are
            measured. Without noise it is RMS(A x - y) itself. Of several samples it is their
            mean misfit, not the misfit of their mean.
        solver: Name of the solver.
        prior: Name of the prior.
        nfe: Network evaluations per image and sample.
        products: Products with the network's Jacobian per image and sample, at most.
        antithetic: Samples 0 and 2, 1 and 3, 4 and 6, 5 and 7, ... are pairs, drawn with noise
            of opposite signs: each has the law of the sampler, the mean of a pair is nearer to
            its mean than that of two independent samples, and `std` takes account of it.
        seconds: Time that the solver took.
        noise_std: The noise level that was assumed, in units of [0, 1]; as it was given, or of
            shape (B,) if it was estimated.
        seed: The seed.
        warnings: What to be careful about, one sentence each.
        tile: Side of the tiles that the network saw, None for whole images.
        windows: For every image the parts (top, bottom, left, right) that alone were restored;
            none where that is all of it.
        reduced: What was made smaller since memory ran out, one sentence each.
        quantiles: The quantiles per pixel that were asked for, by their level, as `std` is.
    """

    image: object
    samples: object | None
    mean: object | None
    std: object | None
    misfit: Tensor
    solver: str
    prior: str
    nfe: int
    seconds: float
    noise_std: float | Tensor
    seed: int
    warnings: tuple[str, ...] = ()
    tile: int | None = None
    windows: tuple[tuple[tuple[int, int, int, int], ...], ...] = ()
    reduced: tuple[str, ...] = ()
    quantiles: Mapping[float, object] = field(default_factory=dict)
    products: int = 0
    antithetic: bool = False


def misfit(x: Tensor, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
    """RMS(A x - y) / noise_std per image, shape (B,); RMS itself where there is no noise."""
    residual = operator.mask_unmeasured(operator.A(x) - y).flatten(1)
    rms = (residual.square().sum(dim=1) / operator.num_measurements(y)).sqrt()
    return rms / torch.where(noise_std > 0, noise_std, torch.ones_like(noise_std))
