"""What a look at each photo tells."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.photos.formats import FORMATS, SUFFIXES
from flowerfast.photos.photos import Photos
from flowerfast.scanning.findings import _SUFFIXES, mislabelled
from flowerfast.scanning.look import ends_early, look_at
from tests.zoo.pictures import structured


def encoded(kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    structured(64, 48, seed=1).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_file_ends_early_when_anything_is_missing_at_its_end(kind: str) -> None:
    content = encoded(kind)
    assert not ends_early(content)
    assert not ends_early(content + bytes(300))
    for left in (len(content) - (12 if kind == "PNG" else 1), len(content) * 2 // 3, len(content) // 2):
        assert ends_early(content[:left])


def test_a_thumbnail_that_is_whole_hides_no_cut() -> None:
    exif = Image.Exif()
    exif[0x927C] = encoded("JPEG")  # a maker's note that holds a JPEG
    content = encoded("JPEG", exif=exif, progressive=True)
    assert content.count(b"\xff\xd9") == 2
    assert not ends_early(content)
    assert ends_early(content[: len(content) - 40])


def test_what_training_skips_is_damaged_and_nothing_else(zoo: Path, faulty: Path) -> None:
    for root in (zoo, faulty):
        photos = Photos(root, max_bad=1)
        looks = look_at(photos, threads=2)
        wrong = {row for row in range(len(photos)) if photos.problem(row) is not None}
        assert {*looks.damaged} == wrong
        assert sorted([*looks.rows.tolist(), *looks.damaged]) == [*range(len(photos))]
        named = {photos.path(row): look for row, look in zip(looks.rows.tolist(), looks.looks, strict=True)}
        if root == zoo:
            assert not wrong
            kinds = {"jpeg-without-suffix": "JPEG", "jpeg-as-png.png": "JPEG", "avif.avif": "AVIF"}
            assert {name: named[f"odd/{name}"].format for name in kinds} == kinds
            assert (named["odd/jpeg-cmyk.jpg"].mode, named["odd/jpeg-grey.jpg"].is_grey) == ("CMYK", True)
            assert not [name for name, look in named.items() if look.is_cut]
        else:
            assert {photos.path(row) for row in looks.cut} == {"daisy/cut.jpg"}


def test_a_photo_shrunk_in_decoding_is_damaged_where_the_whole_one_is(tmp_path: Path) -> None:
    structured(900, 700, seed=3).save(tmp_path / "whole.jpg", quality=80)
    whole = (tmp_path / "whole.jpg").read_bytes()
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, at in enumerate(rng.integers(700, len(whole), 20).tolist()):
        harmed = bytearray(whole)
        if number % 2:
            harmed = harmed[:at]
        else:
            harmed[at : at + 30] = rng.bytes(len(harmed[at : at + 30]))
        (tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg").write_bytes(harmed)
    photos = Photos(tmp_path / "photos", max_bad=1)
    wrong = {row for row in range(len(photos)) if photos.problem(row) is not None}
    assert {*look_at(photos, threads=1).damaged} == wrong
    assert wrong


def test_every_suffix_of_a_photo_belongs_to_one_format() -> None:
    assert {*_SUFFIXES} == {*FORMATS}
    listed = [suffix for suffixes in _SUFFIXES.values() for suffix in suffixes]
    assert sorted(listed) == sorted(SUFFIXES)


def test_names_that_say_another_format_are_told() -> None:
    assert mislabelled("a/b.JPG", "JPEG") is None
    assert mislabelled("a.b/c", "JPEG") is None
    assert mislabelled("a/b.mpo", "JPEG") is None
    assert mislabelled("a/b.png", "JPEG") == "named .png, is JPEG"
    assert mislabelled("a/b.heic", "JPEG") == "named .heic, is JPEG"
