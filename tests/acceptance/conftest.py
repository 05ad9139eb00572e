"""A place for the rows of the acceptance: the CPU, and few and small photos."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.acceptance import place as place_module
from benchmarks.acceptance.pictures import make_sets
from benchmarks.acceptance.place import QUICK, Place
from flowerfast.loaders.batch import Batch
from flowerfast.parity import Executor

pytest.importorskip("nvidia.dali")

TINY = replace(
    QUICK,
    name="tiny",
    image_size=32,
    batch_size=4,
    pictures=14,
    many=14,
    per_class=4,
    memory_epochs=16,
    growth_mib=4.0,
    steps=6,
    train_size=32,
    train_epochs=1,
    model="test_resnet",
)


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of photos by name; read only."""
    root = tmp_path_factory.mktemp("sets")
    return make_sets(root, TINY, ("flowers", "small", "camera", "odd", "many"))


@pytest.fixture
def place(sets: dict[str, str], tmp_path: Path) -> Place:
    """The CPU with these photos."""
    return Place("cpu", sets, TINY, str(tmp_path))


class Sabotaged:
    """A loader whose batches go through `change` (epoch, batch) → batches on their way out."""

    def __init__(self, inner: Executor, change: "Change") -> None:
        self._inner, self._change = inner, change

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def __len__(self) -> int:
        return len(self._inner)

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """The changed batches."""
        for number, batch in enumerate(self._inner.epoch(epoch, start_batch)):
            yield from self._change(epoch, number, batch)


Change = Callable[[int, int, Batch], list[Batch]]


@pytest.fixture
def sabotage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Function (change, kinds) that lets batches of loaders go through `change`: of all, or of those kinds.

    A loader of decoded photos is of kind `cache`, the others are of the kind of their decoder.
    """
    real = place_module.make_loader

    def install(change: Change, kinds: tuple[str, ...] = ("gpu", "cpu", "cache")) -> None:
        def make(choice, manifest, indices, recipe, data, device, bad):
            kind = "cache" if choice.cache != "none" else data.decoder
            loader = real(choice, manifest, indices, recipe, data, device, bad)
            return Sabotaged(loader, change) if kind in kinds else loader

        monkeypatch.setattr(place_module, "make_loader", make)

    return install
