"""Fixtures of the loader tests: loaders that are closed at the end, each way to make batches."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from flowerfast.config import DataConfig
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from tests.stand_in import stand_in

Digest = tuple[list[int], list[int], str]
_OPTIONS = frozenset(DataConfig.model_fields) - {"backend", "cache", "workers"}
_HAS_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
_NEEDS_DALI = pytest.mark.skipif(not _HAS_DALI, reason="needs NVIDIA DALI")
_NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
_NUMBA = {"backend": "cpu", "kernels": "numba"}
_PLAIN = {"backend": "cpu", "kernels": "torchvision"}
_DALI = pytest.param({"backend": "dali-cpu"}, id="dali-cpu", marks=_NEEDS_DALI)
_KERNELS = pytest.param(
    {"backend": "dali-cpu", "gpu_kernels": "triton"}, id="dali-cpu-kernels", marks=_NEEDS_DALI
)
_GPU, _GPU_KERNELS = (
    pytest.param(
        {"backend": "dali", "device": "cuda", "gpu_kernels": kernels},
        id=f"dali-{kernels}",
        marks=[pytest.mark.gpu, _NEEDS_DALI, _NEEDS_CUDA],
    )
    for kernels in ("dali", "triton")
)
_ALL = [pytest.param(_NUMBA, id="numba"), pytest.param(_PLAIN, id="torchvision"), _DALI, _KERNELS]


@pytest.fixture
def quick_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no GPU the reference stands in for its kernels: the interpreter takes minutes."""
    if not torch.cuda.is_available():
        stand_in(monkeypatch)


@pytest.fixture(params=[*_ALL, _GPU, _GPU_KERNELS])
def engine(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of each way to make batches, for `open_loader`."""
    if request.param.get("gpu_kernels") == "triton":
        request.getfixturevalue("quick_kernels")
    return {**request.param}


@pytest.fixture(params=[pytest.param(_NUMBA, id="cpu"), _DALI, _GPU])
def backend(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of each backend, for `open_loader`."""
    return {**request.param}


@pytest.fixture
def open_loader() -> Iterator[Callable[..., Loader]]:
    """Function (photos or their folder, **settings) → Loader, closed after the test.

    Settings are those of `Loader` and of the section `data`; by default batches are small and made on two
    threads of the CPU, and any number of files may be bad.
    """
    opened = []

    def open_(photos: Path | Photos, **settings: Any) -> Loader:
        options = DataConfig(**{name: settings.pop(name) for name in _OPTIONS & settings.keys()})
        given = {"size": 32, "batch_size": 4, "device": "cpu", "backend": "cpu", "workers": 2, **settings}
        members = photos if isinstance(photos, Photos) else Photos(photos, max_bad=1.0)
        opened.append(Loader(members, options=options, **given))
        return opened[-1]

    yield open_
    for loader in opened:
        loader.close()


@pytest.fixture(scope="session")
def drawn() -> Callable[[Iterable[Batch]], dict[int, bytes]]:
    """Function (batches) → pixels by sample index, in order; fails when a sample comes twice."""

    def draw(batches: Iterable[Batch]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for batch in batches:
            for index, image in zip(batch.indices.tolist(), batch.images.cpu(), strict=True):
                assert index not in found
                found[index] = image.numpy().tobytes()
        return found

    return draw


@pytest.fixture(scope="session")
def digests() -> Callable[[Iterable[Batch]], list[Digest]]:
    """Function (batches) → indices, labels and a hash of the pixels of each batch."""

    def digest(batches: Iterable[Batch]) -> list[Digest]:
        return [
            (b.indices.tolist(), b.labels.tolist(), sha256(b.images.cpu().numpy().tobytes()).hexdigest())
            for b in batches
        ]

    return digest
