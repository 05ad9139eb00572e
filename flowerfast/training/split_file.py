"""split.json of a run folder: which photo is in which half, by path."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.documents import MOST_JSON
from flowerfast.errors import UserError, one_line
from flowerfast.photos.formats import FORMATS
from flowerfast.photos.layout import TEST, nfc
from flowerfast.photos.photos import Photos
from flowerfast.photos.walk import some
from flowerfast.training.seal import Damaged, read_sealed, write_sealed

_ONCE_READ = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def write_split(train: Photos, val: Photos, file: Path, began: str = "") -> None:
    """Write the split by path, so that a person can read it and a resumed run can check it.

    `began` stands for the settings with which the run began: a save of one that began otherwise is another's.
    """
    paths = train.table.paths()
    content: dict[str, Any] = {
        "began": began,
        "formats": list(FORMATS),
        "fingerprint": train.table.fingerprint,
        "classes": list(train.classes),
        "train": [paths[i] for i in train.indices.tolist()],
        "val": [paths[i] for i in val.indices.tolist()],
        "labels": _labels(train, val),
    }
    held = np.flatnonzero(train.table.fold == TEST).tolist()
    if held:
        content["test"] = [paths[i] for i in held]  # for people: what lies in test/ decides nothing
    # A line per path by way of the separator: json's own indentation takes ten times as long.
    write_sealed(file, json.dumps(content, separators=(",\n", ": "), ensure_ascii=True) + "\n")


def read_split(file: Path, photos: Photos) -> tuple[Photos, Photos]:
    """Split of an earlier start of the run, as halves of `photos`.

    Versions that did not note the formats they read knew files by their names: what those left out, such as
    TIFF, is in neither half.
    Raises UserError when the file is unreadable or names a photo twice, or when photos came, went or changed
    class since; Damaged when its checksum does not fit.
    """
    try:
        # A path of so many bytes takes six times as many when all of them are escaped.
        content = read_sealed(file, most=MOST_JSON + 8 * photos.table.path_bytes.size)
        train_paths, val_paths, classes = (
            list(map(str, content[key])) for key in ("train", "val", "classes")
        )
    except Damaged:
        raise
    except FileNotFoundError:
        raise UserError(
            f"{file}: gone, and with it which photo is in which half; bring it back or start a new run"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: not a split that flowerfast wrote ({one_line(error)}); start a new run"
        ) from None
    twice = [path for path, times in Counter([*train_paths, *val_paths]).items() if times > 1]
    if twice:
        raise Damaged(
            f"{file}: damaged, it names {twice[0]} twice; bring a good copy back or start a new run"
        )
    tested = photos.table.fold == TEST
    rows = {path: i for i, path in enumerate(photos.table.paths()) if not tested[i]}
    if "formats" not in content:
        rows = {path: i for path, i in rows.items() if path.lower().endswith(_ONCE_READ)}
    # Names as they were, else in another Unicode form, as some file systems bring them.
    alike = {nfc(path): i for path, i in rows.items()}
    index: dict[str, int] = {}
    for path in (*train_paths, *val_paths):
        row = rows.get(path, alike.get(nfc(path)))
        if row is None:
            # Left out, it would give all after it other indices, and so other random parameters.
            _check_classes(photos, classes)
            bad = (b.error for b in photos.table.bad if nfc(b.path) == nfc(path))
            there = "no photo" if photos.table.file is None else f"{photos.table.file.name} does not name it"
            why = next(bad, there if (photos.root / path).exists() else None)
            what = "gone since the run began" if why is None else f"cannot be taken any more ({why})"
            raise UserError(f"{photos.table.inside(path)}: {what}; put it back or start a new run")
        index[path] = row
    if len(index) == len(rows):
        _check_classes(photos, classes)
    if len(index) != len(rows):
        known = {*index.values()}
        new = next(path for path, i in rows.items() if i not in known)
        raise UserError(f"{photos.source}: {new} is new since the run began; remove it or start a new run")
    train, val = (photos.subset([index[p] for p in paths]) for paths in (train_paths, val_paths))
    if content.get("labels", _labels(train, val)) != _labels(train, val):  # absent from earlier versions'
        raise UserError(
            f"{photos.source}: photos have other labels than when the run began; bring those back or start a "
            "new run"
        )
    return train, val


def _check_classes(photos: Photos, classes: Sequence[str]) -> None:
    """Raise UserError unless these were the classes when the run began."""
    if [*map(nfc, classes)] != [*map(nfc, photos.classes)]:
        raise UserError(
            f"{photos.source}: its classes are {some(photos.classes)} now, and were {some(classes)} when the "
            "run began; name them as they were, in that order, or start a new run"
        )


def _labels(train: Photos, val: Photos) -> str:
    """A short digest of the labels of both halves, which paths need not tell."""
    if train.multilabel:
        pairs = train.table.pairs(np.concatenate([train.indices, val.indices]))
        return hashlib.sha256(np.stack(pairs).tobytes()).hexdigest()[:16]
    return hashlib.sha256(np.concatenate([train.labels, val.labels]).tobytes()).hexdigest()[:16]
