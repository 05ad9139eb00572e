"""Fixtures of the loader tests: photos of every kind, and loaders that are closed at the end."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from flowerfast.config import DataConfig
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.loaders.batch import Batch, Recipe
from flowerfast.loaders.cache import PhotoCache
from flowerfast.loaders.sampling import BadFiles
from flowerfast.loaders.torchvision import TorchvisionLoader

SIZES = ((97, 64), (64, 97), (131, 120), (64, 64), (80, 200), (255, 70))


def structured(width: int, height: int, seed: int) -> Image.Image:
    """RGB picture with slopes, noise and hard edges: what a resize can get wrong differs between them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    slopes = rng.uniform(-200, 200, (2, 3))
    pixels = rng.uniform(40, 215, 3) + x[..., None] * slopes[0] + y[..., None] * slopes[1]
    pixels = pixels + rng.normal(0, rng.choice([2, 25]), pixels.shape)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for shape in (draw.ellipse, draw.rectangle, draw.ellipse):
        left, right = sorted(rng.uniform(0, width, 2))
        top, bottom = sorted(rng.uniform(0, height, 2))
        shape((left, top, right, bottom), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def _plain(folder: Path) -> None:
    for i, size in enumerate(SIZES):
        photo = structured(*size, seed=i)
        photo.save(folder / f"chroma420_{i}.jpg", quality=85, subsampling="4:2:0")
        photo.save(folder / f"chroma444_{i}.JPEG", quality=95, subsampling="4:4:4")
        photo.save(folder / f"rgb_{i}.png")


def _odd(folder: Path) -> None:
    photo = structured(90, 120, seed=50)
    exif = Image.Exif()
    exif[0x112] = 6  # "turn right by 90 degrees"
    photo.save(folder / "exif_rotated.jpg", exif=exif)
    photo.save(folder / "progressive.jpg", progressive=True)
    photo.save(folder / "rgb_space.jpg", keep_rgb=True)
    photo.convert("L").save(folder / "grey.jpg")
    photo.convert("CMYK").save(folder / "cmyk.jpg")
    photo.save(folder / "really_jpeg.png", "JPEG")
    photo.save(folder / "lossy.webp", quality=80)
    photo.save(folder / "lossless.webp", lossless=True)
    photo.save(folder / "plain.bmp")
    photo.quantize(32).save(folder / "palette.png")
    photo.quantize(32).save(folder / "transparent_palette.png", transparency=bytes(range(32)))
    alpha = photo.copy()
    alpha.putalpha(photo.convert("L"))
    alpha.save(folder / "rgba.png")
    photo.convert("LA").save(folder / "grey_alpha.png")
    photo.convert("1").save(folder / "bilevel.png")
    deep = np.asarray(photo.convert("L"), np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.png")
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


@pytest.fixture
def open_loader() -> Iterator[Callable[..., TorchvisionLoader]]:
    """Function (photos, indices, workers, prefetch, ..., kernels, **Recipe fields) → loader.

    `photos` is a folder or an earlier scan of one; `indices` are all by default; `cache_side` gives the
    loader a PhotoCache. It is closed after the test.
    """
    opened = []

    def open_(
        photos: Path | Manifest,
        indices: Sequence[int] | None = None,
        workers: int = 2,
        prefetch: int = 3,
        cache_side: int | None = None,
        on_bad: str = "skip",
        max_bad: float = 1.0,
        kernels: str = "auto",
        **recipe: Any,
    ) -> TorchvisionLoader:
        manifest = photos if isinstance(photos, Manifest) else load_manifest(photos)
        members = np.arange(len(manifest)) if indices is None else np.array(indices)
        cache = PhotoCache(manifest, members, cache_side) if cache_side else None
        loader = TorchvisionLoader(
            manifest,
            members,
            Recipe(**{"image_size": 32, "batch_size": 4, **recipe}),
            DataConfig(workers=workers, prefetch=prefetch, kernels=kernels),
            torch.device("cpu"),
            BadFiles(manifest, on_bad, max_bad),
            cache,
        )
        opened.append(loader)
        return loader

    yield open_
    for loader in opened:
        loader.close()


@pytest.fixture(scope="session")
def drawn() -> Callable[[Iterable[Batch]], dict[int, bytes]]:
    """Function (batches) → pixels by sample index; fails when a sample comes twice."""

    def draw(batches: Iterable[Batch]) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for batch in batches:
            for index, image in zip(batch.indices.tolist(), batch.images.cpu(), strict=True):
                assert index not in found
                found[index] = image.numpy().tobytes()
        return found

    return draw


@pytest.fixture(scope="session")
def _window_problem() -> str | None:
    from flowerfast.loaders.dali_probe import roi_problem

    return roi_problem(torch.cuda.current_device())


@pytest.fixture
def one_probe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CUDA machine, try window decoding once and not in each test: it takes seconds."""
    if torch.cuda.is_available():
        from flowerfast.loaders import dali_settings

        problem = request.getfixturevalue("_window_problem")
        monkeypatch.setattr(dali_settings, "roi_problem", lambda _: problem)
