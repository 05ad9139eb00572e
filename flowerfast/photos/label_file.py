"""A table that names photos, column by column: CSV, TSV or Parquet, read in pieces of bounded size."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from flowerfast.config import DataConfig
from flowerfast.documents import shown
from flowerfast.errors import UserError, one_line
from flowerfast.files import open_regular
from flowerfast.nearest import did_you_mean, nearest

PATH, LABEL, SPLIT = "path", "label", "split"
KNOWN = {
    PATH: ("path", "file", "filename", "image", "file_name", "file_path", "filepath", "image_path"),
    LABEL: ("label", "class", "target", "class_name", "category"),
    SPLIT: ("split", "fold", "set", "subset"),
}
"""By what a column is for, the names by which it is known without being told."""
_PLURAL = ("labels", "tags", "classes", "targets", "categories")  # of labels too, where a photo has several
ALL = ("*",)
"""As names of the columns of 0 and 1: all that are for nothing else."""
_OF_CLASS = "class "  # before the name of such a column: what it is for
_ELEMENTS = "\0"  # between the labels of a column of lists: no label holds it
_PARQUET = (".parquet", ".pq")
_ROWS = 1 << 14  # of a piece
_HEADER = 1 << 20  # characters of the line that names the columns, at most
_SHOWN = 20  # columns that a message names


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table; None: the usual ones.

    Attributes:
        path, label, split: of these.
        separator: between the labels of a photo that has several; None: each has one.
        classes: of one column of 0 and 1 per class, in the place of a column of labels; or `ALL`.
    """

    path: str | None = None
    label: str | None = None
    split: str | None = None
    separator: str | None = None
    classes: tuple[str, ...] | None = None

    @property
    def are_several(self) -> bool:
        """Whether photos are said to have several labels."""
        return self.separator is not None or self.classes is not None

    @classmethod
    def of(cls, data: DataConfig) -> "Columns":
        """Those that the settings name."""
        named = data.label_columns
        if isinstance(named, str):
            named = tuple(name.strip() for name in named.split(","))
        return cls(data.path_column, data.label_column, data.split_column, data.label_separator, named)


@dataclass(frozen=True)
class Piece:
    """Rows of a table that follow each other.

    Attributes:
        numbers: the line of each row, or of Parquet the row, from 1 on.
        columns: by PATH, LABEL and, where there is one, SPLIT: the text of each row; of columns of 0 and 1
            there is one per class, see `LabelFile.classes`.
    """

    numbers: list[int]
    columns: dict[str, list[str]]


@dataclass(frozen=True)
class LabelFile:
    """A table that is open.

    Attributes:
        file: where it is.
        unit: what its rows are called in messages: line, or row.
        names: by PATH, LABEL and SPLIT, the names of the columns that are read.
        pieces: the rows, to be taken once.
        separator: between the labels in a cell of a photo that has several; None: each has one.
    """

    file: Path
    unit: str
    names: dict[str, str]
    pieces: Iterator[Piece]
    separator: str | None = None

    @property
    def has_several(self) -> bool:
        """Whether a photo may have several labels, or none."""
        return self.separator is not None or bool(self.classes)

    @property
    def classes(self) -> dict[str, str]:
        """Of columns of 0 and 1 the class of each, by its place in the `columns` of pieces."""
        return {role: name for role, name in self.names.items() if role.startswith(_OF_CLASS)}

    def wrong(self, number: int, what: str) -> UserError:
        """The error that names a row."""
        return UserError(f"{self.file}: {self.unit} {number}: {what}")


@contextmanager
def opened(
    file: Path, columns: Columns, wanted: Sequence[str] = (PATH, LABEL), also: Sequence[str] = (SPLIT,)
) -> Iterator[LabelFile]:
    """A table whose columns `wanted` must be there, and those of `also` are read where they are.

    Raises UserError for what cannot be read, whose columns are not known, or whose rows are none: also while
    its pieces are taken.
    """
    reading = _parquet if file.name.lower().endswith(_PARQUET) else _text
    try:
        with reading(file, columns, wanted, also) as table:
            yield table
    except UnicodeError as error:
        raise UserError(f"{file}: not text in UTF-8 ({one_line(error)}); save it as CSV in UTF-8") from None
    except OSError as error:
        if error.filename not in (None, str(file)):
            raise
        raise UserError(f"{file}: cannot be read ({error.strerror or one_line(error)})") from error


