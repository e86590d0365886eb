"""Sequence of invertible layers, with backpropagation that stores no activations.

With `recompute` only the output is stored. The backward pass inverts one layer after the other
and recomputes it, so that the memory does not grow with the number of layers.

References:
    The Reversible Residual Network: Backpropagation Without Storing Activations, Gomez, Ren,
    Urtasun and Grosse, 2017.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from genprior.priors.nets.flows import Invertible


class Chain(Invertible):
    """Composition of invertible layers.

    Arguments:
        layers: The layers, in the order of `forward`.
        recompute: Store no activations; second derivatives are not available then.
    """

    def __init__(self, layers: Iterable[Invertible], recompute: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.recompute = recompute

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.recompute and torch.is_grad_enabled():
            return _RecomputedLayers.apply(self, False, x, *self.parameters())
        return self._forward(x)

    def inverse(self, y: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return _RecomputedLayers.apply(self, True, y, *self.parameters())[0]
        return self._inverse(y)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(len(x))
        for layer in self.layers:
            x, layer_log_det = layer(x)
            log_det = log_det + layer_log_det
        return x, log_det

    def _inverse(self, y: Tensor) -> Tensor:
        for layer in reversed(self.layers):
            y = layer.inverse(y)
        return y


# Stores only the output of a `Chain` and recomputes its activations in the backward pass.
class _RecomputedLayers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, chain: Chain, inverse: bool, x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, log_det = (chain._inverse(x), x.new_zeros(len(x))) if inverse else chain._forward(x)
        ctx.chain, ctx.inverse = chain, inverse
        kind = x.device.type
        ctx.precision = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.save_for_backward(y)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, g: Tensor, g_log_det: Tensor) -> tuple:
        kind, dtype, enabled = ctx.precision
        with torch.autocast(kind, dtype, enabled=enabled):
            g, gradients = _RecomputedLayers._backward(ctx, g, g_log_det)
        return None, None, g, *(gradients.get(p) for p in ctx.chain.parameters())

    @staticmethod
    def _backward(ctx: Any, g: Tensor, g_log_det: Tensor) -> tuple[Tensor, dict[Tensor, Tensor]]:
        (y,) = ctx.saved_tensors
        gradients: dict[Tensor, Tensor] = {}
        layers = list(ctx.chain.layers)
        for layer in layers if ctx.inverse else reversed(layers):
            with torch.no_grad():
                x = layer(y)[0] if ctx.inverse else layer.inverse(y)
            learned = [p for p in layer.parameters() if p.requires_grad]
            with torch.enable_grad():
                x.requires_grad_()
                outputs, weights = [layer.inverse(x)] if ctx.inverse else layer(x), [g]
                if not ctx.inverse:
                    weights.append(g_log_det)
                pairs = [(o, w) for o, w in zip(outputs, weights, strict=True) if o.requires_grad]
                g, *rest = torch.autograd.grad(
                    [o for o, _ in pairs], [x, *learned], [w for _, w in pairs],
                    allow_unused=True,
                )
            for parameter, gradient in zip(learned, rest, strict=True):
                if gradient is not None:
                    gradients[parameter] = gradient
            y = x.detach()
        return g, gradients
