"""Packing a folder of photos into shards: read, shrink what is too large, write, all in a fixed order.

In threads: reading, decoding, resizing and encoding all let go of the interpreter lock, and one thread
writes.
"""

import os
import tempfile
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from flowerfast.arguments import progress_bars
from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError, WriteFailed, one_line
from flowerfast.kernels import numba_problem
from flowerfast.locks import only_writer
from flowerfast.machine import Progress, ProgressBars, no_bars, usable_cores
from flowerfast.packing.parts import PART_FOLDER, check_parts, merge, part_name, rows_of
from flowerfast.packing.shard_writer import PackSettings, ShardWriter, open_writer, pack_state, read_state
from flowerfast.packing.tar_shard import Photo
from flowerfast.packing.upload import Upload, merge_at, names_at, open_packing, state_at
from flowerfast.philox import generator
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.listing import gathered
from flowerfast.photos.photos import Photos
from flowerfast.photos.remote import Remote
from flowerfast.photos.shard_index import BRING_BACK, INDEX, STATE, Index, is_packed, read_index
from flowerfast.photos.table import BadFile, Table
from flowerfast.photos.walk import some
from flowerfast.photos.workers import Workers, in_order, iter_chunks
from flowerfast.pixels.reference import resize
from flowerfast.places import spelled, url_of
from flowerfast.plans.geometry import limited

_MAGIC = {
    b"\xff\xd8": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"BM": "bmp",
    b"GIF8": "gif",
    b"II": "tif",
    b"MM": "tif",
    b"P": "ppm",
}
_JPEG_SIDE = 65_500  # pixels; libjpeg writes no longer one
_AHEAD = 8  # photos in memory per thread: read and shrunk, or about to be
_CHUNK = 16  # photos per task when verifying


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
    url, at, upload = url_of(out), out if part is None else out / part_name(part), None
    names = set[str]()
    if url is not None or (part is not None and out.is_dir()):
        names = {*os.listdir(out)} if url is None else names_at(url)
        check_parts(out, part, names)
    problem = numba_problem() if settings.seekable else None
    if problem is not None:
        raise UserError(f"seekable: {problem}, or pack without")
    with bars("reading headers") as bar:
        photos = Photos.open(data, config, bar, min_classes=1)
    table, notes = photos.table, photos.table.notes
    if settings.max_side is not None or settings.jpeg:  # how photos are turned decides those bytes
        table, notes = replace(table, fingerprint=photos.fingerprint), photos.notes
    order = rows_of(shard_order(table.fold), part)
    if part is not None:
        _check_siblings(out, part, names, pack_state(table, settings))
    place, other = at, "name another folder"
    if url is not None:
        upload = Upload(spelled(at), pack_state(table, settings, part))
        place, other = upload.folder, "name another URL, or another cache folder in FLOWERFAST_CACHE"
    packed = upload.index if upload is not None else None
    fresh = packed is None
    if packed is None:
        with only_writer(place, other) as unlocked:
            notes = notes if unlocked is None else (*notes, unlocked)
            try:
                opened = open_writer if upload is None else open_packing
                writer = opened(place, table, settings, part)
            except WriteFailed as error:
                raise _failed(error, place) from error
            fresh = writer is not None or upload is not None
            packed = read_index(place) if writer is None else _write(photos, writer, order, config, bars)
            if upload is not None:
                with bars("copying") as bar:
                    upload.finish(packed, bar)
    rows = np.sort(order)
    kept = _kept(table, rows, packed)
    if not fresh:
        _check_index(at, table, kept, settings, packed)
    if part is not None:
        notes = (*notes, _merged(out, part))
    return _result(table, rows, kept, packed, notes, fresh)


