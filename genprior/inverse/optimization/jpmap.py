"""Joint posterior maximisation over image and latent: JPMAP and PnP-HVAE.

    J(x, z) = ||A x - y||^2 / (2 sigma^2) + ||x - G(z)||^2 / (2 gamma^2) + ||z||^2 / 2

    JPMAP      x = argmin_x J(x, z),  z = mu(x) if that lowers J, then descent on J(x, .)
    PnP-HVAE   x = argmin_u ||A u - y||^2 / (2 sigma^2) + ||u - R(x)||^2 / (2 gamma^2)

where gamma is the noise level of the decoder, mu the encoder, and R(x) the image decoded from
the latents of x under a prior of lower temperature. PnP-HVAE is a fixed-point iteration for
hierarchical VAEs. With a linear decoder JPMAP gives the posterior mean.

References:
    Solving Inverse Problems by Joint Posterior Maximization with Autoencoding Prior, Gonzalez,
        Almansa and Tan, 2022.
    Inverse Problem Regularization with Hierarchical Variational Autoencoders, Prost, Houdard,
        Almansa and Papadakis, 2023 (PnP-HVAE).

Differs from the authors' code:
    1. JPMAP: 1 / gamma^2 increases geometrically from a tenth of its value, as at the authors'
        start, to its full value at the last step; the authors adapt it to a constraint.
    2. JPMAP: descent uses L-BFGS and finally minimises min_x J(x, z) over z, since the
        alternation converges slowly at unmeasured pixels.
    3. PnP-HVAE: one temperature for all levels; the authors have one per level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.core.linalg import per_image
from genprior.core.random_streams import Noise
from genprior.inverse.base import Solver, setting
from genprior.inverse.optimization.objective import minimise, squared_misfit
from genprior.inverse.tikhonov import smooth_start
from genprior.operators.base import Operator
from genprior.priors.base import Variational

NOISE_FLOOR = 0.001
FIRST_SHARE = 0.1


@dataclass(frozen=True)
class JPMAP(Solver):
    """JPMAP: alternation between image and latent, with latents from the encoder, then descent.

    Arguments:
        steps: Alternations, >= 1.
        descent: Evaluations of L-BFGS in each alternation, >= 1.
        final: Evaluations of L-BFGS at the end, >= 1.
        decoder_std: gamma > 0, in units of [0, 1]; None is that of the prior.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Variational
    stochastic = False
    uses = "gradient"
    summary = "one image, most probable image and latent; 1 forward + 1 backward per step"

    steps: int = setting(4, ge=1)
    descent: int = 2
    final: int = 24
    decoder_std: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.descent, self.final) < 1:
            raise ValueError(
                f"descent and final must be at least 1, got {self.descent} and {self.final}"
            )
        _check_std(self.decoder_std)

    @property
    def nfe(self) -> int:
        return self.steps * (self.descent + 4) + self.final + 2

    @property
    def jacobian_products(self) -> int:
        return self.steps * self.descent + self.final

    def solve(
        self,
        y: Tensor,
        operator: Operator,
        prior: Variational,
        noise_std: Tensor,
        generator: Noise,
    ) -> Tensor:
        shape = operator.image_shape(y.shape)
        sigma2 = noise_std.clamp(min=NOISE_FLOOR) ** 2
        gamma2 = _variance(self.decoder_std, prior, y)

        def joint(z: Tensor, x: Tensor, beta: Tensor) -> Tensor:
            distance = (x - prior.decode(z, shape)).flatten(1).square().sum(dim=1)
            return beta * distance / 2 + z.flatten(1).square().sum(dim=1) / 2

        def reduced(z: Tensor) -> Tensor:
            G = prior.decode(z, shape)
            with torch.no_grad():  # at the minimum over x, dJ/dx = 0
                x = operator.prox(G, y, sigma2 / gamma2)
            fit = squared_misfit(x, y, operator) / sigma2
            distance = (x - G).flatten(1).square().sum(dim=1) / gamma2
            return (fit + distance + z.flatten(1).square().sum(dim=1)) / 2

        with torch.no_grad():
            x = smooth_start(y, operator)
            z = prior.encode(x)
            for k in range(self.steps):
                left = 1 - k / (self.steps - 1) if self.steps > 1 else 0
                beta = FIRST_SHARE**left / gamma2
                x = operator.prox(prior.decode(z, shape), y, sigma2 * beta)
                z_try = prior.encode(x)
                lower = joint(z_try, x, beta) < joint(z, x, beta)
                z = torch.where(per_image(lower, z) > 0, z_try, z)
                z = minimise(lambda z, x=x, b=beta: joint(z, x, b), z, self.descent)
            z = minimise(reduced, z, self.final)
            return operator.prox(prior.decode(z, shape), y, sigma2 / gamma2)


@dataclass(frozen=True)
class PnPHVAE(Solver):
    """PnP-HVAE: alternation between a data step and a pass through encoder and decoder.

    Arguments:
        steps: Passes through encoder and decoder, >= 1.
        temperature: Temperature of the prior, in (0, 1].
        decoder_std: gamma > 0, in units of [0, 1]; None is that of the prior.

    Raises:
        ValueError: A setting is out of its range.
    """

    needs = Variational
    stochastic = False
    uses = "gradient"
    summary = "one image, fixed point of data step and autoencoder; 1 pass through both per step"

    steps: int = setting(50, ge=1)
    temperature: float = 0.8
    decoder_std: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature <= 1:
            raise ValueError(f"temperature must be in (0, 1], got {self.temperature}")
        _check_std(self.decoder_std)

    @property
    def nfe(self) -> int:
        return self.steps

    def solve(
        self,
        y: Tensor,
        operator: Operator,
        prior: Variational,
        noise_std: Tensor,
        generator: Noise,
    ) -> Tensor:
        rho = noise_std.clamp(min=NOISE_FLOOR) ** 2 / _variance(self.decoder_std, prior, y)
        with torch.no_grad():
            x = smooth_start(y, operator)
            for _ in range(self.steps):
                x = operator.prox(prior.reconstruct(x, self.temperature), y, rho)
        return x


def _variance(given: float | None, prior: Variational, like: Tensor) -> Tensor:
    std = prior.decoder_std if given is None else torch.as_tensor(given)
    return std.detach().to(like) ** 2


def _check_std(std: float | None) -> None:
    if std is not None and not 0 < std < float("inf"):
        raise ValueError(f"decoder_std must be > 0 and finite, or None, got {std}")
