"""Packing a folder of photos into shards: read, shrink what is too large, write, all in a fixed order.

In threads: reading, decoding, resizing and encoding all let go of the interpreter lock, and one thread
writes.
"""

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from flowerfast.arguments import progress_bars
from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError, WriteFailed
from flowerfast.kernels import numba_problem
from flowerfast.locks import only_writer
from flowerfast.machine import ProgressBars, no_bars, usable_cores
from flowerfast.packing.parts import check_parts, merge, part_name, rows_of
from flowerfast.packing.prepare import prepare
from flowerfast.packing.shard_writer import PackSettings, ShardWriter, pack_state
from flowerfast.packing.target import Target, target_of
from flowerfast.philox import generator
from flowerfast.photos.listing import gathered
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import BRING_BACK, INDEX, STATE, Index, read_index
from flowerfast.photos.table import BadFile, Table
from flowerfast.photos.walk import some
from flowerfast.photos.workers import Workers, in_order, iter_chunks
from flowerfast.places import in_full, spelled, url_of

_AHEAD = 8  # photos in memory per thread: read and shrunk, or about to be


@dataclass(frozen=True)
class Packed:
    """What a packing run leaves.

    Attributes:
        photos, shrunk, shards: how many are packed, of these shrunk, and in how many tar files.
        recoded: photos that became JPEG without being shrunk.
        seekable: photos whose codes were written anew, without loss.
        suffixes: photos per suffix of their members, by which other readers find them; empty where an earlier
            version packed.
        labels: suffix of the labels' members: cls, or json where photos have several.
        bytes_before, bytes_after: of the photos' files, and of the shards.
        bad: photos that were left out.
        notes: what else was left out, and how the folder was read.
        fresh: False when an earlier run had finished the same.
    """

    photos: int
    shrunk: int
    recoded: int
    seekable: int
    shards: int
    suffixes: dict[str, int]
    labels: str
    bytes_before: int
    bytes_after: int
    bad: tuple[BadFile, ...]
    notes: tuple[str, ...]
    fresh: bool

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def pack(
    data: Path,
    out: Path,
    settings: PackSettings,
    config: DataConfig,
    bars: ProgressBars = no_bars,
    part: tuple[int, int] | None = None,
) -> Packed:
    """Pack the photos of a folder (or of shards) into shards in `out`; goes on where a killed run stopped.

    `out` may be a URL: shards are packed in the user's cache folder then, and copied when all are there. With
    `part`, (which, of how many), only these photos are packed, into a folder of their own in `out`; whoever
    finds all parts there writes the index over them.
    `config` says how many threads (workers), whether photos that are re-encoded are turned upright (exif;
    copies keep their EXIF), and what is to be done with photos that cannot be read; `bars` makes a progress
    bar with a title, which is told (done, total).
    Raises UserError when `data` holds no photos, too many are bad, `out` holds something else or one of the
    two lies in the other, or another process is packing there; RunFailed when writing fails, or shards are
    taken away meanwhile.
    """
    bars = progress_bars(bars)
    _check_apart(data, out)
    home = target_of(out)
    target = home if part is None else home.at(part_name(part))
    check_parts(home, part)
    problem = numba_problem() if settings.seekable else None
    if problem is not None:
        raise UserError(f"seekable: {problem}, or pack without")
    with bars("reading headers") as bar:
        photos = Photos.open(data, config, bar, min_classes=1)
    table, notes = photos.table, photos.table.notes
    if settings.max_side is not None or settings.jpeg:  # how photos are turned decides those bytes
        table, notes = replace(table, fingerprint=photos.fingerprint), photos.notes
    order = rows_of(shard_order(table.fold), part)
    state = pack_state(table, settings, part)
    look = partial(check_parts, home, part, state)
    look()
    packed = target.arrived(state)
    fresh = packed is None
    if packed is None:
        with only_writer(target.folder, target.other) as unlocked:
            notes = notes if unlocked is None else (*notes, unlocked)
            try:
                writer = target.open(table, settings, part, look)
                packed = (
                    read_index(target.folder)
                    if writer is None
                    else _write(photos, writer, order, config, bars)
                )
                fresh = target.send(packed, state, look, bars) or writer is not None
            except WriteFailed as error:
                raise _failed(error, target.folder) from error
    rows = np.sort(order)
    kept = _kept(table, rows, packed)
    if not fresh:
        _check_index(target, table, kept, settings, packed)
    if part is not None:
        notes = (*notes, _merged(home, part))
    return _result(table, rows, kept, packed, notes, fresh)


def _merged(home: Target, part: tuple[int, int]) -> str:
    """Write the index over all parts if they are there; what to say of it. Raises RunFailed."""
    which, count = part
    try:
        absent = merge(home, count)
    except WriteFailed as error:
        raise _failed(error, home) from error
    if not absent:
        return f"part {which} of {count}: all parts are there, {home} is complete"
    return f"part {which} of {count}: packed; to come: {some([str(number) for number in absent])}"


