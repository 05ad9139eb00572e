"""Tar files as others write them, and the photos that are to be found in them."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from flowerfast.photos.photos import Photos

LABELS = ["rose", "daisy", "tulip", "daisy", "rose", "tulip", "daisy"]
Members = list[tuple[str, bytes]]


def encoded(number: int, form: str = "JPEG") -> bytes:
    """A photo of 24x16 pixels, each of another colour."""
    file = io.BytesIO()
    Image.new("RGB", (24, 16), (number * 37 % 256, number * 91 % 256, number * 151 % 256)).save(file, form)
    return file.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of members in this order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(labels: Iterable[str], suffix: str = "jpg", first: int = 0) -> list[tuple[str, bytes]]:
    """A photo and its .cls for each label, keys numbered."""
    found = []
    for number, label in enumerate(labels, first):
        found += [(f"{number:04d}.{suffix}", encoded(number)), (f"{number:04d}.cls", label.encode())]
    return found


def unpacked(folder: Path, classes: dict[str, dict[str, bytes]]) -> Photos:
    """The same photos in class folders."""
    for name, photos in classes.items():
        (folder / name).mkdir(parents=True)
        for file, content in photos.items():
            (folder / name / file).write_bytes(content)
    return Photos(folder)


def as_folder(folder: Path, labels: list[str], suffix: str = "jpg") -> Photos:
    """What `samples` of these labels are in class folders."""
    classes: dict[str, dict[str, bytes]] = {}
    for number, label in enumerate(labels):
        classes.setdefault(label, {})[f"{number:04d}.{suffix}"] = encoded(number)
    return unpacked(folder, classes)


def assert_same(found: Photos, expected: Photos, names: bool = True) -> None:
    """Same classes, labels, bytes and sizes, in the same order; and the same split."""
    assert found.classes == expected.classes or not names
    assert found.labels.tolist() == expected.labels.tolist()
    for column in ("width", "height", "orientation", "size", "fold"):
        ours, theirs = getattr(found.table, column), getattr(expected.table, column)
        assert ours.dtype == theirs.dtype
        assert ours.tolist() == theirs.tolist(), column
    for compiled in (True, False):
        files = found.read(found.indices, compiled)[0]
        assert [bytes(file) for file in files] == [expected.read_one(i).tobytes() for i in expected.indices]
    for ours, theirs in zip(found.split(0.3, seed=1), expected.split(0.3, seed=1), strict=True):
        assert ours.indices.tolist() == theirs.indices.tolist()


def with_json(field: str) -> Members:
    """As img2dataset lays it out: a caption and what is known of the photo beside it."""
    members: Members = []
    for number, label in enumerate(LABELS):
        about = {"caption": f"a {label}", "url": "x", "width": 24, field: label, "exif": "{}"}
        key = f"{number:04d}"
        members += [(f"{key}.jpg", encoded(number)), (f"{key}.json", json.dumps(about).encode())]
        members.append((f"{key}.txt", f"a {label}".encode()))
    return members