def _check_siblings(out: Path, part: tuple[int, int], names: set[str], state: dict[str, Any]) -> None:
    """Raise UserError where another part, of those with these `names`, is of other photos or settings."""
    url = url_of(out)
    for name in sorted(name for name in names if PART_FOLDER.fullmatch(name) and name != part_name(part)):
        theirs = read_state(out / name / STATE) if url is None else state_at(Remote(f"{url}/{name}"))
        if theirs is None:
            continue
        theirs.pop("part", None)
        if theirs != state:
            raise UserError(
                f"{spelled(out / name)}: packed from other photos or settings; pack part {part[0]} as that "
                "one was, or remove it"
            )
        return


def _merged(out: Path, part: tuple[int, int]) -> str:
    """Write the index over all parts if they are there; what to say of it. Raises RunFailed."""
    url, (which, count) = url_of(out), part
    try:
        absent = merge(out, count) if url is None else merge_at(url, count)
    except WriteFailed as error:
        raise _failed(error, out) from error
    if not absent:
        return f"part {which} of {count}: all parts are there, {spelled(out)} is complete"
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
            ahead, prepare = threads * _AHEAD, partial(_prepare, photos, writer.settings)
            ready = in_order(pool, prepare, iter_chunks(rows, 1), ahead, photos.place)
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


def _failed(error: OSError, out: Path) -> RunFailed:
    then = "run the same command again: it goes on where it stopped"
    if isinstance(error, WriteFailed):
        return RunFailed(error.line(then))
    return RunFailed(f"{out}: cannot be written ({error.strerror or error}); mend that, then {then}")


def _check_apart(data: Path, out: Path) -> None:
    """Raise UserError where the shards would lie among the photos, or the photos among the shards."""
    source, target = data.resolve(), out.resolve()
    if not source.is_dir() or url_of(out) is not None:
        return  # said when the photos are opened
    if source == target:
        raise UserError(f"{out}: is the folder of the photos; name another one for the shards")
    if target.is_relative_to(source):
        raise UserError(f"{out}: lies in {data}, the folder of the photos; name a folder outside it")
    if source.is_relative_to(target):
        raise UserError(f"{out}: holds the photos, {data}; name another folder for the shards")


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


def damaged(folder: Path, threads: int | None = None, progress: Progress | None = None) -> list[str]:
    """Photos of a folder of shards whose bytes are not those that were packed: shard, member and path.

    Reads every byte of every photo, in the order in which they lie, also at a URL. Raises UserError when a
    shard is missing or has another size.
    """
    if url_of(folder) is None and folder.is_dir() and not is_packed(folder):
        raise _no_shards(folder)  # tar files of others have no checksums
    with tempfile.TemporaryDirectory() as nowhere:  # what is kept of remote shards says nothing of these
        none: dict[str, Any] = {"cache_dir": nowhere, "cache_gb": 1e-9} if url_of(folder) is not None else {}
        photos = Photos(folder, max_pixels=1 << 62, exif="ignore", min_classes=1, **none)
        return _damaged(photos, folder, threads or usable_cores(), progress)


def _no_shards(folder: Path) -> UserError:
    return UserError(f"{folder}: no packed photos there; give the OUT of `flowerfast pack DATA OUT`")


def _damaged(photos: Photos, folder: Path, threads: int, progress: Progress | None) -> list[str]:
    shards = photos.table.shards
    if shards is None:
        raise _no_shards(folder)
    order = np.lexsort((shards.offset, shards.shard))
    damaged_photos: list[str] = []
    done = 0

    def wrong(rows: np.ndarray) -> list[int]:
        found, _ = photos.read(rows)  # which compares each with its checksum
        return [row for row, photo in zip(rows.tolist(), found, strict=True) if isinstance(photo, OSError)]

    with closing(Workers(threads, "flowerfast-verify")) as pool:
        for rows in in_order(pool, wrong, iter_chunks(order, _CHUNK), 2 * threads, photos.place):
            damaged_photos += [photos.where(row) for row in rows]
            done = min(done + _CHUNK, len(order))
            if progress:
                progress(done, len(order))
    return damaged_photos


