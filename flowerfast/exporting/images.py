"""Images to check an export on: photos that the run has not trained on, else made ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.exporting.source import Source
from flowerfast.machine import Progress
from flowerfast.photos.photos import Photos
from flowerfast.places import is_table
from flowerfast.training.evaluate_run import evaluation_loader
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.seal import Damaged
from flowerfast.training.split_file import read_split

MOST = 64
"""Images on which an export is checked, at most."""
BATCH = 7
_CELLS = 8  # of a made image, across and down


def find_photos(
    source: Source, data: Path | None, bar: Progress | None = None
) -> tuple[Photos | None, str, str]:
    """(at most `MOST` photos, which ones, what else is to be said); None: there are none at hand.

    Those in `data`, spread over all of them; without it those of the run's own validation split. Raises
    UserError when `data` holds none, Damaged when a file of the run is.
    """
    if data is not None:
        options = _options(source)
        if not is_table(data):  # else of the images alone, whatever their labels
            options = options.model_copy(update={"label_separator": None, "label_columns": None})
        photos = Photos.open(data, options, bar, min_classes=1)
        return _some(photos), f"photos of {data.name or data}", ""  # the card tells others
    try:
        if source.config is None or source.config.data.path is None:
            raise UserError("there is no run folder that names them")
        photos = Photos.open(Path(source.config.data.path), _options(source), bar, min_classes=1)
        return (
            _some(read_split(RunFolder(source.home).split, photos)[1]),
            "photos of the validation split",
            "",
        )
    except Damaged:
        raise
    except UserError as error:
        note = f"the photos of the run's validation split are not at hand ({error}): checked on made images"
        return None, "made images", f"{note}; give photos with --data DATA"


@contextmanager
def opened(source: Source, photos: Photos | None) -> Iterator[Iterator[np.ndarray]]:
    """Batches, uint8 (n, 3, S, S), of photos as the model takes them, or of made images.

    Photos that cannot be read are left out.
    """
    if photos is None:
        yield _made(source.model.image_size)
        return
    with evaluation_loader(source.model, photos, BATCH, _options(source)) as loader:
        yield (np.ascontiguousarray(batch.images.numpy()) for batch in loader.epoch(0) if len(batch))


def _some(photos: Photos) -> Photos:
    rows = np.linspace(0, len(photos) - 1, min(MOST, len(photos))).round().astype(np.int64)
    return photos.subset(photos.indices[rows])


def _options(source: Source) -> DataConfig:
    """As the run read its photos. Without compiled loops: they take longer to load than these few photos."""
    run = source.config.data if source.config is not None else DataConfig()
    return DataConfig(
        layout=run.layout,
        classes=run.classes,
        path_column=run.path_column,
        label_column=run.label_column,
        split_column=run.split_column,
        label_separator=run.label_separator,
        label_columns=run.label_columns,
        max_pixels=run.max_pixels,
        max_bad=1,
        cache_dir=run.cache_dir,
        cache_gb=run.cache_gb,
        exif=source.model.exif,
        backend="cpu",
        kernels="torchvision",
    )


def _made(size: int) -> Iterator[np.ndarray]:
    """Coloured squares under noise, each image another."""
    for start in range(0, MOST, BATCH):
        count = min(BATCH, MOST - start)
        draw = np.random.default_rng(start)
        coarse = draw.integers(0, 256, (count, 3, _CELLS, _CELLS))
        places = np.arange(size) * _CELLS // size
        noise = draw.integers(-20, 21, (count, 3, size, size))
        yield np.clip(coarse[:, :, places][..., places] + noise, 0, 255).astype(np.uint8)
