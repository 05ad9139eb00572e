"""Packed photos at a URL: read from the local disk where they have been fetched, else fetched in ranges.

Whoever needs a photo that is not there waits for it; in an epoch whose order is known, a thread fetches ahead
in that order. Each photo so comes over the network once, as long as there is room for all: in a random order
with a request for each, in the order of blocks with one for many.
"""

import os
import threading
import time
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowerfast.photos.remote import Remote
from flowerfast.photos.shard_cache import Mirror, ShardCache
from flowerfast.photos.shard_index import BRING_BACK
from flowerfast.photos.shards import Shards
from flowerfast.photos.workers import Task, Workers

_THREADS = 32
"""Requests at a time for photos that somebody waits for, and as many ahead: each mostly waits."""
_GAP = 256 << 10
"""Bytes between two photos that are rather fetched too than asked around: they take no longer."""
_RANGE = 8 << 20
"""Bytes of one request at most, but for a photo that is larger."""
_FIRST_WINDOW, _WINDOW = 4 << 20, 64 << 20
"""Bytes fetched ahead at a time: few at first, for the first batch waits for them."""
_ROWS = 4096  # photos of one window at most
_LOOK = 0.25  # seconds between two looks whether a shard has been read
_Found = dict[int, np.ndarray | OSError]


@dataclass(frozen=True)
class RemoteShards(Shards):
    """Bytes of packed photos at a URL, by row of the index. Threads and forked processes may share it.

    A photo is compared with its checksum at each reading: its copy on the disk may be another's work.

    Attributes:
        size: int64 (n,), bytes of the photos.
        place: where the shards are, and where what is fetched of them is kept: `folder` is its folder.
    """

    size: np.ndarray
    place: Mirror
    _fetchers: dict[int, "_Fetcher"] = field(default_factory=dict, init=False, repr=False, compare=False)
    """By process: in a forked one there are neither the threads nor the connections of the first."""

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_fetchers": {}}

    def read(self, index: int, size: int) -> np.ndarray:
        """See `Shards.read`. Raises RunFailed when the photo cannot be fetched either."""
        self._fetcher.reading = int(self.shard[index])
        with suppress(OSError):
            return super().read(index, size)
        photo = self._fetched([index])[0]
        if isinstance(photo, OSError):
            raise photo
        return photo

    def read_many(
        self, indices: np.ndarray, sizes: np.ndarray, shape: tuple[np.ndarray, np.ndarray]
    ) -> tuple[list[np.ndarray | OSError | None], np.ndarray]:
        """See `Shards.read_many`; no photo is left to `read`. Raises RunFailed."""
        found, plain = super().read_many(indices, sizes, shape)
        lacking = []
        for k, index in enumerate(indices.tolist()):
            if found[k] is None:  # of a shard that does not stay open
                with suppress(OSError):
                    found[k] = super().read(index, int(sizes[k]))
            if not isinstance(found[k], np.ndarray):
                lacking.append(k)
        plain[lacking] = False
        self._fetcher.known[np.delete(indices, lacking)] = True
        self._fetcher.reading = int(self.shard[indices[-1]]) if len(indices) else -1
        for k, photo in zip(lacking, self._fetched(indices[lacking].tolist()), strict=True):
            found[k] = photo
        return found, plain

    def where(self, index: int) -> str:
        """Name of the shard: what it says of the photo's member may not be here."""
        return self.files[int(self.shard[index])].name

    def expect(self, batches: Iterator[np.ndarray], by_shard: bool) -> None:
        """Fetch ahead what will be read, samples int64 (m,) of batch after batch, and nothing else any more.

        As long as there is room; with `by_shard`, where no shard comes twice, those that have been read make
        room for those to come.
        """
        self._fetcher.expect(batches, by_shard)

    @property
    def _fetcher(self) -> "_Fetcher":
        here = os.getpid()
        if here not in self._fetchers:
            self._fetchers.setdefault(here, _Fetcher(self))
        return self._fetchers[here]

    def _fetched(self, indices: list[int]) -> list[np.ndarray | OSError]:
        """Photos that are not here. Raises RunFailed."""
        tasks = self._fetcher.fetch(indices) if indices else {}
        found = [tasks[index].result()[index] for index in indices]
        for shard in {int(self.shard[index]) for index in indices}:
            opened = self._open.get(shard)
            with suppress(OSError):
                now = os.stat(self.folder / self.files[shard].name)
                if opened is not None and opened.state[:2] != (now.st_dev, now.st_ino):
                    self._open.pop(shard, None)  # deleted meanwhile, and begun anew
        return found

    def _check_there(self) -> None:
        """The shards are elsewhere; what is wrong with one shows when it is read."""

    def _problem(self, index: int, _: Any, encoded: np.ndarray) -> OSError | None:
        if zlib.crc32(encoded.data) != self.crc32[index]:
            return OSError(f"its bytes are not those that were packed; {BRING_BACK}")
        return None


