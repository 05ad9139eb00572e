"""Packing to a URL: what arrives is what is packed here, the index last; an S3 server."""

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.parts import merge
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.packing.upload import Upload
from flowerfast.packing.verify import damaged
from flowerfast.photos import remote
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX, STATE

fsspec = pytest.importorskip("fsspec")
Write = Callable[..., Path]
SMALL = PackSettings(shard_bytes=20_480)


@pytest.fixture
def url() -> str:
    """A place in memory that no other test has."""
    return f"memory://{uuid4().hex}/shards"


def contents(photos: Photos) -> list[bytes]:
    return [photo.tobytes() for photo in photos.read(photos.indices)[0] if isinstance(photo, np.ndarray)]


def names(url: str) -> set[str]:
    files = fsspec.filesystem("memory")
    return {path.rpartition("/shards/")[2] for path in files.find(url)}


def test_what_arrives_is_what_is_packed_here(photo_folder: Write, tmp_path: Path, url: str) -> None:
    photos, here = photo_folder(), tmp_path / "here"
    local = pack(photos, here, SMALL, DataConfig())
    sent = pack(photos, Path(url), SMALL, DataConfig())
    assert sent == local
    assert names(url) == {path.name for path in here.iterdir()}
    files = fsspec.filesystem("memory")
    assert all(files.cat_file(f"{url}/{path.name}") == path.read_bytes() for path in here.iterdir())
    assert contents(Photos(url)) == contents(Photos(here))
    assert damaged(Path(url)) == []
    again = pack(photos, Path(url), SMALL, DataConfig())
    assert (again.fresh, again.photos, again.shards) == (False, local.photos, local.shards)
    with pytest.raises(UserError, match=rf"^{url}: holds shards of other photos or settings; name"):
        pack(photos, Path(url), PackSettings(max_side=20), DataConfig())


@pytest.mark.parametrize("lost", ["gone", "cut short"])
def test_a_set_that_has_lost_a_shard_is_not_called_packed(photo_folder: Write, url: str, lost: str) -> None:
    photos, files = photo_folder(), fsspec.filesystem("memory")
    pack(photos, Path(url), SMALL, DataConfig())
    whole = files.cat_file(f"{url}/shard-000001.tar")
    files.rm(f"{url}/shard-000001.tar")
    if lost == "cut short":
        files.pipe_file(f"{url}/shard-000001.tar", whole[:-1])
    with pytest.raises(UserError, match=rf"^{url}/shard-000001\.tar: gone or cut short since it was pa"):
        pack(photos, Path(url), SMALL, DataConfig())
    files.rm(f"{url}/{INDEX}")
    assert pack(photos, Path(url), SMALL, DataConfig()).fresh
    assert files.cat_file(f"{url}/shard-000001.tar") == whole


def test_a_copy_that_was_broken_off_goes_on_and_nobody_meets_half(
    photo_folder: Write, url: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, put, sent = photo_folder(), remote.Remote.write, list[str]()

    def write(self: remote.Remote, file: Path, name: str) -> None:
        if len(sent) == 3:
            raise RunFailed("broken off")
        sent.append(name)
        put(self, file, name)

    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "write", write)
        with pytest.raises(RunFailed, match="broken off"):
            pack(photos, Path(url), SMALL, DataConfig())
    with pytest.raises(UserError, match=rf"^{url}: packing was not finished"):
        Photos(url)
    before, sent[:] = [*sent], []
    monkeypatch.setattr(remote.Remote, "write", lambda *given: (sent.append(given[2]), put(*given))[1])
    pack(photos, Path(url), SMALL, DataConfig())
    assert not {*before} & {*sent}
    assert sent[-1] == INDEX
    assert len(contents(Photos(url))) == 15
    assert not [file for file in (own_cache / "packing").rglob("*") if file.is_file()]


