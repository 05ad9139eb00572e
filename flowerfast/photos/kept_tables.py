"""What is kept of a scan on disk, so that the next start need not read all headers again."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.errors import one_line
from flowerfast.files import open_regular, replacing
from flowerfast.machine import folder_problem, logger, user_cache_dir
from flowerfast.photos.arrays import NPZ_ERRORS, read_npz
from flowerfast.photos.label_sets import LabelSets
from flowerfast.photos.table import COLUMNS, BadFile, Table
from flowerfast.places import in_full

_TEXTS = ("classes", "notes", "shut")
_ARRAYS = (*COLUMNS, "bad_label", "bad_fold")
_SETS = ("set_members", "set_ends")  # where photos have several labels


def kept_file(place: Path, wanted: tuple[str, ...] | None) -> Path:
    """Where the table of a place, or of some of its classes, is kept."""
    named = in_full(place) + ("" if wanted is None else f"\0{wanted}")
    key = hashlib.sha256(named.encode("utf-8", "surrogateescape")).hexdigest()[:24]
    return user_cache_dir() / "manifests" / f"{key}.npz"


def load_kept(cache: Path, root: Path, file: Path | None, key: str) -> Table | None:
    """The table that `store` kept under that key; None: there is none, or it is no more to be believed."""
    try:
        stored = read_npz(cache)
        if str(stored["key"]) != key:
            return None
        bad = tuple(BadFile(str(p), str(e)) for p, e in stored["bad"].reshape(-1, 2))
        texts = {name: tuple(map(str, stored[name])) for name in _TEXTS}
        if any(_opens(root / path) for path in texts["shut"]):
            return None
        arrays: dict[str, Any] = {name: stored[name] for name in _ARRAYS}
        fingerprint = str(stored["fingerprint"])
        sets = LabelSets(*(stored[name] for name in _SETS)) if _SETS[0] in stored else None
    except NPZ_ERRORS:
        return None  # no cache yet, or a damaged one: scanning again costs seconds
    arrays |= {"shut": texts["shut"], "notes": texts["notes"], "file": file}
    return Table(root, texts["classes"], fingerprint=fingerprint, bad=bad, sets=sets, **arrays)


def store(cache: Path, table: Table, key: str) -> None:
    """Keep a table under a key; where that cannot be, a line says so."""
    if folder_problem(cache.parent) is not None:
        return  # said when the folder was chosen
    arrays = {name: getattr(table, name) for name in _ARRAYS}
    if table.sets is not None:
        arrays |= dict(zip(_SETS, (table.sets.members, table.sets.ends), strict=True))
    bad = np.array([(b.path, b.error) for b in table.bad], dtype=np.str_).reshape(-1, 2)
    try:
        arrays |= {name: np.array(getattr(table, name), np.str_) for name in (*_TEXTS, "fingerprint")}
        with replacing(cache, shared=True) as fresh, fresh.open("wb") as file:
            np.savez(file, key=np.array(key), bad=bad, **arrays)
    except (OSError, UnicodeEncodeError) as error:  # costs a scan per start, not the run
        logger.warning("flowerfast: %s: sizes of photos are not kept (%s)", cache, one_line(error))


def forget(place: Path, wanted: tuple[str, ...] | None = None) -> None:
    """Read all headers of a place anew at the next start: those that are kept are not of its photos."""
    with suppress(OSError):
        kept_file(place, wanted).unlink(missing_ok=True)


def _opens(file: Path) -> bool:
    with suppress(OSError):
        os.close(open_regular(file))
        return True
    return False
