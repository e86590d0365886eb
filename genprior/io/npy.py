"""Header of `.npy` files, checked: a damaged one is a ValueError, whatever numpy raises."""

from typing import BinaryIO

import numpy as np

# numpy evaluates the header as a Python literal, so a damaged one may raise almost anything:
# SyntaxError, tokenize.TokenError, TypeError, MemoryError, RecursionError.
READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # only text differs, which no image needs
}


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Reads the header of a `.npy` file; the file is then at the start of the numbers.

    Arguments:
        file: File at its start.

    Returns:
        Shape and type of the array.

    Raises:
        ValueError: This is no header that numpy writes.
        OSError: The file cannot be read.
    """
    version = np.lib.format.read_magic(file)
    if version not in READERS:
        raise ValueError(f"version {version[0]}.{version[1]} of NPY is not known")
    try:
        shape, _, dtype = READERS[version](file)
    except (OSError, ValueError):
        raise
    except Exception as error:  # noqa: BLE001
        raise ValueError("its header is damaged") from error
    return shape, dtype
