"""Cache folder for downloaded data sets."""

import os
import tempfile
from pathlib import Path


def cache_folder() -> Path:
    """Returns GENPRIOR_HOME, else XDG_CACHE_HOME/genprior, else ~/.cache/genprior.

    A user without a home folder gets a folder in the one for temporary files.

    Raises:
        OSError: There is no folder for temporary files either.
    """
    if home := os.environ.get("GENPRIOR_HOME"):
        return Path(home)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "genprior"
    try:
        return Path.home() / ".cache" / "genprior"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "genprior"
