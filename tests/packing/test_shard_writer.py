"""The shards: what other readers find in them, and the same bytes however often packing was killed."""

import gc
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import webdataset
from PIL import Image

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos

Write = Callable[..., Path]
SMALL = PackSettings(shard_bytes=20_480)
CONFIG = DataConfig(workers=2)


def content(folder: Path) -> dict[str, bytes]:
    """Bytes of every file, by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


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


def test_tar_lists_two_plain_members_per_photo(photo_folder: Write, tmp_path: Path) -> None:
    pack(photo_folder(), tmp_path / "out", PackSettings(), CONFIG)
    with tarfile.open(tmp_path / "out/shard-000000.tar") as tar:
        members = tar.getmembers()
    keys = [member.name.split(".")[0] for member in members]
    assert keys[::2] == keys[1::2]
    assert {member.name.split(".", 1)[1] for member in members} == {"cls", "jpg"}
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    assert not any(member.pax_headers for member in members)


def test_a_second_run_gives_the_same_bytes_with_any_number_of_threads(
    photo_folder: Write, tmp_path: Path
) -> None:
    photos, settings = photo_folder(), replace(SMALL, max_side=24)
    for workers in (1, 2, 7):
        pack(photos, tmp_path / str(workers), settings, DataConfig(workers=workers))
    first = content(tmp_path / "1")
    assert len([name for name in first if name.endswith(".tar")]) > 1
    assert content(tmp_path / "2") == content(tmp_path / "7") == first


def test_a_finished_run_is_not_repeated_and_not_overwritten(photo_folder: Write, tmp_path: Path) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    first = pack(photos, out, SMALL, CONFIG)
    before = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    again = pack(photos, out, SMALL, CONFIG)
    assert again == replace(first, fresh=False)
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before
    with pytest.raises(UserError, match=r"out: holds shards of other photos or settings"):
        pack(photos, out, replace(SMALL, max_side=20), CONFIG)
    (photos / "daisy/daisy_000.jpg").unlink()
    with pytest.raises(UserError, match=r"out: holds shards of other photos or settings"):
        pack(photos, out, SMALL, CONFIG)
    assert {p: p.stat().st_mtime_ns for p in out.iterdir()} == before


def test_shards_keep_to_their_size(photo_folder: Write, tmp_path: Path) -> None:
    result = pack(photo_folder(), tmp_path / "out", SMALL, CONFIG)
    sizes = [p.stat().st_size for p in sorted((tmp_path / "out").glob("*.tar"))]
    assert result.shards == len(sizes) > 1
    assert result.bytes_after == sum(sizes)
    assert max(sizes) <= SMALL.shard_bytes
    assert min(sizes[:-1]) > SMALL.shard_bytes / 2


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


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_killed_run_goes_on_with_the_same_bytes(photo_folder: Write, tmp_path: Path, finished: int) -> None:
    photos, settings = photo_folder({"a": 12, "b": 11}, sizes=[(90, 70)]), PackSettings(40, 90, 10_240)
    pack(photos, tmp_path / "undisturbed", settings, CONFIG)
    out = tmp_path / "killed"
    code = (
        "import time\nfrom pathlib import Path\nfrom flowerfast.packing import pack as p\n"
        "from flowerfast.config import DataConfig\n"
        "prepare = p._prepare\n"
        "p._prepare = lambda *a: (time.sleep(0.05), prepare(*a))[1]\n"
        f"photos, out = Path({str(photos)!r}), Path({str(out)!r})\n"
        "p.pack(photos, out, p.PackSettings(40, 90, 10_240), DataConfig(workers=2))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len(list((out / ".packing").glob("*.npz"))) >= finished and list(out.glob("*.tar.partial")):
            break
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    kept = {p: p.stat().st_mtime_ns for p in out.glob("*.tar")}
    parts = len(list((out / ".packing").glob("*.npz")))
    assert finished <= parts < len(list((tmp_path / "undisturbed").glob("*.tar")))
    with pytest.raises(UserError, match="packing was not finished"):
        Photos(out)
    pack(photos, out, settings, CONFIG)
    assert content(out) == content(tmp_path / "undisturbed")
    same = [p for p, changed in kept.items() if p.stat().st_mtime_ns == changed]
    assert len(same) >= parts  # finished shards were not written again


def test_other_settings_after_a_kill_start_anew(photo_folder: Write, tmp_path: Path) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    pack(photos, out, SMALL, CONFIG)
    (out / "flowerfast-index.npz").unlink()  # as if killed just before the end
    (out / ".packing").mkdir()
    (out / "shard-000009.tar.partial").write_bytes(b"x")
    other = replace(SMALL, shard_bytes=40_960)
    pack(photos, out, other, CONFIG)
    pack(photos, tmp_path / "fresh", other, CONFIG)
    assert content(out) == content(tmp_path / "fresh")


def test_a_finished_shard_that_was_cut_is_packed_again(photo_folder: Write, tmp_path: Path) -> None:
    photos, out = photo_folder(), tmp_path / "out"

    class Stop(Exception):
        pass

    def interrupt(done: int, _: int) -> None:
        if done == 14:
            raise Stop

    with pytest.raises(Stop):
        pack(photos, out, SMALL, CONFIG, bars=lambda _: nullcontext(interrupt))
    assert not list(out.glob("*.partial"))
    first = out / "shard-000000.tar"
    first.write_bytes(first.read_bytes()[:-1])
    pack(photos, out, SMALL, CONFIG)
    pack(photos, tmp_path / "fresh", SMALL, CONFIG)
    assert content(out) == content(tmp_path / "fresh")


@pytest.mark.parametrize("what", ["file", "folder", "photos"])
def test_a_folder_that_holds_something_else_is_left_alone(
    photo_folder: Write, tmp_path: Path, what: str
) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    if what == "photos":
        out = photos
    elif what == "file":
        out.write_text("x")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("x")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"(cannot be written|is neither empty nor of packed photos)"):
        pack(photos, out, SMALL, CONFIG)
    assert content(tmp_path) == before


def test_plain_json_tells_other_readers_the_classes(photo_folder: Write, tmp_path: Path) -> None:
    pack(photo_folder(), tmp_path / "out", SMALL, CONFIG)
    state = json.loads((tmp_path / "out/flowerfast-pack.json").read_text())
    assert state["classes"] == ["daisy", "rose", "tulip"]
    assert state["settings"] == {"max_side": None, "quality": 90, "shard_bytes": SMALL.shard_bytes}
    assert not (tmp_path / "out/.packing").exists()


def test_shards_can_be_packed_again(photo_folder: Write, tmp_path: Path) -> None:
    photos = photo_folder()
    pack(photos, tmp_path / "large", SMALL, CONFIG)
    pack(tmp_path / "large", tmp_path / "small", replace(SMALL, max_side=24), CONFIG)
    pack(photos, tmp_path / "direct", replace(SMALL, max_side=24), CONFIG)
    once, twice = content(tmp_path / "direct"), content(tmp_path / "small")
    assert once.pop("flowerfast-pack.json") != twice.pop("flowerfast-pack.json")  # another source
    assert once == twice
