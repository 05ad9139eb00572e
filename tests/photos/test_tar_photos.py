"""Tar files that others wrote: read as the photos that are in them, or refused in one line."""

import gzip
import json
import logging
import os
import pickle
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset

from flowerfast.errors import UserError
from flowerfast.photos import tar_photos as module
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX
from tests.photos.tars import encoded, samples, write_tar

LABELS = ["rose", "daisy", "tulip", "daisy", "rose", "tulip", "daisy"]
Members = list[tuple[str, bytes]]


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


# ------------------------------------------------------------------------------------------- what is read


def test_shards_of_webdatasets_writer_are_the_photos_in_folders(tmp_path: Path) -> None:
    numbers = [10, 2, 2, 10, 0, 2, 0, 10, 2]
    (tmp_path / "tars").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "tars/flowers-%06d.tar"), maxcount=4, verbose=0) as out:
        for number, label in enumerate(numbers):
            out.write({"__key__": f"{number:04d}", "jpg": encoded(number), "cls": label})
    found = Photos(tmp_path / "tars")
    assert found.classes == ("0", "2", "10")  # numbers in their order, not as text
    expected = as_folder(tmp_path / "folder", [f"{label:02d}" for label in numbers])
    assert_same(found, expected.with_classes(["00", "02", "10"]), names=False)
    assert found.notes == ("3 tar files without an index of flowerfast: photos from .jpg, labels from .cls",)
    assert found.path(0) == "flowers-000001/0004.jpg"
    assert found.where(0) == "flowers-000001.tar: 0004.jpg (flowers-000001/0004.jpg)"


def with_json(field: str) -> Members:
    """As img2dataset lays it out: a caption and what is known of the photo beside it."""
    members: Members = []
    for number, label in enumerate(LABELS):
        about = {"caption": f"a {label}", "url": "x", "width": 24, field: label, "exif": "{}"}
        key = f"{number:04d}"
        members += [(f"{key}.jpg", encoded(number)), (f"{key}.json", json.dumps(about).encode())]
        members.append((f"{key}.txt", f"a {label}".encode()))
    return members


def out_of_order() -> Members:
    """Labels first, then photos backwards, something of others between."""
    return [*samples(LABELS)[1::2], ("readme.md", b"x"), *samples(LABELS)[0::2][::-1]]


LONG = "long/" * 40 + "ünï/"
READ: dict[str, tuple[Members, dict[str, Any]]] = {
    "`KEY.cls` with text": (samples(LABELS), {}),
    "labels that end with a line": ([(n, c + b"\r\n" * n.endswith("cls")) for n, c in samples(LABELS)], {}),
    "`KEY.jpeg`": (samples(LABELS, "jpeg"), {}),
    "`KEY.JPG`": (samples(LABELS, "JPG"), {}),
    "photos under another suffix": (samples(LABELS, "image"), {"path_column": "image"}),
    "img2dataset's `KEY.jpg`, `KEY.txt`, `KEY.json` with a field `label`": (with_json("label"), {}),
    "the same with a field `class_name`": (with_json("class_name"), {}),
    "the same with the label in another field": (with_json("species"), {"label_column": "species"}),
    "members out of order, and samples split": (out_of_order(), {}),
    "PAX or GNU names, long and not ASCII": (
        [(LONG + name, content) for name, content in samples(LABELS)],
        {},
    ),
    "a mask beside, `KEY.mask.png`": ([*samples(LABELS), ("0000.mask.png", encoded(9, "PNG"))], {}),
    "hidden files, `__MACOSX`, `__index__`": (
        [("__index__", b"x"), ("._0000.jpg", b"x"), ("__MACOSX/._1.jpg", b"x"), *samples(LABELS)],
        {},
    ),
    "class folders: `photos/rose/1.jpg`, no labels": (
        [(f"photos/{LABELS[number]}/{number:04d}.jpg", encoded(number)) for number in range(len(LABELS))],
        {},
    ),
}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_layouts_of_others_are_the_photos_in_folders(tmp_path: Path, kind: str, form: int) -> None:
    members, settings = READ[kind]
    write_tar(tmp_path / "tars/some.tar", members, form)
    found, expected = Photos(tmp_path / "tars", **settings), as_folder(tmp_path / "folder", LABELS)
    assert_same(found, expected)


