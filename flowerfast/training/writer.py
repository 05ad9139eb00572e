"""Writing beside training: the training thread takes a copy, another thread brings it to the disk."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import torch


class Writer:
    """A thread that writes the files of one save while training goes on; the next save waits for it.

    An error of a write is raised where the training thread next waits: at the next save, or at the end of the
    `with` block, which leaves no thread behind. The files that would have followed are not written. Where a
    folder is deleted under a file, all of the save are written once more: each makes its folder anew.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writer")
        self._under_way: Future[None] | None = None
        self._abandoned = False

    def submit(self, files: Sequence[Callable[[], object]]) -> None:
        """Call the functions in this order, each of which writes something, once the save before is done."""
        self.wait()
        self._under_way = self._thread.submit(self._write, files)

    def wait(self) -> None:
        """Wait for the save under way. Raises the error that ended it."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        # Whoever interrupts a second time waits for the file under way at most, not for those after it.
        self._abandoned = error is not None and not isinstance(error, Exception)
        try:
            if not self._abandoned:
                self.wait()
        except BaseException:
            self._abandoned = True
            raise
        finally:
            self._thread.shutdown()

    def _write(self, files: Sequence[Callable[[], object]]) -> None:
        try:
            self._write_once(files)
        except FileNotFoundError:
            self._write_once(files)

    def _write_once(self, files: Sequence[Callable[[], object]]) -> None:
        for write in files:
            if self._abandoned:
                return
            write()


def snapshot(state: Any, device: torch.device) -> Any:
    """Copy of nested dicts, lists and tensors in host memory that training on `device` does not change."""
    copied = _copy(state)
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return copied


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        if value.device.type != "cuda":
            return value.detach().to("cpu", copy=True)
        # Pinned, so that the copies queue up and are waited for once; torch keeps such memory for the next.
        return torch.empty_like(value, device="cpu", pin_memory=True).copy_(value.detach(), non_blocking=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
