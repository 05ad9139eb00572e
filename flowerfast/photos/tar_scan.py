"""Photos in tar files that others wrote, WebDataset's and alike: looked at once for an index.

A sample is what shares a key in a tar, in whatever order it lies there. Each photo is read: for its size in
pixels, and for the checksum that later readings are compared with.
"""

import io
import re
import zlib
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowerfast.errors import Fact, UserError, one_line
from flowerfast.machine import Progress, usable_cores
from flowerfast.photos.decode import reason
from flowerfast.photos.formats import SUFFIXES, is_clipped
from flowerfast.photos.header import Header, check_bytes, clipped_note, read_header
from flowerfast.photos.label_file import Columns
from flowerfast.photos.shard_index import COLUMNS, Index, Shard
from flowerfast.photos.shards import OpenFile
from flowerfast.photos.tar_labels import JSON, Fields, Rule, choose, document_of, label_of
from flowerfast.photos.tar_members import LINKS, NO_END, Member, members_of
from flowerfast.photos.walk import some
from flowerfast.photos.workers import Workers, in_order

_CHUNK = 16  # photos per task
_LISTED = 10  # percent of the progress that listing the tars is taken for
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")
_ROW = ("label", "width", "height", "orientation", "size", "offset", "crc32", "shard")


@dataclass(frozen=True)
class TarPhotos:
    """What a folder of tars holds.

    Attributes:
        index: as of shards; `bad` are photos that cannot be read.
        notes: how it was read, and what was left out, a line each.
        bad_label, bad_fold: int32 and uint8 (len(bad),).
    """

    index: Index
    notes: tuple[str, ...]
    bad_label: np.ndarray
    bad_fold: np.ndarray


class _Sample(NamedTuple):
    """A photo to be looked at: its tar, open, the members that share its key, and which of them it is."""

    tar: int
    opened: OpenFile
    key: str
    members: dict[str, Member]
    photo: Member


class _Seen(NamedTuple):
    """What a look at a photo gives: its class, its header or what is wrong with it, and its checksum."""

    label: str
    header: Header | str
    crc32: int


