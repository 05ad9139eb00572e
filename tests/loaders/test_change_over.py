"""From the plain executor to the compiled loops between two batches: no pixel changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.kernels.ready import LOOPS
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import PackSettings, pack
from flowerfast.photos.photos import Photos
from flowerfast.pixels.compiled import CompiledExecutor
from flowerfast.pixels.reference import PlainExecutor


@pytest.mark.parametrize("augment", [Augment(), None])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cache", ["none", "ram"])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_pixels_are_the_same_over_the_change(
    photo_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    augment: Augment | None,
    packed: bool,
    cache: str,
    after: int,
) -> None:
    folder = photo_folder()
    if packed:
        pack(folder, tmp_path / "shards", PackSettings(), DataConfig())
        folder = tmp_path / "shards"
    photos = Photos(folder)
    used: list[type] = []
    for kind in (PlainExecutor, CompiledExecutor):
        real = kind.fill

        def fill(self: Any, *arguments: Any, _real: Any = real) -> dict[int, str]:
            used.append(type(self))
            failed: dict[int, str] = _real(self, *arguments)
            return failed

        monkeypatch.setattr(kind, "fill", fill)

    def batches(kernels: str, change: int | None = None) -> list[np.ndarray]:
        options = DataConfig(backend="cpu", kernels=kernels, cache=cache, prefetch=1, workers=1)
        drawn = []
        with Loader(photos, size=32, batch_size=2, augment=augment, device="cpu", options=options) as loader:
            for number, batch in enumerate(loader.epoch(0)):
                drawn.append(batch.images.numpy())
                if number == change:
                    LOOPS.usable = True
        return drawn

    plain = batches("torchvision")
    assert {*used} == {PlainExecutor}
    compiled = batches("numba")
    used.clear()
    monkeypatch.setattr(LOOPS, "usable", False)
    monkeypatch.setattr(LOOPS, "begin", lambda: None)
    changed = batches("auto", after)
    assert {*used} == {PlainExecutor, CompiledExecutor}
    assert used == sorted(used, key=lambda kind: kind is CompiledExecutor)  # never back
    for one, two, three in zip(plain, compiled, changed, strict=True):
        assert np.array_equal(one, two)
        assert np.array_equal(one, three)


def test_a_warm_up_waits_for_the_loops_where_that_is_wanted(
    photo_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(LOOPS, "usable", False)
    monkeypatch.setattr(LOOPS, "begin", lambda: asked.append("begin"))
    monkeypatch.setattr(LOOPS, "demand", lambda: asked.append("demand"))
    monkeypatch.setattr(LOOPS, "go_on", lambda: asked.append("go on"))
    options = DataConfig(backend="cpu")
    with Loader(Photos(photo_folder()), size=32, batch_size=8, device="cpu", options=options) as loader:
        assert loader.warm_up(compiler=False) > 0
        assert asked == ["begin"]
        for _ in loader.epoch(0):
            pass
        assert {*asked} == {"begin", "go on"}  # after the first batch has been used
        loader.warm_up()
        assert asked[-1] == "demand"
    asked.clear()
    plain = DataConfig(backend="cpu", kernels="torchvision")
    with Loader(Photos(photo_folder()), size=32, device="cpu", options=plain) as loader:
        loader.warm_up()
        assert asked == []
        assert loader.notes == []
