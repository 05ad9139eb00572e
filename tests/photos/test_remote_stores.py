"""Shards in a bucket of Google's kind and on the Hugging Face hub, both played on this machine."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec.config
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos import remote
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX
from tests.photos.packed import contents
from tests.photos.shard_hub import REPOSITORY, ShardHub, shard_hub

# Read when gcsfs is imported: else it asks by gRPC what kind of bucket it is, which no emulator answers.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
SMALL = PackSettings(shard_bytes=20_480)
ON_HUB = f"hf://datasets/{REPOSITORY}/shards"


@pytest.fixture(scope="module")
def shards(paint: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 photos of three classes in several shards."""
    place = tmp_path_factory.mktemp("packed")
    pack(paint(place / "photos"), place / "shards", SMALL, DataConfig())
    return place / "shards"


@pytest.fixture
def hub(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShardHub]:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    with shard_hub(shards.parent) as served:
        monkeypatch.setitem(
            fsspec.config.conf, "hf", {"endpoint": served.address, "skip_instance_cache": True}
        )
        bucket = {"endpoint_url": served.address, "token": "anon", "skip_instance_cache": True}
        monkeypatch.setitem(fsspec.config.conf, "gs", bucket)
        yield served


def test_the_hub_gives_the_photos_of_the_local_copy_once(hub: ShardHub, shards: Path) -> None:
    far = Photos(ON_HUB)
    assert contents(far) == contents(Photos(shards))
    assert 0 < len([path for path in hub.asked if path.endswith(".tar")]) <= len(far)
    hub.asked.clear()
    assert contents(far) == contents(Photos(shards))
    assert hub.asked == []


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (ON_HUB.replace("shards", "absent"), "absent"),
        (ON_HUB.replace("ann", "bob"), "repository not found"),
        ("hf://datasets", "Repository id must be"),
    ],
)
def test_what_the_hub_does_not_have_is_one_line(hub: ShardHub, url: str, said: str) -> None:
    with pytest.raises(UserError, match=rf"^{url}(/{INDEX}: not served|: ).*{said}"):
        Photos(url)


@pytest.mark.parametrize("url", [ON_HUB, "gs://flowers/shards"])
@pytest.mark.parametrize("status", [401, 403])
def test_what_is_denied_is_one_line_at_once(
    hub: ShardHub, url: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    if url.startswith("gs:"):
        pytest.importorskip("gcsfs")
    hub.status = status
    with pytest.raises(UserError, match=rf"^{url}/{INDEX}: not served \((HTTP {status}|Forbidden)"):
        Photos(url)
    assert len(hub.asked) <= 8  # of the index, and of whether there is something half packed
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_a_hub_that_never_answers_is_left_after_a_while(
    hub: ShardHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)
    monkeypatch.setattr(remote, "TRIES", 3)
    hub.status = 0
    with pytest.raises(RunFailed, match=rf"^{ON_HUB}/{INDEX}: tried 3 times \(.*has not answered for"):
        Photos(ON_HUB)


def test_patience_ends_before_the_tries_where_each_takes_long(
    hub: ShardHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)
    monkeypatch.setattr(remote, "_PATIENCE", 0.3)
    hub.status = 0
    with pytest.raises(RunFailed, match=r"tried 2 times \("):
        Photos(ON_HUB)


def test_users_name_the_hub_and_go_offline_by_its_environment(hub: ShardHub, shards: Path) -> None:
    read = (
        "import sys\nfrom flowerfast.photos.photos import Photos\n"
        "try: print(len(Photos(sys.argv[1]).read_one(0)))\nexcept ValueError as error: print(error)\n"
    )
    for more, said in (
        ({}, str(len(Photos(shards).read_one(0)))),
        ({"HF_HUB_OFFLINE": "1"}, "offline mode is enabled"),
    ):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", read, ON_HUB],
            env={**os.environ, "HF_ENDPOINT": hub.address, **more},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert said in done.stdout
        assert (done.stderr, done.stdout.count("\n")) == ("", 1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:google.*", "ignore::FutureWarning:google.*")
def test_a_bucket_of_googles_kind_gives_what_was_packed_there(
    paint: Callable[[Path], Path],
    shards: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="flowers")
    server.start()
    try:
        address = "http://{}:{}".format(*server._api._httpd.server_address)
        bucket = {"endpoint_url": address, "token": "anon", "skip_instance_cache": True}
        monkeypatch.setitem(fsspec.config.conf, "gs", bucket)
        url = "gs://flowers/shards"
        pack(paint(tmp_path / "photos"), Path(url), SMALL, DataConfig())
        assert contents(Photos(url)) == contents(Photos(shards))
        for absent in ("gs://flowers/absent", "gs://nobody/shards"):
            with pytest.raises(UserError, match=rf"^{absent}/{INDEX}: not served \("):
                Photos(absent)
        with pytest.raises(UserError, match=r"^gs://nobody/shards: no such bucket; make it"):
            pack(tmp_path / "photos", Path("gs://nobody/shards"), SMALL, DataConfig())
    finally:
        server.stop()
    assert [record.name for record in caplog.records if record.levelno > logging.INFO] == []
