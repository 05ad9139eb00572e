"""Files read many at a time: the bytes of one-by-one reading, its errors, and what counts as a plain JPEG."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.config import DataConfig
from flowerfast.kernels.jpeg_header import is_plain
from flowerfast.loaders.dali.files import agrees
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos

Write = Callable[..., Path]


@pytest.mark.parametrize("compiled", [True, False])
def test_bytes_are_those_of_the_files(zoo: Path, compiled: bool) -> None:
    photos = Photos(zoo)
    shuffled = np.random.default_rng(0).permutation(len(photos))
    files, _ = photos.read(shuffled, compiled)
    for index, file in zip(shuffled.tolist(), files, strict=True):
        assert isinstance(file, np.ndarray)
        assert file.tobytes() == (zoo / photos.path(index)).read_bytes()
        assert not file.flags.writeable
    assert photos.read(shuffled[:0], compiled)[0] == []


def test_names_of_all_kinds(tmp_path: Path, write_photo: Write) -> None:
    names = ["with space.jpg", "ünï çødé 花.jpg", "deep/er/photo.jpg", "quote'\".jpg", f"{'long' * 50}.jpg"]
    for k, name in enumerate(names):
        write_photo(tmp_path / "träge klasse" / name, seed=k)
    photos = Photos(tmp_path, min_classes=1)
    files, plain = photos.read(photos.indices, look=True)
    assert [file.tobytes() for file in files] == [(tmp_path / p).read_bytes() for p in photos.table.paths()]
    assert plain.all()


@pytest.mark.parametrize("compiled", [True, False])
def test_files_that_changed_since_the_scan(photo_folder: Write, compiled: bool) -> None:
    root = photo_folder({"a": 6})
    photos = Photos(root, min_classes=1)
    paths = [root / path for path in photos.table.paths()]
    whole = [path.read_bytes() for path in paths]
    paths[0].unlink()
    paths[1].write_bytes(whole[1][:-30])
    paths[2].write_bytes(whole[2] + b"more")
    paths[3].write_bytes(b"")
    paths[4].unlink()
    paths[4].mkdir()
    files, plain = photos.read(photos.indices, compiled, look=True)
    assert isinstance(files[0], FileNotFoundError)
    assert str(paths[0]) in str(files[0])
    assert [file.tobytes() for file in files[1:4]] == [whole[1][:-30], whole[2] + b"more", b""]
    assert isinstance(files[4], IsADirectoryError)
    assert files[5].tobytes() == whole[5]
    assert plain.tolist() == [False] * 5 + [compiled]


@pytest.mark.parametrize("compiled", [True, False])
def test_packed_photos_are_those_of_the_folder(photo_folder: Write, tmp_path: Path, compiled: bool) -> None:
    folder = Photos(photo_folder())
    pack(folder.root, tmp_path / "out", PackSettings(shard_bytes=20_480), DataConfig(workers=1))
    shards = Photos(tmp_path / "out")
    files, plain = shards.read(shards.indices[::-1], compiled, look=True)
    assert [file.tobytes() for file in files] == [f.tobytes() for f in folder.read(folder.indices[::-1])[0]]
    assert not any(file.flags.writeable for file in files)
    assert plain.tolist() == [compiled] * len(folder)


def test_plain_files_need_no_closer_look(zoo: Path) -> None:
    """Whatever is called plain, header by header and byte by byte damaged, the slow way finds good too."""
    photos, rng, seen = Photos(zoo), np.random.default_rng(9), 0
    files, plain = photos.read(photos.indices, look=True)
    for index, (file, known) in enumerate(zip(files, plain.tolist(), strict=True)):
        width, height = int(photos.table.width[index]), int(photos.table.height[index])
        assert known == is_plain(file, width, height)
        assert not is_plain(file, width + 1, height)
        assert not is_plain(file[:-2], width, height)
        for _ in range(60):
            harmed = file.copy()
            at = rng.integers(0, min(len(file), 700), rng.integers(0, 4))
            harmed[at] = rng.integers(0, 256, len(at))
            if is_plain(harmed, width, height):
                seen += 1
                assert harmed[-2:].tobytes() == b"\xff\xd9"
                assert agrees(harmed, width, height), (photos.path(index), at)
    assert seen > 100


@pytest.mark.parametrize(
    ("mode", "options", "plain"),
    [
        ("RGB", {}, True),
        ("L", {}, True),
        ("RGB", {"progressive": True}, True),
        ("RGB", {"subsampling": 0}, True),
        ("RGB", {"restart_marker_rows": 1}, True),
        ("RGB", {"exif": b"Exif\0\0" + b"x" * 5000}, True),
        ("RGB", {"keep_rgb": True}, False),  # three components that are not YCbCr
        ("CMYK", {}, False),
    ],
)
def test_which_jpegs_are_plain(tmp_path: Path, mode: str, options: dict[str, object], plain: bool) -> None:
    file = tmp_path / "photo.jpg"
    Image.linear_gradient("L").resize((64, 48)).convert(mode).save(file, **options)
    encoded = np.fromfile(file, np.uint8)
    assert is_plain(encoded, 64, 48) == plain
    assert not is_plain(np.append(encoded, np.uint8(0)), 64, 48)  # something lies behind the end


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("marker", [b"\xff\xc4", b"\xff\xd0", b"\xff\x01", b"\xff\xd8", b"\xff\xff"])
def test_a_marker_amid_the_scan_is_not_plain(tmp_path: Path, marker: bytes, progressive: bool) -> None:
    file = tmp_path / "photo.jpg"
    Image.radial_gradient("L").resize((64, 48)).save(file, progressive=progressive)
    encoded = file.read_bytes()
    at = encoded.rindex(b"\xff\xda") + 14
    assert is_plain(np.frombuffer(encoded, np.uint8), 64, 48)
    assert not is_plain(np.frombuffer(encoded[:at] + marker + encoded[at:], np.uint8), 64, 48)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_no_file_any_more_is_not_waited_for(photo_folder: Write, compiled: bool) -> None:
    """A pipe, a socket, a device or a link to one in the place of a photo."""
    root = photo_folder({"a": 5})
    photos = Photos(root, min_classes=1)
    pipe, sock, device, linked, _ = [root / path for path in photos.table.paths()]
    for path in (pipe, sock, device, linked):
        path.unlink()
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(sock))
        device.symlink_to("/dev/zero")
        linked.symlink_to(pipe)
        files, _ = photos.read(photos.indices, compiled)
    assert [isinstance(file, OSError) for file in files] == [True, True, True, True, False]
    assert all("not a regular file" in str(files[i]) for i in (0, 2, 3))
    assert all("not a regular file" in str(photos.problem(i)) for i in (0, 2, 3))
