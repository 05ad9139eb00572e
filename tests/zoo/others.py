"""PNG, WebP, BMP, GIF, TIFF, AVIF and PNM files of every kind, by Pillow and by our own writers."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from tests.zoo import raster
from tests.zoo.kinds import Kind, array, picture, saved, turned_back
from tests.zoo.pictures import orientation

_GREY, _BITS = "it in grey", "it in black and white"


def _by(kind: str, mode: str = "RGB", **options: Any) -> Callable[[], bytes]:
    return lambda: saved(kind, picture().convert(mode), **options)


def _with_alpha(mode: str = "RGB") -> Image.Image:
    """The picture, clear where it is dark."""
    image = picture().convert(mode)
    image.putalpha(picture().convert("L"))
    return image


def _few(colours: int = 64) -> Image.Image:
    return picture().quantize(colours)


def _frames() -> dict[str, Any]:
    return {"save_all": True, "append_images": [picture().rotate(180)]}


def _deep() -> np.ndarray:
    """The picture in 16 bits, (h, w, 3)."""
    return array().astype(np.uint16) * 257


def _deep_grey() -> Image.Image:
    return Image.fromarray(np.asarray(picture().convert("L"), np.uint16) * 257)


def _runs() -> bytes:
    few = _few(16)
    palette = np.array(few.getpalette(), np.uint8).reshape(-1, 3)
    return raster.bmp_rle8(np.asarray(few), palette)


def _behind_the_first() -> bytes:
    """An APNG whose default picture is none of its frames."""
    return saved("PNG", default_image=True, **_frames())


def _clear_palette() -> bytes:
    return saved("PNG", _few(32), transparency=bytes(range(32)))


def _clear_colour() -> bytes:
    """A PNG of which one colour is clear."""
    return raster.png(array(), more=raster.chunk(b"tRNS", array()[0, 0].astype(">u2").tobytes()))


def _gamma() -> bytes:
    """A PNG that says that its levels are linear."""
    return raster.png(array(), more=raster.chunk(b"gAMA", (100_000).to_bytes(4, "big")))


def _says(kind: str, **options: Any) -> Callable[[], bytes]:
    return lambda: saved(kind, turned_back(6), exif=orientation(6), **options)


def _tiff_turned() -> bytes:
    return saved("TIFF", turned_back(6), tiffinfo={0x112: 6})


KINDS = [
    Kind("png-rgb", ".png", _by("PNG")),
    Kind("png-grey", ".png", _by("PNG", "L"), _GREY),
    Kind("png-bilevel", ".png", _by("PNG", "1"), _BITS, "1 bit"),
    Kind("png-palette", ".png", lambda: saved("PNG", _few())),
    Kind("png-palette-clear", ".png", _clear_palette, about="tRNS"),
    Kind("png-colour-clear", ".png", _clear_colour, about="RGB with tRNS"),
    Kind("png-rgba", ".png", lambda: saved("PNG", _with_alpha())),
    Kind("png-la", ".png", lambda: saved("PNG", _with_alpha("L")), _GREY, "grey with alpha"),
    Kind("png-grey-16", ".png", lambda: saved("PNG", _deep_grey()), "white", "16 bits, over the whole range"),
    Kind("png-rgb-16", ".png", lambda: raster.png(_deep()), about="16 bits"),
    Kind("png-rgba-16", ".png", lambda: raster.png(np.dstack([_deep(), _deep()[..., 0]])), about="16 bits"),
    Kind("png-adam7", ".png", lambda: raster.png(array(), interlaced=True), about="interlaced"),
    Kind("png-gamma", ".png", _gamma, about="gAMA 1.0"),
    Kind("png-animated", ".png", lambda: saved("PNG", **_frames()), about="APNG"),
    Kind("png-animated-other", ".png", _behind_the_first, about="APNG, default picture is no frame"),
    Kind("png-orientation-6", ".png", _says("PNG"), about="eXIf 6"),
    Kind("webp-lossy", ".webp", _by("WEBP", quality=80)),
    Kind("webp-lossless", ".webp", _by("WEBP", lossless=True)),
    Kind("webp-alpha", ".webp", lambda: saved("WEBP", _with_alpha(), quality=90)),
    Kind("webp-animated", ".webp", lambda: saved("WEBP", **_frames())),
    Kind("webp-orientation-6", ".webp", _says("WEBP", lossless=True), about="EXIF 6"),
    Kind("bmp-24", ".bmp", _by("BMP")),
    Kind("bmp-palette", ".bmp", lambda: saved("BMP", _few())),
    Kind("bmp-bilevel", ".bmp", _by("BMP", "1"), _BITS, "1 bit"),
    Kind("bmp-565", ".bmp", lambda: raster.bmp_565(array()), about="5, 6 and 5 bits"),
    Kind("bmp-rle8", ".bmp", _runs, about="runs"),
    Kind("bmp-from-the-top", ".bmp", lambda: raster.bmp_from_the_top(array()), about="negative height"),
    Kind("gif", ".gif", lambda: saved("GIF", _few())),
    Kind("gif-animated", ".gif", lambda: saved("GIF", **_frames()), about="first frame"),
    Kind("gif-clear", ".gif", lambda: saved("GIF", _few(), transparency=3), about="one colour clear"),
    Kind("tiff", ".tif", _by("TIFF")),
    Kind("tiff-lzw", ".tif", _by("TIFF", compression="tiff_lzw")),
    Kind("tiff-deflate", ".tif", _by("TIFF", compression="tiff_adobe_deflate")),
    Kind("tiff-jpeg", ".tif", _by("TIFF", compression="jpeg")),
    Kind("tiff-group4", ".tif", _by("TIFF", "1", compression="group4"), _BITS),
    Kind("tiff-palette", ".tif", lambda: saved("TIFF", _few())),
    Kind("tiff-grey-16", ".tif", lambda: saved("TIFF", _deep_grey()), "white", "16 bits"),
    Kind("tiff-float", ".tif", _by("TIFF", "F"), _GREY, "32-bit floats, 0 to 255"),
    Kind("tiff-cmyk", ".tif", _by("TIFF", "CMYK")),
    Kind("tiff-rgba", ".tif", lambda: saved("TIFF", _with_alpha())),
    Kind("tiff-pages", ".tif", lambda: saved("TIFF", **_frames()), about="two pages"),
    Kind("tiff-orientation-6", ".tif", _tiff_turned, about="tag 6"),
    Kind("avif", ".avif", _by("AVIF", speed=10)),
    Kind("avif-alpha", ".avif", lambda: saved("AVIF", _with_alpha(), speed=10)),
    Kind("avif-animated", ".avif", lambda: saved("AVIF", speed=10, **_frames())),
    Kind("avif-orientation-6", ".avif", _says("AVIF", speed=10), about="irot"),
    Kind("ppm", ".ppm", _by("PPM")),
    Kind("pgm", ".pgm", _by("PPM", "L"), _GREY),
    Kind("pbm", ".pbm", _by("PPM", "1"), _BITS),
    Kind("ppm-text", ".ppm", lambda: raster.pnm_text(array()), about="in numbers"),
    Kind("ppm-16", ".ppm", lambda: raster.pnm_deep(_deep()), about="16 bits"),
]  # fmt: skip
