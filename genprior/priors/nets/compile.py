"""Compiling the networks of a prior."""

from torch import nn


def compile_networks(prior: nn.Module) -> None:
    """Compiles the outermost modules that are called; of others, such as lists, what they hold."""
    for child in prior.children():
        if type(child).forward is nn.Module.forward:
            compile_networks(child)
        else:
            child.compile()
