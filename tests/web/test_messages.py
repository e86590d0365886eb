"""Messages between page and server."""

import msgspec
import pytest

from genprior.web.messages import MAX_LINE, pack, unpack


class Line(msgspec.Struct):
    parts: list[tuple[str, int]]
    tool: str


def test_a_message_comes_back() -> None:
    parts = {"image": bytes(range(256)), "mask": b"", "kernel": b"\n{}\n"}
    line, unpacked = unpack(pack({"tool": "denoise"}, parts), Line)
    assert line.tool == "denoise"
    assert unpacked == parts


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no first line"),
        (b" " * MAX_LINE + b"\n", "no first line"),
        (b"[]\n", "does not fit"),
        (b'{"parts": [], "tool": 3}\n', "does not fit"),
        (b"[" * 5000 + b"\n", "does not fit"),
        (b'{"parts": [["a", 4]], "tool": "x"}\nabc', "do not have the listed sizes"),
        (b'{"parts": [["a", 2]], "tool": "x"}\nabc', "do not have the listed sizes"),
        (b'{"parts": [["a", 4], ["b", -1]], "tool": "x"}\nabc', "do not have the listed sizes"),
        (b'{"parts": [["a", 1e400]], "tool": "x"}\nabc', "does not fit"),
    ],
)
def test_other_bytes_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack(data, Line)


def test_numbers_that_json_lacks_are_not_sent() -> None:
    with pytest.raises(ValueError, match="JSON"):
        pack({"psnr": float("nan")})
