"""Messages between page and server: a line of JSON, then the bytes of the parts that it lists.

    {"parts": [["image", 1234], ["mask", 99]], ...}\\n<1234 bytes><99 bytes>
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from genprior.core.records import parse_json

Kind = TypeVar("Kind")
# A longer first line is no message of the page.
MAX_LINE = 2**16


def pack(about: Mapping[str, Any], parts: Mapping[str, bytes] | None = None) -> bytes:
    """Returns a message.

    Arguments:
        about: JSON values.
        parts: Content of the parts by name, in this order.
    """
    parts = parts or {}
    line = {**about, "parts": [[name, len(part)] for name, part in parts.items()]}
    return json.dumps(line, allow_nan=False).encode() + b"\n" + b"".join(parts.values())


def unpack(data: bytes, kind: type[Kind]) -> tuple[Kind, dict[str, bytes]]:
    """Returns the first line of a message, checked against a schema, and its parts.

    Arguments:
        data: The message.
        kind: Schema of the line: a `msgspec.Struct` with `parts`, a list of (name, bytes).

    Raises:
        ValueError: The bytes are no such message.

    >>> import msgspec
    >>> Line = msgspec.defstruct("Line", [("parts", list[tuple[str, int]]), ("tool", str)])
    >>> line, parts = unpack(pack({"tool": "denoise"}, {"image": b"abc"}), Line)
    >>> line.tool, parts
    ('denoise', {'image': b'abc'})
    """
    end = data.find(b"\n", 0, MAX_LINE)
    if end < 0:
        raise ValueError("the request has no first line of JSON: reload the page")
    try:
        line: Any = parse_json(data[:end], kind)
    except ValueError as error:
        raise ValueError(f"the request does not fit: {error}") from None
    parts, start = {}, end + 1
    for name, size in line.parts:
        parts[name] = bytes(data[start : start + max(0, size)])
        start += size
    if start != len(data) or any(size < 0 for _, size in line.parts):
        raise ValueError("the parts of the request do not have the listed sizes: reload the page")
    return line, parts
