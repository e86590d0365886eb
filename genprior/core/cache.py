"""What has been verified already: checksums of large files, with size, time and inode.

A file that has not been touched since is not hashed again. Small files always are: that takes
less time than it does to look here, and finds damage that no one wrote.
"""

import json
import os
import tempfile
from pathlib import Path

from genprior.core.atomic_files import write_atomic

LARGE = 2**26
MOST = 100


def cache_folder() -> Path:
    """GENPRIOR_HOME, else XDG_CACHE_HOME/genprior, else ~/.cache/genprior.

    Who has no home has a temporary one.

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


def is_verified(path: Path, sha256: str) -> bool:
    """Whether a large file had this checksum when it was last hashed, and is the same since."""
    stamp = _stamp(path)
    return stamp[0] >= LARGE and _read().get(str(path.resolve())) == [*stamp, sha256]


def remember(path: Path, sha256: str) -> None:
    """Notes the checksum that a large file was found to have."""
    stamp = _stamp(path)
    if stamp[0] < LARGE:
        return
    stamps = _read()
    stamps.pop(str(path.resolve()), None)
    stamps[str(path.resolve())] = [*stamp, sha256]
    text = json.dumps(dict(list(stamps.items())[-MOST:]), indent=1)
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        write_atomic(cache_folder() / "verified.json", lambda file: file.write(text.encode()))
    except OSError:
        pass  # then it is hashed again


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _read() -> dict[str, list]:
    try:
        stamps = json.loads((cache_folder() / "verified.json").read_text())
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}
