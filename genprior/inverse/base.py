"""Base class of solvers, and the result of a restoration.

A solver restores images from a measurement y = A x + sigma n, given the operator A, a prior on x
and sigma. It names no prior and no operator: it declares the ability that it `needs`.
"""

import html
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from genprior.core.display import deviations, figures, pixels, png
from genprior.core.errors import SettingError
from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.operators.base import Operator
from genprior.priors.base import ABILITIES

Quality = Literal["fast", "default", "best"]
# What solvers use of operators, from what the fewest operators have to what all have.
USES = ("adjoint", "gradient", "prox")
# Solvers for operators that have no adjoint, by what they have.
INSTEAD = {
    "gradient": "dps, daps, red-diff, hqs, diffpir, csgm, glowip, map or langevin",
    "prox": "dithered-mean, hqs or diffpir",
}
SHOWN = 4  # images of a batch in a notebook


def setting(
    default: Any, *, gt: float | None = None, ge: float | None = None, le: float | None = None,
    kw_only: bool = False,
) -> Any:
    """A field of a solver with the range of its values; None is always allowed.

    Arguments:
        default: Value if none is given.
        gt: Values must be greater than this, and finite.
        ge: Values must be at least this, and finite unless they are counts.
        le: Values must be at most this.
        kw_only: Whether the setting is given by name only.
    """
    bounds = {"gt": gt, "ge": ge, "le": le}
    if kw_only:
        return field(default=default, metadata=bounds, kw_only=True)
    return field(default=default, metadata=bounds)  # kw_only=False would undo a class's KW_ONLY


def check_setting(name: str, value: Any, bounds: Mapping[str, Any]) -> None:
    """Checks a value against the bounds that `setting` gave to its field.

    Raises:
        ValueError: It is out of range; the message names the range.
    """
    gt, ge, le = (bounds.get(key) for key in ("gt", "ge", "le"))
    if value is None or (gt, ge, le) == (None, None, None):
        return
    if ge is not None and le is not None:
        valid, must = ge <= value <= le, f"between {ge} and {le}"
    elif gt is not None:
        valid, must = gt < value < float("inf"), f"> {gt} and finite"
    elif ge == 0:
        valid, must = 0 <= value < float("inf"), ">= 0 and finite"
    else:
        valid, must = value >= ge, f"at least {ge}"
    if not valid:
        raise ValueError(f"{name} must be {must}, got {value}")


