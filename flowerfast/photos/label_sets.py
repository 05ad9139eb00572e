"""Photos with several labels: the sets of classes that there are, of which a photo's label names one.

So a label is one number for every photo, and what sorts, keeps, packs and compares rows need not know what it
stands for.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class LabelSets:
    """Different sets of classes, which may be empty; a label is the place of one of them.

    Attributes:
        members: int32 (total,), the classes of one set after another, rising within each.
        ends: int64 (sets,), where each set ends.
    """

    members: np.ndarray
    ends: np.ndarray

    @classmethod
    def numbered(cls, sets: Iterable[Iterable[int]]) -> tuple["LabelSets", np.ndarray]:
        """(the different ones of these sets of classes, label of each given, int32 (n,)).

        They are numbered by their classes, however they are ordered and however often they come.
        """
        given = [tuple(sorted(each)) for each in sets]
        place = {each: number for number, each in enumerate(sorted({*given}))}
        members = [label for each in place for label in each]
        ends = np.cumsum([len(each) for each in place], dtype=np.int64)
        return cls(np.array(members, np.int32), ends), np.array([place[each] for each in given], np.int32)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, label: int) -> list[int]:
        """Classes of a set."""
        start = int(self.ends[label - 1]) if label else 0
        classes: list[int] = self.members[start : self.ends[label]].tolist()
        return classes

    def pairs(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in `labels`, class) of every class that these have, int64 (m,) each, by place."""
        lengths = np.diff(self.ends, prepend=0)[labels]
        ends = np.cumsum(lengths)
        # Of the k-th class of a label: where its set starts, and k.
        starts = np.repeat(self.ends[labels] - ends, lengths)
        classes = self.members[starts + np.arange(len(starts))].astype(np.int64)
        return np.repeat(np.arange(len(labels)), lengths), classes

    def placed(self, place: np.ndarray) -> tuple["LabelSets", np.ndarray]:
        """(sets of other classes, the label there of each label here, int32 (sets,)).

        `place` says what each class is called there, int (classes,), -1: it is not there.
        """
        return self.numbered(
            [number for number in place[self[label]].tolist() if number >= 0] for label in range(len(self))
        )

    def digest(self) -> str:
        """Hex digest of all sets."""
        return hashlib.sha256(self.ends.tobytes() + self.members.tobytes()).hexdigest()

    def check(self, classes: int) -> None:
        """Raise ValueError unless these are sets of so many classes; whoever wrote a file may have lied."""
        if self.members.dtype != np.int32 or self.ends.dtype != np.int64 or self.members.ndim != 1:
            raise ValueError("sets of labels of another type")
        lengths = np.diff(self.ends, prepend=0)
        if self.ends.ndim != 1 or not len(lengths) or lengths.min() < 0 or lengths.sum() != len(self.members):
            raise ValueError("sets of labels that do not end where they should")
        if len(self.members) and not 0 <= self.members.min() <= self.members.max() < classes:
            raise ValueError("a set with a class that there is not")
        within = np.ones(max(len(self.members) - 1, 0), bool)
        borders = self.ends[(self.ends > 0) & (self.ends < len(self.members))] - 1
        within[borders] = False
        if (np.diff(self.members)[within] <= 0).any():
            raise ValueError("a set of labels that has a class twice")
