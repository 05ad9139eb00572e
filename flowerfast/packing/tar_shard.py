"""One shard being written: a tar as WebDataset has it, and where in it each photo lies."""

import json
import os
import tarfile
import zlib
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowerfast.files import sync_folder, writing
from flowerfast.photos.shard_index import Shard
from flowerfast.photos.table import Table

ROW = {
    "row": np.int64,
    "width": np.int32,
    "height": np.int32,
    "orientation": np.uint8,
    "size": np.int64,
    "offset": np.int64,
    "crc32": np.uint32,
}
"""Values that are noted of each photo written: its row in the table, and columns of the index."""


@dataclass(frozen=True)
class Photo:
    """A photo ready to be written.

    Attributes:
        encoded: its file: uint8 (bytes,).
        extension: of its member's name, without the dot.
        width, height: in pixels, as stored.
        orientation: by which it is to be turned, see `Table`.
        recoded: whether it became JPEG without being shrunk.
        seekable: whether its codes were written anew, see `packing.seekable`.
    """

    encoded: np.ndarray
    extension: str
    width: int
    height: int
    orientation: int
    recoded: bool = False
    seekable: bool = False


class Label(NamedTuple):
    """What a photo's label is for other readers: a member of the tar beside it, its suffix and content."""

    suffix: str
    content: bytes

    @classmethod
    def of(cls, table: Table, row: int) -> "Label":
        """Of a row: the number of its class; where photos have several labels, a list of them in JSON."""
        label = int(table.label[row])
        if table.sets is None:
            return cls("cls", str(label).encode())
        return cls("json", json.dumps(table.sets[label]).encode())


class OpenShard:
    """A tar file under its temporary name."""

    def __init__(self, file: Path, fold: int) -> None:
        from webdataset import TarWriter  # takes a second to import, and only packing needs it

        self.file, self.fold, self.end = file, fold, 0
        self.rows: list[tuple[int, ...]] = []
        self.suffixes: Counter[str] = Counter()
        self.recoded = self.seekable = 0
        self._partial = file.with_name(file.name + ".partial")
        with writing(file):
            self._out = self._partial.open("wb")
        # Whatever would differ from run to run or user to user is fixed, so that the bytes are too.
        # A time with a fraction, as webdataset's own default, would cost each member a header of its own.
        self._tar = TarWriter(self._out, user="", group="", mode=0o644, mtime=0, encoder=False)

    def add(self, row: int, label: Label, photo: Photo) -> None:
        """Append a photo and its label. Raises OSError."""
        key, encoded = f"{row:09d}", photo.encoded.data
        # One call per member, in this order: what a single call writes is sorted by extension.
        with writing(self.file, self.bytes_with(label, photo)):
            self._tar.write({"__key__": key, label.suffix: label.content})
            self._tar.write({"__key__": key, photo.extension: encoded})
        self.end = self._tar.tarstream.offset
        offset = self.end - _blocks(len(encoded))
        shape = photo.width, photo.height, photo.orientation
        self.rows.append((row, *shape, len(encoded), offset, zlib.crc32(encoded)))
        self.suffixes[photo.extension] += 1
        self.recoded += photo.recoded
        self.seekable += photo.seekable

    def bytes_with(self, label: Label, photo: Photo) -> int:
        """Size of the finished file if this photo were its last."""
        return _tar_bytes(self.end + _entry_bytes(photo, label))

    def finish(self) -> Shard:
        """Complete the file, force it to the disk and give it its name. Raises OSError."""
        with writing(self.file, _tar_bytes(self.end)):
            self._tar.close()
            self._out.flush()
            os.fsync(self._out.fileno())
            self._out.close()
            os.replace(self._partial, self.file)
            sync_folder(self.file.parent)
        return Shard(self.file.name, self.file.stat().st_size)

    def abandon(self) -> None:
        """Remove the file."""
        for end in (self._tar.close, self._out.close, self._partial.unlink):
            with suppress(OSError):  # what they have still to write may not fit on the disk
                end()


def _blocks(size: int) -> int:
    """Bytes that content of `size` bytes takes in a tar."""
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _tar_bytes(end: int) -> int:
    """Bytes of a tar whose last member ends at `end`: two empty blocks follow, then it is padded."""
    return -(-(end + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE


def _entry_bytes(photo: Photo, label: Label) -> int:
    """Bytes that a photo and its label take in a tar, with a header each."""
    return 2 * tarfile.BLOCKSIZE + _blocks(len(photo.encoded)) + _blocks(len(label.content))
