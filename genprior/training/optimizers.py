"""Optimisers by name: AdamW, Muon, SGD and RMSProp.

"muon" updates the weight of every inner convolution, as a matrix M (outputs x the rest), along
the orthogonal matrix that is nearest to its momentum. It updates all other weights by AdamW:

    M <- M - 0.2 sqrt(max(rows, columns)) lr  U V^T,   U S V^T = momentum of the gradient

The orthogonal matrix is computed by Newton-Schulz iterations, in bfloat16 if the device has
instructions for it, else in float32: a CPU that emulates bfloat16 needs 30 times longer.

"sgd" has no momentum. "rmsprop" is the choice of the authors of WGAN with weight clipping.

References:
    Wasserstein Generative Adversarial Networks, Arjovsky, Chintala and Bottou, 2017 (RMSProp).
    Muon: An optimizer for hidden layers in neural networks, Jordan et al., 2024.
    Muon is Scalable for LLM Training, Liu et al., 2025 (the factor: steps as large as AdamW's).
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from genprior.core.devices import has_bfloat16

Kind = Literal["adamw", "muon", "sgd", "rmsprop"]
SMALLEST_SIDE = 16
# Coefficients of Jordan et al. Their large slope at 0 makes five iterations enough.
NEWTON_SCHULZ, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


def build_optimizers(
    group: str,
    params: Iterable[nn.Parameter],
    kind: Kind,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
) -> dict[str, torch.optim.Optimizer]:
    """Returns the optimisers of one group of parameters, by the name they are saved under.

    Arguments:
        group: Name of the group.
        params: Its parameters; each is assigned to one of the optimisers.
        kind: "adamw", "muon", "sgd" or "rmsprop".
        lr: Learning rate of all of them.
        betas: Betas of AdamW.
    """
    params = list(params)
    if kind == "sgd":
        return {group: torch.optim.SGD(params, lr)}
    if kind == "rmsprop":
        return {group: torch.optim.RMSprop(params, lr)}
    inner = [p for p in params if kind == "muon" and _is_inner_convolution(p)]
    chosen = {id(p) for p in inner}
    rest = [p for p in params if id(p) not in chosen]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if rest:
        optimizers[group] = torch.optim.AdamW(rest, lr, betas, weight_decay=0.0, fused=True)
    if inner:
        optimizers[f"{group}-muon"] = ConvMuon(inner, lr)
    return optimizers


class ConvMuon(torch.optim.Optimizer):
    """Muon optimiser for convolution weights of shape (outputs, inputs, height, width).

    Arguments:
        weights: The weights. They must not be moved to another device or memory format once the
            optimiser exists.
        lr: Learning rate, scaled so that steps are as large as those of AdamW.
        momentum: Decay of the moving average of the gradient, with Nesterov's look-ahead.
    """

    def __init__(self, weights: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        self.weights = weights
        self.matrices = [_matrix(weight.detach()) for weight in weights]
        super().__init__(self.matrices, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        settings = self.param_groups[0]
        momentum = settings["momentum"]
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            if weight.grad is None:
                continue
            gradient = _rows(weight.grad, weight)
            state = self.state[matrix]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            mean = state["momentum_buffer"].lerp_(gradient, 1 - momentum)
            rate = settings["lr"] * 0.2 * max(matrix.shape) ** 0.5
            matrix.add_(orthogonalised(gradient.lerp(mean, momentum)), alpha=-rate)


# Tensors that an optimiser keeps per parameter, once it was updated; "step" is a scalar.
MOMENTS: dict[type[torch.optim.Optimizer], tuple[str, ...]] = {
    torch.optim.AdamW: ("step", "exp_avg", "exp_avg_sq"),
    torch.optim.RMSprop: ("step", "square_avg"),
    torch.optim.SGD: (),
    ConvMuon: ("momentum_buffer",),
}


def orthogonalised(matrix: Tensor) -> Tensor:
    """Returns about U V^T of a matrix U S V^T: its singular values are between 0.5 and 1.5.

    Arguments:
        matrix: Shape (rows, columns).

    Returns:
        Matrix of the same shape, in bfloat16 if the device is fast in it, else in float32.
    """
    x = matrix.to(torch.bfloat16 if has_bfloat16(matrix.device) else torch.float32)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


def _is_inner_convolution(p: Tensor) -> bool:
    return p.ndim == 4 and min(p.shape[:2]) >= SMALLEST_SIDE


def _rows(values: Tensor, weight: Tensor) -> Tensor:
    """Flattens values of the shape of a weight to rows, in the memory order of the weight."""
    ordered = values if weight.is_contiguous() else values.permute(0, 2, 3, 1)
    return ordered.reshape(len(values), -1)


def _matrix(weight: Tensor) -> Tensor:
    matrix = _rows(weight, weight)
    if matrix.data_ptr() != weight.data_ptr():
        raise ValueError(
            "the weight of a convolution must be in the contiguous or the channels_last format "
            f"in memory, got strides {weight.stride()}"
        )
    return matrix
