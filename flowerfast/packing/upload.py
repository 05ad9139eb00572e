"""Shards written to a URL: packed here, copied there, the index last, so that nobody meets half a set."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowerfast.errors import UserError
from flowerfast.files import writing
from flowerfast.machine import Progress, user_cache_dir
from flowerfast.packing.parts import merge, part_name
from flowerfast.packing.shard_writer import PackSettings, ShardWriter, open_writer, read_state
from flowerfast.photos.remote import NotServed, Remote
from flowerfast.photos.shard_index import INDEX, STATE, Index, read_index
from flowerfast.photos.table import Table

_READ_ONLY = ("http://", "https://")
_HERE = ("file://", "local://")


def names_at(url: str) -> set[str]:
    """Names of what lies where shards shall go, folders too, as far as they may be listed.

    Raises UserError when nothing can be written there, RunFailed.
    """
    if url.startswith(_READ_ONLY):
        raise UserError(f"{url}: nothing can be written there; name a folder")
    if url.startswith(_HERE):
        raise UserError(f"{url}: a folder on this machine; give its path, {url.partition('://')[2]}")
    remote = Remote(url)
    try:
        names = remote.names()
    except NotServed as error:
        raise UserError(str(error)) from error
    if names is None:
        names = {name for name in (STATE,) if _size(remote, name) is not None}
    return names


class Upload:
    """A set of shards on its way to a URL.

    Args:
        url: where to.
        state: what is packed and how, see `shard_writer.pack_state`.

    Raises UserError when something else is there, RunFailed.

    Attributes:
        folder: where the shards are packed first; taken away when all have arrived.
        index: of a set that has arrived earlier, else None.
    """

    def __init__(self, url: str, state: dict[str, Any]) -> None:
        self._remote, self._url, self._state = Remote(url), url, state
        self.folder = user_cache_dir() / "packing" / hashlib.sha256(url.encode()).hexdigest()[:24]
        self.index: Index | None = None
        self._same = self._look()

    def _look(self) -> bool:
        """Whether what is there now is of the same photos and settings. Raises UserError."""
        same = state_at(self._remote) == self._state
        self.index = _fetched(self._remote, INDEX, lambda file: read_index(file.parent, self._url))
        if self.index is not None and not same:
            raise UserError(
                f"{self._url}: holds shards of other photos or settings; name another URL, or remove what "
                "is there"
            )
        return same

    def finish(self, index: Index, bar: Progress | None) -> None:
        """Copy all that has been packed.

        Raises UserError when somebody packs something else there meanwhile, RunFailed; run again it goes on.
        """
        self._same = self._look()
        if not self._same:  # shards of the same name there are of something else
            self._remote.write(self.folder / STATE, STATE)
        for done, shard in enumerate(index.shards, 1):
            if not (self._same and _size(self._remote, shard.name) == shard.size):
                self._write(shard.name)
            if bar:
                bar(done, len(index.shards))
        self._write(INDEX)
        shutil.rmtree(self.folder)

    def _write(self, name: str) -> None:
        """Copy a file, unless the place has become another's."""
        if state_at(self._remote) != self._state:
            raise UserError(
                f"{self._url}: another process packs other photos or settings there; name another URL"
            )
        self._remote.write(self.folder / name, name)


def state_at(remote: Remote) -> dict[str, Any] | None:
    """See `shard_writer.read_state`, of a URL."""
    state: dict[str, Any] | None = _fetched(
        remote, STATE, lambda file: read_state(file, f"{remote.url}/{STATE}")
    )
    return state


def _fetched(remote: Remote, name: str, read: Callable[[Path], Any]) -> Any:
    """What `read` makes of an object; None: it is not there."""
    with tempfile.TemporaryDirectory() as place:
        try:
            remote.fetch(name, Path(place, name))
        except NotServed:
            return None
        return read(Path(place, name))


def open_packing(
    folder: Path, table: Table, settings: PackSettings, part: tuple[int, int] | None
) -> ShardWriter | None:
    """See `open_writer`, of an upload's folder: what is in its way there never arrived, and is removed."""
    try:
        return open_writer(folder, table, settings, part)
    except UserError:
        with writing(folder):
            for entry in folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        return open_writer(folder, table, settings, part)


def _size(remote: Remote, name: str) -> int | None:
    try:
        return remote.size(name)
    except NotServed:
        return None


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
            absent = merge(Path(place), count, Path(url))
            remote.write(Path(place, INDEX), INDEX)
        return absent
