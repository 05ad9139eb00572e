"""YAML and JSON from others: read within bounds, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flowerfast.documents import DocumentError, conform, parse_json, parse_yaml, read_json, read_yaml, shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ('{"a": 1, "b": 2, "a": 3}', r"^key 'a' twice$"),
        ("[" * 200_000, r"^nested deeper than 32 levels$"),
        ("[" * 40 + "]" * 40, r"^nested deeper than 32 levels$"),
        ('{"a":' * 40 + "1" + "}" * 40, r"^nested deeper than 32 levels$"),
        ("9" * 5000, r"^number 9+\.\.\. is too large$"),
        (str(2**64), "is too large"),
        ("NaN", r"^NaN is no finite number$"),
        ("[-Infinity]", "no finite number"),
        ("1e999", r"^1e999 is no finite number$"),
        ('"\\u0000"', r"^holds the character U\+0000$"),
        ('"\\\\\\u0000"', "holds the character"),
        ('"\x00"', "Invalid control character"),
    ],
)
def test_json_that_is_hostile_is_refused(text: str, said: str) -> None:
    with pytest.raises(DocumentError, match=said) as caught:
        parse_json(text.encode())
    assert len(str(caught.value).splitlines()) == 1


def test_json_that_is_none_of_that_is_read() -> None:
    value = {"a": [1, 2.5, "\\u0000", None, True, -7]}
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(b"[" * 31 + b"]" * 31)
    assert str(parse_json(b"[NaN, Infinity, 1e999]", finite=False)) == "[nan, inf, inf]"


def test_what_is_too_large_or_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"[" + b" " * 100 + b"]")
    assert read_json(file, most=102) == []
    with pytest.raises(DocumentError, match=r"^larger than 101 bytes$"):
        read_json(file, most=101)
    with file.open("r+b") as stream:
        stream.truncate(1 << 40)  # takes no room on the disk, and may take none in memory
    for read in (read_json, read_yaml):
        with pytest.raises(DocumentError, match=r"^larger than [\d,]+ bytes$"):
            read(file)
    file.write_bytes(b"\xff")
    for read in (read_json, read_yaml):
        with pytest.raises(DocumentError, match="can't decode byte 0xff"):
            read(file)


@pytest.mark.parametrize("text", ["!!int ''", "!!bool perhaps", "!!timestamp 1", "!!float x", "*a", "x: 0x_"])
def test_yaml_for_which_pyyaml_fails_in_its_own_ways_is_refused(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text)
    assert len(str(caught.value).splitlines()) == 1


def test_an_alias_may_stand_for_a_value_and_a_merge_key_for_pairs() -> None:
    assert parse_yaml("a: &x [1, 2]\nb: *x\nc: &y {d: 1}\ne: {<<: *y, d: 2}") == {
        "a": [1, 2], "b": [1, 2], "c": {"d": 1}, "e": {"d": 2},
    }  # fmt: skip


class Shape(BaseModel):
    a: list[int]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": [1, "x\x1b"]}, "a.1='x\\x1b': input should be a valid integer"),
        ({}, "a={}: field required"),
        ([], "the whole=[]: input should be a valid dictionary"),
    ],
)
def test_content_of_another_shape_is_refused_by_its_place(content: Any, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        conform(Shape, content)
    assert str(caught.value).startswith(said)


def test_what_is_shown_is_short_and_one_line() -> None:
    assert shown("a\n\x1b\u202e") == "'a\\n\\x1b\\u202e'"
    assert len(shown("x" * 10**7)) == len(shown([0] * 1000)) == 80