class _Fetcher:
    """What fetches photos in one process: connections, threads, what is under way.

    Args:
        shards: whose photos.

    Attributes:
        known: bool (n,), rows whose photos are known to have been here.
        reading: the shard that was last read of.
    """

    def __init__(self, shards: RemoteShards) -> None:
        self._shards = shards
        self._remote, self._cache = Remote(shards.place.url), ShardCache(shards.place)
        self._urgent, self._ahead = (Workers(_THREADS, f"flowerfast-{name}") for name in ("fetch", "ahead"))
        self._lock = threading.Lock()
        self._tasks: dict[int, Task[_Found]] = {}
        self._turn = object()
        self.known, self.reading = np.zeros(len(shards.shard), np.bool_), -1

    def fetch(self, rows: list[int], ahead: bool = False) -> dict[int, Task[_Found]]:
        """By row the task that fetches its photo, maybe with others; what is under way is not begun again."""
        pool = self._ahead if ahead else self._urgent
        with self._lock:
            tasks = {row: self._tasks[row] for row in rows if row in self._tasks}
            for group in self._groups([row for row in dict.fromkeys(rows) if row not in tasks]):
                task = pool.submit(np.array(group), self._bring, group)
                for row in group:
                    self._tasks[row] = tasks[row] = task
        return tasks

    def expect(self, batches: Iterator[np.ndarray], by_shard: bool) -> None:
        """See `RemoteShards.expect`."""
        self._turn = turn = object()
        self._cache.look_again()
        given = batches, by_shard, turn
        walk = threading.Thread(target=self._walk, args=given, name="flowerfast-walk", daemon=True)
        walk.start()

    def _walk(self, batches: Iterator[np.ndarray], by_shard: bool, turn: object) -> None:
        under_way: deque[set[Task[_Found]]] = deque()
        walked: list[int] = []  # shards in their order, as far as the windows are
        # Whoever needs a photo meets what is wrong. Threads are stopped when the process ends.
        with suppress(RuntimeError, CancelledError):
            for rows in self._windows(batches, walked if by_shard else None):
                if by_shard:
                    needed = 2 * int(self._shards.size[rows].sum())  # what lies between them comes too
                    while self._turn is turn and not self._cache.has_room(needed):
                        self._drop(walked)
                    self._cache.look_again()
                if self._turn is not turn or self._cache.is_full:
                    break
                under_way.append({*self.fetch(rows, ahead=True).values()})
                while len(under_way) > 1:
                    for task in under_way.popleft():
                        task.result()

    def _drop(self, walked: list[int]) -> None:
        """Delete the first shard that was walked through and has been read, or wait until there is one."""
        read = walked.index(self.reading) if self.reading in walked else 0
        if read > 1:  # what is made ready ahead is read in no strict order
            shard = walked.pop(0)
            self._shards._open.pop(shard, None)
            self._cache.delete(self._shards.files[shard])
            self.known[self._shards.shard == shard] = False
        else:
            time.sleep(_LOOK)

    def _windows(self, batches: Iterator[np.ndarray], walked: list[int] | None) -> Iterator[list[int]]:
        """Rows whose photos are not here, in the order of the batches, so many bytes at a time.

        With `walked` of one shard alone; the shards are added to it.
        """
        rows: list[int] = []
        taken, window, most = 0, _FIRST_WINDOW, min(_WINDOW, self._shards.place.budget // 8)
        shard = self._shards.shard
        for batch in batches:
            if walked is not None:
                walked += [each for each in dict.fromkeys(shard[batch].tolist()) if each not in walked[-1:]]
            for row in batch[~self.known[batch]].tolist():
                size = int(self._shards.size[row])
                with suppress(OSError):
                    Shards.read(self._shards, row, size)
                    self.known[row] = True
                    continue
                if walked is not None and rows and shard[row] != shard[rows[0]]:
                    yield rows
                    rows, taken = [], 0
                rows.append(row)
                taken += size
            if taken >= min(window, most) or len(rows) >= _ROWS:
                yield rows
                rows, taken, window = [], 0, 2 * window
        yield rows

    def _groups(self, rows: list[int]) -> list[list[int]]:
        """Rows that one request brings, in the order of their bytes."""
        shards = self._shards
        groups: list[list[int]] = []
        at, start, end = -1, 0, 0
        for row in sorted(rows, key=lambda row: (shards.shard[row], shards.offset[row])):
            shard, first = int(shards.shard[row]), int(shards.offset[row])
            last = first + int(shards.size[row])
            if shard == at and first - end <= _GAP and last - start <= _RANGE:
                groups[-1].append(row)
            else:
                groups.append([row])
                at, start = shard, first
            end = last
        return groups

    def _bring(self, rows: list[int]) -> _Found:
        """Fetch photos that lie one behind the other, and keep them. Raises RunFailed."""
        shards = self._shards
        shard = shards.files[int(shards.shard[rows[0]])]
        at = {row: int(shards.offset[row]) for row in rows}
        start, end = at[rows[0]], max(at[row] + int(shards.size[row]) for row in rows)
        try:
            if self.known[rows].all():  # another has brought them since they were looked for
                with suppress(OSError):
                    return {row: Shards.read(shards, row, int(shards.size[row])) for row in rows}
            for _ in range(2):  # once more: what is wrong may have become so on the way
                content = self._remote.read(shard.name, start, end)
                photos = {
                    row: np.frombuffer(content, np.uint8, int(shards.size[row]), at[row] - start)
                    for row in rows
                }
                found = {row: shards._problem(row, None, photo) or photo for row, photo in photos.items()}
                if all(isinstance(photo, np.ndarray) for photo in found.values()):
                    break
            self.known[rows] = self._cache.keep(shard, start, content)
            return found
        finally:
            with self._lock:
                for row in rows:
                    del self._tasks[row]
