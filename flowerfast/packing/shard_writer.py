"""Writing shards so that a kill costs one shard at most, and the bytes do not depend on how often it struck.

OUT/shard-000000.tar, ...    finished shards; train-, val- and test- where the photos came so
OUT/flowerfast-index.npz     written last: the folder is complete
OUT/flowerfast-pack.json     what is packed here and how: a second run goes on only with the same
OUT/.packing/                rows of the finished shards, until the index is written
"""

import json
import os
import re
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.documents import read_json
from flowerfast.errors import RunFailed, UserError, WriteFailed, one_line
from flowerfast.files import sync_folder, write_text, writing
from flowerfast.locks import is_still
from flowerfast.packing.tar_shard import ROW, Label, OpenShard, Photo
from flowerfast.photos.arrays import NPZ_ERRORS, load_arrays, save_arrays
from flowerfast.photos.listing import gathered
from flowerfast.photos.shard_index import (
    BRING_BACK,
    COLUMNS,
    INDEX,
    PART_NAME,
    PARTS,
    SHARD_NAME,
    STATE,
    Index,
    Shard,
    check_unfinished,
    read_index,
    write_index,
)
from flowerfast.photos.shards import shard_problem
from flowerfast.photos.table import Table

_FOLD_NAMES = ("shard", "train", "val", "test")
_AS_SCANNED = ("label", "fold", "width", "height", "orientation", "size")
"""Columns of the table that are the index's too, but for photos that were written anew."""
_OF_SHARDS = ("shard", "offset", "crc32")
_NOTED = ("fold", "done", "bad", "suffixes", "recoded", "seekable")  # of a part, as they are
_FIRST_MEMBER = re.compile(rb"\d{9}\.(cls|json)\0|\Z")  # or empty: nothing of it was written


@dataclass(frozen=True)
class PackSettings:
    """What decides the bytes of shards.

    Attributes:
        max_side: photos with a longer short side are shrunk to this many pixels; None: all are copied.
        quality: JPEG quality of those, and of what `jpeg` re-codes, 1..100.
        shard_bytes: a shard that would grow larger is finished and the next one begun.
        jpeg: photos of other formats become JPEG too, for readers that want one suffix.
        seekable: JPEGs are written anew, without loss, so that a crop is read without what is around it.
    """

    max_side: int | None = None
    quality: int = 90
    shard_bytes: int = 500_000_000
    jpeg: bool = False
    seekable: bool = False

    def to_json(self) -> dict[str, Any]:
        """For the record beside the shards; without what is off and earlier versions did not know."""
        added = ("jpeg", "seekable")
        return {name: value for name, value in asdict(self).items() if name not in added or value}


@dataclass(frozen=True)
class _Part:
    """A finished shard.

    Attributes:
        shard: its file.
        fold: whose photos it holds.
        done: how many samples of the order are dealt with once it is written.
        bad: (row, reason) of those that were left out since the shard before.
        suffixes: photos per suffix.
        recoded: photos that became JPEG without being shrunk.
        seekable: photos whose codes were written anew.
        photos: how many. What is in ROW of each stays in the part's file until the index is made.
    """

    shard: Shard
    fold: int
    done: int
    bad: list[tuple[int, str]]
    suffixes: dict[str, int]
    recoded: int
    photos: int
    seekable: int = 0