def test_formats_may_differ_and_a_key_may_come_again_in_another_tar(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(["rose", "tulip"]))
    write_tar(tmp_path / "tars/b.tar", samples(["tulip"], "PNG"))
    found = Photos(tmp_path / "tars")
    assert [found.path(i) for i in found.indices] == ["a/0000.jpg", "a/0001.jpg", "b/0000.png"]
    assert found.notes == (
        "2 tar files without an index of flowerfast: photos from .jpg, .png, labels from .cls",
    )


@pytest.mark.parametrize("names", [("train-0.tar", "set-validation-0.tar"), ("train/0.tar", "val/0.tar")])
def test_halves_are_told_by_the_words_of_names(tmp_path: Path, names: tuple[str, str]) -> None:
    for number, name in enumerate(names):
        write_tar(tmp_path / "tars" / name, samples(["rose", "tulip", "rose"], first=3 * number))
    train, val = Photos(tmp_path / "tars").split(0.2, seed=0)
    assert [{half.path(i)[-8:] for i in half.indices} for half in (train, val)] == [
        {"0000.jpg", "0001.jpg", "0002.jpg"},
        {"0003.jpg", "0004.jpg", "0005.jpg"},
    ]
    assert not Photos(tmp_path / "tars", layout="classes").table.fold.any()