def check_readable(file: Path) -> None:
    """Raise UserError where what a table of that name takes is not installed."""
    from importlib.util import find_spec

    if file.name.lower().endswith(_PARQUET) and find_spec("pyarrow") is None:
        raise UserError(
            f'{file}: Parquet takes pyarrow, which is not installed: pip install "flowerfast[parquet]"'
        )


# ---------------------------------------------------------------------------------------------------- columns


def _choose(
    file: Path, there: Sequence[str], columns: Columns, wanted: Sequence[str], also: Sequence[str]
) -> dict[str, int]:
    """Places of the columns, by what they are for. Raises UserError."""
    many, several = columns.classes if LABEL in wanted else None, columns.separator is not None
    places = {
        role: place
        for role in (*wanted, *also)
        if (role != LABEL or many is None)
        and (place := _place(file, there, role, getattr(columns, role), role in wanted, several)) is not None
    }
    if many == ALL:
        # With layout=classes a column of splits is passed over, here too.
        taken = {*places.values(), _place(file, there, SPLIT, columns.split, False)}
        many = tuple(name for place, name in enumerate(there) if name and place not in taken)
    if many is not None and len({*many}) < len(many):
        twice = next(name for name in many if many.count(name) > 1)
        raise UserError(f"{file}: column {shown(twice)} is there, or in data.label_columns, twice; keep one")
    for name in many or ():
        place = _place(file, there, LABEL, name, True, setting="data.label_columns")
        assert place is not None
        if place in places.values():
            raise UserError(
                f"{file}: column {shown(name)} holds something else; name others in data.label_columns"
            )
        places[_OF_CLASS + there[place]] = place
    return places


def _place(
    file: Path,
    there: Sequence[str],
    role: str,
    named: str | None,
    needed: bool,
    several: bool = False,
    setting: str | None = None,
) -> int | None:
    setting = setting or f"data.{role}_column"
    listed = ", ".join(map(repr, there[:_SHOWN])) + (", ..." if len(there) > _SHOWN else "")
    if named is not None:
        places = [place for place, name in enumerate(there) if name == named.strip()]
        if not places:
            near = nearest(named, there)
            raise UserError(
                f"{file}: no column {shown(named)}{did_you_mean(near) if near else ''}; its columns are "
                f"{listed}: set {setting}"
            )
    else:
        known = (*KNOWN[role], *(_PLURAL if several and role == LABEL else ()))
        places = [place for place, name in enumerate(there) if name.casefold() in known]
    if len(places) > 1:
        names = " and ".join(dict.fromkeys(repr(there[place]) for place in places))
        raise UserError(f"{file}: {len(places)} columns could be the {role}: {names}; set {setting}")
    if not places and needed:
        raise UserError(
            f"{file}: no column for the {role}, such as {', '.join(KNOWN[role][:4])}; its first line names "
            f"{listed}: set {setting}"
        )
    return places[0] if places else None


# ------------------------------------------------------------------------------------------------------- text


