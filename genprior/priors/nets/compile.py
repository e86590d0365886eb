"""Compilation of the networks of a prior with torch.compile."""

from torch import nn


def compile_networks(prior: nn.Module) -> None:
    """Compiles the outermost modules with a `forward`; descends into others, such as lists."""
    for child in prior.children():
        if type(child).forward is nn.Module.forward:
            compile_networks(child)
        else:
            child.compile()
