"""Packing photos: order, shrinking, what is left out, progress, a full disk, checking what was packed."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError
from flowerfast.machine import ProgressBars
from flowerfast.packing import target
from flowerfast.packing.pack import pack, shard_order
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.packing.verify import damaged
from flowerfast.photos.photos import Photos
from flowerfast.pixels.reference import resize
from flowerfast.plans.geometry import limited

Write = Callable[..., Path]
SMALL = PackSettings(shard_bytes=20_480)
CONFIG = DataConfig(workers=2)


def test_classes_are_mixed_along_the_shards() -> None:
    label = np.repeat(np.arange(4), 500)
    order = shard_order(np.zeros(2000, np.uint8))
    assert np.array_equal(np.sort(order), np.arange(2000))
    for piece in np.split(label[order], 20):
        assert np.bincount(piece, minlength=4).min() > 5
    fold = np.random.default_rng(0).integers(1, 3, 2000)
    assert np.array_equal(fold[shard_order(fold)], np.sort(fold))


def test_one_process_packs_into_a_folder_and_others_are_told(photo_folder: Write, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    photos, out = photo_folder(), tmp_path / "deep/out"
    refused: list[str] = []

    @contextmanager
    def bars(what: str) -> Iterator[None]:
        if what == "packing":
            with pytest.raises(UserError) as caught:
                pack(photos, out, SMALL, CONFIG)
            refused.append(str(caught.value))
        yield

    pack(photos, out, SMALL, CONFIG, bars)
    assert refused[0].startswith(f"{out}: another process")
    assert refused[0].endswith(" is writing to it; wait for it to end, or name another folder")
    assert not pack(photos, out, SMALL, CONFIG).fresh
    assert not damaged(out)


def test_large_photos_are_shrunk_to_their_short_side_and_others_copied(
    tmp_path: Path, write_photo: Write
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    sizes = {"wide": (160, 80), "tall": (50, 200), "square": (41, 41), "small": (40, 90), "tiny": (8, 8)}
    for name, size in sizes.items():
        write_photo(photos / "a" / f"{name}.png", size, 1)
    result = pack(photos, out, PackSettings(max_side=40, quality=95), CONFIG)
    assert (result.photos, result.shrunk) == (5, 3)
    shards, folder = Photos(out, min_classes=1), Photos(photos, min_classes=1)
    found = {Path(shards.path(i)).stem: i for i in range(5)}
    sizes_now = list(zip(*(side.tolist() for side in shards.sizes(shards.indices)), strict=True))
    assert {name: sizes_now[i] for name, i in found.items()} == {
        "wide": (80, 40), "tall": (40, 160), "square": (40, 40), "small": (40, 90), "tiny": (8, 8),
    }  # fmt: skip
    for name, i in found.items():
        with Image.open(io.BytesIO(shards.read_one(i).tobytes())) as image:
            assert image.size == sizes_now[i]
            kind = "JPEG" if name in ("wide", "tall", "square") else "PNG"
            assert image.format == kind
            assert f".{ {'JPEG': 'jpg', 'PNG': 'png'}[kind] } " in shards.where(i)
            with Image.open(photos / f"a/{name}.png") as original:
                expected = original.resize(image.size, Image.Resampling.BILINEAR)
            apart = np.abs(np.asarray(image, np.int16) - np.asarray(expected, np.int16))
            assert apart.mean() < (4 if kind == "JPEG" else 0.01)
    assert shards.table.paths() == folder.table.paths()


def test_bad_files_are_left_out_named_and_counted(photo_folder: Write, tmp_path: Path) -> None:
    photos = photo_folder({"a": 6, "b": 6}, sizes=[(60, 50)])
    (photos / "a/a_000.jpg").write_bytes(b"no photo")
    whole = (photos / "b/b_003.jpg").read_bytes()
    (photos / "b/b_003.jpg").write_bytes(whole[: len(whole) * 3 // 4])  # its header is fine
    lenient = DataConfig(workers=2, max_bad=0.5)
    result = pack(photos, tmp_path / "out", replace(SMALL, max_side=32), lenient)
    assert {bad.path for bad in result.bad} == {"a/a_000.jpg", "b/b_003.jpg"}
    assert (result.photos, result.shrunk) == (10, 10)
    shards = Photos(tmp_path / "out")
    assert len(shards) == 10
    assert not {"a/a_000.jpg", "b/b_003.jpg"} & set(shards.table.paths())
    assert np.array_equal(shards.labels, [0] * 5 + [1] * 5)
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
    begin = target.open_writer

    def change(*args: Any) -> object:
        with (photos / "a/a_001.jpg").open("ab") as file:
            file.write(b"more")
        return begin(*args)

    monkeypatch.setattr(target, "open_writer", change)
    result = pack(photos, tmp_path / "out", SMALL, CONFIG)
    assert [bad.path for bad in result.bad] == ["a/a_001.jpg"]
    assert "changed since" in result.bad[0].error


def test_progress_counts_what_an_earlier_run_has_done(photo_folder: Write, tmp_path: Path) -> None:
    photos, told = photo_folder(), list[tuple[int, int]]()

    def stop_at_ten(done: int, total: int) -> None:
        if done == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(photos, tmp_path / "out", SMALL, CONFIG, bars=lambda _: nullcontext(stop_at_ten))
    pack(photos, tmp_path / "out", SMALL, CONFIG, bars=lambda _: nullcontext(lambda *a: told.append(a)))
    assert told[-1] == (15, 15)
    assert [done for done, _ in told] == list(range(told[0][0], 16))
    assert 1 < told[0][0] < 14


def test_a_full_disk_is_told_in_one_line_and_the_run_can_go_on(photo_folder: Write, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    photos, out = photo_folder(sizes=[(300, 200)]), tmp_path / "out"
    Photos(photos)  # its headers are kept, in a file of their own
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        with pytest.raises(
            RunFailed, match=r"out.shard-0+\.tar: cannot be written \(.+\); make room, then run the same"
        ):
            pack(photos, out, PackSettings(), CONFIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(out.glob("*.partial"))
    pack(photos, out, PackSettings(), CONFIG)
    assert damaged(out) == []


def lose_a_shard(out: Path) -> None:
    (out / "shard-000000.tar").unlink()


def cut_a_shard(out: Path) -> None:
    os.truncate(out / "shard-000000.tar", 999)


@pytest.mark.parametrize("harm", [lose_a_shard, cut_a_shard])
def test_shards_taken_away_while_it_packs_are_told_and_packed_again(
    photo_folder: Write, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    told = r"shard-000000\.tar: .+; run the same command again: it packs again from there on"
    with pytest.raises(RunFailed, match=told):
        pack(photos, out, SMALL, CONFIG, bars=at_the_fourteenth(partial(harm, out)))
    pack(photos, out, SMALL, CONFIG)
    assert damaged(out) == []


def at_the_fourteenth(act: Callable[[], object]) -> ProgressBars:
    """Bars that act when some shards are finished, and one is under way."""
    return lambda _: nullcontext(lambda done, total: act() if done == 14 else None)


@pytest.mark.parametrize("then", ["nothing", "another"])
def test_a_folder_moved_while_it_is_packed_is_told_and_goes_on_in_its_place(
    photo_folder: Write, tmp_path: Path, then: str
) -> None:
    photos, out, moved = photo_folder(), tmp_path / "out", tmp_path / "moved"

    def move() -> None:
        out.rename(moved)
        if then == "another":
            out.mkdir()

    with pytest.raises(RunFailed, match=r"out: moved, deleted or replaced .+ with its new place as OUT"):
        pack(photos, out, SMALL, CONFIG, bars=at_the_fourteenth(move))
    assert out.exists() == (then == "another")
    assert not (out.exists() and list(out.iterdir()))
    finished = {file: file.stat().st_mtime_ns for file in moved.glob("*.tar")}
    pack(photos, moved, SMALL, CONFIG)
    assert {file: file.stat().st_mtime_ns for file in finished} == finished
    assert damaged(moved) == []


def test_verify_names_photos_that_were_altered(photo_folder: Write, tmp_path: Path) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    pack(photos, out, SMALL, CONFIG)
    assert damaged(out, threads=2) == []
    shards = Photos(out)
    assert shards.table.shards is not None
    name = out / shards.where(7).split(": ")[0]
    altered = bytearray(name.read_bytes())
    altered[int(shards.table.shards.offset[7]) + 20] ^= 1
    name.write_bytes(altered)
    assert damaged(out) == [shards.where(7)]
    with pytest.raises(UserError, match="no packed photos there"):
        damaged(photos)


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_photos_that_are_shrunk_are_upright_and_copies_keep_their_exif(
    turned: tuple[Path, Path], tmp_path: Path, exif: Any
) -> None:
    """Of 64 and 131 x 97 pixels; a short side of 97 is too much."""
    result = pack(turned[0], tmp_path / "out", PackSettings(max_side=80), DataConfig(exif=exif))
    whole, shards = Photos(turned[0], exif=exif), Photos(tmp_path / "out")
    assert result.notes == whole.notes
    shrunk = np.minimum(*whole.sizes(whole.indices)) > 80
    assert result.shrunk == shrunk.sum() == 48
    for index in range(64):
        if shrunk[index]:
            assert shards.table.orientation[index] == 1
            with Image.open(io.BytesIO(shards.read_one(index).tobytes())) as image:
                assert image.format == "JPEG"
                assert not image.getexif()
            small = [side[0] for side in limited(whole.sizes(np.array([index])), 80)]
            expected = resize(whole.decode(index), small[1], small[0])
            assert np.abs(shards.decode(index).astype(int) - expected).mean() < 12
        else:
            assert shards.table.orientation[index] == whole.table.orientation[index]
            assert shards.read_one(index).tobytes() == whole.read_one(index).tobytes()
    other = DataConfig(exif="ignore" if exif == "apply" else "apply")  # other pixels
    with pytest.raises(UserError, match="holds shards of other photos or settings"):
        pack(turned[0], tmp_path / "out", PackSettings(max_side=80), other)
