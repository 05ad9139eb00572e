"""A scan finds each fault that was put there, and nothing else; of shards the same as of their folder."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import flowerfast as ff
from flowerfast.config import DataConfig
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.scanning.findings import Noted
from flowerfast.scanning.quarantine import copy_files
from flowerfast.scanning.scan import ScanResult, scan
from tests.zoo.pictures import structured

SINGLE = {
    "damaged": {"daisy/text.jpg", "daisy/cut.jpg"},
    "truncated": {"daisy/cut.jpg"},
    "mislabelled": {"daisy/named.jpg"},
    "tiny": {"daisy/small.png"},
    "huge": {"daisy/large.jpg"},
    "blank": {"daisy/red.png", "daisy/blue.png"},
    "grey": {"daisy/old.jpg"},
    "cmyk": {"daisy/print.jpg"},
    "turned": {"daisy/turned.png"},
}
GROUPS = {
    "exact": [{"rose/again.jpg", "rose/rose0.jpg"}],
    "near": [{"daisy/daisy1.jpg", "rose/wrong.png"}, {"daisy/turned.png", "daisy/upright.jpg"}],
    "two_classes": [{"daisy/daisy1.jpg", "rose/wrong.png"}],
}


def found(result: ScanResult) -> tuple[dict[str, set[str]], dict[str, list[set[str]]]]:
    """Paths by kind: of findings about single photos, and of those about groups."""
    single = {f.kind: {p.path for p in f.photos} for f in result.findings if f.groups is None}
    grouped = {
        f.kind: [{p.path for p in group.photos} for group in f.groups]
        for f in result.findings
        if f.groups is not None
    }
    return single, grouped


def test_each_fault_is_found_and_nothing_else(faulty: Path) -> None:
    result = ff.scan(faulty, huge=1)
    single, grouped = found(result)
    assert single == SINGLE
    halves = grouped.pop("both_halves")
    assert grouped == GROUPS
    train, val = ff.Photos(faulty, max_bad=1).split(0.2, seed=0)
    path = {
        half: {part.path(row) for row in part.indices.tolist()} for half, part in (("t", train), ("v", val))
    }
    apart = [
        group for group in (*GROUPS["exact"], *GROUPS["near"]) if group & path["t"] and group & path["v"]
    ]
    assert halves == apart
    assert result.wants_eye
    assert (result.samples, result.formats) == (19, {"JPEG": 13, "PNG": 6})
    assert [(count.name, count.photos) for count in result.classes] == [("daisy", 13), ("rose", 6)]
    assert result.imbalance == pytest.approx(13 / 6)
    assert result.sizes["width"][::2] == (20, 1100)
    for count in result.classes:
        assert sum(count.halves.values()) == count.photos
    why = {photo.path: photo.why for photo in result.finding("damaged").photos}
    assert why["daisy/text.jpg"] == "not an image"
    assert "truncated" in why["daisy/cut.jpg"]
    label = {photo.path: photo.label for photo in result.finding("damaged").photos}
    assert label == dict.fromkeys(SINGLE["damaged"], "daisy")
    assert json.loads(json.dumps(result.to_json()))["findings"][0]["count"] == 2


def test_shards_give_what_their_folder_gives(faulty: Path, tmp_path: Path) -> None:
    pack(faulty, tmp_path / "shards", PackSettings(shard_bytes=100_000), DataConfig(max_bad=1))
    loose, packed = scan(faulty, huge=1), scan(tmp_path / "shards", huge=1)
    one, other = found(loose), found(packed)
    one[0]["damaged"].remove("daisy/text.jpg")  # which has not been packed
    assert one == other
    assert loose.classes == packed.classes


def test_a_folder_with_halves_has_its_own(tmp_path: Path, write_photo: Callable[..., Path]) -> None:
    for half, seeds in (("Training", (1, 2, 3)), ("val", (4, 5)), ("test", (6,))):
        for name, more in (("a", 0), ("b", 10)):
            for seed in seeds:
                write_photo(tmp_path / half / name / f"{seed}.jpg", (80, 60), seed + more)
    (tmp_path / "val/b/bad.jpg").write_bytes(b"bad")
    result = scan(tmp_path)
    assert (result.finding("both_halves").groups, result.finding("exact").groups) == ((), ())
    assert [count.halves for count in result.classes] == [{"train": 3, "val": 2, "test": 1}] * 2
    (bad,) = result.finding("damaged").photos
    assert (bad.path, bad.label, bad.half, bad.index) == ("val/b/bad.jpg", "b", "val", None)
    assert result.split == "those of the folder"
    shutil.copy(tmp_path / "Training/a/1.jpg", tmp_path / "test/a/leak.jpg")
    (group,) = scan(tmp_path).finding("both_halves").groups or ()
    assert {photo.half for photo in group.photos} == {"train", "test"}
    assert group.exact


def test_where_no_split_can_be_made_the_rest_is_found(
    tmp_path: Path, write_photo: Callable[..., Path]
) -> None:
    write_photo(tmp_path / "a/1.jpg", (80, 60), 1)
    write_photo(tmp_path / "a/2.jpg", (80, 60), 1)
    write_photo(tmp_path / "b/1.jpg", (80, 60), 2)
    result = scan(tmp_path)
    assert result.split.startswith("none can be made (")
    assert "has 1 readable photo" in result.split
    assert [len(f.groups or ()) for f in result.findings if f.groups is not None] == [1, 0, 0, 0]
    assert not result.wants_eye


def test_a_folder_of_which_no_photo_can_be_decoded_is_scanned(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        structured(90, 80, seed=1).save(tmp_path / name / "1.jpg")
        whole = (tmp_path / name / "1.jpg").read_bytes()
        (tmp_path / name / "1.jpg").write_bytes(whole[:900])
    result = scan(tmp_path)
    assert (result.samples, result.sizes, result.imbalance, result.wants_eye) == (0, {}, None, True)
    assert "cannot be decoded" in page(result, tmp_path)


def page(result: ScanResult, folder: Path) -> str:
    result.write_html(folder / "page.html")
    return (folder / "page.html").read_text(encoding="utf-8")


def test_a_subset_speaks_of_its_own_photos(faulty: Path) -> None:
    photos = ff.Photos(faulty, max_bad=1)
    rose = photos.subset(photos.labels == 1)
    result = ff.scan(rose)
    assert result.samples == 6
    assert found(result)[0]["damaged"] == set()
    assert found(result)[1]["exact"] == GROUPS["exact"]
    assert result.finding("two_classes").photos == ()


def test_the_page_holds_names_as_text_and_so_many_pictures_and_no_more(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (faulty / "rose").rename(faulty / '<b>"rose" & {{ 7 }}\x1b[2J\u202e')
    result = scan(faulty, huge=1)
    whole = page(result, tmp_path)
    assert "<b>" not in whole.replace("<b>Some of this", "").replace("<figcaption><b>", "")
    assert "&lt;b&gt;&#34;rose&#34; &amp; {{ 7 }}\\x1b[2J\\u202e" in whole
    assert not {"\x1b", "\u202e", "<script", "http://", "https://"} & {*whole, *whole.split()}
    shown = {p.index for f in result.findings for p in f.photos} - {None}
    bad = {photo.index for photo in result.finding("damaged").photos}
    uris = {part.split('"')[0] for part in whole.split('src="')[1:]}
    assert len(uris) == len(shown - bad) - 1  # two of them are the same file
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in uris)
    monkeypatch.setattr("flowerfast.scanning.page.SHOWN", 1)
    monkeypatch.setattr("flowerfast.scanning.page.GROUPS", 1)
    monkeypatch.setattr("flowerfast.scanning.page.MEMBERS", 1)
    fewer = page(result, tmp_path)
    assert "and 1 more: --json has all." in fewer
    kinds = [
        finding
        for finding in result.findings
        if finding.photos and finding.kind not in ("damaged", "truncated")
    ]
    assert fewer.count("<img") == len(kinds)


def test_quarantine_copies_what_wants_an_eye_with_its_class_folders(faulty: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in faulty.rglob("*") if file.is_file()}
    result = scan(faulty)
    copied, left = result.quarantine(tmp_path / "apart")
    wanted = {p.path for f in result.findings if f.wants_eye for p in f.photos}
    assert {"daisy/text.jpg", "daisy/cut.jpg", "rose/wrong.png", "daisy/daisy1.jpg"} <= wanted
    made = {str(f.relative_to(tmp_path / "apart")): f for f in (tmp_path / "apart").rglob("*") if f.is_file()}
    assert ({*made}, copied, left) == (wanted, len(wanted), [])
    assert all(file.read_bytes() == before[faulty / path] for path, file in made.items())
    assert {file: file.read_bytes() for file in faulty.rglob("*") if file.is_file()} == before


def test_quarantine_of_shards_writes_the_bytes_of_their_members(faulty: Path, tmp_path: Path) -> None:
    pack(faulty, tmp_path / "shards", PackSettings(), DataConfig(max_bad=1))
    photos = ff.Photos(tmp_path / "shards")
    shards, row = (
        photos.table.shards,
        next(r for r in range(len(photos)) if photos.path(r) == "rose/rose3.jpg"),
    )
    assert shards is not None
    shard, at = tmp_path / "shards" / shards.files[0].name, int(shards.offset[row])
    content = bytearray(shard.read_bytes())
    content[at + 200] ^= 255
    shard.write_bytes(content)
    result = scan(tmp_path / "shards")
    why = {photo.path: photo.why for photo in result.finding("damaged").photos}
    assert "its bytes are not those that were packed" in why["rose/rose3.jpg"]
    _, left = result.quarantine(tmp_path / "apart")
    assert left == []
    assert (tmp_path / "apart/daisy/cut.jpg").read_bytes() == (faulty / "daisy/cut.jpg").read_bytes()
    damaged = (tmp_path / "apart/rose/rose3.jpg").read_bytes()
    assert damaged == bytes(content[at : at + (faulty / "rose/rose3.jpg").stat().st_size])


def test_quarantine_keeps_photos_apart_whose_names_are_like_those_of_files_half_written(
    faulty: Path, tmp_path: Path
) -> None:
    names = ["z.jpg.partial", "z.jpg"]  # in the order of their findings
    for name in names:
        (faulty / "daisy" / name).write_bytes((faulty / "daisy/cut.jpg").read_bytes() + name.encode())
    noted = [Noted(f"daisy/{name}", None, "daisy", "") for name in names]
    assert copy_files(ff.Photos(faulty), noted, tmp_path / "apart") == (2, [])
    assert {file.name for file in (tmp_path / "apart/daisy").iterdir()} == {*names}


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("photos/apart", "lies in .* or holds it; name a folder apart from it"),
        (".", "cannot be used .it holds something.; name a new or empty folder"),
        ("photos/rose/rose0.jpg", "is no folder; name a new or empty one"),
    ],
)
def test_quarantine_goes_nowhere_near_the_photos(faulty: Path, folder: str, said: str) -> None:
    result = scan(faulty)
    with pytest.raises(ff.UserError, match=rf"^--quarantine .*: {said}$"):
        result.quarantine(faulty.parent / folder)


def test_quarantine_that_cannot_be_made_is_told_once(
    faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = scan(faulty)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ff.UserError, match=r"^--quarantine .*: cannot be made \(Permission denied\); name"):
        result.quarantine(tmp_path / "apart")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"distance": 8}, "distance=8: give a whole number from 0 to 7"),
        ({"tiny": -1}, "tiny=-1"),
        ({"huge": "x"}, "huge='x': give megapixels"),
        ({"options": 3}, "options=3: give ff.DataConfig"),
        ({"run": "nowhere"}, "nowhere: no trained model there"),
    ],
)
def test_wrong_arguments_are_refused(faulty: Path, arguments: Any, said: str) -> None:
    with pytest.raises(ff.UserError, match=said):
        scan(faulty, **arguments)


def test_exif_ignored_makes_a_turned_photo_another(faulty: Path) -> None:
    result = scan(faulty, options=DataConfig(exif="ignore"))
    assert {"daisy/turned.png", "daisy/upright.jpg"} not in found(result)[1]["near"]
    assert found(result)[0]["turned"] == {"daisy/turned.png"}
    assert np.asarray(Image.open(faulty / "daisy/turned.png")).shape[:2] == (120, 80)
