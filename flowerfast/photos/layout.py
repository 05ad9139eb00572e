"""How a folder of photos is to be read: as class folders, or as the halves of a split that hold them."""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flowerfast.errors import UserError
from flowerfast.photos.walk import Walk, some

Layout = Literal["auto", "split", "classes"]
FREE, TRAIN, VAL, TEST = range(4)
SPELLINGS = {
    "train": TRAIN,
    "training": TRAIN,
    "val": VAL,
    "valid": VAL,
    "validation": VAL,
    "dev": VAL,
    "test": TEST,
    "testing": TEST,
}
"""Words for the halves, in lower case."""
_EMPTY = "no readable photos; fill it or remove it"
_ROLES = {TRAIN: "training", VAL: "validation", TEST: "test"}


@dataclass(frozen=True)
class Fold:
    """Class folders that share a fold: where they lie relative to the root, FREE to TEST, their names."""

    folder: str
    fold: int
    classes: tuple[str, ...]


def nfc(name: str) -> str:
    """A name in one spelling: macOS may write é as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def find_folds(root: Path, walk: Walk, layout: Layout = "auto") -> tuple[list[Fold], list[str]]:
    """Folds of a root in order, and what to say of how it was read, a line each.

    Folders named train, val or test, in any usual spelling, are a split when class folders lie in them; when
    photos lie in them, beside other folders of photos, they are classes like those.
    Raises UserError where people would not agree.
    """
    children = walk.inside("")[0]
    named = {name: SPELLINGS[name.casefold()] for name in children if name.casefold() in SPELLINGS}
    as_classes = [Fold("", FREE, tuple(children))]
    if layout == "classes" or (layout == "auto" and not named):
        return as_classes, []
    if TRAIN not in named.values() and layout == "split":
        raise UserError(f"{root}: data.layout=split, but there is no train/; it holds {some(children)}")
    folds = {name: Fold(name, fold, tuple(walk.inside(name)[0])) for name, fold in named.items()}
    classes = {name: [c for c in folds[name].classes if walk.has_photos(f"{name}/{c}")] for name in named}
    others = [name for name in children if name not in named and walk.has_photos(name)]
    if layout == "auto" and not any(classes.values()):
        loose = [name for name in named if walk.has_photos(name)]
        if len(loose) > 1 and not others:
            raise _unclear(
                root,
                f"{_list(loose)} hold photos but no class folders",
                "make a folder per class in each",
            )
        notes = [f"{name}/: photos without class folders, so a class like the others" for name in loose]
        return as_classes, notes if others else []
    _refuse_doubles(root, named)
    if layout == "auto":
        _refuse_company(root, classes, others)
        _refuse_strangers(root, named, classes)
    notes = [f"{name}/: beside {_list(list(named))}, left out" for name in others]
    for name, fold in named.items():
        if classes[name]:
            continue
        count = sum(len(files) for _, files in walk.below(name)) if walk.has_photos(name) else 0
        if fold != TEST:
            why = f"photos lie in no class folder; expected {name}/CLASS/photo.jpg" if count else _EMPTY
            raise UserError(f"{root / name}: {why}")
        what = f"{count} photos in no class folder, which have no label" if count else "no photos"
        notes.append(f"{name}/: {what}; left out")
        folds.pop(name)
    return sorted(folds.values(), key=lambda fold: fold.fold), notes


def _unclear(root: Path, what: str, split: str) -> UserError:
    return UserError(
        f"{root}: {what}; to read a split, {split}; to read all as classes, set data.layout=classes"
    )


def _refuse_doubles(root: Path, named: dict[str, int]) -> None:
    for fold, role in _ROLES.items():
        same = [name for name in named if named[name] == fold]
        if len(same) > 1:
            raise _unclear(
                root, f"{_list(same)} could each be the {role} half", "keep one and move the other away"
            )


def _refuse_company(root: Path, classes: dict[str, list[str]], others: list[str]) -> None:
    """Class folders both in a half and beside it."""
    halves = [name for name, inside in classes.items() if inside]
    inside = {nfc(name) for names in classes.values() for name in names}
    shared = [name for name in others if nfc(name) in inside]
    if others and (len(halves) == 1 or shared):
        what = f"class folders lie in {_list(halves)} and beside: {_list(shared or others)}"
        raise _unclear(root, what, "and leave out what lies beside, set data.layout=split")


def _refuse_strangers(root: Path, named: dict[str, int], classes: dict[str, list[str]]) -> None:
    """Halves that have no class in common with the training half."""
    trained = [name for name, fold in named.items() if fold == TRAIN and classes[name]]
    known = {nfc(name) for train in trained for name in classes[train]}
    for name, inside in classes.items() if trained else ():
        if inside and not known.intersection(map(nfc, inside)):
            theirs = f"than {trained[0]}/ ({some(classes[trained[0]])})"
            what = f"{name}/ has other classes ({some(inside)}) {theirs}"
            raise _unclear(root, what, f"name them alike or move {name}/ away")


def _list(names: list[str]) -> str:
    return " and ".join(f"{name}/" for name in names) if len(names) < 3 else f"{some(names)}"
