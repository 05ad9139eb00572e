"""Tar files as others write them."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


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
