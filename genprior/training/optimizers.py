"""Optimisers by name.

"muon" moves the weight of every inner convolution, seen as a matrix M (outputs x the rest), along
the nearest orthogonal matrix of its momentum, and everything else by AdamW:

    M <- M - 0.2 sqrt(max(rows, columns)) lr  U V^T,   U S V^T = momentum of the gradient

"sgd" has no momentum; "rmsprop" is what the authors of WGAN with clipping train it by.

References:
    Wasserstein Generative Adversarial Networks, Arjovsky, Chintala and Bottou, 2017 (RMSProp).
    Muon: An optimizer for hidden layers in neural networks, Jordan et al., 2024.
    Muon is Scalable for LLM Training, Liu et al., 2025 (the factor: steps as large as AdamW's).
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Kind = Literal["adamw", "muon", "sgd", "rmsprop"]
SMALLEST_SIDE = 16


def build_optimizers(
    group: str,
    params: Iterable[nn.Parameter],
    kind: Kind,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.99),
) -> dict[str, torch.optim.Optimizer]:
    """The optimisers of one group of parameters, by the name under which they are saved.

    Arguments:
        group: Name of the group.
        params: Its parameters; each goes to one of the optimisers.
        kind: "adamw", "muon", "sgd" or "rmsprop".
        lr: Learning rate of all of them.
        betas: Of AdamW.
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


class ConvMuon(torch.optim.Muon):
    """Muon on weights of convolutions, shape (outputs, inputs, height, width).

    Arguments:
        weights: The weights. Their memory must stay where it is: no move to another device or
            memory format once the optimiser exists.
        lr: Learning rate, in steps of AdamW.
    """

    def __init__(self, weights: list[nn.Parameter], lr: float) -> None:
        self.weights = weights
        self.matrices = [_matrix(weight.detach()) for weight in weights]
        super().__init__(self.matrices, lr, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")

    def step(self, *arguments: Any) -> Any:
        for weight, matrix in zip(self.weights, self.matrices, strict=True):
            matrix.grad = None if weight.grad is None else _rows(weight.grad, weight)
        return super().step(*arguments)


def _is_inner_convolution(p: Tensor) -> bool:
    return p.ndim == 4 and min(p.shape[:2]) >= SMALLEST_SIDE


def _rows(values: Tensor, weight: Tensor) -> Tensor:
    """Values of the shape of a weight as rows, in the order in which the weight lies in memory."""
    ordered = values if weight.is_contiguous() else values.permute(0, 2, 3, 1)
    return ordered.reshape(len(values), -1)


def _matrix(weight: Tensor) -> Tensor:
    matrix = _rows(weight, weight)
    if matrix.data_ptr() != weight.data_ptr():
        raise ValueError(
            "the weight of a convolution must lie in memory in the contiguous or the "
            f"channels_last format, got strides {weight.stride()}"
        )
    return matrix
