"""Packing: what is in the tars, same bytes however often it was killed, shrinking, what is refused."""

import gc
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

import flowerfast.data.shard_writer as writer_module
from flowerfast.config import DataConfig
from flowerfast.data.manifest import load_manifest
from flowerfast.data.shard_writer import PackSettings
from flowerfast.errors import UserError
from flowerfast.pack import damaged, in_order, pack, shard_order
from flowerfast.progress import RunFailed

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
    manifest = load_manifest(photos)
    samples = stock_reader(tmp_path / "out")
    assert sorted(s["__key__"] for s in samples) == [f"{i:09d}" for i in range(len(manifest))]
    for sample in samples:
        row = int(sample["__key__"])
        assert sample["jpg"] == (photos / manifest.path(row)).read_bytes()
        assert int(sample["cls"]) == manifest.label[row]
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


def test_classes_are_mixed_along_the_shards() -> None:
    label = np.repeat(np.arange(4), 500)
    order = shard_order(np.zeros(2000, np.uint8))
    assert np.array_equal(np.sort(order), np.arange(2000))
    for piece in np.split(label[order], 20):
        assert np.bincount(piece, minlength=4).min() > 5
    fold = np.random.default_rng(0).integers(1, 3, 2000)
    assert np.array_equal(fold[shard_order(fold)], np.sort(fold))


def test_large_photos_are_shrunk_to_their_short_side_and_others_copied(
    tmp_path: Path, write_photo: Write
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    sizes = {"wide": (160, 80), "tall": (50, 200), "square": (41, 41), "small": (40, 90), "tiny": (8, 8)}
    for name, size in sizes.items():
        write_photo(photos / "a" / f"{name}.png", size, 1)
    result = pack(photos, out, PackSettings(max_side=40, quality=95), CONFIG)
    assert (result.photos, result.shrunk) == (5, 3)
    shards, folder = load_manifest(out, min_classes=1), load_manifest(photos, min_classes=1)
    found = {Path(shards.path(i)).stem: i for i in range(5)}
    assert {n: (shards.width[i], shards.height[i]) for n, i in found.items()} == {
        "wide": (80, 40), "tall": (40, 160), "square": (40, 40), "small": (40, 90), "tiny": (8, 8),
    }  # fmt: skip
    for name, i in found.items():
        with Image.open(io.BytesIO(shards.read(i).tobytes())) as image:
            assert image.size == (shards.width[i], shards.height[i])
            kind = "JPEG" if name in ("wide", "tall", "square") else "PNG"
            assert image.format == kind
            assert f".{ {'JPEG': 'jpg', 'PNG': 'png'}[kind] } " in shards.where(i)
            with Image.open(photos / f"a/{name}.png") as original:
                expected = original.resize(image.size, Image.Resampling.BILINEAR)
            apart = np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16))
            assert apart.mean() < (4 if kind == "JPEG" else 0.01)
    assert shards.paths() == folder.paths()


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
    assert names == {"000000000.jpg", "000000001.jpg", "000000002.webp", "000000003.bmp", "000000004.jpg"}


