"""Shards written to a URL: packed here, copied there, the index last, so that nobody meets half a set."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flowerfast.errors import UserError
from flowerfast.files import writing
from flowerfast.machine import ProgressBars, user_cache_dir
from flowerfast.packing.shard_writer import (
    PackSettings,
    ShardWriter,
    open_writer,
    pack_state,
    read_state,
    write_state,
)
from flowerfast.photos.remote import NotServed, Remote
from flowerfast.photos.shard_index import BRING_BACK, INDEX, STATE, Index, read_index
from flowerfast.photos.table import Table

_READ_ONLY = ("http://", "https://")
_HERE = ("file://", "local://")
_SENT = ".sent"
"""In the folder of an upload: names of the shards that have been copied, a line each.

What else lies at the URL may be of somebody else's set, and have the same size."""


class Upload:
    """A URL that a set of shards goes to.

    Args:
        url: without a slash at its end.

    Raises UserError when nothing can be written there.

    Attributes:
        folder: where the shards are packed first; taken away when all have arrived.
        other: what people can do instead, in the imperative.
    """

    other = "name another URL, or another cache folder in FLOWERFAST_CACHE"

    def __init__(self, url: str) -> None:
        if url.startswith(_READ_ONLY):
            raise UserError(f"{url}: nothing can be written there; name a folder")
        if url.startswith(_HERE):
            raise UserError(f"{url}: a folder on this machine; give its path, {url.partition('://')[2]}")
        self._remote, self._url = Remote(url), url
        self.folder = user_cache_dir() / "packing" / hashlib.sha256(url.encode()).hexdigest()[:24]

    def __str__(self) -> str:
        return self._url

    def at(self, name: str) -> "Upload":
        """A folder at the URL."""
        return Upload(f"{self._url}/{name}")

    def names(self) -> set[str]:
        """Of all that lies there, folders too, as far as they may be listed. Raises UserError, RunFailed."""
        try:
            names = self._remote.names()
        except NotServed as error:
            raise UserError(str(error)) from error
        return {name for name in (STATE,) if self._size(name) is not None} if names is None else names

    def state(self) -> dict[str, Any] | None:
        """What is packed there and how; None: nothing is. Raises UserError, RunFailed."""
        state: dict[str, Any] | None = self._fetched(
            STATE, lambda file: read_state(file, f"{self._url}/{STATE}")
        )
        return state

    def arrived(self, state: dict[str, Any]) -> Index | None:
        """The index of a whole set that is there.

        Raises UserError when it is another one, or lacks a shard or a part of one, RunFailed.
        """
        index: Index | None = self._fetched(INDEX, lambda file: read_index(file.parent, self._url))
        if index is not None and self.state() != state:
            raise UserError(
                f"{self._url}: holds shards of other photos or settings; name another URL, or remove what "
                "is there"
            )
        for shard in index.shards if index is not None else ():
            if self._size(shard.name) != shard.size:
                raise UserError(
                    f"{self._url}/{shard.name}: gone or cut short since it was packed; {BRING_BACK}, or "
                    f"remove {INDEX} there: the same command packs and copies all then"
                )
        return index

    def open(
        self, table: Table, settings: PackSettings, part: tuple[int, int] | None, look: Callable[[], None]
    ) -> ShardWriter | None:
        """See `open_writer`: of `folder`, where what is in the way never arrived, and is removed.

        The record goes to the URL first: others see that something is packed there, and who may not write
        hears it now, not after hours. Then `look` is called: of two who come at once, each writing before it
        looks, one sees the other at least. What it refuses it takes back, as far as that is allowed.
        Raises UserError, RunFailed, WriteFailed.
        """
        state, there = pack_state(table, settings, part), self.state()
        if there != state:  # another's stays what it is until something is copied over its shards
            try:
                self._record(there or state)
            except NotServed as error:
                raise UserError(str(error)) from error
        try:
            look()
        except UserError:
            if there is None:
                self._remote.remove(STATE)
            raise
        try:
            return open_writer(self.folder, table, settings, part)
        except UserError:
            with writing(self.folder):
                for entry in self.folder.iterdir():
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry)
                    else:
                        entry.unlink()
            return open_writer(self.folder, table, settings, part)

    def send(self, index: Index, state: dict[str, Any], look: Callable[[], None], bars: ProgressBars) -> bool:
        """Copy all that has been packed; whether there was anything to copy.

        Raises UserError when somebody packs something else there meanwhile, RunFailed; run again it goes on.
        """
        self.arrived(state)
        if self.state() != state:
            self._record(state)
        look()
        sent, note = set[str](), self.folder / _SENT
        with suppress(FileNotFoundError):
            sent = {*note.read_text(encoding="utf-8").splitlines()}
        with bars("copying") as bar:
            for done, shard in enumerate(index.shards, 1):
                if shard.name not in sent or self._size(shard.name) != shard.size:
                    self._write(shard.name, state)
                    with writing(note), note.open("a", encoding="utf-8") as file:
                        file.write(f"{shard.name}\n")
                if bar:
                    bar(done, len(index.shards))
            look()
            self._write(INDEX, state)
        shutil.rmtree(self.folder)
        return True

    @contextmanager
    def merging(self, names: Iterable[str]) -> Iterator[Path]:
        """A folder with records and indexes of parts with these names, as far as they are there.

        An index that is written above them goes to the URL in the end. Raises RunFailed.
        """
        with tempfile.TemporaryDirectory() as place:
            for name in names:
                Path(place, name).mkdir()
                with suppress(NotServed):
                    for file in (STATE, INDEX):
                        self._remote.fetch(f"{name}/{file}", Path(place, name, file))
            yield Path(place)
            if Path(place, INDEX).is_file():
                self._remote.write(Path(place, INDEX), INDEX)

    def _record(self, state: dict[str, Any]) -> None:
        """Write what is packed there; what was copied under another record may have been replaced since."""
        (self.folder / _SENT).unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as place:
            write_state(Path(place), state)
            self._remote.write(Path(place, STATE), STATE)

    def _write(self, name: str, state: dict[str, Any]) -> None:
        """Copy a file, unless the place has become another's."""
        if self.state() != state:
            raise UserError(
                f"{self._url}: another process packs other photos or settings there; name another URL"
            )
        self._remote.write(self.folder / name, name)

    def _fetched(self, name: str, read: Callable[[Path], Any]) -> Any:
        """What `read` makes of an object; None: it is not there."""
        with tempfile.TemporaryDirectory() as place:
            try:
                self._remote.fetch(name, Path(place, name))
            except NotServed:
                return None
            return read(Path(place, name))

    def _size(self, name: str) -> int | None:
        try:
            return self._remote.size(name)
        except NotServed:
            return None
