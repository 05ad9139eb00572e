"""Where shards go, one thing to whoever packs: straight into a folder, or by an upload to a URL."""

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from flowerfast.packing.shard_writer import PackSettings, ShardWriter, open_writer, read_state
from flowerfast.packing.upload import Upload
from flowerfast.photos.shard_index import STATE, Index
from flowerfast.photos.table import Table
from flowerfast.places import url_of


@dataclass(frozen=True)
class Folder:
    """A folder that shards are packed in; `Upload` says what each method is for.

    Attributes:
        folder: its path.
        other: what people can do instead, in the imperative.
    """

    folder: Path
    other: ClassVar[str] = "name another folder"

    def __str__(self) -> str:
        return str(self.folder)

    def at(self, name: str) -> "Folder":
        """A folder in it."""
        return Folder(self.folder / name)

    def names(self) -> set[str]:
        """Of all that lies there, as far as it may be listed."""
        with suppress(OSError):
            return {*os.listdir(self.folder)}
        return set()

    def state(self) -> dict[str, Any] | None:
        """See `read_state`."""
        return read_state(self.folder / STATE)

    def arrived(self, _: dict[str, Any]) -> Index | None:
        """None: `open` looks at what is there."""
        return None

    def open(
        self, table: Table, settings: PackSettings, part: tuple[int, int] | None, look: Callable[[], None]
    ) -> ShardWriter | None:
        """See `open_writer`; `look` is called when the record is there, which others look for."""
        writer = open_writer(self.folder, table, settings, part)
        look()
        return writer

    def send(self, *_: object) -> bool:
        """Nothing: all is there."""
        return False

    def merging(self, _: Iterable[str]) -> AbstractContextManager[Path]:
        """The folder itself."""
        return nullcontext(self.folder)


Target = Folder | Upload


def target_of(out: Path) -> Target:
    """What a place is. Raises UserError when nothing can be written there."""
    url = url_of(out)
    return Folder(out) if url is None else Upload(url)
