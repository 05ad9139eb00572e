"""`Photos`: a set of samples, wherever their files lie."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from flowerfast.arguments import of_kind, path, place, whole
from flowerfast.config import DataConfig, Exif, speaking_of, validate
from flowerfast.machine import Progress
from flowerfast.photos.classes import class_names
from flowerfast.photos.label_file import Columns
from flowerfast.photos.layout import Layout
from flowerfast.photos.open_table import read_table
from flowerfast.photos.samples import Samples
from flowerfast.photos.shard_cache import mirror
from flowerfast.places import url_of

_DEFAULTS = DataConfig()


class Photos(Samples):
    """Samples of a folder, or of shards at a URL: where each lies, its label and size, its bytes and pixels.

    A sample is known by its index in the whole folder, in whatever subset it is: its random parameters and
    its file follow from that. Methods that take one raise IndexError where there is none, -1 too; those that
    take an array of them raise UserError. Subsets share the columns and the count of bad files.

    Args:
        folder: one folder of photos per class, one with train/, val/ or test/, or one of packed shards or
            of tar files that others wrote; the URL of packed shards; or a table, CSV, TSV or Parquet, that
            names photos and their labels.
        layout: whether folders named train, val, test are halves ("split") or classes ("classes"); "auto":
            halves where class folders are in them. Of a table "classes" leaves out its column of splits.
        classes: those to take, in the order of their labels, or a file of a name per line; None: all.
        path_column, label_column, split_column: of a table; None: those of the usual names. Of tar files
            that others wrote, the suffix of the photos, and the suffix or the JSON field of their labels.
        label_separator: of a table, text between the labels of a photo that has several; None: each has one.
        label_columns: of a table, columns of 0 and 1, one per class, of photos with several labels: their
            names, or "*" for all but those of path and split.
        max_pixels: photos of more pixels count as bad.
        exif: "apply": photos are turned upright as their EXIF orientation says, and so are their sizes;
            "ignore": they are taken as they are stored.
        on_bad: photos that cannot be read or decoded are skipped and counted, or raise UserError.
        max_bad: share of bad files above which UserError is raised all the same.
        min_classes: classes that the folder must have.
        cache_dir, cache_gb: where photos that come from a URL are kept, and how many GB (1e9 bytes) of them;
            None: in the user's cache folder, a third of what is free.
        progress: is told (files looked at, files in all) at the first scan.

    Raises UserError when the folder is missing, holds no photos or too few classes.

    Attributes:
        table: columns of the whole folder, a row per sample index.
        indices: int64 (n,), the samples of this set.
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        layout: Layout = _DEFAULTS.layout,
        classes: Sequence[str] | str | None = None,
        path_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        label_separator: str | None = None,
        label_columns: Sequence[str] | str | None = None,
        max_pixels: int = _DEFAULTS.max_pixels,
        exif: Exif = _DEFAULTS.exif,
        on_bad: Literal["skip", "fail"] = _DEFAULTS.on_bad,
        max_bad: float = _DEFAULTS.max_bad,
        cache_dir: Path | str | None = None,
        cache_gb: float | None = None,
        min_classes: int = 2,
        progress: Progress | None = None,
    ) -> None:
        given = {
            "layout": layout,
            "classes": classes,
            "path_column": path_column,
            "label_column": label_column,
            "split_column": split_column,
            "label_separator": label_separator,
            "label_columns": label_columns,
            "max_pixels": max_pixels,
            "exif": exif,
            "on_bad": on_bad,
            "max_bad": max_bad,
            "cache_dir": None if cache_dir is None else str(path("Photos: cache_dir", cache_dir)),
            "cache_gb": cache_gb,
        }
        with speaking_of({f"data.{name}": name for name in given}):
            data = validate({"data": given}, "Photos").data
        of_kind("Photos: progress", progress, Callable | None, "a function of two numbers")
        least, wanted = whole("Photos: min_classes", min_classes, 0), class_names(data.classes)
        how = data.layout, data.exif == "apply", wanted, Columns.of(data)
        folder = place("Photos: folder", folder)
        url = url_of(folder)
        there = folder if url is None else mirror(url, data.cache_dir, data.cache_gb)
        super().__init__(read_table(there, data.max_pixels, progress, least, *how), data, wanted)

    @classmethod
    def open(
        cls, folder: Path | str, data: DataConfig, progress: Progress | None = None, min_classes: int = 2
    ) -> "Photos":
        """Photos as the settings `data` want them read."""
        of_kind("Photos.open: data", data, DataConfig, "ff.DataConfig(...)")
        return cls(
            folder,
            layout=data.layout,
            classes=data.classes,
            path_column=data.path_column,
            label_column=data.label_column,
            split_column=data.split_column,
            label_separator=data.label_separator,
            label_columns=data.label_columns,
            max_pixels=data.max_pixels,
            exif=data.exif,
            on_bad=data.on_bad,
            max_bad=data.max_bad,
            cache_dir=data.cache_dir,
            cache_gb=data.cache_gb,
            min_classes=min_classes,
            progress=progress,
        )
