"""Some of the classes of a folder, in an order of their own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flowerfast.documents import shown
from flowerfast.errors import Fact, UserError, one_line
from flowerfast.files import open_regular
from flowerfast.nearest import did_you_mean, nearest
from flowerfast.photos.label_sets import LabelSets
from flowerfast.photos.layout import nfc
from flowerfast.photos.listing import Listing, gathered
from flowerfast.photos.walk import some

_MOST = 64 << 20  # bytes of a file of names


def class_names(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The names that `data.classes` gives: a list, a file with a name per line, or names with commas.

    Raises UserError for a file that cannot be read, and for a name that is given twice.
    """
    if given is None:
        return None
    origin, names = "data.classes", [given] if isinstance(given, str) else [*given]
    if isinstance(given, str):
        file = Path(given)
        if file.is_file():
            origin, names = str(file), _lines(file)
        elif "," in given:
            names = given.split(",")
    names = [name.strip() for name in names]
    known: set[str] = set()
    for name in filter(None, names):
        if nfc(name) in known:
            raise UserError(f"{origin}: class {shown(name)} is named twice; name each once")
        known.add(nfc(name))
    if not known:
        raise UserError(f"{origin}: names no class; give their names")
    return tuple(filter(None, names))


def _lines(file: Path) -> list[str]:
    try:
        with open(open_regular(file), "rb") as stream:
            return stream.read(_MOST).decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({one_line(error)})") from error
    except UnicodeError as error:
        raise UserError(
            f"{file}: not text in UTF-8 ({one_line(error)}); give a class name per line"
        ) from None


def places(there: Sequence[str], wanted: Sequence[str], source: Path | str) -> np.ndarray:
    """Place of each class that is there among those wanted, int32 (classes,), -1: not wanted.

    Names in NFC and NFD are the same. Raises UserError for a class that is not there.
    """
    known = {nfc(name): place for place, name in enumerate(there)}
    found = np.full(len(there), -1, np.int32)
    for place, name in enumerate(wanted):
        if nfc(name) not in known:
            near = nearest(name, there)
            hint = did_you_mean(near) if near else f"; its classes are {some(there)}"
            raise UserError(f"{source}: no class {shown(name)} (data.classes){hint}")
        found[known[nfc(name)]] = place
    return found


def listed(listing: Listing, wanted: Sequence[str], source: Path | str) -> Listing:
    """The rows of the classes wanted, labelled in their order; where photos have several labels, all rows.

    Raises UserError for a class that is not there.
    """
    place = places(listing.classes, wanted, source)
    if listing.sets is not None:
        sets, place_of_set = listing.sets.placed(place)
        notes = (*listing.notes, *passed_over(listing.classes, listing.sets, listing.label, place))
        label, classes = place_of_set[listing.label], _in_order(listing.classes, place)
        return replace(listing, label=label, sets=sets, classes=classes, notes=notes)
    label = place[listing.label]
    chosen = replace(
        listing.only(label >= 0), label=label[label >= 0], classes=_in_order(listing.classes, place)
    )
    return replace(chosen, notes=(*listing.notes, *left_out(listing.classes, listing.label, place, "files")))


def packed(
    classes: tuple[str, ...],
    columns: dict[str, np.ndarray],
    sets: LabelSets | None,
    wanted: Sequence[str],
    source: Path | str,
) -> tuple[tuple[str, ...], dict[str, np.ndarray], LabelSets | None, list[str]]:
    """(classes, columns, sets, notes) of the classes wanted, as `listed`, of what an index has."""
    place = places(classes, wanted, source)
    if sets is not None:
        notes = passed_over(classes, sets, columns["label"], place)
        fewer, place_of_set = sets.placed(place)
        return _in_order(classes, place), {**columns, "label": place_of_set[columns["label"]]}, fewer, notes
    label = place[columns["label"]]
    rows = np.flatnonzero(label >= 0)
    lengths = np.diff(columns["path_ends"], prepend=0)
    paths = {
        "path_bytes": gathered(columns["path_bytes"], lengths, rows),
        "path_ends": np.cumsum(lengths[rows]),
    }
    chosen = {name: column[rows] for name, column in columns.items() if name not in paths}
    notes = left_out(classes, columns["label"], place, "photos")
    return _in_order(classes, place), {**chosen, **paths, "label": label[rows]}, None, notes


def _in_order(classes: Sequence[str], place: np.ndarray) -> tuple[str, ...]:
    order = np.argsort(place)[(place < 0).sum() :]
    return tuple(classes[number] for number in order.tolist())


def left_out(classes: Sequence[str], label: np.ndarray, place: np.ndarray, what: str) -> list[str]:
    """A line that counts what is of classes that are not wanted."""
    others = [name for name, number in zip(classes, place.tolist(), strict=True) if number < 0]
    if not others:
        return []
    count = int((place[label] < 0).sum())
    kinds = "1 other class" if len(others) == 1 else f"{len(others)} other classes"
    return [Fact(f"data.classes: {count:,} {what} of {kinds} are left out: {some(others)}")]


def passed_over(classes: Sequence[str], sets: LabelSets, label: np.ndarray, place: np.ndarray) -> list[str]:
    """The same where photos have several labels: those of other classes are, and no photo is left out."""
    return left_out(classes, sets.pairs(label)[1], place, "labels")
