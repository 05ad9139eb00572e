"""Whose a URL is that several pack to: whose shards lie there, two who come at once, who may not write."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError
from flowerfast.packing import pack as packing
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.packing.verify import damaged
from flowerfast.photos import remote
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX, STATE

fsspec = pytest.importorskip("fsspec")
Write = Callable[..., Path]
SMALL = PackSettings(shard_bytes=20_480)
PUT = remote.Remote.write


@pytest.fixture
def url() -> str:
    """A place in memory that no other test has."""
    return f"memory://{uuid4().hex}/shards"


def names(url: str) -> set[str]:
    files = fsspec.filesystem("memory")
    return {path.rpartition("/shards/")[2] for path in files.find(url)}


def contents(place: Path | str) -> list[bytes]:
    photos = Photos(place)
    return [photo.tobytes() for photo in photos.read(photos.indices)[0] if isinstance(photo, np.ndarray)]


def broken_off(photos: Path, url: str, at: str, patch: pytest.MonkeyPatch) -> None:
    """Pack, broken off before the first object whose name begins so."""

    def write(self: remote.Remote, file: Path, name: str) -> None:
        if name.startswith(at):
            raise RunFailed("broken off")
        PUT(self, file, name)

    patch.setattr(remote.Remote, "write", write)
    with pytest.raises(RunFailed, match="broken off"):
        pack(photos, Path(url), SMALL, DataConfig())
    patch.setattr(remote.Remote, "write", PUT)


def not_allowed(photos: Path, url: str, part: tuple[int, int] | None, patch: pytest.MonkeyPatch) -> str:
    """What is said to who may not write, before any photo is packed."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    def prepare(*_: object) -> None:
        raise AssertionError("packed in vain")

    with patch.context() as within:
        within.setattr(type(fsspec.filesystem("memory")), "put_file", refuse)
        within.setattr(packing, "prepare", prepare)
        with pytest.raises(UserError) as caught:
            pack(photos, Path(url), SMALL, DataConfig(), part=part)
    return str(caught.value)


def same_sized(photos: Path) -> Path:
    """Other photos of the same names, whose files have the same bytes in number."""
    other = photos.with_name("other")
    for file in photos.rglob("*.jpg"):
        (other / file.parent.name).mkdir(parents=True, exist_ok=True)
        (other / file.parent.name / file.name).write_bytes(file.read_bytes()[:-1] + b"\0")
    return other


@pytest.mark.parametrize(
    ("data", "out", "message"),
    [
        ("", "", "is the folder of the photos; name another one"),
        ("", "/small", "lies in memory://.+/shards, the folder of the photos; name a folder outside it"),
        ("/", "", "is the folder of the photos"),
        ("/deep", "", "holds the photos, memory://.+/shards/deep; name another folder"),
    ],
)
def test_shards_among_the_photos_are_refused(
    photo_folder: Write, url: str, data: str, out: str, message: str
) -> None:
    pack(photo_folder(), Path(f"{url}{data}"), SMALL, DataConfig())
    before = names(url)
    with pytest.raises(UserError, match=message):
        pack(Path(f"{url}{data}"), Path(f"{url}{out}"), PackSettings(max_side=20), DataConfig())
    assert names(url) == before