@dataclass
class ShardWriter:
    """Packs photos, given in a fixed order of the table's rows, into shards.

    Attributes:
        folder: where to; `open_writer` has prepared it.
        table: of the photos.
        settings: how they are packed.
        part: (which, of how many) where others pack other rows; None: all of the table is packed here.
    """

    folder: Path
    table: Table
    settings: PackSettings
    part: tuple[int, int] | None = None
    _parts: list[_Part] = field(default_factory=list)
    _bad: list[tuple[int, str]] = field(default_factory=list)  # since the last finished shard
    _open: OpenShard | None = None
    done: int = 0
    """How many samples of the order are dealt with."""
    _held: os.stat_result = field(init=False)  # the folder, which no other one is

    def __post_init__(self) -> None:
        self._held = os.stat(self.folder)

    @property
    def bad(self) -> list[tuple[int, str]]:
        """(row, reason) of the samples that were left out."""
        return [bad for part in self._parts for bad in part.bad] + self._bad

    def add(self, row: int, photo: Photo) -> None:
        """Write the next sample. Raises OSError; RunFailed, see `check_there`."""
        label, fold = Label.of(self.table, row), int(self.table.fold[row])
        if self._open is not None:
            grown = self._open.bytes_with(label, photo)
            if fold != self._open.fold or grown > self.settings.shard_bytes:
                self._finish_shard()
        if self._open is None:
            self.check_there()
            number = sum(part.fold == fold for part in self._parts)
            self._open = OpenShard(self.folder / f"{_FOLD_NAMES[fold]}-{number:06d}.tar", fold)
        self._open.add(row, label, photo)
        self.done += 1

    def leave_out(self, row: int, reason: str) -> None:
        """The next sample cannot be packed."""
        self._bad.append((row, reason))
        self.done += 1

    def finish(self) -> Index:
        """Write the last shard and the index.

        Raises OSError; UserError when there is no photo; RunFailed when a shard or the folder is gone.
        """
        if self._open is not None:
            self._finish_shard()
        if not self._parts:
            what, then = f"none of {self.done} photos can be packed", "mend them"
            if self.part is not None:
                what = f"{what} of those of part {self.part[0]} of {self.part[1]}"
                then = "mend them, or pack anew in fewer parts, of which each has some"
            first = f"; first: {self.table.path(self._bad[0][0])}: {self._bad[0][1]}" if self._bad else ""
            raise UserError(f"{self.table.source}: {what}{first}; {then}")
        index = self._index()
        self.check_there()
        problem = next(filter(None, (shard_problem(self.folder, shard) for shard in index.shards)), None)
        if problem is not None:
            raise RunFailed(f"{problem}; run the same command again: it packs again from there on")
        write_index(index, self.folder)
        _remove_parts(self.folder)
        return index

    def check_there(self) -> None:
        """Raise RunFailed when the folder was moved or deleted: shards would be made in its place."""
        if not is_still(self._held, self.folder):
            raise RunFailed(
                f"{self.folder}: moved, deleted or replaced while shards were written there; run the same "
                "command with its new place as OUT, which goes on, or with this one, which starts again"
            )

    def close(self) -> None:
        """Remove the shard under way, if any."""
        if self._open is not None:
            self._open.abandon()
            self._open = None

    def _finish_shard(self) -> None:
        opened = self._open
        assert opened is not None
        shard = opened.finish()
        self.check_there()
        self._open = None
        values = zip(*opened.rows, strict=True)
        columns = {name: np.array(v, kind) for (name, kind), v in zip(ROW.items(), values, strict=True)}
        about_photos = opened.suffixes, opened.recoded, len(opened.rows), opened.seekable
        part = _Part(shard, opened.fold, self.done, self._bad, *about_photos)
        about = {
            "shard": [shard.name, shard.size],
            **{name: getattr(part, name) for name in _NOTED},
        }
        save_arrays(_part_file(self.folder, len(self._parts)), about, columns)
        self._parts.append(part)
        self._bad = []

    def _index(self) -> Index:
        """Rows of all shards in the table's order."""
        m, parts = self.table, self._parts
        rows = None  # all of the table
        if sum(part.photos for part in parts) != len(m):
            kept = np.zeros(len(m), bool)
            for number in range(len(parts)):
                kept[self._read_part(number)["row"]] = True
            rows = np.flatnonzero(kept)
        columns = {name: getattr(m, name) if rows is None else getattr(m, name)[rows] for name in _AS_SCANNED}
        columns |= {name: np.empty(len(columns["size"]), COLUMNS[name]) for name in _OF_SHARDS}
        for number in range(len(parts)):  # one after the other: of many photos all of them take gigabytes
            found = self._read_part(number)
            at = found["row"] if rows is None else np.searchsorted(rows, found["row"])
            columns["shard"][at] = number
            for name in ROW.keys() - {"row"}:
                if name in _OF_SHARDS or (columns[name][at] != found[name]).any():
                    if columns[name] is getattr(m, name, None):
                        columns[name] = columns[name].copy()
                    columns[name][at] = found[name]
        columns |= {"path_bytes": m.path_bytes, "path_ends": m.path_ends}
        if rows is not None:
            lengths = np.diff(m.path_ends, prepend=0)
            columns["path_bytes"] = gathered(m.path_bytes, lengths, rows)
            columns["path_ends"] = np.cumsum(lengths[rows])
        left_out = [(bad.path, bad.error) for bad in m.bad] + [(m.path(row), why) for row, why in self.bad]
        shards = tuple(part.shard for part in parts)
        suffixes = sum((Counter(part.suffixes) for part in parts), Counter[str]())
        recoded, seekable = sum(part.recoded for part in parts), sum(part.seekable for part in parts)
        return Index(
            m.classes,
            shards,
            self.settings.to_json(),
            tuple(left_out),
            columns,
            dict(suffixes),
            recoded,
            seekable,
            None if self.part is None else np.arange(len(m)) if rows is None else rows,
            m.sets,
        )

    def _read_part(self, number: int) -> dict[str, np.ndarray]:
        """What is in ROW of the photos of a finished shard. Raises RunFailed."""
        file = _part_file(self.folder, number)
        try:
            return load_arrays(file)[1]
        except NPZ_ERRORS as error:
            raise RunFailed(
                f"{file}: gone or damaged ({one_line(error)}); run the same command again: it packs again "
                "from there on"
            ) from error


