"""Which files are photos: by content, from a list, without a program or a page renderer behind it."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from flowerfast.photos.decode import DecodeError, decode
from flowerfast.photos.formats import FORMATS, is_clipped, is_raw, not_photos, open_image
from flowerfast.photos.photos import Photos


@pytest.mark.skipif(os.name != "posix", reason="the program is a script")
def test_postscript_named_jpg_starts_no_program(
    ghostscript: Path, postscript: bytes, photo_folder: Callable[..., Path]
) -> None:
    with Image.open(io.BytesIO(postscript)) as image:  # what the test would miss if Pillow had no such plugin
        assert image.format == "EPS"
        with pytest.raises(OSError, match=r"."):
            image.load()
    assert ghostscript.exists()
    ghostscript.unlink()
    root = photo_folder({"a": 3, "b": 3})
    (root / "a/x.jpg").write_bytes(postscript)
    (root / "b/x.pdf").write_bytes(b"%PDF-1.4\n")
    photos = Photos(root, max_bad=1)
    assert [(bad.path, bad.error) for bad in photos.bad] == [("a/x.jpg", "not an image")]
    with pytest.raises(DecodeError, match="not an image"):
        decode(np.frombuffer(postscript, np.uint8), 40, 30)
    assert not ghostscript.exists()


@pytest.mark.parametrize("kind", [*FORMATS, "MPO", "PGM", "PBM"])
def test_every_format_of_the_list_is_read(kind: str) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    stream = io.BytesIO()
    if kind in ("PGM", "PBM"):
        picture.convert("L" if kind == "PGM" else "1").save(stream, "PPM")
    elif kind == "MPO":
        picture.save(stream, kind, save_all=True, append_images=[picture])
    else:
        picture.save(stream, kind)
    with Image.open(io.BytesIO(stream.getvalue())) as image:
        expected = np.array(image.convert("RGB"))
    found = decode(np.frombuffer(stream.getvalue(), np.uint8), 30, 20)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO", "TGA", "SGI", "PCX", "DDS", "ICNS"])
def test_others_are_not(kind: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32)).save(stream, kind)
    with pytest.raises(UnidentifiedImageError), open_image(io.BytesIO(stream.getvalue())):
        pass


def test_the_first_frame_of_a_gif() -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "green", "blue")]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    found = decode(np.frombuffer(stream.getvalue(), np.uint8), 20, 10)
    assert (found == (255, 0, 0)).all()


@pytest.mark.parametrize(
    ("mode", "clipped"),
    [("I;16", True), ("I;16B", True), ("I", True), ("F", True), ("L", False), ("P", False)],
)
def test_modes_that_pillow_clips(mode: str, clipped: bool) -> None:
    assert is_clipped(mode) == clipped


@pytest.mark.parametrize(
    ("name", "raw"), [("a/x.NEF", True), ("x.dng", True), ("x.tif", False), ("nef", False)]
)
def test_raw_files_are_told_by_name(name: str, raw: bool) -> None:
    assert is_raw(name) == raw


def test_what_is_no_photo_is_counted_by_kind() -> None:
    names = ["a/1.HEIC", "a/2.heic", "b/notes.txt", "b/README", "b/.hidden"]
    assert not_photos(names) == (
        "5 files are not photos that can be read: 2 .heic (convert to JPEG), 2 without a suffix, 1 .txt; "
        "first: a/1.HEIC"
    )
    assert (
        not_photos(["a/x.nef"])
        == "1 file is no photo that can be read: 1 .nef (develop to JPEG); first: a/x.nef"
    )
    many = [f"x.{letter}" for letter in "abcdefgh"]
    assert "1 .f, 2 others; first" in not_photos(many)
