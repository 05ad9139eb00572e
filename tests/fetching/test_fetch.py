"""Fetching as a user meets it: what is there afterwards, what is asked of the server, what is said."""

import errno
import json
import os
import re
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

import pytest

import flowerfast as ff
from flowerfast.fetching import download
from flowerfast.fetching.datasets import DATASETS
from flowerfast.fetching.fetch import MARKER
from flowerfast.fetching.unpack import unpack
from tests.fetching.conftest import CLASSES, Serve, flowers, member, packed

Cli = Callable[..., tuple[int, str, str]]
GONE = "http://127.0.0.1:9/flowers.tgz"  # nobody listens there


def files(root: Path) -> set[str]:
    return {str(file.relative_to(root)) for file in root.rglob("*") if not file.is_dir()}


WHOLE = {MARKER, "LICENSE.txt", *(f"{name}/{i}.jpg" for name, count in CLASSES.items() for i in range(count))}


def test_the_flowers_are_known_by_a_published_checksum() -> None:
    known = DATASETS["flowers"]
    assert (known.size, known.photos, len(known.sha256)) == (228_813_984, 3670, 64)
    assert known.url.startswith("https://")


def test_photos_are_there_whole_and_a_second_time_at_once(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    server = serve(packed(flowers()))
    server.faults = ["moved"]
    code, out, err = cli("fetch", "flowers", "new/flowers", "--json", "result.json")
    assert (code, err) == (0, "")
    assert out.startswith("downloading 0.0 MB from http://127.0.0.1:")
    assert (
        "new/flowers: 5 photos of 2 classes (daisy, rose)\ntrain on them with: flowerfast train new/" in out
    )
    assert files(tmp_path / "new") == {f"flowers/{name}" for name in WHOLE}
    assert (tmp_path / "new/flowers/rose/1.jpg").read_bytes() == Random("rose/1.jpg").randbytes(1000)
    asked = len(server.asked)
    told = json.loads((tmp_path / "result.json").read_text())
    assert told == {"folder": "new/flowers", "photos": 5, "classes": CLASSES, "fresh": True}
    code, out, err = cli("fetch", "flowers", "new/flowers", "-q")
    assert (code, out, err) == (0, "new/flowers: there already: 5 photos of 2 classes (daisy, rose)\n", "")
    assert len(server.asked) == asked
    (tmp_path / "new/flowers/rose/1.jpg").unlink()
    code, _, err = cli("fetch", "flowers", "new/flowers")
    assert (code, "photos of rose are missing; delete it to fetch it again" in err) == (2, True)


def test_a_broken_connection_is_taken_up_where_it_broke(serve: Serve, tmp_path: Path) -> None:
    content = packed(flowers())
    server = serve(content)
    server.faults = ["cut", 503, "cut"]
    seen: list[int] = []

    result = ff.fetch(
        "flowers", tmp_path / "flowers", bars=lambda _: nullcontext(lambda done, total: seen.append(done))
    )
    assert result == ff.Fetched(tmp_path / "flowers", CLASSES, fresh=True)
    half = len(content) // 2
    assert server.asked == [
        (None, None),
        (f"bytes={half}-", '"one"'),
        (f"bytes={half}-", '"one"'),
        (f"bytes={half + (len(content) - half) // 2}-", '"one"'),
    ]
    assert len(content) in seen


def test_what_arrived_is_kept_for_the_same_command(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    content = packed(flowers())
    server = serve(content)
    server.faults = ["cut", *[500] * 3]
    code, _, err = cli("fetch", "flowers", "flowers")
    assert code == 1
    half = f"{len(content) // 2:,} of {len(content):,} bytes have arrived"
    assert re.fullmatch(
        rf"flowerfast: error: http\S+: {half} \(HTTP 500 .+\); the same command goes on.*\n", err
    )
    assert not (tmp_path / "flowers").exists()
    server.asked.clear()
    assert cli("fetch", "flowers", "flowers")[0] == 0
    assert server.asked == [(f"bytes={len(content) // 2}-", '"one"')]
    assert files(tmp_path) == {f"flowers/{name}" for name in WHOLE}


def test_another_file_by_then_and_a_server_without_parts_begin_anew(
    cli: Cli, serve: Serve, tmp_path: Path
) -> None:
    server = serve(packed(flowers()))
    server.faults = ["cut", "whole"]
    assert cli("fetch", "flowers", "one")[0] == 0
    server.faults = ["cut", 500, 500, 500]
    assert cli("fetch", "flowers", "two")[0] == 1
    server.etag = '"two"'
    assert cli("fetch", "flowers", "two")[0] == 0
    server.faults = ["cut", 500, 500, 500]
    assert cli("fetch", "flowers", "three")[0] == 1
    server.faults = [416]
    assert cli("fetch", "flowers", "three")[0] == 0


def test_a_mirror_and_a_file(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    content = packed(flowers())
    server = serve(content)
    assert cli("fetch", "flowers", "one", "--url", f"{server.address}/elsewhere.tgz")[0] == 0
    (tmp_path / "my flowers.tgz").write_bytes(content)
    assert cli("fetch", "flowers", "two", "--url", f"file://{tmp_path}/my%20flowers.tgz")[0] == 0
    assert (tmp_path / "my flowers.tgz").read_bytes() == content
    (tmp_path / "other.tgz").write_bytes(content[:-1])
    code, _, err = cli("fetch", "flowers", "three", "--url", f"file://{tmp_path}/other.tgz")
    assert (code, "not that archive, its checksum (SHA-256) differs" in err) == (2, True)
    assert (tmp_path / "other.tgz").is_file()


def test_another_content_is_thrown_away(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    content = packed(flowers())
    server = serve(content)
    server.content = content[:-1] + b"x"
    code, _, err = cli("fetch", "flowers", "flowers")
    assert code == 1
    assert "what has arrived is another file, its checksum (SHA-256) differs; nothing of it is kept" in err
    assert "flowers.partial/archive" not in files(tmp_path)
    server.content = content
    assert cli("fetch", "flowers", "flowers")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["flowers", "new", "--url", GONE],
            r"127.0.0.1:9/\S+: cannot be reached \(Connection refused\); see to",
        ),
        (["flowers", "new", "--url", "URL/missing"], r"/missing: HTTP 404 .+; take it from another place"),
        (
            ["flowers", "new", "--url", "ftp://x/y"],
            r"--url 'ftp://x/y': give a URL that begins with https://",
        ),
        (["flowers", "new", "--url", "file:///no/such.tgz"], r"cannot be read \(No such file or directory\)"),
        (["flowers", "new", "--url", "http://x/\u00e4"], r"cannot be reached \(.*ascii"),
        (["flowers", "full"], r"/full: holds something else than flowers; name another folder"),
        (["flowers", "full/mine.txt"], r"/full/mine.txt: is no folder"),
        (["flowers", "full/mine.txt/x"], r"full/mine.txt.*(is no folder|Not a directory|File exists)"),
        (["flowers", "."], r"cannot be replaced while one is in it; name a new folder"),
        (["flowers", "s3://bucket/flowers"], r"s3://bucket/flowers: a URL; give a path on this machine"),
        (["flowers", "taken"], r"/taken.partial: holds something else than a download"),
        (["trees", "new"], r"fetch 'trees': no such data set; there is flowers\n"),
        ([], r"Missing argument 'NAME'; see flowerfast fetch --help\n"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    cli: Cli, serve: Serve, tmp_path: Path, arguments: list[str], said: str
) -> None:
    server = serve(packed(flowers()))
    for name in ("full/mine.txt", "taken.partial/mine.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("mine")
    before = {*tmp_path.rglob("*")}
    code, out, err = cli("fetch", *(each.replace("URL", server.address) for each in arguments))
    assert (code, err.count("\n")) == (2, 1)
    assert re.search(said, err)
    assert "Traceback" not in out + err
    assert {*tmp_path.rglob("*")} == before


def test_a_name_that_is_none_is_refused_in_python(tmp_path: Path) -> None:
    with pytest.raises(ff.UserError, match=r"^fetch 'trees': no such data set; there is flowers$"):
        ff.fetch("trees", tmp_path / "x")


def test_another_length_is_refused_before_it_is_read(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    server = serve(packed(flowers()))
    server.faults = ["short"]
    code, _, err = cli("fetch", "flowers", "flowers")
    assert (code, "not the file that is wanted" in err) == (2, True)
    assert files(tmp_path) == set()


@pytest.mark.parametrize("fault", ["odd", "long", "elsewhere"])
def test_an_answer_that_is_no_http_is_one_line(cli: Cli, serve: Serve, tmp_path: Path, fault: str) -> None:
    server = serve(packed(flowers()))
    server.faults = [fault] * 9
    code, _, err = cli("fetch", "flowers", "flowers")
    assert (code in (1, 2), err.count("\n")) == (True, 1), err
    assert err.startswith("flowerfast: error: http://127.0.0.1")
    assert not any(file.endswith(".jpg") for file in files(tmp_path))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written(cli: Cli, serve: Serve, tmp_path: Path) -> None:
    serve(packed(flowers()))
    (tmp_path / "shut").mkdir(mode=0o500)
    code, _, err = cli("fetch", "flowers", "shut/flowers")
    assert (code, "shut/flowers.partial: cannot be written" in err) == (2, True)


@pytest.mark.parametrize("room", [0, 2000, 15_000])
def test_a_full_disk_is_said_and_what_fitted_is_kept(
    cli: Cli, serve: Serve, tmp_path: Path, room: int
) -> None:
    resource = pytest.importorskip("resource")
    serve(packed(flowers()))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        code, _, err = cli("fetch", "flowers", "flowers")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (code, err.count("\n")) == (1, 1)
    assert re.search(r"cannot be written \(File too large.*make room, then run the same command again", err)
    assert not (tmp_path / "flowers").exists()
    assert cli("fetch", "flowers", "flowers")[0] == 0
    assert files(tmp_path) == {f"flowers/{name}" for name in WHOLE}


def test_a_stop_keeps_what_arrived(
    cli: Cli, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(packed(flowers()))
    read = download._read
    monkeypatch.setattr(download, "_CHUNK", 50)
    chunks: list[bytes] = []

    def stopped(answer: Any) -> bytes:
        if len(chunks) == 3:
            raise KeyboardInterrupt
        chunks.append(read(answer))
        return chunks[-1]

    with monkeypatch.context() as patch:
        patch.setattr(download, "_read", stopped)
        assert cli("fetch", "flowers", "flowers")[0] == 130
    assert (tmp_path / "flowers.partial/archive").stat().st_size == 150
    server.asked.clear()
    assert cli("fetch", "flowers", "flowers")[0] == 0
    assert server.asked == [("bytes=150-", '"one"')]


HOSTILE = {
    "above": member("top/../../outside.jpg"),
    "absolute": member("/tmp/outside.jpg"),
    "deep": member("top/a/b/c.jpg"),
    "elsewhere": member("other/a/b.jpg"),
    "dots": member("top/../x.jpg"),
    "backslash": member("top/a/..\\x.jpg"),
    "link": member("top/a/x.jpg", tarfile.SYMTYPE, "/etc/passwd"),
    "folder link": member("top/daisy2", tarfile.SYMTYPE, "/tmp"),
    "hard link": member("top/a/x.jpg", tarfile.LNKTYPE, "/etc/passwd"),
    "pipe": member("top/a/x.jpg", tarfile.FIFOTYPE),
    "device": member("top/a/x.jpg", tarfile.CHRTYPE),
    "escape": member("top/a/x\x1b[2J/y.jpg"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_refused_and_write_nothing_elsewhere(
    cli: Cli, serve: Serve, tmp_path: Path, name: str
) -> None:
    serve(packed([*flowers()[:3], (HOSTILE[name], b""), *flowers()[3:]]))
    code, out, err = cli("fetch", "flowers", "deep/flowers")
    assert (code, err.count("\n")) == (1, 1)
    assert "not what is wanted, not unpacked" in err
    assert "\x1b" not in out + err
    assert not (tmp_path / "deep/flowers").exists()
    left = {Path(file).parts[:2] for file in files(tmp_path)}
    assert left == {("deep", "flowers.partial")}


def test_an_archive_of_other_size_than_photos_is_refused(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.tgz"
    bomb.write_bytes(packed([(member("top/a/x.jpg"), bytes(10_000_000))]))
    with pytest.raises(ff.RunFailed, match="holds more than 1 photos can have; not unpacked"):
        unpack(bomb, tmp_path / "one", "top", 1)
    assert files(tmp_path / "one") == set()
    archive = tmp_path / "archive.tgz"
    archive.write_bytes(packed(flowers()))
    with pytest.raises(ff.RunFailed, match="holds 5 photos, not 6"):
        unpack(archive, tmp_path / "two", "top", 6)
    with pytest.raises(ff.RunFailed, match="more than 3 photos"):
        unpack(archive, tmp_path / "three", "top", 3)
    twice = packed([*flowers(), *flowers()[2:3]])
    archive.write_bytes(twice)
    with pytest.raises(ff.RunFailed, match=os.strerror(errno.EEXIST)):
        unpack(archive, tmp_path / "four", "top", 6)
    for number, damaged in enumerate((packed(flowers())[:-200], b"no archive at all")):
        archive.write_bytes(damaged)
        with pytest.raises(ff.RunFailed, match="cannot be unpacked"):
            unpack(archive, tmp_path / f"damaged{number}", "top", 5)


def test_the_page_of_the_docs(
    cli: Cli, serve: Serve, write_photo: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs/fetch.md").read_text(encoding="utf-8")
    photo = write_photo(tmp_path / "photo.jpg").read_bytes()
    content = packed([(info, photo if info.name.endswith("jpg") else b"") for info, _ in flowers()])
    server = serve(content)
    (tmp_path / "flower_photos.tgz").write_bytes(content)
    commands = re.findall(r"^flowerfast (fetch [^#\n]+)", page, re.MULTILINE)
    assert len(commands) == 3
    for number, command in enumerate(commands):
        given = command.replace("flowers flowers", f"flowers flowers{number or ''}")
        given = given.replace("https://mirror.example", server.address)
        given = given.replace("/media/stick", str(tmp_path))
        assert cli(*given.split())[0] == 0
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(block, names)
    assert (len(names["train"]), len(names["val"]), names["fetched"].fresh) == (3, 2, False)
