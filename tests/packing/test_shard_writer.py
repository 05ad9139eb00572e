"""The shards: the same bytes however often packing was killed, and nothing of others overwritten."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.arrays import load_arrays, save_arrays
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX, STATE

Write = Callable[..., Path]
SMALL = PackSettings(shard_bytes=20_480)
CONFIG = DataConfig(workers=2)


def content(folder: Path) -> dict[str, bytes]:
    """Bytes of every file, by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def interrupt(photos: Path, out: Path) -> None:
    """Pack until some shards are finished."""

    def stop(done: int, _: int) -> None:
        if done == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(photos, out, SMALL, CONFIG, bars=lambda _: nullcontext(stop))
    assert list(out.glob("*.tar"))


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


def no_index(out: Path) -> None:
    (out / INDEX).unlink()


def no_index_and_notes(out: Path) -> None:
    """Of somebody, where packing has its own."""
    (out / INDEX).unlink()
    (out / ".packing").mkdir()
    (out / ".packing/notes").write_text("x")


def index_of_garbage(out: Path) -> None:
    (out / INDEX).write_bytes(b"garbage")


def index_as_folder(out: Path) -> None:
    (out / INDEX).unlink()
    (out / INDEX).mkdir()


def shard_lost(out: Path) -> None:
    (out / "shard-000001.tar").unlink()


def shard_cut(out: Path) -> None:
    os.truncate(out / "shard-000001.tar", 999)


def state_as_pipe(out: Path) -> None:
    (out / STATE).unlink()
    os.mkfifo(out / STATE)


def state_of_garbage(out: Path) -> None:
    (out / INDEX).unlink()
    (out / STATE).write_text("[")


@pytest.mark.parametrize("settings", [SMALL, replace(SMALL, max_side=24)])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_index, rf"out: holds shards without their index, {INDEX}"),
        (no_index_and_notes, rf"out: holds shards without their index, {INDEX}"),
        (index_of_garbage, rf"{INDEX}: no index of this flowerfast \(.+\)"),
        (index_as_folder, rf"{INDEX}: no index of this flowerfast \(Is a directory\)"),
        (shard_lost, r"shard-000001\.tar: no such shard, though it was packed"),
        (shard_cut, r"shard-000001\.tar: has 999 bytes, \d+ were packed"),
        (state_as_pipe, rf"{STATE}: cannot be read \(not a regular file\)"),
        (state_of_garbage, rf"{STATE}: damaged \(.+\)"),
    ],
)
def test_a_finished_folder_that_has_lost_something_is_told_and_kept(
    photo_folder: Write, tmp_path: Path, harm: Callable[[Path], None], message: str, settings: PackSettings
) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    pack(photos, out, SMALL, CONFIG)
    harm(out)
    before = content(out)
    if settings != SMALL and (out / INDEX).exists() and STATE not in message:
        message = "holds shards of other photos or settings; name another folder"
    else:
        message += "; bring back what was packed, or pack to another place"
    with pytest.raises(UserError, match=message):
        pack(photos, out, settings, CONFIG)
    assert content(out) == before