def pack_state(table: Table, settings: PackSettings, part: tuple[int, int] | None = None) -> dict[str, Any]:
    """What is packed and how, as it is kept beside the shards."""
    # The classes are for people and other readers, who find labels in the tars as numbers only.
    state = {
        "classes": list(table.classes),
        "settings": settings.to_json(),
        "photos": table.fingerprint,
    }
    return state if part is None else {**state, "part": [*part]}


def open_writer(
    folder: Path, table: Table, settings: PackSettings, part: tuple[int, int] | None = None
) -> ShardWriter | None:
    """Writer that goes on with an earlier run of the same photos and settings; None when that has finished.

    An unfinished run of other photos or settings is thrown away; a finished one never is.
    Raises UserError when `folder` holds anything else, has lost shards or their index, or cannot be written;
    WriteFailed on a full disk.
    """
    state = pack_state(table, settings, part)
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        before = read_state(folder / STATE)
        if os.path.lexists(folder / INDEX):
            if before == state:
                _check_shards(folder)
                _remove_parts(folder)
                return None
            raise UserError(
                f"{folder}: holds shards of other photos or settings; name another folder or remove it"
            )
        if before is None and any(not entry.name.startswith(STATE) for entry in folder.iterdir()):
            raise UserError(f"{folder}: is neither empty nor of packed photos; name another folder")
        check_unfinished(folder)
        if before != state:
            _clear(folder)
            write_state(folder, state)
        with writing(folder / PARTS):
            (folder / PARTS).mkdir(exist_ok=True)
            sync_folder(folder)
    except WriteFailed:
        raise
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); name a folder you may write to"
        ) from error
    parts = _finished_parts(folder)
    return ShardWriter(folder, table, settings, part, parts, done=parts[-1].done if parts else 0)


def _check_shards(folder: Path) -> None:
    """Raise UserError unless all that was packed is there, as far as names and sizes tell."""
    problem = next(filter(None, (shard_problem(folder, shard) for shard in read_index(folder).shards)), None)
    if problem is not None:
        raise UserError(f"{problem}; {BRING_BACK}")


def _finished_parts(folder: Path) -> list[_Part]:
    parts: list[_Part] = []
    while True:
        try:
            about, columns = load_arrays(_part_file(folder, len(parts)))
            part = _Part(**{**about, "shard": Shard(*about["shard"])}, photos=len(columns["row"]))
            if (folder / part.shard.name).stat().st_size != part.shard.size:
                return parts
        except NPZ_ERRORS:
            return parts  # as far as they go: what follows is packed again
        parts.append(part)


def read_state(file: Path, source: str | None = None) -> dict[str, Any] | None:
    """What `pack_state` said, as it was written; None: nothing was. Raises UserError.

    `source` is where the file came from, for messages.
    """
    try:
        state = read_json(file)
        if not isinstance(state, dict):
            raise ValueError("no mapping")
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{source or file}: damaged ({one_line(error)}); {BRING_BACK}") from None
    except OSError as error:
        raise UserError(f"{source or file}: cannot be read ({one_line(error)}); {BRING_BACK}") from error
    return state


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write what `read_state` reads. Raises OSError."""
    write_text(folder / STATE, json.dumps(state, indent=1) + "\n", durable=True)


def _clear(folder: Path) -> None:
    """Remove what an unfinished run has left. Raises UserError where something else has a shard's name."""
    shards = [file for file in folder.iterdir() if SHARD_NAME.fullmatch(file.name.removesuffix(".partial"))]
    foreign = next((file for file in shards if not _is_ours(file)), None)
    if foreign is not None:
        raise UserError(f"{foreign}: flowerfast did not write this; move it away, or name another folder")
    for file in shards:
        file.unlink()
    sync_folder(folder)
    _remove_parts(folder)  # last: shards without them are finished ones


def _is_ours(shard: Path) -> bool:
    """Whether a shard was begun by `OpenShard`: its first member is a label under a number of nine digits."""
    if shard.is_symlink() or not shard.is_file():
        return False
    with shard.open("rb") as file:
        return _FIRST_MEMBER.match(file.read(64)) is not None


def _remove_parts(folder: Path) -> None:
    """Remove what is known of the finished shards, and nothing else that may lie there."""
    parts = folder / PARTS
    if parts.is_symlink() or not parts.is_dir():
        return
    for file in parts.iterdir():
        if PART_NAME.fullmatch(file.name.removesuffix(".partial")) and not file.is_dir():
            file.unlink()
    with suppress(OSError):  # somebody else's files are in it
        parts.rmdir()


def _part_file(folder: Path, number: int) -> Path:
    return folder / PARTS / f"{number:06d}.npz"