def test_a_single_half_is_a_set_like_any_other(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/val-0.tar", samples(LABELS))
    assert not Photos(tmp_path / "tars").table.fold.any()
    with pytest.raises(
        UserError, match=r"data\.layout=split, but no tar file is named train; it holds val-0"
    ):
        Photos(tmp_path / "tars", layout="split")


def test_classes_are_chosen_as_of_folders(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", [*samples(LABELS), ("9.jpg", b"no photo"), ("9.cls", b"rose")])
    found = Photos(tmp_path / "tars", classes=["tulip", "rose"], max_bad=0.5)
    assert found.classes == ("tulip", "rose")
    assert found.labels.tolist() == [1, 1, 0, 0]
    assert [found.table.classes[label] for label in found.table.bad_label] == ["rose"]
    assert "data.classes: 3 photos of 1 other class are left out: daisy" in found.notes
    assert not Photos(tmp_path / "tars", classes=["tulip", "daisy"]).bad


def test_damaged_photos_are_named_and_counted(tmp_path: Path) -> None:
    members = [*samples(LABELS), ("x.jpg", encoded(1)[:40]), ("x.cls", b"rose"), ("y.cls", b"rose")]
    write_tar(tmp_path / "tars/a.tar", members)
    found = Photos(tmp_path / "tars", max_bad=0.5)
    assert [bad.path for bad in found.bad] == ["a/x.jpg"]
    assert "left out, samples without a photo: 1" in found.notes
    assert len(found) == len(LABELS)
    with pytest.raises(UserError, match=r"tars/a/x\.jpg: .+\(data\.on_bad=skip\)"):
        Photos(tmp_path / "tars", on_bad="fail")


def test_links_are_left_out_and_said(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    with tarfile.open(file, "a") as tar:
        link = tarfile.TarInfo("7.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    assert "left out, links and other members that are no files: 1" in Photos(tmp_path / "tars").notes


# ------------------------------------------------------------------------------------------ what is kept


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of tars that were read through."""
    seen: list[Path] = []

    class Counting(module.Scan):
        def __init__(self, root: Path, *rest: Any) -> None:
            seen.append(root)
            super().__init__(root, *rest)

    monkeypatch.setattr(module, "Scan", Counting)
    return seen


def test_tars_are_read_through_once_and_nothing_is_written_beside_them(
    tmp_path: Path, readings: list[Path]
) -> None:
    file = write_tar(tmp_path / "tars/a.tar", [*samples(LABELS), ("9.jpg", b"no"), ("9.cls", b"rose")])
    first, again = (Photos(tmp_path / "tars", max_bad=0.5) for _ in range(2))
    assert len(readings) == 1
    assert os.listdir(tmp_path / "tars") == ["a.tar"]
    assert (again.fingerprint, again.notes, again.bad) == (first.fingerprint, first.notes, first.bad)
    assert_same(again, first)
    os.utime(file, ns=(1, 1))
    assert Photos(tmp_path / "tars", max_bad=0.5).fingerprint == first.fingerprint
    assert len(readings) == 2
    shutil.move(tmp_path / "tars", tmp_path / "moved")
    assert Photos(tmp_path / "moved", max_bad=0.5).fingerprint == first.fingerprint


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_a_reading(
    tmp_path: Path, own_cache: Path, readings: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    first = Photos(tmp_path / "tars")
    (kept,) = (own_cache / "tars").iterdir()
    kept.write_bytes(kept.read_bytes()[:-50])
    assert_same(Photos(tmp_path / "tars"), first)
    kept.unlink()
    kept.mkdir()
    with caplog.at_level(logging.WARNING):
        assert_same(Photos(tmp_path / "tars"), first)
    assert len(readings) == 3
    assert "what tar files hold is not kept" in caplog.text


def test_a_photo_that_changes_in_the_tar_is_not_read(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    found = Photos(tmp_path / "tars")
    content = bytearray(file.read_bytes())
    content[content.index(encoded(0)) + 30] ^= 1
    file.write_bytes(content)
    row = next(i for i in found.indices if found.path(i) == "a/0000.jpg")
    with pytest.raises(OSError, match="its bytes are not those"):
        found.read_one(row)


# --------------------------------------------------------------------------------------- what is refused


def changed(place: int, name: str | None = None, content: bytes | None = None) -> Members:
    """`samples` with another member at a place."""
    members = samples(LABELS)
    before = members[place]
    members[place] = (name or before[0], before[1] if content is None else content)
    return members


REFUSED: dict[str, tuple[Members, str]] = {
    "no labels": (
        samples(LABELS)[::2],
        r"no label that is read in these tar files: KEY\.cls, or a field such as 'label' of KEY\.json; the "
        r"samples have \.jpg; set data\.label_column to what holds it, or write the label as KEY\.cls",
    ),
    "img2dataset's captions alone": (
        [member for member in with_json("caption2") if not member[0].endswith(".cls")],
        r"the samples have \.jpg, \.json, \.txt; fields in the first JSON: caption, url, width and 2 more",
    ),
    "labels that are pickled, `KEY.pyd`": (
        [
            (n.replace(".cls", ".pyd"), pickle.dumps(3) if n.endswith("cls") else c)
            for n, c in samples(LABELS)
        ],
        r"\(\.pyd is not: write it as text\)",
    ),
    "a pickle under the name of text": (
        changed(1, content=pickle.dumps(3)),
        r"a\.tar: 0000\.cls: b'\\x80.+', which is no name or number of a class in UTF-8; set .+ never read\)",
    ),
    "labels in msgpack, `KEY.mp`": (
        [(name.replace(".cls", ".mp"), content) for name, content in samples(LABELS)],
        r"\(\.mp is not: write it as text\)",
    ),
    "an empty label": (
        changed(1, content=b" \n"),
        r"0000\.cls: b' \\n', which is no name or number of a class",
    ),
    "a label of two lines": (changed(1, content=b"a\nb"), r"0000\.cls: b'a\\nb', which is no name"),
    "a sample without its label": (
        changed(1, "0000.txt"),
        r"a\.tar: 0000 has no \.cls, only \.jpg, \.txt; add its label, or take the sample out",
    ),
    "a sample twice": (
        [*samples(LABELS), *samples(["rose"])],
        r"a\.tar: 0000\.jpg is there twice, and nobody can tell which is meant",
    ),
    "two photos in a sample": (
        [*samples(LABELS), ("0001.png", encoded(1, "PNG"))],
        r"a\.tar: 0001 has 2 photos, \.jpg and \.png; name the one to take: data\.path_column=jpg",
    ),
    "two members that could be the label": (
        [*samples(LABELS), ("0001.label", b"x")],
        r"'cls' and 'label' could each be the label; set data\.label_column",
    ),
    "two fields that could be the label": (
        [(n, c.replace(b'"caption"', b'"class"')) for n, c in with_json("label")],
        r"'class' and 'label' could each be the label; set data\.label_column",
    ),
    "JSON that is none": (
        [(n, b"{" if n == "0000.json" else c) for n, c in with_json("label")],
        r"a\.tar: 0000\.json: .+; mend it, or set data\.label_column to another label",
    ),
    "a field that is no name": (
        [(n, c.replace(b'"rose"', b"[1]") if n == "0004.json" else c) for n, c in with_json("label")],
        r"0004\.json: field 'label' is \[1\], which is no name or number of a class",
    ),
    "halves inside: `train/1.jpg`, no labels": (
        [(f"{'train' if i % 2 else 'val'}/{i}.jpg", encoded(i)) for i in range(6)],
        r"begin with the halves of a split \(train, val\); unpack them \(tar xf\) and give that folder",
    ),
    "names that lead out of their folder": (
        [*samples(LABELS), ("../x.jpg", encoded(0))],
        r"'\.\./x\.jpg' leads out of its folder; write the tar anew",
    ),
    "no photos": (
        [("a.txt", b"x"), ("a.cls", b"x")],
        r"no photo that can be read in 1 tar files; they hold none",
    ),
    "photos none of which can be read": (
        [("a.jpg", b"x"), ("a.cls", b"x")],
        r"no photo that can be read in 1 tar files; first: a/a\.jpg: ",
    ),
    "one class": (samples(["rose", "rose"]), r"only one class is packed there \(rose\)"),
    "an empty tar": ([], r"no photo that can be read in 1 tar files"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_nobody_can_tell_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    members, match = REFUSED[kind]
    write_tar(tmp_path / "tars/a.tar", members)
    with pytest.raises(UserError, match=match) as caught:
        Photos(tmp_path / "tars")
    assert str(caught.value).startswith(str(tmp_path / "tars"))
    assert "\n" not in str(caught.value)


def test_settings_that_name_nothing_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", with_json("species"))
    with pytest.raises(
        UserError, match=r"no label 'specie' \(data\.label_column\).+mean 'species'.+; the samples"
    ):
        Photos(tmp_path / "tars", label_column="specie")
    with pytest.raises(
        UserError, match=r"no photo that can be read .+ data\.path_column names another suffix"
    ):
        Photos(tmp_path / "tars", label_column="species", path_column="png")
    with pytest.raises(UserError, match=r"data\.label_separator is of tables, .+ in a table"):
        Photos(tmp_path / "tars", label_separator=",")
    with pytest.raises(UserError, match=r"data\.label_columns is of tables, .+ in a table"):
        Photos(tmp_path / "tars", label_columns="*")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:3300])


def cut_in_a_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:3000])


def damaged(file: Path) -> None:
    """Behind the first member."""
    content = bytearray(file.read_bytes())
    content[1536 : 1536 + 512] = b"x" * 512
    file.write_bytes(content)


def joined(file: Path) -> None:
    file.write_bytes(file.read_bytes() * 2)


def garbage(file: Path) -> None:
    file.write_bytes(b"no tar " * 500)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def negative(file: Path) -> None:
    """A header whose size is less than nothing, with its checksum mended."""
    content = bytearray(file.read_bytes())
    second = bytearray(content[:512])
    second[124:136] = (-512 & (1 << 96) - 1).to_bytes(12, "big")
    second[148:156] = b" " * 8
    second[148:156] = b"%06o\0 " % sum(second)
    content[:512] = second
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (cut, r"no tar file that can be read \(unexpected end of data\); copy it again, or leave it out"),
        (cut_in_a_header, r"damaged or cut at byte 2560, and nothing behind is read; copy it again"),
        (damaged, r"damaged or cut at byte 1536, and nothing behind is read; copy it again"),
        (joined, r"another tar follows behind its end; join them with `tar -A`, not `cat`"),
        (garbage, r"no tar file that can be read"),
        (empty, r"no tar file that can be read|no photo that can be read"),
        (negative, r"no tar file that can be read"),
    ],
)
def test_tars_that_are_damaged_are_refused(tmp_path: Path, harm: Callable[[Path], None], match: str) -> None:
    file = write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    harm(file)
    with pytest.raises(UserError, match=match):
        Photos(tmp_path / "tars")


def test_a_tar_without_its_end_is_read_and_said(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    with tarfile.open(file) as tar:
        last = tar.getmembers()[-1]
    file.write_bytes(file.read_bytes()[: last.offset_data + 512])
    found = Photos(tmp_path / "tars")
    assert len(found) == len(LABELS)
    assert "tar files without the blocks that end one, perhaps cut: 1" in found.notes


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_compressed_tars_are_refused(tmp_path: Path, name: str) -> None:
    file = write_tar(tmp_path / "tars/plain.tar", samples(LABELS))
    (tmp_path / "tars" / name).write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(
        UserError, match=rf"{re.escape(name)}: compressed, so .+; unpack it to a plain \.tar \(gunzip"
    ):
        Photos(tmp_path / "tars")


def test_halves_that_nobody_can_tell_are_refused(tmp_path: Path) -> None:
    for name in ("train-0.tar", "val-0.tar", "more.tar"):
        write_tar(tmp_path / "tars" / name, samples(LABELS))
    match = r"train-0\.tar is named as the half of a split, more\.tar as none; .+ data\.layout=classes"
    with pytest.raises(UserError, match=match):
        Photos(tmp_path / "tars")
    assert len(Photos(tmp_path / "tars", layout="classes")) == 3 * len(LABELS)


def test_photos_in_folders_come_before_tars_beside_them(tmp_path: Path) -> None:
    expected = as_folder(tmp_path / "photos", LABELS)
    write_tar(tmp_path / "photos/backup.tar", samples(LABELS))
    assert Photos(tmp_path / "photos").table.shards is None
    assert_same(Photos(tmp_path / "photos"), expected)


def test_photos_right_beside_tars_are_left_out_and_said(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    (tmp_path / "tars/sheet.jpg").write_bytes(encoded(0))
    found = Photos(tmp_path / "tars")
    assert len(found) == len(LABELS)
    assert "left out, photos that lie beside the tar files: sheet.jpg" in found.notes


def test_tars_elsewhere_are_left_out_and_said(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    write_tar(tmp_path / "tars/sub/b.tar", samples(LABELS))
    (tmp_path / "tars/gone.tar").symlink_to(tmp_path / "nowhere.tar")
    found = Photos(tmp_path / "tars")
    assert len(found) == len(LABELS)
    said = "left out, tar files in other folders and links that lead nowhere: gone.tar, sub/"
    assert said in found.notes


def test_a_tar_as_data_is_told_from_its_folder(tmp_path: Path) -> None:
    write_tar(tmp_path / "tars/a.tar", samples(LABELS))
    for name in ("a.tar", "a-{000..003}.tar"):
        with pytest.raises(UserError, match=r"; give the folder that the tar files are in"):
            Photos(tmp_path / "tars" / name)


def test_our_own_shards_without_their_index_are_no_strangers(tmp_path: Path) -> None:
    """Where nothing else of ours is left, they are read as what they are: numbers for classes."""
    write_tar(tmp_path / "tars/shard-000000.tar", samples(["0", "1", "0"]))
    assert Photos(tmp_path / "tars").classes == ("0", "1")
    (tmp_path / "tars/flowerfast-pack.json").write_text("{}")
    with pytest.raises(UserError, match=rf"holds shards without their index, {INDEX}"):
        Photos(tmp_path / "tars")


ALONE = {
    "`KEY.jpg` and `KEY.cls`, numbers, by webdataset's ShardWriter": (
        test_shards_of_webdatasets_writer_are_the_photos_in_folders
    ),
    "JPEG and PNG, a key again in another tar": (
        test_formats_may_differ_and_a_key_may_come_again_in_another_tar
    ),
    "`train-*.tar` and `*-validation-*.tar`": test_halves_are_told_by_the_words_of_names,
    "samples without a photo": test_damaged_photos_are_named_and_counted,
    "photos that are damaged": test_damaged_photos_are_named_and_counted,
    "links and devices": test_links_are_left_out_and_said,
    "a tar without the blocks at its end": test_a_tar_without_its_end_is_read_and_said,
    "`.tar.gz`, `.tgz`": test_compressed_tars_are_refused,
    "a tar that is cut or damaged, or two joined by `cat`": test_tars_that_are_damaged_are_refused,
    "`train-*.tar` and `val-*.tar` beside others": test_halves_that_nobody_can_tell_are_refused,
}
"""Rows of the page that are tests of their own."""


def test_every_row_of_the_page_is_a_test() -> None:
    page = (Path(__file__).parents[2] / "docs/shards.md").read_text(encoding="utf-8")
    table = page.partition("| in the tar files |")[2].partition("\n\n")[0].splitlines()[2:]
    rows = dict(row.strip("| ").split(" | ") for row in table)
    refused = {row for row, end in rows.items() if end == "refused"}
    assert refused - {*ALONE} == {*REFUSED}
    assert {*rows} - refused - {*ALONE} == {*READ}
    assert {*ALONE} <= {*rows}
    for row, (_, settings) in READ.items():
        assert [f"`data.{name}`" in rows[row] for name in settings] == [True] * len(settings)