@pytest.mark.parametrize("record", ["another's", "gone"])
def test_shards_of_the_same_size_are_not_taken_for_those_that_were_sent(
    photo_folder: Write, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    """Theirs, broken off before the index; then ours, broken off as soon as it has its record there."""
    theirs, files = photo_folder(), fsspec.filesystem("memory")
    ours = same_sized(theirs)
    broken_off(theirs, url, INDEX, monkeypatch)
    shards = {name: files.cat_file(f"{url}/{name}") for name in names(url) if name != STATE}
    if record == "gone":  # and what they sent comes back once our record is there
        files.rm(url, recursive=True)
    broken_off(ours, url, "shard", monkeypatch)
    files.pipe({f"{url}/{name}": content for name, content in shards.items()})
    pack(ours, Path(url), SMALL, DataConfig())
    pack(ours, tmp_path / "here", SMALL, DataConfig())
    assert damaged(Path(url)) == []
    assert contents(url) == contents(tmp_path / "here")


def test_what_was_sent_before_another_came_is_sent_again(
    photo_folder: Write, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours, broken off before the index; theirs over it, broken off there too, and its record removed."""
    ours, files = photo_folder(), fsspec.filesystem("memory")
    theirs = same_sized(ours)
    for photos, cache in ((ours, "here"), (theirs, "elsewhere")):
        monkeypatch.setenv("FLOWERFAST_CACHE", str(tmp_path / cache))
        broken_off(photos, url, INDEX, monkeypatch)
    files.rm_file(f"{url}/{STATE}")
    shards = {f"{url}/{name}": files.cat_file(f"{url}/{name}") for name in names(url)}
    files.rm(url, recursive=True)
    monkeypatch.setenv("FLOWERFAST_CACHE", str(tmp_path / "here"))

    def write(self: remote.Remote, file: Path, name: str) -> None:
        PUT(self, file, name)
        if name == STATE:
            files.pipe(shards)

    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "write", write)
        pack(ours, Path(url), SMALL, DataConfig())
    assert damaged(Path(url)) == []


@pytest.mark.parametrize("first", ["part", "whole"])
def test_whole_and_in_parts_at_once_are_kept_apart(
    photo_folder: Write, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Both have looked at an empty place; the first is done before the other writes its record."""
    photos, met = photo_folder(), list[str]()
    parts = {"part": (1, 2), "whole": None}
    late = parts.pop("whole" if first == "part" else "part")
    [early] = parts.values()

    def write(self: remote.Remote, file: Path, name: str) -> None:
        if not met:
            met.append(name)
            pack(photos, Path(url), SMALL, DataConfig(), part=early)
        PUT(self, file, name)

    monkeypatch.setattr(remote.Remote, "write", write)
    what = "in 2 parts" if first == "part" else "whole"
    with pytest.raises(UserError, match=rf"^{url}: holds photos packed {what}; name another folder or URL"):
        pack(photos, Path(url), SMALL, DataConfig(), part=late)
    assert met == [STATE]
    assert {name.partition("-")[0] for name in names(url)} == ({"part"} if early else {"flowerfast", "shard"})
    if early:
        pack(photos, Path(url), SMALL, DataConfig(), part=(2, 2))
    pack(photos, tmp_path / "here", SMALL, DataConfig())
    assert contents(url) == contents(tmp_path / "here")


def test_of_two_who_write_before_either_looks_neither_stays(
    photo_folder: Write, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, both, known = photo_folder(), threading.Barrier(2, timeout=60), threading.local()

    def write(self: remote.Remote, file: Path, name: str) -> None:
        first, known.wrote = not hasattr(known, "wrote"), True
        if first:
            both.wait()  # both have found the place empty
        PUT(self, file, name)
        if first:
            both.wait()

    monkeypatch.setattr(remote.Remote, "write", write)
    with ThreadPoolExecutor(2) as pool:
        ended = [
            pool.submit(pack, photos, Path(url), SMALL, DataConfig(), part=part) for part in (None, (1, 2))
        ]
        refused = [str(each.exception()) for each in ended if isinstance(each.exception(), UserError)]
    assert refused
    assert all(f"{url}: holds photos packed" in line for line in refused)
    monkeypatch.setattr(remote.Remote, "write", PUT)
    if len(refused) == 2:
        assert names(url) == set()


def test_a_part_looks_again_before_its_index(
    photo_folder: Write, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it could not see before, as nothing may be listed, or somebody has tidied up."""
    files = fsspec.filesystem("memory")

    def write(self: remote.Remote, file: Path, name: str) -> None:
        PUT(self, file, name)
        if name.startswith("shard"):
            files.pipe_file(f"{url}/{STATE}", b"{}")

    monkeypatch.setattr(remote.Remote, "write", write)
    with pytest.raises(UserError, match=rf"^{url}: holds photos packed whole"):
        pack(photo_folder(), Path(url), SMALL, DataConfig(), part=(1, 1))
    assert not [name for name in names(url) if name.endswith(INDEX)]


@pytest.mark.parametrize("part", [None, (1, 2)])
def test_who_may_not_write_hears_it_before_anything_is_packed(
    photo_folder: Write,
    url: str,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: tuple[int, int] | None,
) -> None:
    said = not_allowed(photo_folder(), url, part, monkeypatch)
    place = url if part is None else f"{url}/part-001-of-002"
    assert said == f"{place}/{STATE}: not served (Access Denied); see to the URL and its access"
    assert not [file for file in (own_cache / "packing").rglob("*") if file.is_file()]


@pytest.mark.parametrize("place", ["empty", "of another"])
def test_who_may_not_write_any_more_loses_nothing_of_what_is_packed(
    photo_folder: Write, url: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Also where another's upload was broken off: its record stays as it is."""
    photos, files = photo_folder(), fsspec.filesystem("memory")
    broken_off(photos, url, "shard", monkeypatch)
    packed = {file: file.read_bytes() for file in (own_cache / "packing").rglob("*") if file.is_file()}
    assert len(packed) > 3
    ours = files.cat_file(f"{url}/{STATE}")
    theirs = ours.replace(b"20480", b"30720")
    files.pipe_file(f"{url}/{STATE}", theirs)
    if place == "empty":
        files.rm(url, recursive=True)

    assert "not served (Access Denied)" in not_allowed(photos, url, None, monkeypatch)
    assert {file: file.read_bytes() for file in packed} == packed
    assert place == "empty" or files.cat_file(f"{url}/{STATE}") == theirs
    pack(photos, Path(url), SMALL, DataConfig())
    assert files.cat_file(f"{url}/{STATE}") == ours
    assert damaged(Path(url)) == []
