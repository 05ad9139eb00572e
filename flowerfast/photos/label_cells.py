"""What the cells of a table say is on a photo: one class; or several, by name or by columns of 0 and 1."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from flowerfast.documents import shown
from flowerfast.errors import UserError
from flowerfast.photos.label_file import LABEL, LabelFile, Piece
from flowerfast.photos.label_sets import LabelSets
from flowerfast.photos.layout import nfc

LONGEST = 255  # characters of a class's name: of folders it is as many bytes
_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


class Labels(Protocol):
    """Labels of rows as they are read, numbered as they are met."""

    def of(self, piece: Piece) -> list[int]:
        """The label of each row of a piece. Raises UserError for what is none."""
        ...

    def classes(self) -> tuple[tuple[str, ...], np.ndarray, LabelSets | None]:
        """(classes, what each label is called in the end, int32 (labels,), what labels stand for; None: for
        the classes). Raises UserError when there is no class.
        """
        ...


class OneLabel:
    """Each photo has the class that its cell names; classes are sorted."""

    def __init__(self, table: LabelFile) -> None:
        self._table = table
        self._classes: dict[str, int] = {}
        self._known: dict[str, int] = {}  # as they are written

    def of(self, piece: Piece) -> list[int]:
        """The label of each row of a piece. Raises UserError for what is none."""
        return [
            self._known[text] if text in self._known else self._label(number, text)
            for number, text in zip(piece.numbers, piece.columns[LABEL], strict=True)
        ]

    def _label(self, number: int, text: str) -> int:
        name, table = text.strip(), self._table
        if not name:
            raise table.wrong(number, f"no {table.names[LABEL]}; give one, or remove the {table.unit}")
        self._known[text] = self._classes.setdefault(_checked(table, number, name), len(self._classes))
        return self._known[text]

    def classes(self) -> tuple[tuple[str, ...], np.ndarray, LabelSets | None]:
        """See `Labels`."""
        return tuple(sorted(self._classes)), _sorted_places(self._classes), None


class SetsOfLabels:
    """A photo has any number of classes, none too.

    Named in a cell, between separators, classes are sorted; of a column each, 1 where a photo has it, they
    are in the order of the columns.
    """

    def __init__(self, table: LabelFile) -> None:
        self._table = table
        self._classes: dict[str, int] = {}
        for name in table.classes.values():
            if nfc(name) in self._classes:
                raise UserError(f"{table.file}: two columns for the class {shown(name)}; remove one")
            self._classes[nfc(name)] = len(self._classes)
        self._known: dict[str, int] = {}  # as they are written
        self._sets: dict[tuple[int, ...], int] = {}

    def of(self, piece: Piece) -> list[int]:
        """The label of each row of a piece: the number of its set. Raises UserError for what is none."""
        if self._table.classes:
            return self._by_columns(piece)
        return [
            self._known[text] if text in self._known else self._cell(number, text)
            for number, text in zip(piece.numbers, piece.columns[LABEL], strict=True)
        ]

    def _cell(self, number: int, text: str) -> int:
        names = filter(None, (part.strip() for part in text.split(self._table.separator)))
        checked = [_checked(self._table, number, name) for name in names]
        self._known[text] = self._number({self._classes.setdefault(n, len(self._classes)) for n in checked})
        return self._known[text]

    def _by_columns(self, piece: Piece) -> list[int]:
        columns = [
            [self._flag(name, *cell) for cell in zip(piece.numbers, piece.columns[role], strict=True)]
            for role, name in self._table.classes.items()
        ]
        different, place = np.unique(np.array(columns, bool).T, axis=0, return_inverse=True)
        numbers = [self._number(np.flatnonzero(row).tolist()) for row in different]
        return [numbers[each] for each in place.ravel().tolist()]

    def _flag(self, name: str, number: int, text: str) -> bool:
        word = text.strip().casefold()
        if word not in _FLAGS:
            said = f"{shown(text)} in column {shown(name)}, which is to hold 0 or 1"
            raise self._table.wrong(number, f"{said}; mend it, or name the columns in data.label_columns")
        return _FLAGS[word]

    def _number(self, classes: Iterable[int]) -> int:
        return self._sets.setdefault(tuple(sorted(classes)), len(self._sets))

    def classes(self) -> tuple[tuple[str, ...], np.ndarray, LabelSets | None]:
        """See `Labels`."""
        if not self._classes:
            raise UserError(f"{self._table.file}: no photo has a label; give some")
        by_column = bool(self._table.classes)
        place = np.arange(len(self._classes)) if by_column else _sorted_places(self._classes)
        sets, label = LabelSets.numbered(place[list(each)].tolist() for each in self._sets)
        return tuple(self._classes) if by_column else tuple(sorted(self._classes)), label, sets


def _checked(table: LabelFile, number: int, name: str) -> str:
    """The name of a class in one spelling. Raises UserError for what is none."""
    if len(name) > LONGEST or "\0" in name:
        raise table.wrong(number, f"{shown(name)} is no name of a class; mend it")
    return nfc(name)


def _sorted_places(names: Iterable[str]) -> np.ndarray:
    """Place of each name once they are sorted: int32 (n,)."""
    order = np.argsort(np.array([*names], np.object_))
    places: np.ndarray = np.argsort(order).astype(np.int32)
    return places