class Scan:
    """One reading of all tars of a folder: see `tar_photos.read_tars`."""

    def __init__(
        self,
        root: Path,
        shards: tuple[Shard, ...],
        max_pixels: int,
        progress: Progress | None,
        columns: Columns,
    ) -> None:
        self._root, self._shards, self._max_pixels = root, shards, max_pixels
        self._progress, self._columns = progress, columns
        self._noted: Counter[int] = Counter()
        self._suffixes: Counter[str] = Counter()
        self._clipped: list[str] = []
        self._without = 0  # samples

    def photos(self, folds: list[int]) -> TarPhotos:
        """All photos, in the order of half, class, tar and key; `folds` are the halves of the tars.

        Raises UserError.
        """
        fields = self._fields()
        rule = choose(self._root, fields, self._columns.label)
        classes: dict[str, int] = {}
        rows = array("q")  # of millions of photos too
        paths: list[bytes] = []
        bad: list[tuple[str, str, int, int]] = []
        for done, (sample, seen) in enumerate(self._looked_at(rule), 1):
            label = classes.setdefault(seen.label, len(classes))
            name = self._shards[sample.tar].name
            path = f"{name[: name.rindex('.')]}/{sample.key}.{sample.photo.suffix}"
            if isinstance(seen.header, str):
                bad.append((path, seen.header, label, folds[sample.tar]))
            else:
                shape = seen.header.width, seen.header.height, seen.header.orientation
                rows.extend((label, *shape, sample.photo.size, sample.photo.offset, seen.crc32, sample.tar))
                paths.append(path.encode("utf-8", "surrogateescape"))
                self._suffixes[sample.photo.suffix] += 1
                if is_clipped(seen.header.mode):
                    self._clipped.append(path)
            if self._progress:
                share = (100 - _LISTED) * done // fields.samples
                self._progress(_LISTED + share, 100)
        if not rows:
            raise self._nothing(bad)
        order = sorted(classes, key=int if all(map(_NUMBER.fullmatch, classes)) else str)
        position = np.argsort([classes[name] for name in order])
        table = dict(zip(_ROW, np.frombuffer(rows, np.int64).reshape(-1, len(_ROW)).T, strict=True))
        table["label"], table["fold"] = position[table["label"]], np.array(folds)[table["shard"]]
        index = self._index(tuple(order), table, paths, tuple((path, why) for path, why, _, _ in bad))
        about = np.array([(position[label], fold) for _, _, label, fold in bad], np.int64).reshape(-1, 2)
        lost = np.setdiff1d(about[:, 1], table["fold"])
        if len(lost):  # else photos of another half would be taken for this one
            first = next(each for each in bad if each[3] == lost[0])
            raise UserError(f"{self._root}: no readable photos in a half; first: {first[0]}: {first[1]}")
        return TarPhotos(index, self._notes(rule), about[:, 0].astype(np.int32), about[:, 1].astype(np.uint8))

    def _index(
        self,
        classes: tuple[str, ...],
        table: dict[str, np.ndarray],
        paths: list[bytes],
        bad: tuple[tuple[str, str], ...],
    ) -> Index:
        """Rows as those of shards, in the order of a folder: by half, class, and path."""
        place = np.argsort(np.array(paths, np.object_), kind="stable").argsort()
        rows = np.lexsort((place, table["label"], table["fold"]))
        ordered = [paths[row] for row in rows.tolist()]
        columns = {name: values[rows].astype(COLUMNS[name]) for name, values in table.items()}
        columns["path_bytes"] = np.frombuffer(b"".join(ordered), np.uint8)
        columns["path_ends"] = np.cumsum([*map(len, ordered)], dtype=np.int64)
        return Index(classes, self._shards, {}, bad, columns, dict(self._suffixes))

    def _nothing(self, bad: list[tuple[str, str, int, int]]) -> UserError:
        what = f"first: {bad[0][0]}: {bad[0][1]}" if bad else "they hold none under a photo's suffix"
        return UserError(
            f"{self._root}: no photo that can be read in {len(self._shards)} tar files; {what}; "
            "data.path_column names another suffix"
        )

    def _notes(self, rule: Rule) -> tuple[str, ...]:
        count = f"{len(self._shards)} tar file{'s' * (len(self._shards) > 1)}"
        suffixes = some([f".{suffix}" for suffix, _ in self._suffixes.most_common()])
        notes: list[str] = [
            Fact(f"{count} without an index of flowerfast: photos from {suffixes}, labels from {rule}")
        ]
        if self._without:
            notes.append(f"left out, samples without a photo: {self._without}")
        if self._noted[LINKS]:
            notes.append(f"left out, links and other members that are no files: {self._noted[LINKS]}")
        if self._noted[NO_END]:
            notes.append(f"tar files without the blocks that end one, perhaps cut: {self._noted[NO_END]}")
        return (*notes, *([clipped_note(self._clipped)] if self._clipped else []))

    # ---------------------------------------------------------------------------------------------- reading

    def _fields(self) -> Fields:
        """What the samples have, before any of them is read."""
        fields = Fields()
        document: tuple[int, Member] | None = None
        for tar, shard in enumerate(self._shards):
            path = self._root / shard.name
            for key, members in self._samples(tar).items():
                fields.suffixes.update([*members])
                if document is None and JSON in members:
                    document = tar, members[JSON]
                if self._photo(path, key, members) is None:
                    self._without += 1
                else:
                    fields.samples += 1
                    fields.folders.add(key.rpartition("/")[0])
            if self._progress:
                self._progress(_LISTED * (tar + 1) // len(self._shards), 100)
        if not fields.samples:
            raise self._nothing([])
        if document is not None and not fields.has_label:  # else it need not be one
            fields.document = [*self._read_document(*document)]
        return fields

    def _read_document(self, tar: int, member: Member) -> dict[str, Any]:
        where = f"{self._root / self._shards[tar].name}: {member.key}.{JSON}"
        try:
            return document_of(where, member, self._opened(tar).read)
        except OSError as error:
            raise UserError(f"{where}: cannot be read ({one_line(error)})") from error

    def _looked_at(self, rule: Rule) -> Iterator[tuple[_Sample, _Seen]]:
        """All photos in the order in which they lie, looked at by threads."""
        under_way: dict[int, _Sample] = {}

        def pieces() -> Iterator[np.ndarray]:
            number = 0
            for sample in self._all():
                under_way[number] = sample
                number += 1
                if number % _CHUNK == 0:
                    yield np.arange(number - _CHUNK, number)
            if number % _CHUNK:
                yield np.arange(number - number % _CHUNK, number)

        def look(numbers: np.ndarray) -> list[_Seen]:
            return [self._look(rule, under_way[number]) for number in numbers.tolist()]

        def where(number: int) -> str:
            return f"{self._shards[under_way[number].tar].name}: {under_way[number].key}"

        threads, number = usable_cores(), 0
        with closing(Workers(threads, "flowerfast-tars")) as pool:
            for piece in in_order(pool, look, pieces(), 2 * threads, where):
                for seen in piece:
                    yield under_way.pop(number), seen
                    number += 1

    def _all(self) -> Iterator[_Sample]:
        for tar, shard in enumerate(self._shards):
            opened = self._opened(tar)
            for key, members in self._samples(tar, noted=False).items():
                photo = self._photo(self._root / shard.name, key, members)
                if photo is not None:
                    yield _Sample(tar, opened, key, members, photo)

    def _look(self, rule: Rule, sample: _Sample) -> _Seen:
        path, opened = self._root / self._shards[sample.tar].name, sample.opened
        try:
            label = label_of(rule, path, sample.key, sample.members, opened.read)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({one_line(error)})") from error
        try:
            check_bytes(sample.photo.size, self._max_pixels)
            encoded = opened.read(sample.photo.size, sample.photo.offset)
            header = read_header(io.BytesIO(encoded), self._max_pixels)
        except (OSError, ValueError) as error:
            return _Seen(label, reason(error), 0)
        return _Seen(label, header, zlib.crc32(encoded))

    def _opened(self, tar: int) -> OpenFile:
        path = self._root / self._shards[tar].name
        try:
            return OpenFile(path, self._shards[tar].size)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({one_line(error)})") from error

    def _samples(self, tar: int, noted: bool = True) -> dict[str, dict[str, Member]]:
        """Members of a tar by key and suffix. Raises UserError for one that comes twice."""
        path = self._root / self._shards[tar].name
        samples: dict[str, dict[str, Member]] = {}
        for member in members_of(path, self._noted if noted else Counter()):
            before = samples.setdefault(member.key, {}).setdefault(member.suffix, member)
            if before is not member:
                raise UserError(
                    f"{path}: {member.key}.{member.suffix} is there twice, and nobody can tell which is "
                    "meant; write that tar anew with a key for each sample"
                )
        return samples

    def _photo(self, path: Path, key: str, members: dict[str, Member]) -> Member | None:
        """The photo among the members of a sample; None: there is none. Raises UserError for two."""
        named = self._columns.path
        if named is not None:
            return members.get(named.casefold())
        photos = [suffix for suffix in members if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
        plain = [suffix for suffix in photos if "." not in suffix]  # jpg rather than mask.png
        photos = plain if len(plain) == 1 else photos
        if len(photos) > 1:
            raise UserError(
                f"{path}: {key} has {len(photos)} photos, .{' and .'.join(photos[:2])}; name the one to "
                f"take: data.path_column={photos[0]}"
            )
        return members[photos[0]] if photos else None
