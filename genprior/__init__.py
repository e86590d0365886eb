"""Inverse problems with generative priors: restore images, with uncertainty you can trust."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Restoration": "genprior.inverse.base",
    "compile_networks": "genprior.priors.nets.compile",
    "degrade": "genprior.api",
    "estimate_noise": "genprior.api.noise_level",
    "estimate_prior": "genprior.api.estimated_priors",
    "load_prior": "genprior.api",
    "make_operator": "genprior.api",
    "make_solver": "genprior.api",
    "restore": "genprior.api",
    "sample": "genprior.api",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'genprior' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