def _write(
    photos: Photos, writer: ShardWriter, order: np.ndarray, config: DataConfig, bars: ProgressBars
) -> Index:
    """Write what is still to be packed of the rows `order`. Raises RunFailed when that fails."""
    for row, reason in writer.bad:
        photos.report_bad(row, reason)
    threads, rows = config.workers or usable_cores(), order[writer.done :]
    try:
        with (
            bars("packing") as bar,
            closing(Workers(threads, "flowerfast-pack")) as pool,
        ):
            ahead, prepared = threads * _AHEAD, partial(prepare, photos, writer.settings)
            ready = in_order(pool, prepared, iter_chunks(rows, 1), ahead, photos.place)
            for row, photo in zip(map(int, rows), ready, strict=True):
                if isinstance(photo, str):
                    photos.report_bad(row, photo)
                    writer.leave_out(row, photo)
                else:
                    writer.add(row, photo)
                if bar:
                    bar(writer.done, len(order))
        return writer.finish()
    except OSError as error:
        writer.check_there()
        raise _failed(error, writer.folder) from error
    finally:
        writer.close()


def _failed(error: OSError, out: Path | Target) -> RunFailed:
    then = "run the same command again: it goes on where it stopped"
    if isinstance(error, WriteFailed):
        return RunFailed(error.line(then))
    return RunFailed(f"{out}: cannot be written ({error.strerror or error}); mend that, then {then}")


def _check_apart(data: Path, out: Path) -> None:
    """Raise UserError where the shards would lie among the photos, or the photos among the shards."""
    if url_of(data) is None and not data.is_dir():
        return  # said when the photos are opened
    source, target = PurePath(in_full(data)), PurePath(in_full(out))
    photos, shards = spelled(data), spelled(out)
    if source == target:
        raise UserError(f"{shards}: is the folder of the photos; name another one for the shards")
    if target.is_relative_to(source):
        raise UserError(f"{shards}: lies in {photos}, the folder of the photos; name a folder outside it")
    if source.is_relative_to(target):
        raise UserError(f"{shards}: holds the photos, {photos}; name another folder for the shards")


def shard_order(fold: np.ndarray) -> np.ndarray:
    """Order in which photos lie in the shards: int64 (n,), a permutation of the table's rows.

    Shuffled, always alike, since other WebDataset readers take samples as they come and shuffle within a
    few thousand: sorted by class they would see one class at a time. Photos of train/ and val/ stay apart,
    for such a reader is given one or the other by the names of the shards.
    """
    shuffled = generator("pack", 0, 0).permutation(len(fold))
    folds = np.unique(fold)
    if len(folds) < 2:
        return shuffled
    return np.concatenate([shuffled[fold[shuffled] == each] for each in folds])


def _kept(table: Table, rows: np.ndarray, index: Index) -> np.ndarray:
    """Of these rows, int64 (n,), those whose photos were not left out."""
    left_out = {path for path, _ in index.bad}
    if not left_out:
        return rows
    return np.fromiter((row for row in rows if table.path(int(row)) not in left_out), np.int64)


def _check_index(
    target: Target, table: Table, kept: np.ndarray, settings: PackSettings, index: Index
) -> None:
    """Raise UserError unless an index is of what the state beside it says: these rows, int64 (n,)."""
    paths = gathered(table.path_bytes, np.diff(table.path_ends, prepend=0), kept)
    if (
        (index.classes, index.settings) != (table.classes, settings.to_json())
        or not np.array_equal(index.columns["label"], table.label[kept])
        or not np.array_equal(index.columns["path_bytes"], paths)
    ):
        raise UserError(
            f"{target}/{INDEX}: is of other photos or settings than {STATE} beside it; {BRING_BACK}"
        )


def _result(
    table: Table, rows: np.ndarray, kept: np.ndarray, index: Index, notes: tuple[str, ...], fresh: bool
) -> Packed:
    """Of the photos in these rows, int64 (n,), of which those in `kept` were not left out."""
    columns = index.columns
    return Packed(
        photos=len(columns["label"]),
        shrunk=int(
            ((columns["width"] != table.width[kept]) | (columns["height"] != table.height[kept])).sum()
        ),
        recoded=index.recoded,
        seekable=index.seekable,
        shards=len(index.shards),
        suffixes=index.suffixes,
        labels="cls" if index.sets is None else "json",
        bytes_before=int(table.size[rows].sum()),
        bytes_after=sum(shard.size for shard in index.shards),
        bad=tuple(BadFile(path, why) for path, why in index.bad),
        notes=notes,
        fresh=fresh,
    )
