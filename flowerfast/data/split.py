"""Which sample is in which half: stratified, seeded, written to split.json."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowerfast.data.manifest import Manifest
from flowerfast.data.plan import generator
from flowerfast.errors import UserError


@dataclass(frozen=True)
class Split:
    """Manifest indices of each half: int64, ascending."""

    train: np.ndarray
    val: np.ndarray


def make_split(manifest: Manifest, val_fraction: float, seed: int) -> Split:
    """Hold out `val_fraction` of each class (at least one sample, and leave at least one to train on).

    A folder with train/ and val/ brings its own split. Raises UserError when a class cannot be divided.
    """
    if manifest.fold.any():
        return _given_split(manifest)
    train, val = [], []
    by_label = np.argsort(manifest.label, kind="stable")
    bounds = np.searchsorted(manifest.label[by_label], np.arange(len(manifest.classes) + 1))
    for label, name in enumerate(manifest.classes):
        members = by_label[bounds[label] : bounds[label + 1]]
        if len(members) < 2:
            only = f" ({manifest.path(int(members[0]))})" if len(members) else ""
            raise UserError(
                f"{manifest.root}: class {name!r} has {len(members)} readable photo{only}; each class needs "
                "two or more, to train and to validate on: add photos or remove the folder"
            )
        shuffled = generator("split", seed, label).permutation(members)
        held = min(max(round(len(members) * val_fraction), 1), len(members) - 1)
        val.append(shuffled[:held])
        train.append(shuffled[held:])
    return Split(np.sort(np.concatenate(train)), np.sort(np.concatenate(val)))


def _given_split(manifest: Manifest) -> Split:
    train, val = np.flatnonzero(manifest.fold == 1), np.flatnonzero(manifest.fold == 2)
    for part, members in (("train", train), ("val", val)):
        if not len(members):
            raise UserError(f"{manifest.root / part}: no readable photos; fill it or remove train/ and val/")
    absent = set(range(len(manifest.classes))) - set(manifest.label[train].tolist())
    if absent:
        name = manifest.classes[min(absent)]
        raise UserError(
            f"{manifest.root / 'train' / name}: no photos to train on, but val/ has them; add some or remove "
            f"{manifest.root / 'val' / name}"
        )
    return Split(train, val)


def write_split(split: Split, manifest: Manifest, file: Path) -> None:
    """Write the split by path, so that a person can read it and a resumed run can check it."""
    paths = manifest.paths()
    content = {
        "fingerprint": manifest.fingerprint,
        "classes": list(manifest.classes),
        "train": [paths[i] for i in split.train.tolist()],
        "val": [paths[i] for i in split.val.tolist()],
    }
    # A line per path by way of the separator: json's own indentation takes ten times as long.
    text = json.dumps(content, separators=(",\n", ": "), ensure_ascii=True)
    file.write_text(text + "\n", encoding="utf-8")


def read_split(file: Path, manifest: Manifest) -> Split:
    """Split of an earlier start of the run, as indices of `manifest`.

    Raises UserError when the file is unreadable or when photos came, went or changed class since.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        train_paths, val_paths, classes = (
            list(map(str, content[key])) for key in ("train", "val", "classes")
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not a split that flowerfast wrote ({error}); start a new run") from None
    index = {path: i for i, path in enumerate(manifest.paths())}
    for path in (*train_paths, *val_paths):
        if path not in index:
            raise UserError(
                f"{manifest.root / path}: gone since the run began; put it back or start a new run"
            )
    if len(train_paths) + len(val_paths) != len(index) or tuple(classes) != manifest.classes:
        known = {*train_paths, *val_paths}
        new = next((p for p in index if p not in known), "class folders")
        raise UserError(f"{manifest.root}: {new} is new since the run began; remove it or start a new run")
    return Split(
        np.array([index[p] for p in train_paths], np.int64), np.array([index[p] for p in val_paths], np.int64)
    )
