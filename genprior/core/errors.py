"""Errors for the user; the command line prints each as one line and sets an exit code."""

import sys

EXIT_USAGE, EXIT_INPUT, EXIT_WEIGHTS, EXIT_MEMORY, EXIT_SOME = 2, 3, 4, 5, 6
EXIT_INTERRUPTED, EXIT_PIPE = 130, 141
OUT_OF_MEMORY = "memory ran out: free some memory or use smaller images"
# Memory counts as exhausted if this number of bytes cannot be allocated.
MIN_MEMORY = 2**26


class ImageError(ValueError):
    """An image file cannot be read, written or used."""


class CheckpointError(ValueError):
    """Weights are missing, incomplete or corrupt."""


class SettingError(ValueError):
    """A setting does not exist, or is incompatible with the other settings."""


class PeerError(RuntimeError):
    """A method of another package failed."""


class RestorationWarning(UserWarning):
    """A measurement or its restoration is implausible, or an argument was not used."""


class SomeFailed(Exception):
    """Some of several files could not be restored; the others were."""


class PrecisionWarning(UserWarning):
    """A precision of the network that the device only emulates, slowly."""


# Errors that may concern one file only, except for the two in `FOR_ALL`, which concern all.
OF_ONE_FILE = (ValueError, ArithmeticError, MemoryError, OSError)
FOR_ALL = (CheckpointError, SettingError)


def exit_code(error: BaseException) -> int:
    """Returns the exit code for an error."""
    codes = {
        SettingError: EXIT_USAGE,
        TypeError: EXIT_USAGE,  # the prior lacks a capability that the solver needs
        CheckpointError: EXIT_WEIGHTS,
        MemoryError: EXIT_MEMORY,
        SomeFailed: EXIT_SOME,
        KeyboardInterrupt: EXIT_INTERRUPTED,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), EXIT_INPUT)


def memory_ran_out(error: BaseException) -> bool:
    """Returns whether a RuntimeError means exhausted memory, which torch's does not always say."""
    if not isinstance(error, RuntimeError):
        return False
    torch, numpy = (sys.modules.get(name) for name in ("torch", "numpy"))
    if torch and isinstance(error, torch.OutOfMemoryError):
        return True
    if "can't allocate memory" in str(error):
        return True
    try:
        if numpy:
            numpy.empty(MIN_MEMORY, numpy.uint8)
    except MemoryError:
        return True
    return False
