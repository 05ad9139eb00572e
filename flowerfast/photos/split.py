"""Which sample is in which half: stratified and seeded.

Photos with several labels are dealt out label by label, the rarest first, for frequent ones leave more choice
later: Sechidis, Tsoumakas, Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011, here with
all photos of a label at once.
"""

import numpy as np

from flowerfast.errors import UserError
from flowerfast.philox import generator
from flowerfast.photos.layout import TRAIN, VAL
from flowerfast.photos.table import FOLDS, Table


def divide(
    table: Table, indices: np.ndarray, val_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out `val_fraction` of each class (at least one sample, and leave at least one to train on).

    Where photos have several labels that is as near as can be, and a class of one photo is trained on.
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
    if table.sets is not None:
        return _by_labels(table, indices, val_fraction, seed)
    train, val = [indices[:0]], [indices[:0]]
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


def _by_labels(
    table: Table, indices: np.ndarray, val_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The split of photos with several labels. Raises UserError when there is none."""
    place, label = table.pairs(indices)
    order, many = np.argsort(label, kind="stable"), table.counts(indices)
    members = np.split(place[order], np.cumsum(many)[:-1])  # by class
    wanted = np.minimum(np.maximum(np.rint(many * val_fraction), 1), many - 1).astype(np.int64)
    held, dealt = np.zeros(len(indices), bool), np.zeros(len(indices), bool)
    has, left = np.zeros(len(many), np.int64), many.copy()  # held out, and not dealt out yet, of each class
    while left.any():
        rarest = int(np.where(left > 0, left, len(indices) + 1).argmin())
        open_ = members[rarest][~dealt[members[rarest]]]
        shuffled = generator("split", seed, rarest).permutation(open_)
        out = shuffled[: max(int(wanted[rarest] - has[rarest]), 0)]
        held[out], dealt[open_] = True, True
        has += table.counts(indices[out])
        left -= table.counts(indices[open_])
    # Those without a label make up for what the halves lack.
    bare = generator("split", seed, len(many)).permutation(np.flatnonzero(~dealt))
    held[bare[: max(round(len(indices) * val_fraction) - int(held.sum()), 0)]] = True
    for each in members:  # rare labels that come together may have taken all photos of another
        if len(each) and held[each].all():
            held[each[0]] = False
    train, val = indices[~held], indices[held]
    if not len(train) or not len(val):
        raise UserError(
            f"{table.source}: too few photos for two halves, {len(indices)}; add some, or say in a column of "
            "splits which to validate on"
        )
    if len(indices) == (table.fold <= TRAIN).sum():  # a subset need not have all classes
        _refuse_untrained(table, train)
    return np.sort(train), np.sort(val)


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
    absent = np.flatnonzero(table.counts(train) == 0)
    if not len(absent):
        return
    label, first = int(absent[0]), int(train[0])
    place, labels = table.pairs(np.arange(len(table)))
    rows = place[labels == label]
    name, there = table.classes[label], int(rows[0]) if len(rows) else first
    if table.file is not None or table.sets is not None:
        has = f", but split {FOLDS[table.fold[there]]} has" if len(rows) else ""
        raise UserError(f"{table.source}: class {name!r} has no photos to train on{has}; add some to train")
    half, other = (table.path(row).partition("/")[0] for row in (first, there))
    lacking, having = table.inside(f"{half}/{name}"), table.inside(f"{other}/{name}")
    raise UserError(f"{lacking}: no photos to train on, but {other}/ has them; add some or remove {having}")
