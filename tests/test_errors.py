"""What users are told of memory and disks, whatever library was the one to notice."""

import errno
import gc
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import save_file

from flowerfast.errors import RunFailed, UserError, WriteFailed, memory_line
from flowerfast.files import replacing, writing

LINE = r"File too large: at least [\d,]+ bytes needed, [\d,]+ free"
CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8.00 GiB.\nMore"
STATE = {"a": torch.zeros(50_000), "b": torch.zeros(3)}


def _stream(write: Callable[[io.BufferedWriter], object]) -> Callable[[Path], None]:
    def to(file: Path) -> None:
        with file.open("wb") as stream:
            write(stream)

    return to


def _picture(file: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 300, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG")


def _figure(file: Path) -> None:
    figure = Figure(figsize=(4, 4))
    figure.subplots().imshow(np.random.default_rng(0).random((200, 200)), interpolation="nearest")
    figure.savefig(file, format="png", dpi=100)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "torch": _stream(lambda stream: torch.save(STATE, stream)),
    "safetensors": lambda file: save_file(STATE, file),
    "numpy": _stream(lambda stream: np.savez(stream, a=np.zeros(50_000), b=np.zeros(3))),
    "pillow": _picture,
    "matplotlib": _figure,
}


# An older numpy leaves an archive that it could not write to whoever frees its memory, who cannot close it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function ZipFile")
@pytest.mark.parametrize("library", WRITERS)
def test_a_full_disk_is_the_same_failure_in_every_library(tmp_path: Path, library: str) -> None:
    resource = pytest.importorskip("resource")
    file = tmp_path / "folder" / "file"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(WriteFailed, match=LINE) as caught, replacing(file, needed=999) as fresh:
            WRITERS[library](fresh)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    gc.collect()
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(file))
    assert caught.value.line("go on").endswith("ulimit -f); make room, then go on")
    assert not [*file.parent.iterdir()]


@pytest.mark.parametrize(
    "error",
    [
        UserError("mine"),
        RunFailed("mine"),
        KeyError("mine"),
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.ENOSPC, "No space left on device", "/elsewhere/file"),
    ],
)
def test_what_is_not_of_the_disk_stays_what_it_is(tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        try:
            raise OSError(errno.ENOSPC, "of something that was dealt with")
        except OSError:
            raise error from None

    with pytest.raises(type(error)) as caught, writing(tmp_path / "file"):
        fail()
    assert caught.value is error


def test_a_failure_within_a_failure_keeps_its_file(tmp_path: Path) -> None:
    with pytest.raises(WriteFailed) as caught, writing(tmp_path / "outer"), writing(tmp_path / "inner"):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert caught.value.line("go on") == (
        f"{tmp_path / 'inner'}: cannot be written (Read-only file system); see to that disk, then go on"
    )


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (
            torch.OutOfMemoryError(CUDA),
            "(CUDA out of memory. Tried to allocate 2.00 GiB); lower train.batch_",
        ),
        (torch.OutOfMemoryError(CUDA), "data.cache=ram where it is vram"),
        (MemoryError(), "(MemoryError); lower train.batch_size (evaluate: --batch-size) or data.image_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "data.cache=disk"),
    ],
)
def test_too_little_memory_says_what_to_lower(error: Exception, part: str) -> None:
    line = memory_line(error)
    assert line is not None
    assert line.startswith("not enough memory (")
    assert part in line
    assert "\n" not in line


def test_other_errors_are_not_of_memory() -> None:
    assert memory_line(RuntimeError("CUDA error: device-side assert triggered")) is None


@pytest.mark.skipif(not hasattr(os, "statvfs"), reason="this system does not count inodes")
@pytest.mark.parametrize(
    ("files", "left", "needed", "inodes"),
    [(100, 0, 9, True), (100, 5, 9, False), (0, 0, 9, False), (100, 0, 10**18, False)],
)
def test_a_disk_without_inodes_is_not_said_to_lack_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, left: int, needed: int, inodes: bool
) -> None:
    """Some file systems, which count none, say 0 of 0."""
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=files, f_favail=left))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(WriteFailed) as caught, writing(tmp_path / "file", needed):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert ("1,000 bytes are free, but it may hold no more files" in caught.value.what) == inodes
    assert ("bytes needed" in caught.value.what) != inodes
