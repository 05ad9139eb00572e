"""Files that turn out to be no photo: named, counted, and when they are too many an end to it."""

from typing import Literal

from flowerfast.errors import UserError
from flowerfast.photos.table import BadFile, Table


class BadFiles:
    """What of a table cannot be decoded, shared by all its subsets.

    Args:
        table: names the files; those it left out at the scan count too.
        on_bad: "skip", or "fail" at the first.
        max_bad: share of all files above which "skip" gives up.
    """

    def __init__(self, table: Table, on_bad: Literal["skip", "fail"], max_bad: float) -> None:
        self._table, self._on_bad, self._max_bad = table, on_bad, max_bad
        self.by_index: dict[int, BadFile] = {}
        for bad in table.bad:
            self._check(bad, len(table.bad))

    def add(self, index: int, where: str, error: str) -> None:
        """Note a sample that failed to decode. Raises UserError when that is too much."""
        if index not in self.by_index:
            bad = BadFile(where, error)
            self._check(bad, len(self.by_index) + len(self._table.bad) + 1)
            self.by_index[index] = bad

    def _check(self, bad: BadFile, count: int) -> None:
        source, total = self._table.source, len(self._table) + len(self._table.bad)
        if self._on_bad == "fail":
            place = self._table.inside(bad.path)
            raise UserError(f"{place}: {bad.error}; mend or remove it, or skip such files (data.on_bad=skip)")
        # One bad file in a tiny folder is no reason to stop.
        if count > max(1, self._max_bad * total):
            raise UserError(
                f"{source}: {count} of {total} files cannot be read, more than "
                f"data.max_bad={self._max_bad:g}; last: {bad.path}: {bad.error}; mend or remove them, or "
                "raise data.max_bad"
            )
