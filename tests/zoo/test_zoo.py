"""Every kind of picture file through every backend, cache, shard and prediction: Pillow's pixels."""

import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageOps

from flowerfast.augment import Augment
from flowerfast.config import DataConfig
from flowerfast.loaders.loader import Loader
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.formats import FORMATS
from flowerfast.photos.photos import Photos
from flowerfast.training.squares import Squares
from tests.zoo.kinds import SHOWN, Kind, Missing, all_kinds, content

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore:.*[Pp]alette:UserWarning")
KINDS = all_kinds()
SIDE = 64
# Without rotation, which takes the nearest pixel: DALI's now and then is the one beside it.
AUGMENT = Augment(rotate=0)
LIKE = 20
"""Levels by which a lossy file, few colours or coarse chroma differ from what is shown, on average; other
pictures differ by 40 and more."""
_HAS_DALI = find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None


def reference(encoded: bytes) -> Image.Image | None:
    """What Pillow makes of a file, RGB and upright; None: it refuses it."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError):
        return None


def apart(one: Any, other: Any) -> np.ndarray:
    found = np.asarray(one, np.int16), np.asarray(other, np.int16)
    assert found[0].shape == found[1].shape
    return np.abs(found[0] - found[1])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_reference_gives_what_is_stated(kind: Kind) -> None:
    try:
        encoded = content(kind.name)
    except Missing as reason:
        pytest.skip(str(reason))
    found = reference(encoded)
    if kind.refused:
        assert found is None
        return
    assert found is not None
    pictures = {name: make().convert("RGB") for name, make in SHOWN.items()}
    # Grey and black and white are like the picture in colour; what is stated is the nearest of all.
    means = {name: apart(found, picture).mean() for name, picture in pictures.items()}
    assert min(means, key=means.__getitem__) == kind.shows
    assert means[kind.shows] < LIKE


class Folders(NamedTuple):
    """Where the files lie; `expected` holds what the reference makes of each, as PNG."""

    files: Path
    expected: Path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The classes `read` and `refused`, so that the samples that are read have the same numbers in both."""
    made = Folders(tmp_path_factory.mktemp("zoo") / "files", tmp_path_factory.mktemp("zoo") / "expected")
    for root in made:
        (root / "read").mkdir(parents=True)
        (root / "refused").mkdir()
    for kind in KINDS:
        try:
            encoded = content(kind.name)
        except Missing:  # the test above says so
            continue
        (made.files / ("refused" if kind.refused else "read") / kind.file).write_bytes(encoded)
        image = reference(encoded)
        if image is not None:
            image.save(made.expected / "read" / f"{kind.name}.png")
    Image.new("RGB", (8, 8)).save(made.expected / "refused/instead.png")
    return made


@pytest.fixture(scope="module")
def opened(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path], Photos]:
    """Function (form, folder) → its photos as they are, or packed: copied, seekable or shrunk."""
    forms = {"copied": {}, "seekable": {"seekable": True}, "shrunk": {"max_side": 50}}

    def open_(form: str, folder: Path) -> Photos:
        if form != "folder":
            out = tmp_path_factory.getbasetemp() / f"zoo-{form}-{folder.name}"
            if not out.exists():
                pack(folder, out, PackSettings(**forms[form]), DataConfig(max_bad=1.0, workers=2))
            folder = out
        return Photos(folder, max_bad=1.0)

    return open_


class Way(NamedTuple):
    """How photos are loaded: settings of a loader, the form in which they lie, and how far pixels may be.

    `most` and `mean` are in levels of 255, of the worst kind; the CPU's are the reference's own.
    """

    settings: dict[str, Any]
    form: str = "folder"
    augment: bool = True
    most: int = 0
    mean: float = 0.0


_LOOPS = {"backend": "cpu", "kernels": "numba"}
_PLAIN = {"backend": "cpu", "kernels": "torchvision"}
_DALI = {"backend": "dali-cpu"}
# Measured with DALI 2.4.0, of the worst kind: evaluated 1 level at most, 0.188 on average; augmented 13 at
# most (tiff-group4, which is black and white), 0.231 on average (jpeg-ycck-420).
_STILL = {"augment": False, "most": 1, "mean": 0.19}
_APART = {"most": 13, "mean": 0.24}
_RAM, _DISK = {"cache": "ram"}, {"cache": "disk"}
WAYS = {
    "loops": Way(_LOOPS),
    "loops, evaluation": Way(_LOOPS, augment=False),
    "loops, ram": Way({**_LOOPS, **_RAM}),
    "loops, disk": Way({**_LOOPS, **_DISK}),
    "loops, shards": Way(_LOOPS, "copied"),
    "loops, seekable shards": Way(_LOOPS, "seekable"),
    "loops, seekable shards, evaluation": Way(_LOOPS, "seekable", augment=False),
    "loops, shrunk shards, ram": Way({**_LOOPS, **_RAM}, "shrunk"),
    "torchvision": Way(_PLAIN),
    "torchvision, evaluation": Way(_PLAIN, augment=False),
    "torchvision, ram": Way({**_PLAIN, **_RAM}),
    "torchvision, seekable shards": Way(_PLAIN, "seekable"),
    "dali-cpu": Way(_DALI, **_APART),
    "dali-cpu, evaluation": Way(_DALI, **_STILL),
    "dali-cpu, ram": Way({**_DALI, **_RAM}, **_APART),
    "dali-cpu, shards": Way(_DALI, "copied", **_APART),
    "dali-cpu, seekable shards": Way(_DALI, "seekable", **_APART),
}


