"""A run's figures as TensorBoard reads them.

Not by torch's SummaryWriter: a thread of its own writes, whose traceback is all that a full disk leaves.
"""

import io
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from flowerfast.files import writing


class Events:
    """Events of one process in a file of the folder.

    Args:
        folder: made with the first events.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.0"
        self._waiting = io.BytesIO()  # what is not in the file yet
        self._note(Event(file_version="brain.Event:2"))

    def add(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Write figures of an epoch, by name. Raises WriteFailed; then the next ones bring them."""
        values = [Summary.Value(tag=name, simple_value=figure) for name, figure in figures.items()]
        self._note(Event(step=epoch, summary=Summary(value=values)))
        content = self._waiting.getvalue()
        with writing(self._file, len(content)):
            self._file.parent.mkdir(exist_ok=True)  # never the run folder, should that be gone
            with self._file.open("ab", buffering=0) as stream:
                whole = stream.tell()
                try:
                    written = 0
                    while written < len(content):
                        written += stream.write(content[written:])
                except OSError:
                    with suppress(OSError):  # else half an event is left, and what follows cannot be read
                        stream.truncate(whole)
                    raise
        self._waiting = io.BytesIO()

    def _note(self, event: Event) -> None:
        event.wall_time = time.time()
        RecordWriter(self._waiting).write(event.SerializeToString())
