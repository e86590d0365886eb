"""Errors that a user can act on; the command line turns each into one line and an exit code."""

EXIT_USAGE, EXIT_INPUT, EXIT_WEIGHTS, EXIT_MEMORY, EXIT_SOME = 2, 3, 4, 5, 6
EXIT_INTERRUPTED, EXIT_PIPE = 130, 141


class ImageError(ValueError):
    """An image file cannot be read, written or used."""


class CheckpointError(ValueError):
    """Weights are missing, incomplete or corrupt."""


class SettingError(ValueError):
    """A setting does not exist here, or does not go with the others."""


class PeerError(RuntimeError):
    """A method of another package failed, for reasons of its own."""


class SomeFailed(Exception):
    """Some of many files could not be restored; the others were."""


# What may be wrong with one file and right with the next, but for the two of `FOR_ALL`.
OF_ONE_FILE = (ValueError, ArithmeticError, MemoryError, OSError)
FOR_ALL = (CheckpointError, SettingError)


def exit_code(error: BaseException) -> int:
    """The exit code that stands for an error."""
    codes = {
        SettingError: EXIT_USAGE,
        TypeError: EXIT_USAGE,  # a prior without what the solver needs
        CheckpointError: EXIT_WEIGHTS,
        MemoryError: EXIT_MEMORY,
        SomeFailed: EXIT_SOME,
        KeyboardInterrupt: EXIT_INTERRUPTED,
    }
    return next((code for kind, code in codes.items() if isinstance(error, kind)), EXIT_INPUT)