@pytest.mark.parametrize("elsewhere", [True, False], ids=["another machine", "this machine"])
def test_two_who_pack_to_one_url_leave_one_whole_set(
    photo_folder: Write, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    """The second comes while the first copies: of another machine it has the place, of this one not."""
    photos, put, other, met = photo_folder(), remote.Remote.write, PackSettings(max_side=20), list[str]()

    def write(self: remote.Remote, file: Path, name: str) -> None:
        put(self, file, name)
        if name.startswith("shard") and not met:
            met.append(name)
            with monkeypatch.context() as patch:
                if elsewhere:
                    patch.setenv("FLOWERFAST_CACHE", str(tmp_path / "elsewhere"))
                    pack(photos, Path(url), other, DataConfig())
                else:
                    with pytest.raises(UserError, match=r"name another URL, or another cache folder"):
                        pack(photos, Path(url), other, DataConfig())

    monkeypatch.setattr(remote.Remote, "write", write)
    if elsewhere:
        with pytest.raises(UserError, match=rf"^{url}: another process packs other photos or settings there"):
            pack(photos, Path(url), SMALL, DataConfig())
    else:
        pack(photos, Path(url), SMALL, DataConfig())
    assert met
    pack(photos, tmp_path / "here", other if elsewhere else SMALL, DataConfig())
    assert contents(Photos(url)) == contents(Photos(tmp_path / "here"))
    assert damaged(Path(url)) == []


def test_shards_of_somebody_else_are_not_replaced(photo_folder: Write, url: str) -> None:
    files = fsspec.filesystem("memory")
    files.pipe({f"{url}/shard-000000.tar": b"theirs", f"{url}/readme.txt": b"hello"})
    with pytest.raises(UserError, match=r"packed by somebody else .shard-000000.tar.; name another"):
        pack(photo_folder(), Path(url), SMALL, DataConfig())
    assert files.cat_file(f"{url}/shard-000000.tar") == b"theirs"
    files.rm_file(f"{url}/shard-000000.tar")
    pack(photo_folder(name="more"), Path(url), SMALL, DataConfig())
    assert files.cat_file(f"{url}/readme.txt") == b"hello"


@pytest.mark.parametrize("remotely", [True, False])
def test_a_part_with_other_settings_is_refused_before_it_is_packed(
    photo_folder: Write, tmp_path: Path, url: str, remotely: bool
) -> None:
    photos, out = photo_folder(), Path(url) if remotely else tmp_path / "parts"
    pack(photos, out, SMALL, DataConfig(), part=(1, 2))
    with pytest.raises(UserError, match=r"part-001-of-002: packed from other .+; pack part 2 as"):
        pack(photos, out, PackSettings(max_side=20), DataConfig(), part=(2, 2))
    pack(photos, out, SMALL, DataConfig(), part=(2, 2))
    assert len(contents(Photos(out))) == 15


def test_parts_are_joined_at_a_url(photo_folder: Write, tmp_path: Path, url: str) -> None:
    photos = photo_folder()
    pack(photos, tmp_path / "whole", SMALL, DataConfig())
    notes = [pack(photos, Path(url), SMALL, DataConfig(), part=(n, 2)).notes[-1] for n in (2, 1)]
    assert notes[0] == "part 2 of 2: packed; to come: 1"
    assert notes[1] == f"part 1 of 2: all parts are there, {url} is complete"
    assert contents(Photos(url)) == contents(Photos(tmp_path / "whole"))
    assert {f"part-00{n}-of-002/shard-000000.tar" for n in (1, 2)} < names(url)


@pytest.mark.parametrize("whole", [True, False])
def test_parts_never_replace_what_was_packed_otherwise(photo_folder: Write, url: str, whole: bool) -> None:
    photos = photo_folder()
    for part in [None] if whole else [(1, 2), (2, 2)]:
        pack(photos, Path(url), SMALL, DataConfig(), part=part)
    before = contents(Photos(url))
    what = "whole" if whole else "in 2 parts"
    for part in [(1, 3)] if whole else [(1, 3), None]:
        with pytest.raises(
            UserError, match=rf"^{url}: holds photos packed {what}; name another folder or URL"
        ):
            pack(photo_folder({"oak": 5, "fir": 5}, name="trees"), Path(url), SMALL, DataConfig(), part=part)
    assert contents(Photos(url)) == before
    assert not any(name.startswith("part-001-of-003") for name in names(url))
    if not whole:
        fsspec.filesystem("memory").rm(f"{url}/{INDEX}")
        assert not pack(photos, Path(url), SMALL, DataConfig(), part=(1, 2)).fresh  # merges them again
        assert contents(Photos(url)) == before


def test_whole_shards_are_seen_where_nothing_may_be_listed(
    photo_folder: Write, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ls(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "ls", ls)
    pack(photo_folder(), Path(url), SMALL, DataConfig())
    with pytest.raises(UserError, match=rf"^{url}: holds photos packed whole"):
        pack(photo_folder(), Path(url), SMALL, DataConfig(), part=(1, 2))


@pytest.mark.parametrize("place", ["folder", "url"])
def test_an_index_of_other_photos_than_beside_it_is_one_line(
    photo_folder: Write, tmp_path: Path, url: str, place: str
) -> None:
    photos, out = photo_folder(), tmp_path / "out" if place == "folder" else Path(url)
    trees = photo_folder({"oak": 5, "fir": 5}, name="trees")
    pack(photos, out, SMALL, DataConfig())
    pack(trees, tmp_path / "trees-packed", SMALL, DataConfig())
    files = fsspec.filesystem("memory" if place == "url" else "file")
    at = url if place == "url" else str(out)
    files.pipe_file(f"{at}/{INDEX}", (tmp_path / "trees-packed" / INDEX).read_bytes())
    if place == "folder":
        for shard in (tmp_path / "trees-packed").glob("*.tar"):
            shutil.copy(shard, out)
    with pytest.raises(
        UserError, match=rf"^{at}/{INDEX}: is of other photos or settings than .*; bring back"
    ):
        pack(photos, out, SMALL, DataConfig())


def test_parts_at_a_url_are_named_by_it(photo_folder: Write, url: str) -> None:
    photos = photo_folder()
    pack(photos, Path(url), SMALL, DataConfig(), part=(1, 2))
    pack(photos, Path(f"{url}2"), PackSettings(max_side=20), DataConfig(), part=(2, 2))
    second = "part-002-of-002"
    fsspec.filesystem("memory").mv(f"{url}2/{second}", f"{url}/{second}", recursive=True)
    with pytest.raises(UserError, match=rf"^{url}/{second}: packed from other photos or settings than"):
        merge(Upload(url), 2)
    state = f"{url}/part-001-of-002/{STATE}"
    fsspec.filesystem("memory").pipe_file(state, b"{")
    with pytest.raises(UserError, match=rf"^{state}: damaged"):
        merge(Upload(url), 2)


def test_what_never_arrived_makes_way_for_other_settings(
    photo_folder: Write, tmp_path: Path, url: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, other = photo_folder(), PackSettings(max_side=20, shard_bytes=20_480)

    put = remote.Remote.write

    def write(self: remote.Remote, file: Path, name: str) -> None:
        if name != STATE:
            raise RunFailed("broken off")
        put(self, file, name)

    with monkeypatch.context() as patch:
        patch.setattr(remote.Remote, "write", write)
        with pytest.raises(RunFailed, match="broken off"):
            pack(photos, Path(url), SMALL, DataConfig())
    assert [*(own_cache / "packing").rglob(INDEX)]
    pack(photos, Path(url), other, DataConfig())
    pack(photos, tmp_path / "here", other, DataConfig())
    assert contents(Photos(url)) == contents(Photos(tmp_path / "here"))


def test_a_url_of_this_machine_is_not_packed_to(photo_folder: Write, tmp_path: Path) -> None:
    for part in (None, (1, 2)):
        with pytest.raises(
            UserError, match=rf"^file://{tmp_path}/x: a folder .*; give its path, {tmp_path}/x$"
        ):
            pack(photo_folder(), Path(f"file://{tmp_path}/x"), SMALL, DataConfig(), part=part)


@pytest.mark.parametrize("given", ["https://host/shards", "http://host/x"])
def test_a_web_server_takes_no_shards(photo_folder: Write, given: str) -> None:
    with pytest.raises(UserError, match=rf"^{given}: nothing can be written there; name a folder"):
        pack(photo_folder(), Path(given), SMALL, DataConfig())


# --------------------------------------------------------------------------------------------------- S3


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """URL of a bucket on an S3 server of this module."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        fsspec.filesystem("s3").mkdir("flowers")
        yield "s3://flowers"
        server.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
def test_an_s3_server_gives_what_was_packed_there(
    photo_folder: Write, tmp_path: Path, bucket: str, cli: Callable[..., tuple[int, str, str]]
) -> None:
    photos, url = photo_folder({"daisy": 8, "rose": 8}), f"{bucket}/shards"
    code, said, _ = cli("pack", photos, url, "--shard-size", 0.02)
    assert (code, f"shards: {url}" in said) == (0, True)
    assert cli("pack", "--verify", url)[0] == 0
    pack(photos, tmp_path / "here", SMALL, DataConfig())
    assert contents(Photos(url)) == contents(Photos(tmp_path / "here"))
    files = fsspec.filesystem("s3")
    files.pipe_file(f"{url}/shard-000000.tar", bytes(files.info(f"{url}/shard-000000.tar")["size"]))
    code, _, error = cli("pack", "--verify", url)
    assert (code, error.startswith("damaged: ")) == (1, True)
    with pytest.raises(UserError, match=r"^s3://nobody/shards/flowerfast-index\.npz: not served"):
        Photos("s3://nobody/shards")


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
def test_a_bucket_that_is_not_there_is_refused_before_packing(
    photo_folder: Write, bucket: str, own_cache: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    for more in ((), ("--part", "1/2")):
        code, _, error = cli("pack", photo_folder(), "s3://nobody/shards", *more)
        assert (code, error) == (
            2,
            "flowerfast: error: s3://nobody/shards: no such bucket; make it, or name another URL\n",
        )
    assert not (own_cache / "packing").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")
def test_an_s3_server_keeps_whole_shards_from_parts(photo_folder: Write, bucket: str) -> None:
    photos, whole, parts = photo_folder(), Path(f"{bucket}/whole"), Path(f"{bucket}/parts")
    pack(photos, whole, SMALL, DataConfig())
    for number in (1, 2):
        pack(photos, parts, SMALL, DataConfig(), part=(number, 2))
        with pytest.raises(UserError, match=rf"^{bucket}/whole: holds photos packed whole"):
            pack(photos, whole, SMALL, DataConfig(), part=(number, 2))
        with pytest.raises(UserError, match=rf"^{bucket}/parts: holds photos packed in 2 parts"):
            pack(photos, parts, SMALL, DataConfig(), part=(number, 3))
    assert contents(Photos(parts)) == contents(Photos(whole))
    assert not pack(photos, parts, SMALL, DataConfig(), part=(2, 2)).fresh


def test_a_url_without_a_bucket_is_no_folder(
    photo_folder: Write, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    photos = photo_folder()
    for given in (("pack", photos, "s3://"), ("scan", "gs://"), ("pack", "--verify", "https://")):
        code, _, error = cli(*given)
        assert (code, "://: a URL that ends there; give all of it" in error) == (2, True), given
    assert [*tmp_path.iterdir()] == [photos]
