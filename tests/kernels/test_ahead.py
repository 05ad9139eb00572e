"""The child that compiles: just what the loaders call, one at a time, and no longer than its parent lives."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import typeof

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.kernels import ahead, files, finish
from flowerfast.loaders.loader import Loader
from flowerfast.locks import only_writer
from flowerfast.packing.pack import PackSettings, pack
from flowerfast.photos.photos import Photos
from flowerfast.pixels import compiled

CHILD = [sys.executable, "-P", "-m", "flowerfast.kernels.ahead"]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[tuple[Any, ...]]]:
    """Types of arguments of every call of a compiled function, with the function's name."""
    seen: set[tuple[Any, ...]] = set()

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def function(*arguments: Any) -> Any:
            seen.add((name, *map(typeof, arguments)))
            return real(*arguments)

        monkeypatch.setattr(owner, name, function)

    for owner, name in ((compiled, "run"), (finish, "finish"), (files, "read_files"), (files, "read_pieces")):
        watch(owner, name)
    return seen


@pytest.mark.parametrize("kind", ["folder", "shards", "stored turned"])
def test_they_are_compiled_for_the_types_that_loaders_call_them_with(
    called: set[tuple[Any, ...]],
    kind: str,
    photo_folder: Callable[..., Path],
    turned: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    folder = turned[0] if kind == "stored turned" else photo_folder()
    if kind == "shards":
        pack(folder, tmp_path / "shards", PackSettings(), DataConfig())
        folder = tmp_path / "shards"
    for photos in (Photos(folder), Photos(folder)):  # scanned, and out of the cache of that
        for augment, options in (
            (Augment(), DataConfig(backend="cpu")),
            (Augment(), DataConfig(backend="cpu", cache="ram")),
            (Augment(policy="rand", policy_ops=3, blur=0.5), DataConfig(backend="cpu")),
            (Augment(vflip=0.5), DataConfig(backend="cpu")),
            (Augment(), DataConfig(backend="cpu", decode_scale="auto")),
            (None, DataConfig(backend="cpu")),
        ):
            with Loader(photos, size=32, augment=augment, device="cpu", options=options) as loader:
                assert sum(len(batch) for batch in loader.epoch(0)) == len(photos)
        photos.read(photos.indices, look=True)  # as for DALI
    known = {(function.__name__, *map(typeof, arguments)) for function, arguments in ahead.calls()}
    assert {"run", "finish"} < {name for name, *_ in called}
    assert called <= known


def test_they_are_called_with_no_samples() -> None:
    for function, arguments in ahead.calls():
        result = function(*arguments)
        assert result is None or (isinstance(result, np.ndarray) and not len(result))


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked there")
def test_a_child_waits_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "CODE", tmp_path)
    monkeypatch.setattr(ahead, "_end_with_parent", lambda: None)
    monkeypatch.setattr(os, "nice", lambda _: 0, raising=False)
    done = []
    with ExitStack() as other:
        other.enter_context(only_writer(tmp_path / "compiling", "wait"))
        monkeypatch.setattr(ahead.time, "sleep", lambda _: (done.append("waited"), other.close()))
        monkeypatch.setattr(ahead, "prepare", lambda: done.append("compiled"))
        ahead.main()
    assert done == ["waited", "compiled"]
    assert not list(tmp_path.iterdir())


def test_a_child_ends_well_when_all_is_compiled() -> None:
    with subprocess.Popen(CHILD, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stderr is not None
        assert child.stderr.read() == b""
        assert child.wait() == 0


def test_a_child_ends_with_its_parent(tmp_path: Path) -> None:
    """Its standard input ends: it does not compile on."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = subprocess.run(CHILD, env=env, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, b"", b"")
    assert not list(tmp_path.rglob("chain.run-*"))
