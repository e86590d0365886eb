"""Classes of optional packages, recognised without importing the package."""

import sys
from typing import Any


def is_instance(value: Any, path: str) -> bool:
    """Returns whether a value is an instance of a class of a package that may not be imported.

    An instance can exist only if somebody imported the package.

    Arguments:
        value: Any object.
        path: Full name of the class, such as "deepinv.physics.LinearPhysics".
    """
    package, *names = path.split(".")
    found: Any = sys.modules.get(package)
    for name in names:
        found = getattr(found, name, None)
    return isinstance(found, type) and isinstance(value, found)


def foreign_names(value: Any, package: str) -> set[str]:
    """Returns the names of the classes of a value that a package defines, its bases included.

    Unlike `is_instance`, it imports no part of a package that imports its parts when they are
    used, such as diffusers.
    """
    classes = type(value).__mro__
    return {cls.__name__ for cls in classes if cls.__module__.partition(".")[0] == package}


def is_exactly(value: Any, path: str) -> bool:
    """Returns whether the class of a value is this one, and no subclass; see `is_instance`."""
    return is_instance(value, path) and type(value).__name__ == path.rpartition(".")[2]
