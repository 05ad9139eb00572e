"""YAML and JSON that others wrote, read within bounds: size, depth, repeats, numbers, characters.

A run, a config or a set of shards may have come from anywhere. Whatever is in such a file, it is read in
bounded time and memory or refused with a `DocumentError`, a ValueError of one line; whoever reads names the
file and the way out.
"""

import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from flowerfast.errors import printable
from flowerfast.files import open_regular

MOST_JSON = 64 << 20  # bytes; what holds a line per photo may be larger, and says so
MOST_YAML = 64 << 10  # bytes; PyYAML is slow
_DEEPEST = 32  # levels
_MOST_VALUES = 10_000  # in YAML, with all aliases written out
_LARGEST = 2**64
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_SHOWN = 80  # characters of a value in a message

Model = TypeVar("Model")


class DocumentError(ValueError):
    """What is wrong with a document, in one line."""


def read_json(file: Path, *, most: int = MOST_JSON, finite: bool = True) -> Any:
    """The value of a JSON file in UTF-8. Raises OSError, and DocumentError as `parse_json` does."""
    with os.fdopen(open_regular(file), "rb") as stream:
        return parse_json(stream.read(most + 1), most=most, finite=finite)


def parse_json(content: bytes, *, most: int = MOST_JSON, finite: bool = True) -> Any:
    """The value of a JSON text in UTF-8.

    Args:
        content: the text.
        most: bytes that it may have.
        finite: refuse NaN and infinity, which measured losses may be.

    Raises DocumentError for what is no JSON, larger than `most`, nested too deep, has a key twice, an integer
    of more than 64 bits or the character U+0000.
    """
    if len(content) > most:
        raise DocumentError(f"larger than {most:,} bytes")
    try:
        text = content.decode("utf-8")
        if _NUL.search(text):
            raise DocumentError("holds the character U+0000")
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number if finite else float,
            parse_constant=_number if finite else float,
        )
    except RecursionError:
        raise DocumentError(_TOO_DEEP) from None
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(str(error)) from None
    _check_depth(value)
    return value


def conform(model: type[Model], content: Any) -> Model:
    """Content as a pydantic model or a dataclass.

    Raises DocumentError with the first thing that is not as it should be.
    """
    try:
        return TypeAdapter(model).validate_python(content)
    except ValidationError as error:
        place, value, rule = first_problem(error)
        raise DocumentError(f"{place or 'the whole'}={value}: {rule}") from None


def first_problem(error: ValidationError) -> tuple[str, str, str]:
    """(dotted place, value there as `shown`, rule) of the first thing that is not as it should be."""
    first = error.errors()[0]
    rule = first["msg"][0].lower() + first["msg"][1:]
    return ".".join(map(str, first["loc"])), shown(first["input"]), rule.removeprefix("value error, ")


def shown(value: Any) -> str:
    """A value as a message shows it: one line, not longer than it takes to know it again."""
    if isinstance(value, str | bytes):
        value = value[: _SHOWN + 1]  # of a long one, not all is made printable
    text = printable(repr(value))
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


_TOO_DEEP = f"nested deeper than {_DEEPEST} levels"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise DocumentError(f"key {shown(twice)} twice")
    return content


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) >= _LARGEST:
        raise DocumentError(f"number {text[:20]}... is too large")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise DocumentError(f"{text[:20]} is no finite number")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEEPEST):
        # Of a long list of names, only what holds more is looked at twice.
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return
    raise DocumentError(_TOO_DEEP)


def read_yaml(file: Path) -> Any:
    """The value of a YAML file in UTF-8. Raises OSError, and DocumentError as `parse_yaml` does."""
    with os.fdopen(open_regular(file), "rb") as stream:
        content = stream.read(MOST_YAML + 1)
    if len(content) > MOST_YAML:
        raise DocumentError(f"larger than {MOST_YAML:,} bytes")
    try:
        return parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DocumentError(str(error)) from None


def parse_yaml(text: str) -> Any:
    """The value of a YAML text of PyYAML's safe types.

    Raises DocumentError, with the line where it is known, for what is no YAML, larger than MOST_YAML, nested
    too deep, of too many values (an alias counts for all it stands for), has a key twice, an integer of more
    than 64 bits or the character U+0000.
    """
    if len(text) > MOST_YAML:
        raise DocumentError(f"longer than {MOST_YAML:,} characters")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _weigh(node, {}, ())
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "no YAML"
        raise DocumentError(f"line {mark.line + 1}: {problem}" if mark else problem) from None
    except (AttributeError, LookupError, TypeError):  # PyYAML's, of `!!int ""` and the like
        raise DocumentError("a value is not what its tag says") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter for what looks like a date
        raise DocumentError((str(error).splitlines() or ["no YAML"])[0]) from None
    _check_scalars(value)
    return value


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which refuses deep nesting while it reads, and keys given twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise yaml.MarkedYAMLError(None, None, _TOO_DEEP, self.peek_event().start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise yaml.MarkedYAMLError(None, None, f"key {shown(key.value)} twice", key.start_mark)
                seen.add((key.tag, key.value))
        return node


def _weigh(node: yaml.Node, known: dict[int, int], above: tuple[int, ...]) -> int:
    """How many values a node stands for, aliases written out. Raises MarkedYAMLError for too many."""
    if id(node) in above or len(above) >= _DEEPEST:
        problem = "an alias within what it stands for" if id(node) in above else _TOO_DEEP
        raise yaml.MarkedYAMLError(None, None, problem, node.start_mark)
    if id(node) not in known:
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[id(node)] = 1 + sum(_weigh(part, known, (*above, id(node))) for part in inner)
    if known[id(node)] > _MOST_VALUES:
        problem = f"more than {_MOST_VALUES:,} values, aliases written out"
        raise yaml.MarkedYAMLError(None, None, problem, node.start_mark)
    return known[id(node)]


def _check_scalars(value: Any) -> None:
    if isinstance(value, dict):
        for pair in value.items():
            _check_scalars(pair)
    elif isinstance(value, list | tuple | set):
        for part in value:
            _check_scalars(part)
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        raise DocumentError("a number is too large")
    elif isinstance(value, str) and "\0" in value:
        raise DocumentError("holds the character U+0000")
