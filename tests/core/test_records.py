import os
from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from genprior.core.records import parse_json, parse_toml, read_json, read_regular


class Point(msgspec.Struct):
    x: float
    n: Annotated[int, msgspec.Meta(ge=0)] = 0


def test_values_that_fit_the_schema_are_returned() -> None:
    assert parse_json(b'{"x": 1.5, "n": 3, "other": null}', Point) == Point(1.5, 3)
    assert parse_json("[1, 2]", list[int]) == [1, 2]
    assert parse_toml("x = 2.0", Point) == Point(2.0)


@pytest.mark.parametrize(("text", "message"), [
    (b"\xff{}", "it is not UTF-8 text"),
    (b"{", "it is not JSON"),
    (b"[" * 10**5, "it is nested too deeply"),
    (b'{"x": 1, "y": ' + b"[" * 100 + b"]" * 100 + b"}", "it is nested too deeply"),
    (b"{}", "missing required field `x`"),
    (b'{"x": "1"}', "Expected `float`, got `str` - at `[$].x`"),
    (b'{"x": null}', "Expected `float`, got `null`"),
    (b'{"x": 1, "n": -1}', "Expected `int` >= 0 - at `[$].n`"),
    (b"[]", "Expected `object`, got `array`"),
])
def test_the_first_defect_is_named(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text, Point)


def test_the_permitted_depth_does_not_depend_on_the_caller() -> None:
    assert parse_json("[" * 50 + "1" + "]" * 50, list)
    for opened, closed in (("[", "1]"), ('{"a":', "1}")):
        text = opened * 51 + closed[0] + closed[1] * 51
        with pytest.raises(ValueError, match="it is nested too deeply"):
            parse_json(text, object)
    with pytest.raises(ValueError, match="it is nested too deeply"):
        parse_toml(f"{'.'.join('a' * 3000)} = 1", dict)


def test_toml_that_is_nested_deeply_or_wrong_is_refused() -> None:
    for text in ("x = " + "[" * 10**4, "x ="):
        with pytest.raises(ValueError, match="nested too deeply|it is not TOML"):
            parse_toml(text, Point)


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").write_bytes(b"12345")
    for name in ("pipe", "zero"):
        with pytest.raises(ValueError, match=f"{name} is not a regular file"):
            read_json(tmp_path / name, Point)
    with pytest.raises(ValueError, match="large has 5 bytes; at most 4 are read"):
        read_regular(tmp_path / "large", max_bytes=4)
    assert read_regular(tmp_path / "large") == b"12345"
