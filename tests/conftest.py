"""Fixtures shared by all tests: small folders of photos, a cache per test, real photos."""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# One place for the machine code of the CPU loops, for all tests and the commands they start: compiling takes
# seconds, and the cache of each test is new.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))


def make_photo(path: Path, size: tuple[int, int] = (40, 30), seed: int = 0, **options: Any) -> Path:
    """Write a smooth random RGB photo of `size` (width, height); `options` go to Pillow's save."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
    pixels = np.clip(pixels + rng.integers(-6, 7, pixels.shape), 0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        options = {"quality": 90, **options}
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep tests out of the user's cache: FLOWERFAST_CACHE is a folder of this test alone."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FLOWERFAST_CACHE", str(folder))
    return folder


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Function (*arguments) → (exit code, stdout, stderr): a command in this process, in an empty folder."""
    from flowerfast.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["flowerfast", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def write_photo() -> Callable[..., Path]:
    """Function (path, size=(width, height), seed=0, **save options) → path."""
    return make_photo


@pytest.fixture
def photo_folder(tmp_path: Path) -> Callable[..., Path]:
    """Function (classes={name: count}, sizes=[(width, height), …], suffix, name) → folder of photos.

    Photo i of a class has sizes[i % len(sizes)]; pixels differ from photo to photo and never from run to run.
    """

    def make(
        classes: Mapping[str, int] | None = None,
        sizes: Sequence[tuple[int, int]] = ((40, 30), (30, 40), (33, 33), (61, 47)),
        suffix: str = ".jpg",
        name: str = "photos",
    ) -> Path:
        root = tmp_path / name
        root.mkdir(parents=True, exist_ok=True)
        for kind, count in (classes or {"daisy": 6, "rose": 5, "tulip": 4}).items():
            for i in range(count):
                seed = zlib.crc32(f"{kind}/{i}".encode())
                make_photo(
                    root / kind / f"{kind.rpartition('/')[2]}_{i:03d}{suffix}", sizes[i % len(sizes)], seed
                )
        return root

    return make


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """Folder of real photos named by FLOWERFAST_DATA; tests that need it are skipped elsewhere."""
    named = os.environ.get("FLOWERFAST_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("FLOWERFAST_DATA names no folder of real photos")
    return Path(named)
