"""Shards, indexes, kept tables, decoded caches and machine code, damaged before and during an epoch."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.torture.trial import Tally, Trial
from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.kernels import place as kernels
from flowerfast.loaders.cache.store import PhotoCache
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX

_ROOT = Path(__file__).resolve().parents[2]
_CLASSES, _PER_CLASS, _SIZE, _BATCH = 3, 8, 32, 4
_POWER_LOSS = 23  # the case in which all machine code is gone
Rng = np.random.Generator
Epoch = dict[int, bytes]
"""Pixels by sample."""


def paint(root: Path) -> Path:
    """Photos of several sizes."""
    rng = np.random.default_rng(0)
    for label in range(_CLASSES):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(_PER_CLASS):
            size = int(rng.integers(40, 90)), int(rng.integers(40, 90))
            coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
            file = root / f"class{label}" / f"{number:02d}.jpg"
            coarse.resize(size, Image.Resampling.BICUBIC).save(file, quality=90)
    return root


# ---------------------------------------------------------------------------------------- kinds of damage


def _flip(file: Path, rng: Rng) -> None:
    with file.open("r+b") as stream:
        at = int(rng.integers(file.stat().st_size))
        stream.seek(at)
        byte = stream.read(1)[0] ^ 1 << int(rng.integers(8))
        stream.seek(at)
        stream.write(bytes([byte]))


def _zero(file: Path, rng: Rng) -> None:
    at = int(rng.integers(file.stat().st_size))
    with file.open("r+b") as stream:
        stream.seek(at)
        stream.write(bytes(min(4096, file.stat().st_size - at)))


def _cut(file: Path, rng: Rng) -> None:
    os.truncate(file, int(rng.integers(file.stat().st_size)))


def _empty(file: Path, rng: Rng) -> None:
    os.truncate(file, 0)


def _delete(file: Path, rng: Rng) -> None:
    file.unlink()


def _to_pipe(file: Path, rng: Rng) -> None:
    file.unlink()
    os.mkfifo(file)


def _to_folder(file: Path, rng: Rng) -> None:
    file.unlink()
    file.mkdir()


def _to_device(file: Path, rng: Rng) -> None:
    file.unlink()
    file.symlink_to("/dev/zero")


def _to_noise(file: Path, rng: Rng) -> None:
    """Another file of the same length."""
    size = file.stat().st_size
    file.unlink()
    file.write_bytes(rng.bytes(size))


Damage = Callable[[Path, Rng], None]
_CONTENT: tuple[Damage, ...] = (_flip, _flip, _zero, _cut, _empty, _to_noise)
_KIND: tuple[Damage, ...] = (_delete, _to_pipe, _to_folder, _to_device)
_IN_PLACE: tuple[Damage, ...] = (_flip, _zero)
_WHILE_MAPPED: tuple[Damage, ...] = (*_IN_PLACE, _to_noise, *_KIND)
"""What may befall a decoded cache in use: it is mapped, so that one which somebody cuts is beyond help.
So are photos that somebody writes over once they have been compared with their checksums."""


# --------------------------------------------------------------------------------------------------- data


class _Case:
    """One case: where its data lie, and what is damaged how and when."""

    def __init__(self, case: int, base: Path, folder: Path) -> None:
        self.rng = np.random.default_rng([14, case])
        self.source = ("folder", "shards", "index", "table", "cache")[case % 5]
        self.during = self.source != "index" and bool(self.rng.integers(2))
        self.root, self.cache_dir = folder / f"{case}/data", folder / f"{case}/cache"
        packed = self.source in ("shards", "index")
        shutil.copytree(base / ("shards" if packed else "photos"), self.root)

    def photos(self) -> Photos:
        return Photos(self.root, on_bad="skip", max_bad=1)

    def loader(self, photos: Photos) -> Loader:
        cache = "disk" if self.source == "cache" else "none"
        return _loader(photos, cache=cache, cache_dir=str(self.cache_dir))

    def damage(self) -> Damage | None:
        """Some file of the source, somehow: how."""
        files, kinds = self._files()
        if not files:
            return None
        file = files[int(self.rng.integers(len(files)))]
        how = kinds[int(self.rng.integers(len(kinds)))]
        how(file, self.rng)
        return how

    def _files(self) -> tuple[list[Path], tuple[Damage, ...]]:
        if self.source == "folder":  # what other bytes are in a photo is another photo
            return sorted(self.root.rglob("*.jpg")), (*_KIND, _empty)
        if self.source == "shards":
            return sorted(self.root.glob("*.tar")), (*_CONTENT, *_KIND)
        if self.source == "index":
            return [self.root / INDEX], (*_CONTENT, *_KIND[1:])
        if self.source == "table":
            return sorted(Path(os.environ["FLOWERFAST_CACHE"], "manifests").iterdir()), (*_CONTENT, *_KIND)
        kinds = _WHILE_MAPPED if self.during else (*_CONTENT, *_KIND)
        return sorted(self.cache_dir.rglob("*.photos")), kinds


def _loader(photos: Photos, **settings: object) -> Loader:
    options = DataConfig.model_validate({"workers": 2, "backend": "cpu", "kernels": "numba", **settings})
    return Loader(
        photos, size=_SIZE, batch_size=_BATCH, augment=Augment(), seed=0, device="cpu", options=options
    )


def _epoch(loader: Loader, between: Callable[[], None] | None = None, after: int = 0) -> Epoch:
    pixels: Epoch = {}
    for number, batch in enumerate(loader.epoch(0)):
        if between is not None and number == after:
            between()
        rows = zip(batch.indices.tolist(), batch.images.numpy(), strict=True)
        pixels |= {index: image.tobytes() for index, image in rows}
    return pixels


def _compared(loader: Loader) -> set[int]:
    """Samples whose cached pixels this process has compared with their checksums."""
    cache: PhotoCache = vars(loader._engine)["_cache"]
    indices = loader.photos.indices
    return {*indices.tolist()} - {*cache.missing(indices).tolist()}


def _wrong(case: _Case, expected: dict[str, bytes]) -> str | None:
    """What of the promise does not hold."""
    try:
        if case.source in ("table", "cache"):  # there must be something to damage
            with case.loader(case.photos()) as loader:
                _epoch(loader)
        scanned = (
            case.photos() if case.source == "folder" else None
        )  # else samples had other numbers, and plans
        if not case.during:
            case.damage()
        photos = scanned or case.photos()
        beyond_help: set[int] = set()
        with case.loader(photos) as loader:

            def damage() -> None:
                if case.damage() in _IN_PLACE and case.source == "cache":
                    beyond_help.update(_compared(loader))

            came = _epoch(loader, damage if case.during else None, int(case.rng.integers(5)))
    except UserError as error:
        return None if "\n" not in str(error) else f"more than a line: {error}"
    named = {bad.path.rpartition("(")[2].removesuffix(")") for bad in photos.bad}
    for index, pixels in came.items():
        if pixels != expected[photos.path(index)] and index not in beyond_help:
            return f"{photos.path(index)}: wrong pixels"
    missing = set(expected) - {photos.path(index) for index in came} - named
    return f"{sorted(missing)[0]}: neither right nor named" if missing else None


def damaged_data(cases: range, folder: Path) -> Tally:
    """Photos, shards, index, kept table or decoded cache are damaged before or during an epoch."""
    tally = Tally()
    os.environ["FLOWERFAST_CACHE"] = str(folder / "kept")
    photos = paint(folder / "base/photos")
    pack(photos, folder / "base/shards", PackSettings(shard_bytes=30_720), DataConfig(workers=1))
    whole = Photos(photos)
    with _loader(whole) as loader:
        expected = {whole.path(index): pixels for index, pixels in _epoch(loader).items()}
    assert len(expected) == _CLASSES * _PER_CLASS
    for number in cases:
        shutil.rmtree(folder / "kept", ignore_errors=True)
        case = _Case(number, folder / "base", folder)
        tally.tried += 1
        tally.count(case.source)
        try:
            wrong = _wrong(case, expected)
        except Exception as error:  # none is allowed: what a user would see is a traceback
            wrong = f"{type(error).__name__}: {error}"
        if wrong is not None:
            tally.fail(number, f"{case.source}, {'during' if case.during else 'before'}: {wrong}")
        shutil.rmtree(folder / str(number), ignore_errors=True)
    return tally


# ------------------------------------------------------------------------------------------- machine code


def digest(root: Path) -> str:
    """Of the pixels of an epoch."""
    with _loader(Photos(root)) as loader:
        return hashlib.sha256(b"".join(pixels for _, pixels in sorted(_epoch(loader).items()))).hexdigest()


def damaged_code(cases: range, folder: Path) -> Tally:
    """Machine code is damaged, then photos are decoded in another process."""
    tally, root = Tally(), paint(folder / "photos")
    expected = digest(root)  # leaves whole machine code
    for case in cases:
        rng = np.random.default_rng([6, case])
        place = folder / f"code{case}"
        shutil.copytree(kernels.CODE, place / kernels.CODE.name)
        files = sorted(place.rglob("*.code"), key=lambda file: file.stat().st_size)
        kinds = (_flip, _cut, _empty, _zero, _to_noise, _to_pipe, _to_folder)
        if case == _POWER_LOSS:
            for file in files:
                _empty(file, rng)
        else:
            kinds[case % len(kinds)](files[7 * case % len(files)], rng)  # the first is small, soon compiled
        code = (
            "import sys, pathlib, benchmarks.torture.caches as c; print(c.digest(pathlib.Path(sys.argv[1])))"
        )
        env = {**os.environ, "NUMBA_CACHE_DIR": str(place)}
        command = [sys.executable, "-c", code, str(root)]
        ran = subprocess.run(command, cwd=_ROOT, env=env, capture_output=True, text=True, check=False)
        tally.tried += 1
        if ran.returncode or ran.stdout.strip() != expected or "Traceback" in ran.stderr:
            tally.fail(case, f"exit code {ran.returncode}, {ran.stdout.strip()!r}, {ran.stderr[-300:]!r}")
        shutil.rmtree(place, ignore_errors=True)
    return tally


DATA = Trial(
    "damaged-data",
    "Photos, shards, indexes and caches that are damaged, lost or no files any more, before or during an "
    "epoch, give right pixels or are named, and never end the process.",
    "cases",
    damaged_data,
    full=2000,
    quick=20,
    chunk=500,
    seconds=600.0,
)
CODE = Trial(
    "damaged-code",
    "Damaged machine code is never run: it is compiled anew, and pixels are right.",
    "damaged folders of machine code",
    damaged_code,
    full=16,
    quick=1,
    chunk=8,
    seconds=900.0,
)