@contextmanager
def _text(file: Path, columns: Columns, wanted: Sequence[str], also: Sequence[str]) -> Iterator[LabelFile]:
    with io.TextIOWrapper(os.fdopen(open_regular(file), "rb"), "utf-8-sig", newline="") as stream:
        before, line = -1, "\n"
        while line and not line.strip():
            before, line = before + 1, stream.readline(_HEADER)
        if not line:
            raise UserError(f"{file}: empty; its first line must name the columns, such as path,label")
        if len(line) == _HEADER and not line.endswith(("\n", "\r")):
            raise UserError(f"{file}: its first line is longer than {_HEADER:,} characters; name the columns")
        # Spreadsheets write ; where the comma is in numbers.
        delimiter = max(",\t;", key=line.count)
        rows = csv.reader(chain([line], stream), delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            there = [name.strip() for name in next(rows)]
        except csv.Error as error:
            raise _no_csv(file, before + rows.line_num, error) from None
        places = _choose(file, there, columns, wanted, also)
        names = {role: there[place] for role, place in places.items()}
        pieces = _pieces(file, rows, places, len(there), before)
        yield LabelFile(file, "line", names, pieces, columns.separator)


def _pieces(file: Path, rows: Any, places: dict[str, int], width: int, before: int) -> Iterator[Piece]:
    """Pieces of the rows of a csv reader, `before` whose first line so many are."""
    least = max(places.values()) + 1
    numbers: list[int] = []
    taken: list[list[str]] = []
    try:
        for row in rows:
            if len(row) != width:
                if not any(row):
                    continue  # an empty line
                if any(row[width:]) or len(row) < least:
                    what = f"{len(row)} fields, but {width} columns; put what holds the delimiter in quotes"
                    raise UserError(f"{file}: line {before + rows.line_num}: {what}")
            taken.append(row)
            numbers.append(before + rows.line_num)
            if len(taken) == _ROWS:
                yield _piece(numbers, taken, places)
                numbers, taken = [], []
    except csv.Error as error:
        raise _no_csv(file, before + rows.line_num, error) from None
    if taken:
        yield _piece(numbers, taken, places)


def _piece(numbers: list[int], rows: list[list[str]], places: dict[str, int]) -> Piece:
    return Piece(numbers, {role: [row[place] for row in rows] for role, place in places.items()})


def _no_csv(file: Path, line: int, error: csv.Error) -> UserError:
    return UserError(f"{file}: line {line}: not CSV ({one_line(error)}); mend that line")


# ---------------------------------------------------------------------------------------------------- Parquet


@contextmanager
def _parquet(file: Path, columns: Columns, wanted: Sequence[str], also: Sequence[str]) -> Iterator[LabelFile]:
    check_readable(file)
    import pyarrow
    from pyarrow import parquet

    try:
        with os.fdopen(open_regular(file), "rb") as stream, parquet.ParquetFile(stream) as table:
            there = table.schema_arrow.names
            lists = map(pyarrow.types.is_list, table.schema_arrow.types)
            # Whoever writes lists may call their column by the plural.
            asked = replace(columns, separator=_ELEMENTS) if any(lists) else columns
            places = _choose(file, [name.strip() for name in there], asked, wanted, also)
            names, separator = {role: there[place] for role, place in places.items()}, columns.separator
            for role, name in names.items():
                kind = table.schema_arrow.field(name).type
                if pyarrow.types.is_dictionary(kind):
                    kind = kind.value_type
                if role == LABEL and (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)):
                    kind, separator = kind.value_type, _ELEMENTS
                if not any(test(kind) for test in _kinds(pyarrow.types, role)):
                    raise UserError(f"{file}: column {name!r} holds {kind}; give it as text")
            yield LabelFile(file, "row", names, _batches(table, names), separator)
    except pyarrow.ArrowException as error:
        raise UserError(f"{file}: not Parquet ({one_line(error)}); write it again") from None


def _kinds(types: Any, role: str) -> list[Any]:
    """Tests of the types that a column may have: whole numbers are names of classes, too."""
    text = [types.is_string, types.is_large_string, types.is_string_view]
    if role == PATH:
        return text
    return [*text, types.is_integer, types.is_boolean, *([types.is_floating] if role not in KNOWN else [])]


def _batches(table: Any, names: dict[str, str]) -> Iterator[Piece]:
    first = 1
    for batch in table.iter_batches(batch_size=_ROWS, columns=[*names.values()]):
        columns = {
            role: [_as_text(value) for value in batch.column(name).to_pylist()]
            for role, name in names.items()
        }
        yield Piece([*range(first, first + batch.num_rows)], columns)
        first += batch.num_rows


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return _ELEMENTS.join(_as_text(each) for each in value)
    return "" if value is None else str(value)