@dataclass(frozen=True)
class Solver(ABC):
    """A reconstruction method; its fields are its settings, with the paper's defaults.

    A field declared with `setting` has bounds, which are checked here.

    Attributes:
        needs: Ability that the prior must have, a class of `genprior.priors.base`.
        stochastic: Whether it draws posterior samples; else it is a point estimate.
        summary: One line for `genprior solvers`.
        uses: What it uses of an operator. "adjoint": the adjoint or `solve_gram`, which linear
            operators have. "gradient": A and its vector-Jacobian products, which all have but a
            `Quantiser`. "prox": the proximal map or the pseudo-inverse, which all have.
        takes_nonlinear_noise: Whether measurements by an operator that is not linear may be noisy.
        supports_antithetic: Whether all its noise comes from the random streams that it is given,
            so that samples of opposite noise may be paired.
        has_texture: Whether its point estimates have texture, so that holes need no other.
        takes_any_noise: Whether it takes images with noise that is not white as they are, from an
            operator that `is_noisy_image`. Other solvers get the whitened measurement.
        ignores_noise: Whether it uses neither the level nor the law of the noise: it gets the
            measurement as it is.
        stabilised_passes: How often it denoises an image whose noise depends on the signal; in the
            second pass a combination of the image and the first result.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs: ClassVar[type]
    stochastic: ClassVar[bool]
    summary: ClassVar[str]
    uses: ClassVar[Literal["adjoint", "gradient", "prox"]] = "adjoint"
    takes_nonlinear_noise: ClassVar[bool] = True
    supports_antithetic: ClassVar[bool] = True
    has_texture: ClassVar[bool] = False
    takes_any_noise: ClassVar[bool] = False
    ignores_noise: ClassVar[bool] = False
    stabilised_passes: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for each in fields(self):
            check_setting(each.name, getattr(self, each.name), each.metadata)

    @property
    @abstractmethod
    def nfe(self) -> int:
        """Evaluations of the prior's network per image."""

    def evaluations(self, prior: object, operator: Operator | None = None) -> int:
        """Network evaluations per image with this prior and operator."""
        return self.nfe

    @property
    def jacobian_products(self) -> int:
        """Products with the Jacobian of the network per image; each costs a backward pass."""
        return 0

    def jacobian_products_for(self, operator: Operator, prior: object) -> int:
        """Products with the Jacobian for this operator and prior; at most `jacobian_products`."""
        return self.jacobian_products

    @property
    def batch_multiplier(self) -> int:
        """Images that the network evaluates at once for each measurement.

        It is 0 where the network evaluates crops, a bounded number at a time.
        """
        return 1

    def suited(
        self, y: Tensor, operator: Operator, prior: object, noise_std: float, quality: Quality
    ) -> "Solver":
        """Returns this solver with as many evaluations as a measurement takes.

        A solver without measured curves returns itself.

        Arguments:
            y: One measurement, shape (1, ...).
            operator: Its operator.
            prior: Prior that the solver will use.
            noise_std: Noise level of the measurement, in units of the image range, >= 0.
            quality: "default" takes the fewest evaluations with the PSNR of many of them to
                0.05 dB, "fast" fewer, "best" as many as improve it.
        """
        return self

    def check_compatible(self, operator: Operator, prior: object, y: Tensor) -> None:
        """Checks that the method can use this prior and this measurement.

        Raises:
            TypeError: The prior lacks the ability that the solver needs.
            SettingError: The method does not support the operator or the measurement.
        """
        if not isinstance(prior, self.needs):
            names = (name for name, kind in ABILITIES.items() if kind is self.needs)
            ability = next(names, self.needs.__name__)
            raise TypeError(
                f"solver {type(self).__name__} needs a prior that is a {ability}, and "
                f"{type(prior).__name__} is not: choose another solver or prior"
            )
        has = "gradient" if operator.is_differentiable else "prox"
        has = "adjoint" if operator.is_linear else has
        if USES.index(self.uses) < USES.index(has):
            is_linear = self.uses == "adjoint"
            raise SettingError(
                f"solver {type(self).__name__} needs "
                f"{'a linear operator' if is_linear else 'an operator with a gradient'}, and "
                f"{type(operator).__name__} {'is not' if is_linear else 'has none'}: choose "
                f"{INSTEAD[has]}"
            )

    def doubts(
        self, y: Tensor, operator: Operator, prior: object, noise_std: Tensor
    ) -> tuple[str, ...]:
        """Returns warnings about measurements for which the method or the prior was not made.

        Arguments:
            y: Measurements, shape (B, ...).
            operator: Their operator.
            prior: The prior.
            noise_std: Noise levels, shape (B,).
        """
        return ()

    def pools_samples(self, image_shape: Sequence[int]) -> bool:
        """Whether all samples of an image must be drawn in one call, as they are not independent.

        Arguments:
            image_shape: Shape (B, C, H, W) of the images.
        """
        return False

    @property
    def supports_windows(self) -> bool:
        """Whether a window of the image, with its surroundings, can be restored on its own."""
        return True

    @abstractmethod
    def solve(
        self, y: Tensor, operator: Operator, prior: object, noise_std: Tensor, generator: Noise
    ) -> Tensor:
        """Restores a batch; arguments are already checked, `noise_std` has shape (B,)."""

    def solve_with_weights(
        self, y: Tensor, operator: Operator, prior: object, noise_std: Tensor, generator: Noise
    ) -> tuple[Tensor, Tensor | None]:
        """Restores a batch as `solve`, and returns the effective sample sizes of its particles.

        Returns:
            Images; and shape (B,), the least effective sample size of each run, from 1 to the
            number of particles, or None for a solver without particles that have weights.
        """
        return self.solve(y, operator, prior, noise_std, generator), None

    def doubts_of_weights(self, effective_sizes: Tensor) -> tuple[str, ...]:
        """Returns warnings about images whose particles have weights that are too uneven.

        Arguments:
            effective_sizes: Of each image, shape (B,).
        """
        return ()

    def __call__(
        self,
        y: Tensor,
        operator: Operator,
        prior: object,
        noise_std: float | Tensor,
        generator: Noise,
    ) -> Tensor:
        """Restores a batch of measurements: the first result of `run`."""
        return self.run(y, operator, prior, noise_std, generator)[0]

    def run(
        self,
        y: Tensor,
        operator: Operator,
        prior: object,
        noise_std: float | Tensor,
        generator: Noise,
    ) -> tuple[Tensor, Tensor | None]:
        """Restores a batch of measurements.

        Arguments:
            y: Measurements, shape (B, ...); entries that the operator does not measure are
                ignored.
            operator: Operator that made the measurements.
            prior: Prior on the images; must have the ability in `needs`.
            noise_std: Standard deviation of the noise in y, in units of the image range
                [0, 1], >= 0; a number or shape (B,).
            generator: Random streams, one per image.

        Returns:
            Images, shape (B, C, H, W), not clipped; and effective sample sizes, shape (B,), or
            None, see `solve_with_weights`.

        Raises:
            TypeError: The prior lacks the ability.
            SettingError: The method does not support the operator or the measurement.
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
        return self.solve_with_weights(y, operator, prior, sigma, generator)


@dataclass(frozen=True, repr=False)
class Restoration:
    """Result of `genprior.restore`; images have the type and range of the measurement given to it.

    Arguments:
        image: The restored images: the solver's result, or the mean of several samples.
        samples: All K samples, shape (B, K, C, H, W) as a tensor; None if K = 1 or if they were
            not kept.
        mean: Mean of the samples, or None if K = 1.
        std: Standard deviation of the samples per pixel, in image units, or None if K = 1; its
            square is an unbiased estimate of the variance, also of antithetic samples.
        misfit: RMS(A x - y) / noise_std per image, shape (B,). It is near 1 for samples that fit
            the data as well as the noise allows, and below 1 for a point estimate if few values
            are measured. If noise_std is 0 it is RMS(A x - y). For several samples it is the mean
            of their misfits, not the misfit of their mean.
        solver: Name of the solver.
        prior: Name of the prior.
        nfe: Network evaluations per image and sample; the largest number if images differ.
        products: Upper bound on the products with the network's Jacobian per image and sample.
        antithetic: Whether samples 0 and 2, 1 and 3, 4 and 6, 5 and 7, ... are pairs drawn with
            noise of opposite sign. Each sample has the distribution of the sampler; the mean of a
            pair has a smaller error than the mean of two independent samples.
        seconds: Time that the solver took.
        noise_std: Noise level used, in units of [0, 1]: as given, that of the physics, or of
            shape (B,) if estimated.
        noise_found: Properties of the noise of each image besides its level, if it was estimated
            and is not white: "correlated over 3 px, stronger in the dark"; else "".
        seed: Seed of all random numbers.
        warnings: Reasons for doubt, one sentence each.
        tile: Side of the tiles that the network evaluated, in pixels; None for whole images.
        windows: For every image the windows (top, bottom, left, right) that were restored; empty
            if the whole image was.
        reduced: What was made smaller because memory ran out, one sentence each.
        quantiles: Quantiles per pixel by their level, in the form of `std`.
        methods: The solver of every image, whose fields are the settings used.
        misfits: The misfit of every sample, shape (B, K); None if K = 1. Where the posterior has
            several modes (phase retrieval), a sample of a large misfit is a failed search.
        lower, upper: Ends of the calibrated interval of each pixel, in the form of `std`; NaN for
            an image that has none; None without a calibration.
        effective_sizes: For a solver of particles with weights (`smc`), the effective sample size
            of each image, shape (B,): (sum w)^2 / sum w^2 of the weights w, the mean over blocks,
            the least over noise levels, and the mean over samples; it is the number of particles
            if all weights are equal, and 1 if one particle has all the weight. None for other
            solvers.
        passes: How often the solver denoised an image: 2 for a point estimate of an image whose
            noise depends on the signal, else 1.
        evaluations: Network evaluations of each image per sample; `nfe` is the largest.
    """

    image: Any
    samples: Any
    mean: Any
    std: Any
    misfit: Tensor
    solver: str
    prior: str
    nfe: int
    seconds: float
    noise_std: float | Sequence[float] | Tensor
    seed: int
    warnings: tuple[str, ...] = ()
    tile: int | None = None
    windows: tuple[tuple[tuple[int, int, int, int], ...], ...] = ()
    reduced: tuple[str, ...] = ()
    quantiles: Mapping[float, Any] = field(default_factory=dict)
    products: int = 0
    noise_found: tuple[str, ...] = ()
    antithetic: bool = False
    methods: tuple[Solver, ...] = ()
    lower: Any = None
    upper: Any = None
    passes: int = 1
    misfits: Tensor | None = None
    effective_sizes: Tensor | None = None
    evaluations: tuple[int, ...] = ()

    def __repr__(self) -> str:
        """One line: shape, range, solver, prior, cost and misfit; no pixels."""
        return f"Restoration({self.facts})"

    @property
    def facts(self) -> str:
        """One line of text: shape, range, solver, prior, cost and misfit."""
        image = self.image
        values = np.asarray(image.detach().float().cpu() if isinstance(image, Tensor) else image)
        shape = " x ".join(map(str, values.shape))
        samples = "point estimate" if self.mean is None else "mean of samples"
        fits = sorted({f"{fit:.3g}" for fit in (self.misfit.min(), self.misfit.max())})
        sizes = self.effective_sizes
        weights = "" if sizes is None else f"effective sample size {sizes.min():.1f} or more, "
        return (
            f"{samples}, {shape}, values {values.min():.3g} to {values.max():.3g}; "
            f"solver {self.solver}, prior {self.prior}, {self.nfe} evaluations, "
            f"misfit {' to '.join(fits)}, {weights}{self.seconds:.1f} s"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: image and std map of up to four images, and a line of facts."""
        images, rows = pixels(self.image), []
        maps, white = deviations(self.std) if self.std is not None else (None, [])
        for i, image in enumerate(images[:SHOWN]):
            row = [("image" if len(images) == 1 else f"image {i}", image)]
            if maps is not None:
                row.append((f"std, white is {white[i]:.3g}", maps[i]))
            rows.append(figures(row))
        more = f"<p>{len(images) - SHOWN} more images</p>" if len(images) > SHOWN else ""
        warned = "".join(f"<p>warning: {html.escape(text)}</p>" for text in self.warnings)
        return f"<div>{''.join(rows)}{more}<p>{html.escape(self.facts)}</p>{warned}</div>"

    def _repr_png_(self) -> bytes:
        """What a viewer without HTML shows: the first image, and its std map if there is one."""
        image = pixels(self.image)[0]
        if self.std is None:
            return png(image)
        std = deviations(self.std)[0][0].repeat(image.shape[-1], axis=-1)
        return png(np.concatenate([image, std], axis=1))


def misfit(x: Tensor, y: Tensor, operator: Operator, noise_std: Tensor) -> Tensor:
    """Returns RMS(A x - y) / noise_std per image, shape (B,); RMS(A x - y) where that is 0."""
    residual = operator.mask_unmeasured(operator.A(x) - y).flatten(1)
    rms = (residual.square().sum(dim=1) / operator.num_measurements(y)).sqrt()
    return rms / torch.where(noise_std > 0, noise_std, torch.ones_like(noise_std))