def test_shards_keep_to_their_size(photo_folder: Write, tmp_path: Path) -> None:
    result = pack(photo_folder(), tmp_path / "out", SMALL, CONFIG)
    sizes = [p.stat().st_size for p in sorted((tmp_path / "out").glob("*.tar"))]
    assert result.shards == len(sizes) > 1
    assert result.bytes_after == sum(sizes)
    assert max(sizes) <= SMALL.shard_bytes
    assert min(sizes[:-1]) > SMALL.shard_bytes / 2


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_killed_run_goes_on_with_the_same_bytes(photo_folder: Write, tmp_path: Path, finished: int) -> None:
    photos, settings = photo_folder({"a": 12, "b": 11}, sizes=[(90, 70)]), PackSettings(40, 90, 10_240)
    pack(photos, tmp_path / "undisturbed", settings, CONFIG)
    out = tmp_path / "killed"
    code = (
        "import time\nfrom pathlib import Path\nfrom flowerfast.packing import pack as p\n"
        "from flowerfast.config import DataConfig\n"
        "prepare = p.prepare\n"
        "p.prepare = lambda *a: (time.sleep(0.05), prepare(*a))[1]\n"
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
    interrupt(photos, out)
    (out / "shard-000009.tar.partial").write_bytes((out / "shard-000000.tar").read_bytes()[:100])
    other = replace(SMALL, shard_bytes=40_960)
    pack(photos, out, other, CONFIG)
    pack(photos, tmp_path / "fresh", other, CONFIG)
    assert content(out) == content(tmp_path / "fresh")


@pytest.mark.parametrize("name", ["shard-000000.tar", "shard-000009.tar"])
def test_a_shard_of_somebody_else_is_kept(photo_folder: Write, tmp_path: Path, name: str) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    interrupt(photos, out)
    (out / name).write_bytes(b"theirs".ljust(10_240))
    with pytest.raises(UserError, match=f"{name}: flowerfast did not write this; move it away"):
        pack(photos, out, replace(SMALL, shard_bytes=40_960), CONFIG)
    assert (out / name).read_bytes() == b"theirs".ljust(10_240)


def test_what_else_lies_among_the_parts_is_kept(photo_folder: Write, tmp_path: Path) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    pack(photos, out, SMALL, CONFIG)
    (out / ".packing").mkdir()
    (out / ".packing/000000.npz").write_bytes(b"ours")
    (out / ".packing/notes").write_bytes(b"theirs")
    pack(photos, out, SMALL, CONFIG)
    assert [file.name for file in (out / ".packing").iterdir()] == ["notes"]


def test_a_finished_shard_that_was_cut_is_packed_again(photo_folder: Write, tmp_path: Path) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    interrupt(photos, out)
    assert not list(out.glob("*.partial"))
    first = out / "shard-000000.tar"
    first.write_bytes(first.read_bytes()[:-1])
    pack(photos, out, SMALL, CONFIG)
    pack(photos, tmp_path / "fresh", SMALL, CONFIG)
    assert content(out) == content(tmp_path / "fresh")


def test_what_an_earlier_version_packed_is_known_again_and_read(photo_folder: Write, tmp_path: Path) -> None:
    """Its index does not count suffixes, and the parts of an unfinished run do not either."""
    photos, out = photo_folder(), tmp_path / "out"
    first = pack(photos, out, SMALL, CONFIG)
    about, columns = load_arrays(out / INDEX)
    del about["suffixes"], about["recoded"]
    save_arrays(out / INDEX, about, columns)
    assert pack(photos, out, SMALL, CONFIG) == replace(first, fresh=False, suffixes={})
    assert len(Photos(out)) == len(Photos(photos))
    (out / INDEX).unlink()
    (out / ".packing").mkdir()
    for number in range(first.shards):
        part = {"shard": [f"shard-{number:06d}.tar", 20_480], "fold": 0, "done": 3, "bad": []}
        save_arrays(out / f".packing/{number:06d}.npz", part, {})
    assert pack(photos, out, SMALL, CONFIG) == first


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_folder_that_holds_something_else_is_left_alone(
    photo_folder: Write, tmp_path: Path, what: str
) -> None:
    photos, out = photo_folder(), tmp_path / "out"
    if what == "file":
        out.write_text("x")
    else:
        out.mkdir()
        (out / "thesis.txt").write_text("x")
    before = content(tmp_path)
    with pytest.raises(UserError, match=r"(cannot be written|is neither empty nor of packed photos)"):
        pack(photos, out, SMALL, CONFIG)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("data", "out", "message"),
    [
        ("photos", "photos", "photos: is the folder of the photos; name another"),
        (
            "photos",
            "photos/new",
            "photos/new: lies in photos, the folder of the photos; name a folder outside",
        ),
        ("photos", "photos/daisy", "photos/daisy: lies in photos"),
        ("photos", "link/new", "link/new: lies in photos"),
        ("photos", "photos/../photos/new/deep", "lies in photos"),
        ("link", "photos/new", "photos/new: lies in link"),
        ("photos", ".", r"\.: holds the photos, photos; name another"),
        ("shards", "shards/small", "shards/small: lies in shards"),
        ("half/photos", "half", "half: holds the photos"),
    ],
)
def test_shards_among_the_photos_are_refused(
    photo_folder: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, out: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    photos = photo_folder()
    pack(photos, tmp_path / "shards", SMALL, CONFIG)
    shutil.copytree(tmp_path / "shards", tmp_path / "half")
    (tmp_path / "half" / INDEX).unlink()  # as if packing had not ended
    shutil.copytree(photos, tmp_path / "half/photos")
    (tmp_path / "link").symlink_to(photos)
    before = content(tmp_path)
    with pytest.raises(UserError, match=message):
        pack(Path(data), Path(out), SMALL, CONFIG)
    assert content(tmp_path) == before


def test_photos_of_other_formats_become_jpeg_where_wanted(write_photo: Write, tmp_path: Path) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    copied = {f"a/{i}.jpg": write_photo(photos / f"a/{i}.jpg", (40, 30), i).read_bytes() for i in range(3)}
    copied["a/named.png"] = write_photo(photos / "a/named.png", (40, 30), 7, format="JPEG").read_bytes()
    drawn = [write_photo(photos / f"b/{i}.{kind}", (40, 30), i) for i, kind in enumerate(("png", "bmp"))]
    write_photo(photos / "b/large.jpg", (90, 70))
    settings = PackSettings(max_side=60, quality=95, jpeg=True)
    result = pack(photos, out, settings, CONFIG)
    assert (result.photos, result.shrunk, result.recoded, result.suffixes) == (7, 1, 2, {"jpg": 7})
    assert pack(photos, out, settings, CONFIG) == replace(result, fresh=False)
    shards = Photos(out)
    packed = {shards.path(row): shards.read_one(row).data.tobytes() for row in range(7)}
    assert {name: packed[name] for name in copied} == copied
    for file in drawn:
        with Image.open(io.BytesIO(packed[f"b/{file.name}"])) as image, Image.open(file) as original:
            assert (image.format, image.size) == ("JPEG", (40, 30))
            assert np.abs(np.asarray(image, np.int16) - np.asarray(original, np.int16)).mean() < 6
    assert json.loads((out / "flowerfast-pack.json").read_text())["settings"]["jpeg"] is True
    with pytest.raises(UserError, match="holds shards of other photos or settings"):
        pack(photos, out, replace(settings, jpeg=False), CONFIG)


def test_a_photo_too_long_for_a_jpeg_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "photos/a").mkdir(parents=True)
    Image.new("RGB", (70_000, 2)).save(tmp_path / "photos/a/long.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "photos/a/other.png")
    lenient = DataConfig(workers=1, max_bad=0.6)
    result = pack(tmp_path / "photos", tmp_path / "out", PackSettings(jpeg=True), lenient)
    assert result.photos == 1
    assert [bad.error for bad in result.bad] == [
        "70000x2 pixels cannot be a JPEG, whose sides have 65500 at most"
    ]


def test_shards_can_be_packed_again(photo_folder: Write, tmp_path: Path) -> None:
    photos = photo_folder()
    pack(photos, tmp_path / "large", SMALL, CONFIG)
    pack(tmp_path / "large", tmp_path / "small", replace(SMALL, max_side=24), CONFIG)
    pack(photos, tmp_path / "direct", replace(SMALL, max_side=24), CONFIG)
    once, twice = content(tmp_path / "direct"), content(tmp_path / "small")
    assert once.pop("flowerfast-pack.json") != twice.pop("flowerfast-pack.json")  # another source
    assert once == twice
