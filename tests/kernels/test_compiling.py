"""Machine code is kept where it can be, and what cannot be kept ends no run."""

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowerfast.kernels import compiling
from flowerfast.kernels.machine_code import MachineCode


def _double(x: int) -> int:
    return 2 * x


def test_machine_code_is_kept_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "CODE", tmp_path / "code")
    assert compiling.kernel(_double)(4) == 8
    assert list((tmp_path / "code").rglob("*.code"))


@pytest.mark.parametrize("method", ["save", "load"])
def test_a_full_disk_costs_compiling_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(compiling, "CODE", tmp_path / "code")
    monkeypatch.setattr(MachineCode, method, fail)
    compiling._say_not_kept.cache_clear()
    with caplog.at_level(logging.WARNING, "flowerfast"):
        assert compiling.kernel(_double)(4) == 8
    assert "compiled loops are neither read nor kept (No space left on device)" in caplog.text


def test_without_a_folder_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling, "CODE", tmp_path / "code")
    monkeypatch.setattr(compiling, "KEEP", False)
    assert compiling.kernel(_double)(4) == 8
    assert not list(tmp_path.iterdir())


def test_a_folder_of_numba_that_cannot_be_written_gives_way(tmp_path: Path) -> None:
    """In a process of its own: numba reads its settings when it is imported."""
    (tmp_path / "file").write_text("in the way")
    code = "from flowerfast.kernels import compiling; print(compiling.CODE.parent, compiling.KEEP)"
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "file"), "FLOWERFAST_CACHE": str(tmp_path / "own")}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == f"{tmp_path / 'own/kernels'} True\n"
    assert ran.stderr == (
        f"flowerfast: NUMBA_CACHE_DIR: {tmp_path / 'file'} is no folder; the cache folder is used instead\n"
    )


BLOCKED = """
import os, threading
import numpy as np
from numba import types
from flowerfast.kernels.compiling import kernel

_read = types.ExternalFunction("read", types.intp(types.intc, types.uintp, types.uintp))


@kernel
def read(file, room):
    return _read(types.intc(file), types.uintp(room.ctypes.data), types.uintp(len(room)))


read(os.open(os.devnull, os.O_RDONLY), np.zeros(0, np.uint8))  # compiled
source, target = os.pipe()
found = []
thread = threading.Thread(target=lambda: found.append(read(source, np.zeros(3, np.uint8))))
thread.start()
os.write(target, b"abc")  # the thread waits for it, perhaps already
thread.join()
assert found == [3], found
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes")
def test_compiled_code_does_not_hold_the_interpreter_lock(tmp_path: Path) -> None:
    (tmp_path / "blocked.py").write_text(BLOCKED)
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    subprocess.run([sys.executable, tmp_path / "blocked.py"], env=env, check=True, timeout=120)
