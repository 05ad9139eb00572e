"""Shards written to a URL: packed here, copied there, the index last, so that nobody meets half a set."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowerfast.errors import UserError
from flowerfast.machine import Progress, user_cache_dir
from flowerfast.packing.parts import merge, part_name
from flowerfast.packing.shard_writer import read_state
from flowerfast.photos.remote import NotServed, Remote
from flowerfast.photos.shard_index import INDEX, STATE, Index, read_index

_READ_ONLY = ("http://", "https://")


class Upload:
    """A set of shards on its way to a URL.

    Args:
        url: where to.
        state: what is packed and how, see `shard_writer.pack_state`.

    Raises UserError when something else is there, or nothing can be written there; RunFailed.

    Attributes:
        folder: where the shards are packed first; taken away when all have arrived.
        index: of a set that has arrived earlier, else None.
    """

    def __init__(self, url: str, state: dict[str, Any]) -> None:
        if url.startswith(_READ_ONLY):
            raise UserError(f"{url}: nothing can be written there; name a folder")
        self._remote = Remote(url)
        self.folder = user_cache_dir() / "packing" / hashlib.sha256(url.encode()).hexdigest()[:24]
        self.index: Index | None = None
        before = self._fetched(STATE, read_state)
        self._same = before == state
        self.index = self._fetched(INDEX, lambda file: read_index(file.parent, url))
        if self.index is not None and not self._same:
            raise UserError(
                f"{url}: holds shards of other photos or settings; name another URL, or remove what is there"
            )

    def finish(self, index: Index, bar: Progress | None) -> None:
        """Copy all that has been packed. Raises RunFailed; run again it goes on."""
        if not self._same:  # shards of the same name there are of something else
            self._remote.write(self.folder / STATE, STATE)
        for done, shard in enumerate(index.shards, 1):
            if not (self._same and self._size(shard.name) == shard.size):
                self._remote.write(self.folder / shard.name, shard.name)
            if bar:
                bar(done, len(index.shards))
        self._remote.write(self.folder / INDEX, INDEX)
        shutil.rmtree(self.folder)

    def _size(self, name: str) -> int | None:
        try:
            return self._remote.size(name)
        except NotServed:
            return None

    def _fetched(self, name: str, read: Callable[[Path], Any]) -> Any:
        """What `read` makes of an object; None: it is not there."""
        with tempfile.TemporaryDirectory() as place:
            try:
                self._remote.fetch(name, Path(place, name))
            except NotServed:
                return None
            return read(Path(place, name))


def merge_at(url: str, count: int) -> list[int]:
    """See `parts.merge`, of parts at a URL. Raises RunFailed."""
    remote = Remote(url)
    with tempfile.TemporaryDirectory() as place:
        absent = []
        for number in range(1, count + 1):
            name = part_name((number, count))
            Path(place, name).mkdir()
            try:
                for file in (INDEX, STATE):
                    remote.fetch(f"{name}/{file}", Path(place, name, file))
            except NotServed:
                Path(place, name, INDEX).unlink(missing_ok=True)
                absent.append(number)
        if not absent:
            absent = merge(Path(place), count)
            remote.write(Path(place, INDEX), INDEX)
        return absent
