"""Reading of JSON and TOML with a schema: files that are read back, and values that users type.

A schema is a `msgspec.Struct` class or any type that `msgspec.convert` takes. Every defect (bytes
that are no text, syntax, nesting, a missing key, a wrong type, a number out of range) is one
`ValueError` whose message names the first defect.
"""

import json
import stat
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

Kind = TypeVar("Kind")

# Larger files, and deeper nesting, are of none that this package wrote.
MAX_BYTES = 256 * 2**20
# Deeper values could be read, but Python's recursion limit is too low to write or compare them.
MAX_DEPTH = 50


def parse_json(data: bytes | str, kind: type[Kind]) -> Kind:
    """Returns the value of a JSON text, checked against a schema.

    Raises:
        ValueError: The text is no JSON, is nested too deeply or does not fit the schema.
    """
    return _checked(lambda: json.loads(data), kind)


def parse_toml(text: str, kind: type[Kind]) -> Kind:
    """Returns the values of a TOML text, checked against a schema; errors as of `parse_json`."""
    return _checked(lambda: tomllib.loads(text), kind)


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """Returns the value of a JSON file, checked against a schema.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a regular file, is too large, or as of `parse_json`.
    """
    return parse_json(read_regular(path), kind)


def read_regular(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Returns the content of a regular file; devices and pipes, which may not end, are refused.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a regular file, or larger than `max_bytes`.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path.name} is not a regular file")
    if status.st_size > max_bytes:
        raise ValueError(f"{path.name} has {status.st_size} bytes; at most {max_bytes} are read")
    return path.read_bytes()


def _checked(parse: Any, kind: type[Kind]) -> Kind:
    try:
        value = parse()
        if _is_deeper(value, MAX_DEPTH):
            raise ValueError("it is nested too deeply")
        return msgspec.convert(value, kind)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"it is not TOML: {error}") from None
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _is_deeper(value: Any, depth: int) -> bool:
    """Returns whether lists and dictionaries are nested more than `depth` times."""
    level = [value]
    for _ in range(depth + 1):
        level = [item for outer in level if isinstance(outer, list | dict)
                 for item in (outer.values() if isinstance(outer, dict) else outer)]
    return bool(level)
