"""What the checks of the GPU path share: where they run, photos, loaders.

With a CUDA GPU and DALI they run in full; without a GPU the very same tests are a rehearsal, with DALI's CPU
operators and few small photos, so that they cannot rot; without DALI they are skipped.
"""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from tests.gpu.pictures import make_set
from tests.gpu.place import FULL, REHEARSAL, Kind, Place, open_loader, open_photos


@pytest.fixture(scope="session")
def place() -> Place:
    """The GPU, or the CPU for a rehearsal."""
    if find_spec("nvidia") is None or find_spec("nvidia.dali") is None:
        pytest.skip("needs NVIDIA DALI")
    if torch.cuda.is_available():
        return Place(torch.device("cuda", torch.cuda.current_device()), FULL)
    return Place(torch.device("cpu"), REHEARSAL)


@pytest.fixture(params=["gpu", "cpu", "cache"])
def kind(request: pytest.FixtureRequest, place: Place) -> Kind:
    """Each way in which photos come to the graph."""
    if request.param == "gpu" and not place.cuda:
        pytest.skip("without a GPU decoder=gpu is the same as decoder=cpu")
    found: Kind = request.param
    return found


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory, place: Place) -> Callable[[str], Path]:
    """Function (name of a set of `pictures`) → its folder, read only."""
    root = tmp_path_factory.mktemp("sets")
    return lambda name: make_set(name, root, place.sizes)


@pytest.fixture
def opened(place: Place, folder_of: Callable[[str], Path]) -> Iterator[Callable[..., Loader]]:
    """Function (set or photos, kind, batch_size, **settings of data) → Loader, closed after the test."""
    loaders = []

    def open_(photos: str | Photos, kind: Kind, batch_size: int | None = None, **data: Any) -> Loader:
        members = open_photos(folder_of(photos)) if isinstance(photos, str) else photos
        loaders.append(open_loader(members, place.settings(kind, batch_size, **data)))
        return loaders[-1]

    yield open_
    for loader in loaders:
        loader.close()
