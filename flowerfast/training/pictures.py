"""Pictures one after the other: threads make squares of files, some batches ahead of whoever asks."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sized
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np

from flowerfast.machine import usable_cores
from flowerfast.photos.workers import Task, Workers, leave, results
from flowerfast.training.squares import Picture, Square, Squares

PIECE = 8
"""Files per task of a thread."""
WORTH = 256
"""Files below which numba and the compiled loops take longer to load than they save."""


@dataclass
class _Batch:
    """Pictures under way: by row what is ready, and the rows of the files, of which `tasks` make squares."""

    names: list[str] = field(default_factory=list)
    ready: dict[int, Square] = field(default_factory=dict)
    files: list[int] = field(default_factory=list)
    tasks: list[Task[list[Square]]] = field(default_factory=list)

    def take(self, picture: Picture, place: int, squares: Squares) -> None:
        """Add a picture. Of what is no file the square is made at once: its pixels may be changed after."""
        if isinstance(picture, (str, Path)):
            self.files.append(len(self.names))
            self.names.append(str(picture))
        else:
            self.ready[len(self.names)] = squares.of_pixels(picture)
            self.names.append(str(place))

    def begin(self, pool: Workers, squares: Squares) -> None:
        """Have threads make squares of the files."""
        for start in range(0, len(self.files), PIECE):
            rows = self.files[start : start + PIECE]
            self.tasks.append(
                pool.submit(np.array(rows), squares.of_files, [self.names[row] for row in rows])
            )

    def result(self) -> tuple[list[str], list[Square]]:
        """Names and squares, once they are ready."""
        made: list[list[Square]] = results(self.tasks, self.names.__getitem__)
        ready = self.ready | dict(zip(self.files, chain.from_iterable(made), strict=True))
        return self.names, [ready[row] for row in range(len(self.names))]


def batches(
    images: Iterable[Picture], squares: Squares, batch_size: int
) -> Generator[tuple[list[str], list[Square]], None, None]:
    """(names, squares) of `batch_size` pictures at a time, in their order; the last may be fewer.

    A name is the path, or the place among the pictures. No more pictures are taken ahead than one batch and
    two pieces for each thread, of which there is one per usable core; with batches of one picture, none.

    What is raised for a picture that is none (UserError), or by `images`, comes after the pictures before it.
    RunFailed: a disk does not answer.
    """
    threads = usable_cores()
    ahead = 0 if batch_size == 1 else 1 + 2 * threads * PIECE // batch_size
    waiting: deque[_Batch | Exception] = deque()
    with closing(Workers(threads, "flowerfast-predict")) as pool:
        try:
            for batch in _begun(images, squares, batch_size, pool):
                waiting.append(batch)
                if len(waiting) > ahead:
                    yield _result(waiting.popleft())
            while waiting:
                yield _result(waiting.popleft())
        finally:
            leave([task for batch in waiting if isinstance(batch, _Batch) for task in batch.tasks])


def _result(batch: _Batch | Exception) -> tuple[list[str], list[Square]]:
    if isinstance(batch, Exception):
        raise batch
    return batch.result()


def _begun(
    images: Iterable[Picture], squares: Squares, batch_size: int, pool: Workers
) -> Iterator[_Batch | Exception]:
    """Batches that threads work on, each begun when it is asked for; last, what was raised for a picture."""
    count, loaded = len(images) if isinstance(images, Sized) else 0, False
    pictures, broken = enumerate(images), None
    while broken is None:
        batch = _Batch()
        try:
            for place, picture in islice(pictures, batch_size):
                batch.take(picture, place, squares)
                count = max(count, place + 1)
        except Exception as error:  # for whoever asks, in its turn
            broken = error
        if batch.files and count >= WORTH and not loaded:
            squares.want_loops()
            loaded = True
        batch.begin(pool, squares)
        if batch.names:
            yield batch
        elif broken is None:
            return
    yield broken
