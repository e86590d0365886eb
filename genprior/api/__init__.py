"""Python interface: `restore`, `degrade`, `sample`, and the objects that they take."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "degrade": "genprior.api.restoration", "restore": "genprior.api.restoration",
    "sample": "genprior.api.sampling", "load_prior": "genprior.api.factory",
    "make_operator": "genprior.api.factory", "make_solver": "genprior.api.factory",
}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'genprior.api' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