def _prepare(photos: Photos, settings: PackSettings, sample: np.ndarray) -> Photo | str:
    """The photo of one sample as it will be packed, or why it cannot be."""
    photo = _chosen(photos, settings, sample)
    if settings.seekable and not isinstance(photo, str) and photo.extension == "jpg":
        from flowerfast.packing.seekable import seekable  # imports numba

        encoded = seekable(photo.encoded, photo.width, photo.height)
        if encoded is not None:
            return replace(photo, encoded=encoded, seekable=True)
    return photo


def _chosen(photos: Photos, settings: PackSettings, sample: np.ndarray) -> Photo | str:
    """The photo of one sample copied, shrunk or re-coded, or why it cannot be."""
    table, row = photos.table, int(sample[0])
    width, height = int(table.width[row]), int(table.height[row])
    try:
        encoded = photos.read_one(row)
        if len(encoded) != table.size[row]:
            return f"has {len(encoded)} bytes, had {table.size[row]} when scanned: changed since"
        large = settings.max_side is not None and min(width, height) > settings.max_side
        if not large and (not settings.jpeg or encoded[:2].tobytes() == b"\xff\xd8"):
            shape = width, height, int(table.orientation[row])
            return Photo(encoded, _extension(encoded), *shape)
        pixels = photos.decode(row, encoded)
        if large and settings.max_side is not None:
            pixels = _shrink(pixels, settings.max_side)
        return _as_jpeg(pixels, settings.quality, recoded=not large)
    except (OSError, DecodeError) as error:
        return one_line(error)


def _shrink(pixels: np.ndarray, max_side: int) -> np.ndarray:
    """Pixels, uint8 (h, w, 3), with a short side of `max_side`."""
    height, width = pixels.shape[:2]
    new_width, new_height = limited((np.array([width]), np.array([height])), max_side)
    return resize(pixels, int(new_height[0]), int(new_width[0]))


def _as_jpeg(pixels: np.ndarray, quality: int, recoded: bool) -> Photo:
    """Pixels, uint8 (h, w, 3), as a JPEG. Raises DecodeError when they are too many for one.

    Chroma at half the resolution (4:2:0), as cameras write it: full chroma comes a little closer to the
    pixels, and is paid for in bytes that every epoch reads.
    """
    height, width = pixels.shape[:2]
    if max(height, width) > _JPEG_SIDE:
        raise DecodeError(f"{width}x{height} pixels cannot be a JPEG, whose sides have {_JPEG_SIDE} at most")
    encoded = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels), quality, colorspace="RGB", colorsubsampling="420", fastdct=False
    )
    return Photo(np.frombuffer(encoded, np.uint8), "jpg", width, height, orientation=1, recoded=recoded)


def _extension(encoded: np.ndarray) -> str:
    """Extension by content, by which other readers choose a decoder."""
    start = encoded[:4].tobytes()
    return next((extension for magic, extension in _MAGIC.items() if start.startswith(magic)), "avif")


def _kept(table: Table, rows: np.ndarray, index: Index) -> np.ndarray:
    """Of these rows, int64 (n,), those whose photos were not left out."""
    left_out = {path for path, _ in index.bad}
    if not left_out:
        return rows
    return np.fromiter((row for row in rows if table.path(int(row)) not in left_out), np.int64)


def _check_index(at: Path, table: Table, kept: np.ndarray, settings: PackSettings, index: Index) -> None:
    """Raise UserError unless an index is of what the state beside it says: these rows, int64 (n,)."""
    paths = gathered(table.path_bytes, np.diff(table.path_ends, prepend=0), kept)
    if (
        (index.classes, index.settings) != (table.classes, settings.to_json())
        or not np.array_equal(index.columns["label"], table.label[kept])
        or not np.array_equal(index.columns["path_bytes"], paths)
    ):
        raise UserError(
            f"{spelled(at)}/{INDEX}: is of other photos or settings than {STATE} beside it; {BRING_BACK}"
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
