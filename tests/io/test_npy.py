"""Headers of NPY files: numpy's answer, or a ValueError."""

import io
import tokenize

import numpy as np
import pytest
from pictures import npy

from genprior.io.npy import read_header


def header(text: str, version: int = 1) -> io.BytesIO:
    length = len(text).to_bytes(2 if version == 1 else 4, "little")
    return io.BytesIO(b"\x93NUMPY" + bytes([version, 0]) + length + text.encode())


@pytest.mark.parametrize("version", [1, 2, 3])
def test_shape_and_type_are_those_of_numpy(version: int) -> None:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros((2, 3), ">u2"), (version, 0))
    file.seek(0)
    assert read_header(file) == ((2, 3), np.dtype(">u2"))
    assert file.read() == bytes(12)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr&: '|O', 'fortran]order': False, 'shape': (1, 1), }\n",  # found by a fuzzer
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1)",
        "{{}: 1}",
        "(" * 300 + ")" * 300,
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 'a')}",
        "{'descr': 'no', 'fortran_order': False, 'shape': (1, 1)}",
        "",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_damaged_header_is_a_value_error(text: str, version: int) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_header(header(text, version))


def test_numpy_itself_raises_other_errors() -> None:
    file = header("{'descr&: '|O', 'fortran]order': False, 'shape': (1, 1), }\n")
    np.lib.format.read_magic(file)
    with pytest.raises(tokenize.TokenError):  # else `read_header` need not catch them
        np.lib.format.read_array_header_1_0(file)


def test_unknown_versions_and_other_files_are_refused() -> None:
    with pytest.raises(ValueError, match=r"version 9\.0"):
        read_header(header("{}", 9))
    with pytest.raises(ValueError, match="magic"):
        read_header(io.BytesIO(b"P6 1 1"))
    read_header(io.BytesIO(npy(np.zeros(3))))
