"""Copies of the files that a person should look at. Nothing is moved, changed or deleted."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from flowerfast.config import DataConfig
from flowerfast.errors import UserError, WriteFailed, one_line
from flowerfast.files import open_regular, read_bytes, replacing, writing
from flowerfast.machine import Progress, folder_problem
from flowerfast.photos.header import check_bytes
from flowerfast.photos.photos import Photos
from flowerfast.places import url_of
from flowerfast.scanning.findings import Noted

_MAX_PIXELS = DataConfig().max_pixels


def check_quarantine(folder: Path, data: Path) -> None:
    """Raise UserError unless `folder` is new or empty, can be written, and lies apart from `data`."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise UserError(f"--quarantine {folder}: is no folder; name a new or empty one")
    if (url := url_of(folder)) is not None:
        raise UserError(f"--quarantine {url}: a URL; name a folder on this machine")
    problem = folder_problem(folder)
    if problem is None and folder.is_dir() and any(folder.iterdir()):
        problem = "it holds something"
    if problem is not None:
        raise UserError(f"--quarantine {folder}: cannot be used ({problem}); name a new or empty folder")
    if url_of(data) is not None:
        return
    source, target = data.resolve(), folder.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise UserError(f"--quarantine {folder}: lies in {data} or holds it; name a folder apart from it")


def copy_files(
    photos: Photos, chosen: Sequence[Noted], folder: Path, progress: Progress | None = None
) -> tuple[int, list[str]]:
    """Copy files of photos to `folder`, by their paths, class folders and all.

    How many were copied, and why others could not be, a line each. Of shards the bytes that they hold are
    copied, damaged ones too. Raises UserError when the folder cannot be made, WriteFailed when the disk takes
    no more.
    """
    # By path: NAME is called NAME.partial while it is written, and a photo of that name comes after it.
    unique = sorted({photo.path: photo for photo in chosen}.values(), key=lambda photo: photo.path)
    if unique:
        _make(folder)
    left = []
    for done, photo in enumerate(unique, 1):
        parts = PurePosixPath(photo.path).parts
        try:
            if ".." in parts or PurePosixPath(photo.path).is_absolute():
                raise OSError("its path leads out of the folder")
            content = _content(photos, photo)
            with replacing(folder.joinpath(*parts), needed=len(content)) as fresh:
                fresh.write_bytes(content)
        except WriteFailed:
            raise
        except OSError as error:
            left.append(f"not copied: {photo.path}: {one_line(error)}")
        if progress:
            progress(done, len(unique))
    return len(unique) - len(left), left


def _make(folder: Path) -> None:
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except WriteFailed:
        raise
    except OSError as error:
        raise UserError(
            f"--quarantine {folder}: cannot be made ({one_line(error)}); name another folder"
        ) from error


def _content(photos: Photos, photo: Noted) -> bytes | memoryview:
    """The bytes of a photo, from its file or its shard. Raises OSError."""
    shards, row = photos.table.shards, photo.index
    if shards is None or row is None:
        file = photos.root / photo.path
        check_bytes(file.stat().st_size, _MAX_PIXELS)
        return read_bytes(file)
    try:
        return photos.read_one(row).data
    except OSError:
        if url_of(photos.source) is not None:
            raise
    # Not those that were packed, or the shard has changed since: they are what a person wants to see.
    with os.fdopen(open_regular(shards.folder / shards.files[int(shards.shard[row])].name), "rb") as shard:
        shard.seek(int(shards.offset[row]))
        return shard.read(int(photos.table.size[row]))
