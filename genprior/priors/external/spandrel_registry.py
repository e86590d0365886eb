"""Architectures that spandrel and spandrel_extra_arches know."""

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor


def architectures() -> Any:
    """Returns the architectures of spandrel and spandrel_extra_arches; None without spandrel."""
    with warnings.catch_warnings(action="ignore"):  # of its use of torch.jit
        try:
            from spandrel import MAIN_REGISTRY, ArchRegistry
        except ImportError:
            return None
        registry = ArchRegistry()
        registry.add(*MAIN_REGISTRY.architectures("insertion"))
        try:
            from spandrel_extra_arches import EXTRA_REGISTRY
        except ImportError:
            return registry
    registry.add(*EXTRA_REGISTRY, ignore_duplicates=True)
    return registry


def recognises(tensors: Mapping[str, Tensor]) -> bool:
    """Returns whether spandrel is installed and knows a network with these tensors."""
    registry = architectures()
    return registry is not None and any(
        known.architecture.detect(tensors) for known in registry.architectures("detection")
    )
