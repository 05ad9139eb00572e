"""Folders of good, odd and damaged JPEGs through loaders: the same files are bad on every backend."""

from importlib.util import find_spec
from pathlib import Path

from benchmarks.torture.jpeg import MAX_PIXELS, header_of, reference
from benchmarks.torture.jpeg_grammar import written
from benchmarks.torture.jpeg_mutants import mutant
from benchmarks.torture.trial import Tally, Trial
from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos

_TOGETHER = 100  # files of a folder
_WAYS = {
    "numba": {"backend": "cpu", "kernels": "numba"},
    "torchvision": {"backend": "cpu", "kernels": "torchvision"},
    "numba, cached": {"backend": "cpu", "kernels": "numba", "cache": "ram"},
    "torchvision, cached": {"backend": "cpu", "kernels": "torchvision", "cache": "ram"},
    "dali-cpu": {"backend": "dali-cpu"},
    "dali-cpu, cached": {"backend": "dali-cpu", "cache": "ram"},
}


def _run(cases: range, folder: Path) -> Tally:
    tally = Tally()
    for start in range(cases.start, cases.stop, _TOGETHER):
        some = range(start, min(start + _TOGETHER, cases.stop))
        _check_folder(some, folder / f"from-{start}", tally)
        tally.tried += len(some)
    return tally


def _check_folder(cases: range, root: Path, tally: Tally) -> None:
    """Epochs by every backend: which files are bad, and on the CPU every pixel of the others."""
    expected = set()
    for case in cases:
        data = written(case) if case % 3 == 0 else mutant(case)
        path = root / f"class{case % 2}" / f"{case}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if header_of(data) is None or reference(data) is None:
            expected.add(f"{case}")
    tally.count("bad files", len(expected))
    pixels: dict[int, bytes] = {}
    for name, way in _WAYS.items():
        if way["backend"] == "dali-cpu" and find_spec("nvidia.dali") is None:
            tally.count(f"not tried, for DALI is not installed: {name}", len(cases))
            continue
        photos = Photos(root, max_bad=1.0, max_pixels=MAX_PIXELS)
        options = DataConfig.model_validate({**way, "workers": 2, "cache_side": 8192})
        for augment in (Augment(), None):
            with Loader(photos, size=48, batch_size=25, augment=augment, options=options) as loader:
                for batch in loader.epoch(0):
                    if way["backend"] == "cpu" and augment is not None:
                        for index, image in zip(batch.indices, batch.images.numpy(), strict=True):
                            if pixels.setdefault(int(index), image.tobytes()) != image.tobytes():
                                tally.fail(int(Path(photos.path(int(index))).stem), f"{name}: pixels differ")
        bad = {Path(file.path).stem for file in photos.bad}
        for case in sorted(bad ^ expected):
            tally.fail(int(case), f"{name}: {'bad' if case in bad else 'good'}, other than in the reference")


BACKENDS = Trial(
    "jpeg-backends",
    "the same files are bad on every backend, with and without a cache",
    "JPEGs in folders",
    _run,
    full=2_000,
    quick=100,
    chunk=500,
)
