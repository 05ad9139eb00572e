"""What other readers find in the shards: webdataset, DALI, Hugging Face datasets, tar."""

import gc
import json
import tarfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

from flowerfast.config import DataConfig
from flowerfast.packing.pack import pack, shard_order
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.packing.tar_shard import Label, OpenShard
from flowerfast.packing.tar_shard import Photo as TarPhoto
from flowerfast.photos.photos import Photos

Write = Callable[..., Path]
SMALL = PackSettings(shard_bytes=20_480)
CONFIG = DataConfig(workers=2)


def stock_reader(folder: Path, stages: Callable[[Any], Any] = lambda dataset: dataset) -> list[Any]:
    """What webdataset itself makes of the shards."""
    urls = sorted(map(str, folder.glob("*.tar")))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves closing its files to the collector
        samples = list(stages(webdataset.WebDataset(urls, shardshuffle=False)))
        gc.collect()
    return samples


def test_webdataset_reads_the_original_bytes_and_labels(photo_folder: Write, tmp_path: Path) -> None:
    photos = photo_folder()
    pack(photos, tmp_path / "out", SMALL, CONFIG)
    table = Photos(photos).table
    samples = stock_reader(tmp_path / "out")
    assert sorted(s["__key__"] for s in samples) == [f"{i:09d}" for i in range(len(table))]
    for sample in samples:
        row = int(sample["__key__"])
        assert sample["jpg"] == (photos / table.path(row)).read_bytes()
        assert int(sample["cls"]) == table.label[row]
    pictures = stock_reader(tmp_path / "out", lambda d: d.decode("pil").to_tuple("jpg", "cls"))
    assert all(isinstance(picture, Image.Image) and isinstance(label, int) for picture, label in pictures)


MIXED = (".jpg", ".png", ".webp", ".bmp")


