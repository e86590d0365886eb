"""Image restoration as inverse problems with generative priors and uncertainty estimates."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # at run time a name is imported when it is first used
    from genprior import restoration as restoration
    from genprior import transforms as transforms
    from genprior.api.adaptation import Adaptation as Adaptation
    from genprior.api.adaptation import adapt_prior as adapt_prior
    from genprior.api.deepinv_models import to_deepinv as to_deepinv
    from genprior.api.estimated_priors import estimate_prior as estimate_prior
    from genprior.api.factory import load_prior as load_prior
    from genprior.api.factory import make_operator as make_operator
    from genprior.api.factory import make_solver as make_solver
    from genprior.api.kernel_estimation import estimate_kernel as estimate_kernel
    from genprior.api.noise_level import estimate_noise as estimate_noise
    from genprior.api.panel import show as show
    from genprior.api.restoration import degrade as degrade
    from genprior.api.restoration import restore as restore
    from genprior.api.sampling import sample as sample
    from genprior.inverse.base import Restoration as Restoration
    from genprior.priors.nets.compile import compile_networks as compile_networks

__version__ = "0.1.0"

_PUBLIC = {
    "Adaptation": "genprior.api.adaptation",
    "Restoration": "genprior.inverse.base",
    "adapt_prior": "genprior.api.adaptation",
    "compile_networks": "genprior.priors.nets.compile",
    "degrade": "genprior.api",
    "estimate_kernel": "genprior.api.kernel_estimation",
    "estimate_noise": "genprior.api.noise_level",
    "estimate_prior": "genprior.api.estimated_priors",
    "load_prior": "genprior.api",
    "make_operator": "genprior.api",
    "make_solver": "genprior.api",
    "restore": "genprior.api",
    "sample": "genprior.api",
    "show": "genprior.api.panel",
    "to_deepinv": "genprior.api.deepinv_models",
}
_MODULES = ("restoration", "transforms")
__all__ = ["__version__", *_PUBLIC, *_MODULES]


if not TYPE_CHECKING:  # else every misspelt name would have a type

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"genprior.{name}")
        if name not in _PUBLIC:
            raise AttributeError(f"module 'genprior' has no attribute {name!r}")
        return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
