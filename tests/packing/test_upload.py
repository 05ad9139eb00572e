"""Packing to a URL: what arrives is what is packed here, the index last; an S3 server."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError
from flowerfast.packing.pack import damaged, pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos import remote
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX

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


def test_parts_are_joined_at_a_url(photo_folder: Write, tmp_path: Path, url: str) -> None:
    photos = photo_folder()
    pack(photos, tmp_path / "whole", SMALL, DataConfig())
    notes = [pack(photos, Path(url), SMALL, DataConfig(), part=(n, 2)).notes[-1] for n in (2, 1)]
    assert notes[0] == "part 2 of 2: packed; to come: 1"
    assert notes[1] == f"part 1 of 2: all parts are there, {url} is complete"
    assert contents(Photos(url)) == contents(Photos(tmp_path / "whole"))
    assert {f"part-00{n}-of-002/shard-000000.tar" for n in (1, 2)} < names(url)


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
