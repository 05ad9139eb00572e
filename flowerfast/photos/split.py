"""Which sample is in which half: stratified and seeded."""

import numpy as np

from flowerfast.errors import UserError
from flowerfast.philox import generator
from flowerfast.photos.layout import TRAIN, VAL
from flowerfast.photos.table import FOLDS, Table


def divide(
    table: Table, indices: np.ndarray, val_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out `val_fraction` of each class (at least one sample, and leave at least one to train on).

    A folder with train/ and val/ brings its own split, as a table may. What is of test/ is in neither half.
    Indices of both: int64, ascending. Raises UserError when a class cannot be divided.
    """
    free = table.fold <= TRAIN  # the rest is held out as it is
    if not free.any():
        half = table.path(0).partition("/")[0] + "/"
        what = f"{half}, but no train/" if table.file is None else "rows of val or test, but none of train"
        raise UserError(f"{table.source}: {what} to train on; add it, or set data.layout=classes")
    if (table.fold == VAL).any():
        return _given_split(table, indices)
    if not free.all():
        _refuse_untrained(table, np.flatnonzero(free))
    indices = indices[free[indices]]
    train, val = [], []
    labels = table.label[indices]
    by_label = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[by_label], np.arange(len(table.classes) + 1))
    for label, name in enumerate(table.classes):
        members = indices[by_label[bounds[label] : bounds[label + 1]]]
        if not len(members) and len(indices) < free.sum():
            continue  # a subset need not have all classes
        if len(members) < 2:
            remove = "the folder" if table.file is None else "the class"
            has = f"1 readable photo ({table.path(int(members[0]))})" if len(members) else "0 readable photos"
            raise UserError(
                f"{table.source}: class {name!r} has {has}; each class needs "
                f"two or more, to train and to validate on: add photos or remove {remove}"
            )
        shuffled = generator("split", seed, label).permutation(members)
        held = min(max(round(len(members) * val_fraction), 1), len(members) - 1)
        val.append(shuffled[:held])
        train.append(shuffled[held:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(val))


def _given_split(table: Table, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    train, val = (np.sort(indices[table.fold[indices] == fold]) for fold in (TRAIN, VAL))
    for part, members in (("train", train), ("val", val)):
        if not len(members):
            place, both = table.inside(part), "train/ and val/"
            if table.file is not None:
                place, both = f"{table.file}: split {part}", "the column of splits"
            raise UserError(f"{place}: no readable photos; fill it or remove {both}")
    _refuse_untrained(table, train)
    return train, val


def _refuse_untrained(table: Table, train: np.ndarray) -> None:
    """Raise UserError for a class of which no photo is among those to train on."""
    absent = set(range(len(table.classes))) - set(table.label[train].tolist())
    if not absent:
        return
    label, first = min(absent), int(train[0])
    rows = np.flatnonzero(table.label == label)
    name, there = table.classes[label], int(rows[0]) if len(rows) else first
    if table.file is not None:
        has = f", but split {FOLDS[table.fold[there]]} has" if len(rows) else ""
        raise UserError(f"{table.source}: class {name!r} has no photos to train on{has}; add some to train")
    half, other = (table.path(row).partition("/")[0] for row in (first, there))
    lacking, having = table.inside(f"{half}/{name}"), table.inside(f"{other}/{name}")
    raise UserError(f"{lacking}: no photos to train on, but {other}/ has them; add some or remove {having}")
