"""Fixtures shared by all tests: small folders of photos, of every kind, a cache per test."""

import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image, ImageOps

from tests.zoo.kinds import all_kinds
from tests.zoo.pictures import orientation as orientation_exif
from tests.zoo.pictures import structured

# Networks here are tiny: threads of torch would spend their time waiting for each other.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the commands that tests start, with the same rounding
# One place for the machine code of the CPU loops, for all tests and the commands they start: compiling takes
# seconds, and the cache of each test is new.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))
# Without a GPU Triton's kernels are run by its interpreter; it looks here when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


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


@pytest.fixture(scope="session")
def paint() -> Callable[[Path], Path]:
    """Function (root) → root: three classes of twelve photos, 56x48, each class of one colour with noise."""

    def make(root: Path) -> Path:
        rng = np.random.default_rng(0)
        for name, colour in (("blue", (60, 60, 200)), ("green", (60, 200, 60)), ("red", (200, 60, 60))):
            (root / name).mkdir(parents=True)
            for i in range(12):
                pixels = np.array(colour) + rng.integers(-40, 40, (48, 56, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:02d}.jpg", quality=90)
        return root

    return make


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep tests out of the user's cache: FLOWERFAST_CACHE is a folder of this test alone."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FLOWERFAST_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True, scope="session")
def compiled_already() -> Iterator[None]:
    """No test depends on whether it is the first on its machine, or on when loops are there: they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flowerfast.kernels.place.is_compiled", lambda: True)
        patch.setattr("flowerfast.kernels.ready.LOOPS.usable", True)
        yield


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Function (*arguments) → (exit code, stdout, stderr): a command in this process, in an empty folder."""
    from flowerfast.commands.cli import run as run_command

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["flowerfast", *map(str, arguments)])
        code = run_command()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

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


_SIZES = ((97, 64), (64, 97), (131, 120), (64, 64), (80, 200), (255, 70))


def _plain(folder: Path) -> None:
    for i, size in enumerate(_SIZES):
        photo = structured(*size, seed=i)
        photo.save(folder / f"chroma420_{i}.jpg", quality=85, subsampling="4:2:0")
        photo.save(folder / f"chroma444_{i}.JPEG", quality=95, subsampling="4:4:4")
        photo.save(folder / f"rgb_{i}.png")


_ODD = """
jpeg-progressive jpeg-422 jpeg-441 jpeg-rgb jpeg-grey jpeg-cmyk jpeg-trailing jpeg-orientation-6 jpeg-as-png
jpeg-without-suffix png-bilevel png-grey-16 png-palette png-palette-clear png-rgba png-la png-animated
webp-lossy webp-lossless webp-alpha bmp-24 gif-animated tiff-pages avif ppm
"""
"""Kinds of tests/zoo of which the folder has one each; all of them go through tests/zoo/test_zoo.py."""


def _odd(folder: Path) -> None:
    for kind in all_kinds():
        if kind.name in _ODD.split():
            (folder / kind.file).write_bytes(kind.write())
    structured(1, 1, seed=51).save(folder / "one_pixel.jpg")
    structured(1, 1, seed=51).save(folder / "one_pixel.png")
    structured(3000, 40, seed=52).save(folder / "wide.jpg")
    structured(40, 3000, seed=53).save(folder / "tall.jpg")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with photos of every kind that a user may have, in the classes `odd` and `plain`; read only."""
    root = tmp_path_factory.mktemp("zoo")
    for name, write in (("odd", _odd), ("plain", _plain)):
        (root / name).mkdir()
        write(root / name)
    return root


def _save_turned(photo: Image.Image, folder: Path, orientation: int) -> None:
    """The picture in every format that can say that it is stored turned."""
    exif = orientation_exif(orientation)
    kinds: dict[str, dict[str, Any]] = {
        "baseline.jpg": {"subsampling": 2},
        "full.jpg": {"subsampling": 0},
        "progressive.jpg": {"progressive": True},
        "mpo.jpg": {"format": "MPO", "save_all": True, "append_images": [photo]},
        "png.png": {},
        "tiff.png": {"format": "TIFF"},
        "webp.webp": {"lossless": True},
    }
    for name, options in kinds.items():
        photo.save(folder / f"{orientation}_{name}", exif=exif, **options)
    photo.convert("CMYK").save(folder / f"{orientation}_cmyk.jpg", exif=exif)


@pytest.fixture(scope="session")
def turned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(photos stored in all eight orientations and many formats, the same upright as PNG); read only."""
    roots = tmp_path_factory.mktemp("turned") / "stored", tmp_path_factory.mktemp("turned") / "upright"
    for kind in "ab":
        for root in roots:
            (root / kind).mkdir(parents=True)
    for orientation in range(1, 9):
        photo = structured(131 if orientation % 3 else 64, 97, seed=60 + orientation)
        _save_turned(photo, roots[0] / "ab"[orientation % 2], orientation)
    for file in roots[0].glob("*/*"):
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
        upright.save(roots[1] / file.parent.name / f"{file.stem}.png", exif=b"")
    return roots


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """Folder of real photos named by FLOWERFAST_DATA; tests that need it are skipped elsewhere."""
    named = os.environ.get("FLOWERFAST_DATA")
    if not named or not Path(named).is_dir():
        pytest.skip("FLOWERFAST_DATA names no folder of real photos")
    return Path(named)


@pytest.fixture
def postscript() -> bytes:
    """A page, which Pillow would give to a program."""
    return b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 40 30
%%EndComments
newpath 5 5 moveto 35 25 lineto stroke
showpage
%%EOF
"""


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `gs` on the PATH that only leaves a file behind; the path of that file."""
    trace, folder = tmp_path / "gs-was-run", tmp_path / "bin"
    folder.mkdir()
    (folder / "gs").write_text(f"#!{sys.executable}\nopen({str(trace)!r}, 'a').write('run\\n')\n")
    (folder / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks once
    return trace
