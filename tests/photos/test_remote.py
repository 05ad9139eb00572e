"""Shards behind nginx, over TLS: the photos of the local copy, or one line that says what is in the way."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec.config
import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import RunFailed, UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos import remote
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX
from tests.photos.nginx import PASSWORD, USER, Nginx, nginx
from tests.photos.packed import contents

pytest.importorskip("aiohttp")


@pytest.fixture(scope="module")
def shards(paint: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 photos of three classes in several shards."""
    place = tmp_path_factory.mktemp("packed")
    pack(paint(place / "photos"), place / "shards", PackSettings(shard_bytes=20_480), DataConfig())
    return place / "shards"


@pytest.fixture(scope="module")
def server(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx(shards.parent, tmp_path_factory.mktemp("nginx")) as served:
        yield served


@pytest.fixture(autouse=True)
def trusting(server: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is in this process; of other processes SSL_CERT_FILE does it."""
    monkeypatch.setitem(fsspec.config.conf, "https", {"ssl": server.trusted()})
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)


def test_a_url_that_looks_at_what_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^zip://a::memory:/+b/z: .*; give a folder, or a URL that fsspec"):
        Photos("zip://a::memory://b/z")


@pytest.mark.parametrize("below", ["", "/moved", "/short"])
def test_photos_are_those_of_the_local_copy(server: Nginx, shards: Path, below: str) -> None:
    """Compressed for whoever takes it, redirected, connections ended at any time."""
    before = len(server.asked())
    far = Photos(f"{server.url}{below}/shards")
    with ThreadPoolExecutor(4) as pool:  # a request for each photo
        photos = pool.map(far.read_one, np.random.default_rng(0).permutation(36).tolist())
        assert sum(len(photo) for photo in photos) == sum(map(len, contents(Photos(shards))))
    assert contents(far) == contents(Photos(shards))
    rows = server.asked()[before:]
    connections, statuses = {connection for connection, _, _ in rows}, {status for _, status, _ in rows}
    assert {200, 206} <= statuses  # of the size of the index, and of ranges
    assert (302 in statuses) == (below == "/moved")
    if below != "/short":
        assert len(connections) < len(rows) / 2  # kept alive


def test_a_server_that_has_too_much_to_do_is_asked_again(
    server: Nginx, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.05)
    before, local = len(server.asked()), Photos(shards)
    far = Photos(f"{server.url}/busy/shards")
    with ThreadPoolExecutor(8) as pool:
        for row, photo in enumerate(pool.map(far.read_one, range(8))):
            assert photo.tobytes() == local.read_one(row).tobytes()
    assert {206, 503} <= {status for _, status, _ in server.asked()[before:]}


def test_a_client_that_takes_gzip_would_get_other_bytes(server: Nginx, shards: Path) -> None:
    """So the test above is one: without asking for bytes as they are, no range comes."""
    import aiohttp
    from fsspec.asyn import get_loop, sync

    async def get() -> tuple[int, str | None]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"{server.url}/shards/{INDEX}", headers={"Range": "bytes=5-9"}, ssl=server.trusted()
            ) as answer,
        ):
            return answer.status, answer.headers.get("Content-Encoding")

    assert sync(get_loop(), get, timeout=20) == (200, "gzip")


@pytest.mark.parametrize(
    ("below", "said"),
    [
        ("/absent", "HTTP 404 Not Found"),
        ("/denied", "HTTP 403 Forbidden"),
        ("/locked", "HTTP 401 Unauthorized"),
        ("/round", "it redirects again and again"),
    ],
)
def test_what_is_refused_is_one_line_at_once(server: Nginx, below: str, said: str) -> None:
    before = len(server.asked())
    url = f"{server.url}{below}/shards"
    with pytest.raises(
        UserError, match=rf"^{url}/{INDEX}: not served \({said}\); see to the URL and its acc"
    ):
        Photos(url)
    assert len(server.asked()) - before <= 4 * 12  # two ways to ask for the size, of index and state


def test_what_does_not_come_back_is_one_line_after_a_while(
    server: Nginx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TRIES", 3)
    with pytest.raises(RunFailed, match=rf"/down/shards/{INDEX}: tried 3 times \(HTTP 503 Service Tempor"):
        Photos(f"{server.url}/down/shards")


def test_a_server_without_ranges_is_named_at_once(server: Nginx) -> None:
    far = Photos(f"{server.url}/whole/shards")  # whose index comes whole
    before = len(server.asked())
    with pytest.raises(RunFailed, match=r"shard-0+\d\.tar: the server gives no ranges of bytes \(HTTP 200"):
        far.read_one(0)
    assert len(server.asked()) == before + 1


def test_a_shard_that_was_cut_meanwhile_gives_no_photo(server: Nginx, shards: Path) -> None:
    far = Photos(f"{server.url}/shards")
    index, tar = far.table.shards, shards / "shard-000000.tar"
    assert index is not None
    last = max(np.flatnonzero(index.shard == 0).tolist(), key=lambda row: index.offset[row])
    content = tar.read_bytes()
    try:
        tar.write_bytes(content[:1000])
        with pytest.raises(RunFailed, match=r"shard-000000\.tar: not served \(HTTP 416 Requested Range Not"):
            far.read_one(last)
    finally:
        tar.write_bytes(content)
    far.read_one(last)


def test_a_certificate_is_trusted_by_the_file_that_the_environment_names(
    server: Nginx, shards: Path, cli: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.url}/shards"
    monkeypatch.delitem(fsspec.config.conf, "https")
    code, out, error = cli("pack", "--verify", url)
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert f"{url}/{INDEX}: its certificate is not trusted (" in error
    assert "name a file of authorities to trust in SSL_CERT_FILE" in error
    read = (
        "import sys\nfrom flowerfast.photos.photos import Photos\nprint(len(Photos(sys.argv[1]).read_one(0)))"
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
    done = subprocess.run([sys.executable, "-c", read, url], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == (f"{len(Photos(shards).read_one(0))}\n", "")


def test_a_password_comes_from_netrc_and_from_no_url(
    server: Nginx,
    shards: Path,
    tmp_path: Path,
    cli: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert contents(Photos(f"{server.url}/locked/shards")) == contents(Photos(shards))
    url = server.url.replace("//", f"//{USER}:{PASSWORD}@") + "/locked/shards"
    for arguments in (["train", url], ["pack", "--verify", url], ["tune", "--set", f"data.path={url}"]):
        code, out, error = cli(*arguments)
        assert (code, out, error.count("\n")) == (2, "", 1)
        assert f"{USER}:***@127.0.0.1" in error
        assert PASSWORD not in error
    assert [*tmp_path.glob("*/")] == []