def squares(photos: Photos, way: Way) -> dict[str, np.ndarray]:
    """What a loader makes of the photos in two epochs, by name: uint8 (2, S, S, 3)."""
    options = DataConfig(kernels=way.settings.get("kernels", "auto"), workers=2, max_bad=1.0)
    chosen = {name: value for name, value in way.settings.items() if name != "kernels"}
    found: dict[str, list[np.ndarray]] = {}
    with Loader(
        photos, size=SIDE, batch_size=16, augment=AUGMENT if way.augment else None, seed=3, device="cpu",
        options=options, **chosen,
    ) as loader:  # fmt: skip
        for epoch in range(2):
            for batch in loader.epoch(epoch):
                for index, image in zip(batch.indices.tolist(), batch.images.numpy(), strict=True):
                    found.setdefault(Path(photos.path(index)).stem, []).append(image)
    return {name: np.stack(images) for name, images in found.items()}


@pytest.fixture(scope="module")
def expected(
    opened: Callable[[str, Path], Photos], folders: Folders
) -> Callable[[Way], dict[str, np.ndarray]]:
    """Function (way) → squares of the reference's pixels by torchvision's operations, shrunk alike."""
    made: dict[tuple[bool, str], dict[str, np.ndarray]] = {}

    def make(way: Way) -> dict[str, np.ndarray]:
        form = "shrunk" if way.form == "shrunk" else "folder"
        if (key := (way.augment, form)) not in made:
            made[key] = squares(opened(form, folders.expected), Way(_PLAIN, augment=way.augment))
            made[key].pop("instead")
        return made[key]

    return make


@pytest.mark.parametrize("name", WAYS)
def test_pixels_are_the_references(
    name: str,
    opened: Callable[[str, Path], Photos],
    expected: Callable[[Way], dict[str, np.ndarray]],
    folders: Folders,
) -> None:
    way = WAYS[name]
    if way.settings["backend"] == "dali-cpu" and not _HAS_DALI:
        pytest.skip("needs NVIDIA DALI")
    photos, wanted = opened(way.form, folders.files), expected(way)
    found = squares(photos, way)
    assert found.keys() == wanted.keys()
    differences = {kind: apart(found[kind], wanted[kind]) for kind in wanted}
    most, mean = (max(differences, key=lambda kind: by(differences[kind])) for by in (np.max, np.mean))
    assert (most, differences[most].max() <= way.most) == (most, True), differences[most].max()
    assert (mean, differences[mean].mean() <= way.mean) == (mean, True), differences[mean].mean()
    # What has a header that is refused is not packed.
    refused = {Path(bad.path.rpartition("(")[2].rstrip(")")).stem for bad in photos.bad}
    assert {kind.name for kind in KINDS if kind.refused} >= refused
    if way.form == "folder":
        assert refused == {file.stem for file in (folders.files / "refused").iterdir()}


@pytest.mark.parametrize("loops", [False, True])
def test_prediction_takes_the_references_pixels(folders: Folders, loops: bool) -> None:
    made, plain = (Squares(SIDE, 0.875, upright=True, max_pixels=10**6) for _ in range(2))
    if loops:
        made.want_loops()
    kinds = sorted((folders.files / "read").iterdir())
    wanted = plain.of_files([str(folders.expected / "read" / f"{file.stem}.png") for file in kinds])
    for file, one, other in zip(kinds, made.of_files(list(map(str, kinds))), wanted, strict=True):
        assert not isinstance(one, str), (file.name, one)
        assert np.array_equal(one, other), file.name
    refused = made.of_files([str(file) for file in sorted((folders.files / "refused").iterdir())])
    assert all(isinstance(said, str) for said in refused)


def test_whole_photos_are_the_references(folders: Folders) -> None:
    photos = Photos(folders.files, max_bad=1.0)
    for index in photos.indices.tolist():
        file = Path(photos.path(index))
        if file.parent.name == "refused":
            assert photos.problem(index) is not None
            continue
        with Image.open(folders.expected / "read" / f"{file.stem}.png") as image:
            pixels = photos.decode(index, photos.read_one(index))
            assert np.array_equal(pixels, np.asarray(image)), file.name
