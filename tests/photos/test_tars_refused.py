"""Tar files that nobody can tell what they mean, and damaged ones: refused in one line."""

import gzip
import pickle
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos
from tests.photos import test_tar_photos
from tests.photos.tars import LABELS, Members, encoded, samples, with_json, write_tar


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


ALONE = {
    "`KEY.jpg` and `KEY.cls`, numbers, by webdataset's ShardWriter": (
        test_tar_photos.test_shards_of_webdatasets_writer_are_the_photos_in_folders
    ),
    "JPEG and PNG, a key again in another tar": (
        test_tar_photos.test_formats_may_differ_and_a_key_may_come_again_in_another_tar
    ),
    "`train-*.tar` and `*-validation-*.tar`": test_tar_photos.test_halves_are_told_by_the_words_of_names,
    "samples without a photo": test_tar_photos.test_damaged_photos_are_named_and_counted,
    "photos that are damaged": test_tar_photos.test_damaged_photos_are_named_and_counted,
    "links and devices": test_tar_photos.test_links_are_left_out_and_said,
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
    assert {*rows} - refused - {*ALONE} == {*test_tar_photos.READ}
    assert {*ALONE} <= {*rows}
    for row, (_, settings) in test_tar_photos.READ.items():
        assert [f"`data.{name}`" in rows[row] for name in settings] == [True] * len(settings)
