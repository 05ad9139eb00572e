"""What counts as a photo: raster formats that Pillow decodes by itself, told by content."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from flowerfast.files import open_regular
from flowerfast.machine import ignore_warnings

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM")
"""Pillow's names of the formats that are read; MPO comes by way of JPEG. None that starts a program or
describes a page (EPS, PDF, WMF, ...)."""
_NAMES = ".jpg .jpeg .jpe .jfif .mpo .png .apng .webp .bmp .gif .tif .tiff .avif .ppm .pgm .pbm .pnm"
SUFFIXES = frozenset(_NAMES.split())
"""By which people name such files; a file of another name, or of none, is looked into."""
_RAW_NAMES = ".dng .nef .nrw .cr2 .arw .sr2 .srf .pef .srw .3fr .iiq .erf .mef .mos .kdc .dcr .fff .rwl"
_RAW = frozenset(_RAW_NAMES.split())
"""Camera raw files that are TIFFs outside: Pillow would take the thumbnail in them for the photo."""
_ADVICE = {".heic": "convert to JPEG", ".heif": "convert to JPEG"} | dict.fromkeys(_RAW, "develop to JPEG")
_MODES_CLIPPED = ("I", "F")
_SHOWN = 6  # kinds of files that a line names
PILLOW = r"PIL\."
"""Whose warnings are ignored: the scan has checked data.max_pixels, and what Pillow says of palettes and EXIF
does not concern the pixels."""


@contextmanager
def open_image(file: Path | BytesIO) -> Iterator[Image.Image]:
    """A file as Pillow sees it, its header read: the one way to open one here.

    Raises OSError for what is no regular file; else what Pillow raises: UnidentifiedImageError for what is in
    none of FORMATS, and almost anything for a damaged file.
    """
    ignore_warnings(module=PILLOW)
    with file if isinstance(file, BytesIO) else os.fdopen(open_regular(file), "rb") as stream:
        if not isinstance(file, BytesIO) and not os.fstat(stream.fileno()).st_size:
            raise UnidentifiedImageError  # empty; or of /proc, where reading may have no end
        with Image.open(stream, formats=FORMATS) as image:
            yield image


def is_raw(name: str) -> bool:
    """Whether a file is a camera's raw file, by its name."""
    return _suffix(name) in _RAW


def is_clipped(mode: str) -> bool:
    """Whether Pillow clips pixels of this mode to 8 bits: 16-bit grey, whole and real numbers."""
    return mode.startswith(_MODES_CLIPPED)


def not_photos(names: Sequence[str]) -> str:
    """One line that counts files that are no photos by kind, and names the first."""
    kinds = Counter(map(_suffix, names)).most_common()
    named = [f"{count} {_kind(suffix)}" for suffix, count in kinds[:_SHOWN]]
    others = sum(count for _, count in kinds[_SHOWN:])
    listed = ", ".join([*named, *([f"{others} others"] if others else [])])
    what = "1 file is no photo" if len(names) == 1 else f"{len(names)} files are not photos"
    return f"{what} that can be read: {listed}; first: {names[0]}"


def advice(name: str) -> str:
    """What to do about a file that is no photo here, in brackets, where its name tells."""
    suffix = _suffix(name)
    return f" ({_ADVICE[suffix]})" if suffix in _ADVICE else ""


def _kind(suffix: str) -> str:
    return (suffix or "without a suffix") + advice(f"x{suffix}")


def _suffix(name: str) -> str:
    """The end of a file's name, from the dot on, in lower case."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return f".{end.lower()}" if dot and stem else ""