def test_bad_files_are_left_out_named_and_counted(photo_folder: Write, tmp_path: Path) -> None:
    photos = photo_folder({"a": 6, "b": 6}, sizes=[(60, 50)])
    (photos / "a/a_000.jpg").write_bytes(b"no photo")
    whole = (photos / "b/b_003.jpg").read_bytes()
    (photos / "b/b_003.jpg").write_bytes(whole[: len(whole) * 3 // 4])  # its header is fine
    lenient = DataConfig(workers=2, max_bad=0.5)
    result = pack(photos, tmp_path / "out", replace(SMALL, max_side=32), lenient)
    assert {bad.path for bad in result.bad} == {"a/a_000.jpg", "b/b_003.jpg"}
    assert (result.photos, result.shrunk) == (10, 10)
    shards = load_manifest(tmp_path / "out")
    assert len(shards) == 10
    assert not {"a/a_000.jpg", "b/b_003.jpg"} & set(shards.paths())
    assert np.array_equal(shards.label, [0] * 5 + [1] * 5)
    assert pack(photos, tmp_path / "out", replace(SMALL, max_side=32), lenient) == replace(
        result, fresh=False
    )
    copied = pack(
        photos, tmp_path / "copied", SMALL, lenient
    )  # without decoding, its damage is carried along
    assert (copied.photos, [bad.path for bad in copied.bad]) == (11, ["a/a_000.jpg"])
    with pytest.raises(UserError, match=r"2 of 12 files cannot be read, more than data\.max_bad=0\.1"):
        pack(photos, tmp_path / "strict", replace(SMALL, max_side=32), DataConfig(max_bad=0.1))
    with pytest.raises(UserError, match=r"a/a_000\.jpg: not an image.*data\.on_bad=skip"):
        pack(photos, tmp_path / "fail", SMALL, DataConfig(on_bad="fail"))
    assert not (tmp_path / "fail").exists()


def test_a_photo_that_changes_after_the_scan_is_bad(
    photo_folder: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = photo_folder({"a": 3, "b": 3})
    begin = writer_module.open_writer

    def change(*args: Any) -> object:
        with (photos / "a/a_001.jpg").open("ab") as file:
            file.write(b"more")
        return begin(*args)

    monkeypatch.setattr("flowerfast.pack.open_writer", change)
    result = pack(photos, tmp_path / "out", SMALL, CONFIG)
    assert [bad.path for bad in result.bad] == ["a/a_001.jpg"]
    assert "changed since" in result.bad[0].error


def test_shards_can_be_packed_again(photo_folder: Write, tmp_path: Path) -> None:
    photos = photo_folder()
    pack(photos, tmp_path / "large", SMALL, CONFIG)
    pack(tmp_path / "large", tmp_path / "small", replace(SMALL, max_side=24), CONFIG)
    pack(photos, tmp_path / "direct", replace(SMALL, max_side=24), CONFIG)
    once, twice = content(tmp_path / "direct"), content(tmp_path / "small")
    assert once.pop("flowerfast-pack.json") != twice.pop("flowerfast-pack.json")  # another source
    assert once == twice


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_killed_run_goes_on_with_the_same_bytes(photo_folder: Write, tmp_path: Path, finished: int) -> None:
    photos, settings = photo_folder({"a": 12, "b": 11}, sizes=[(90, 70)]), PackSettings(40, 90, 10_240)
    pack(photos, tmp_path / "undisturbed", settings, CONFIG)
    out = tmp_path / "killed"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom flowerfast import pack as p\n"
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
        load_manifest(out)
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
        pack(photos, out, SMALL, CONFIG, bars=lambda _: Bar(interrupt))
    assert not list(out.glob("*.partial"))
    first = out / "shard-000000.tar"
    first.write_bytes(first.read_bytes()[:-1])
    pack(photos, out, SMALL, CONFIG)
    pack(photos, tmp_path / "fresh", SMALL, CONFIG)
    assert content(out) == content(tmp_path / "fresh")


class Bar:
    """A progress bar that calls a function."""

    def __init__(self, show: Callable[[int, int], None]) -> None:
        self.show = show

    def __enter__(self) -> Callable[[int, int], None]:
        return self.show

    def __exit__(self, *_: object) -> None:
        pass


def test_progress_counts_what_an_earlier_run_has_done(photo_folder: Write, tmp_path: Path) -> None:
    photos, told = photo_folder(), list[tuple[int, int]]()

    def stop_at_ten(done: int, total: int) -> None:
        if done == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(photos, tmp_path / "out", SMALL, CONFIG, bars=lambda _: Bar(stop_at_ten))
    pack(photos, tmp_path / "out", SMALL, CONFIG, bars=lambda _: Bar(lambda *a: told.append(a)))
    assert told[-1] == (15, 15)
    assert [done for done, _ in told] == list(range(told[0][0], 16))
    assert 1 < told[0][0] < 14


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


def test_a_full_disk_is_told_in_one_line_and_the_run_can_go_on(photo_folder: Write, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    photos, out = photo_folder(sizes=[(300, 200)]), tmp_path / "out"
    load_manifest(photos)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(RunFailed, match=r"out: cannot be written \(.+\); make room, then run the same"):
            pack(photos, out, PackSettings(), CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(out.glob("*.partial"))
    pack(photos, out, PackSettings(), CONFIG)
    assert damaged(out) == []


def test_verify_names_photos_that_were_altered(photo_folder: Write, tmp_path: Path) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    pack(photos, out, SMALL, CONFIG)
    assert damaged(out, threads=2) == []
    shards = load_manifest(out)
    assert shards.shards is not None
    name = out / shards.where(7).split(": ")[0]
    altered = bytearray(name.read_bytes())
    altered[int(shards.shards.offset[7]) + 20] ^= 1
    name.write_bytes(altered)
    assert damaged(out) == [shards.where(7)]
    with pytest.raises(UserError, match="no packed photos there"):
        damaged(photos)


def test_results_come_in_order_and_few_are_under_way() -> None:
    started: list[int] = []
    taken = 0

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.003 * (item % 3))
        return item * item

    with ThreadPoolExecutor(3) as pool:
        for i, square in enumerate(in_order(pool, work, iter(range(40)), 5)):
            assert square == i * i
            taken += 1
            assert len(started) <= taken + 5
    assert taken == 40


def test_plain_json_tells_other_readers_the_classes(photo_folder: Write, tmp_path: Path) -> None:
    pack(photo_folder(), tmp_path / "out", SMALL, CONFIG)
    state = json.loads((tmp_path / "out/flowerfast-pack.json").read_text())
    assert state["classes"] == ["daisy", "rose", "tulip"]
    assert state["settings"] == {"max_side": None, "quality": 90, "shard_bytes": SMALL.shard_bytes}
    assert not (tmp_path / "out/.packing").exists()
