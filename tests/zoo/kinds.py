"""Every kind of picture file that people have, made here, and what the reference makes of each.

The reference is Pillow: `ImageOps.exif_transpose`, then `convert("RGB")`.
"""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from tests.zoo.pictures import structured

SIZE = (90, 120)
"""Width and height of the picture: neither is a multiple of anything that files are cut into."""


class Missing(Exception):
    """What a kind is written with is not installed; the message says what to do."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: unique; with the suffix the file's name.
        suffix: as people name such files.
        write: makes the file; raises Missing.
        shows: what the reference gives, a key of `SHOWN`.
        about: what is special about it, for tables.
    """

    name: str
    suffix: str
    write: Callable[[], bytes]
    shows: str = "the picture"
    about: str = ""

    @property
    def file(self) -> str:
        return self.name + self.suffix

    @property
    def refused(self) -> bool:
        """Whether the reference, and so everybody here, calls it no photo."""
        return self.shows == "refused"


@cache
def picture() -> Image.Image:
    """What all files show, RGB."""
    return structured(*SIZE, seed=50)


def saved(kind: str, image: Image.Image | None = None, **options: Any) -> bytes:
    """A file by Pillow, of the picture unless it is given one."""
    stream = io.BytesIO()
    # A copy: Pillow keeps a writer's settings on the image object.
    (picture() if image is None else image).copy().save(stream, kind, **options)
    return stream.getvalue()


def turned_back(number: int) -> Image.Image:
    """The picture as it is stored by who says orientation `number`, so that it comes upright."""
    steps = {2: (0,), 3: (3,), 4: (1,), 5: (5,), 6: (2,), 7: (6,), 8: (4,)}.get(number, ())
    image = picture()
    for step in steps:
        image = image.transpose(Image.Transpose(step))
    return image


SHOWN: Mapping[str, Callable[[], Image.Image]] = {
    "the picture": picture,
    "it in grey": lambda: picture().convert("L"),
    "it in black and white": lambda: picture().convert("1"),
    "white": lambda: Image.new("L", SIZE, 255),
    "false colours": lambda: Image.merge("YCbCr", picture().split()),
}
"""Pictures that the reference may give, within what a lossy format, few colours or coarse chroma change."""


def all_kinds() -> list[Kind]:
    """In the order of tables."""
    from tests.zoo import jpegs, others

    return [*jpegs.KINDS, *others.KINDS]


@cache
def content(name: str) -> bytes:
    """The file of a kind; raises Missing."""
    return {kind.name: kind for kind in all_kinds()}[name].write()


def array() -> np.ndarray:
    """The picture, uint8 (h, w, 3)."""
    return np.array(picture())