@pytest.fixture
def mixed(write_photo: Write, tmp_path: Path) -> Path:
    """Two classes of ten photos of four formats; those that lie first in the shards are all JPEG."""
    order = shard_order(np.zeros(20, np.uint8)).tolist()
    for place, row in enumerate(order):
        suffix = MIXED[place % 4] if place >= 8 else ".jpg"
        write_photo(tmp_path / "mixed" / "ab"[row // 10] / f"{row % 10}{suffix}", seed=row)
    return tmp_path / "mixed"


@pytest.mark.parametrize(("jpeg", "names"), [(False, "jpg;png;webp;bmp"), (True, "jpg")])
def test_webdataset_reads_photos_of_all_formats(mixed: Path, tmp_path: Path, jpeg: bool, names: str) -> None:
    result = pack(mixed, tmp_path / "out", replace(SMALL, jpeg=jpeg), CONFIG)
    table, suffixes = Photos(mixed).table, Counter(path.suffix[1:] for path in mixed.glob("*/*"))
    assert result.suffixes == ({"jpg": 20} if jpeg else suffixes)
    assert (result.recoded, result.shrunk) == (20 - suffixes["jpg"] if jpeg else 0, 0)
    samples = stock_reader(tmp_path / "out", lambda d: d.decode("pil").to_tuple("__key__", names, "cls"))
    assert sorted((int(key), label) for key, _, label in samples) == [*enumerate(table.label.tolist())]
    assert all(picture.size == (40, 30) for _, picture, _ in samples)


@pytest.mark.parametrize(("jpeg", "names"), [(False, "jpg;png;webp;bmp"), (True, "jpg")])
def test_dali_reads_photos_of_all_formats(mixed: Path, tmp_path: Path, jpeg: bool, names: str) -> None:
    dali = pytest.importorskip("nvidia.dali")
    pack(mixed, tmp_path / "out", replace(SMALL, jpeg=jpeg), CONFIG)
    pipe = dali.Pipeline(batch_size=20, num_threads=2, device_id=None)
    with pipe:
        encoded, label = dali.fn.readers.webdataset(
            paths=sorted(map(str, (tmp_path / "out").glob("*.tar"))),
            ext=[names, "cls"],
            missing_component_behavior="error",
            name="reader",
        )
        pipe.set_outputs(dali.fn.decoders.image(encoded, device="cpu"), label)
    pipe.build()
    assert pipe.epoch_size("reader") == 20
    pictures, labels = pipe.run()
    assert {np.array(picture).shape for picture in pictures} == {(30, 40, 3)}
    assert Counter(bytes(np.array(one)) for one in labels) == {b"0": 10, b"1": 10}


def test_hugging_face_datasets_reads_one_format_and_gives_none_for_others(
    mixed: Path, tmp_path: Path
) -> None:
    """The latter is what `pack` warns of; should it change, so should the words."""
    datasets = pytest.importorskip("datasets")
    found = {}
    for name in ("as they are", "alike"):
        pack(mixed, tmp_path / name, replace(SMALL, jpeg=name == "alike"), CONFIG)
        files = {"train": sorted(map(str, (tmp_path / name).glob("*.tar")))}
        found[name] = [*datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)]
    assert Counter(sample["cls"] for sample in found["alike"]) == {0: 10, 1: 10}
    assert all(sample["jpg"].size == (40, 30) for sample in found["alike"])
    others = sum(path.suffix != ".jpg" for path in mixed.glob("*/*"))
    assert sum(sample["jpg"] is None for sample in found["as they are"]) == others == 9


def test_tar_lists_two_plain_members_per_photo(photo_folder: Write, tmp_path: Path) -> None:
    pack(photo_folder(), tmp_path / "out", PackSettings(), CONFIG)
    with tarfile.open(tmp_path / "out/shard-000000.tar") as tar:
        members = tar.getmembers()
    keys = [member.name.split(".")[0] for member in members]
    assert keys[::2] == keys[1::2]
    assert {member.name.split(".", 1)[1] for member in members} == {"cls", "jpg"}
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    assert not any(member.pax_headers for member in members)


def test_names_stay_below_what_dali_reads(tmp_path: Path) -> None:
    """Names of more than 100 bytes, or not ASCII, take a PAX header, of which its reader knows nothing."""
    shard = OpenShard(tmp_path / "x.tar", 0)
    for row in (0, 10**9, 2**63 - 1):
        shard.add(row, Label("cls", str(2**31 - 1).encode()), TarPhoto(np.zeros(5, np.uint8), "jpg", 1, 1, 1))
    shard.finish()
    with tarfile.open(tmp_path / "x.tar") as tar:
        members = tar.getmembers()
    assert len(members) == 6
    assert all(member.name.isascii() and len(member.name) < 96 for member in members)
    assert not any(member.pax_headers for member in members)


def test_the_extension_follows_the_content(tmp_path: Path, write_photo: Write) -> None:
    photos = tmp_path / "photos"
    write_photo(photos / "a/1.JPEG")
    write_photo(photos / "a/2.png", format="JPEG")
    write_photo(photos / "a/3.webp")
    write_photo(photos / "a/4.bmp")
    write_photo(photos / "a/5.jpg", format="GIF")
    pack(photos, tmp_path / "out", PackSettings(), CONFIG)
    with tarfile.open(tmp_path / "out/shard-000000.tar") as tar:
        names = {name for name in tar.getnames() if not name.endswith(".cls")}
    assert names == {"000000000.jpg", "000000001.jpg", "000000002.webp", "000000003.bmp", "000000004.gif"}


def test_plain_json_tells_other_readers_the_classes(photo_folder: Write, tmp_path: Path) -> None:
    pack(photo_folder(), tmp_path / "out", SMALL, CONFIG)
    state = json.loads((tmp_path / "out/flowerfast-pack.json").read_text())
    assert state["classes"] == ["daisy", "rose", "tulip"]
    assert state["settings"] == {"max_side": None, "quality": 90, "shard_bytes": SMALL.shard_bytes}
    assert not (tmp_path / "out/.packing").exists()
