"""Errors that a user can act on; the command line turns each into one line and an exit code."""


class ImageError(ValueError):
    """An image file cannot be read, written or used."""


class CheckpointError(ValueError):
    """Weights are missing, incomplete or corrupt."""


class SettingError(ValueError):
    """A setting does not exist here, or does not go with the others."""
