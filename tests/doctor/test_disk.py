"""The cache folder and the disk of the photos."""

import time
from pathlib import Path

import pytest

from flowerfast import machine
from flowerfast.doctor import disk
from flowerfast.doctor.disk import cache_lines, photo_lines, read_some, tried


def test_the_cache_folder_is_tried_and_nothing_is_left_there(own_cache: Path) -> None:
    (line,) = cache_lines()
    assert line.name == "cache disk"
    assert f"{own_cache}: " in line.found
    assert [*own_cache.iterdir()] == []


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("FLOWERFAST_CACHE", str(tmp_path / "file/in"))
    monkeypatch.setattr(machine, "_temporary_places", lambda: [tmp_path / "temporary"])
    lines = [*cache_lines()]
    assert [(line.name, line.state) for line in lines][:1] == [("cache folder", "warn")]
    assert f"{tmp_path}/file is no folder" in lines[0].found
    assert "FLOWERFAST_CACHE" in lines[0].mend
    monkeypatch.setenv("FLOWERFAST_CACHE", str(tmp_path / "file/other"))
    monkeypatch.setattr(machine, "_temporary_places", list)
    (line,) = cache_lines()
    assert (line.name, line.state, "FLOWERFAST_CACHE" in line.mend) == ("cache folder", "fail", True)


@pytest.mark.parametrize(
    ("free", "speeds", "state", "mend"),
    [
        (5 << 30, (400.0, 900.0), "ok", ""),
        (5 << 20, (400.0, 900.0), "warn", "make room"),
        (5 << 30, (3.0, 900.0), "warn", "on a disk of this machine"),
    ],
)
def test_a_full_or_slow_cache_disk_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, free: int, speeds: tuple[float, float], state: str, mend: str
) -> None:
    monkeypatch.setattr(disk, "free_disk", lambda _: free)
    monkeypatch.setattr(disk, "tried", lambda _: speeds)
    (line,) = cache_lines()
    assert (line.state, mend in line.mend) == (state, True)


def test_speeds_are_of_what_was_written_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, read = tried(tmp_path)
    assert min(written, read) > 0
    for name, size in (("a/x.jpg", 3000), ("b/c/y.jpg", 5000)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(size))
    files, size, seconds = read_some(tmp_path)
    assert (files, size, seconds > 0) == (2, 8000, True)
    monkeypatch.setattr(disk, "_SECONDS", 0.0)  # the time is up at once
    assert read_some(tmp_path)[0] == 1


@pytest.mark.parametrize(
    ("measured", "state"),
    [
        ((300, 30_000_000, 1.0), "ok"),
        ((2, 900_000_000, 1.0), "ok"),
        ((9, 900_000, 1.0), "warn"),
        ((0, 0, 0.1), "warn"),
    ],
)
def test_a_slow_disk_of_photos_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, measured: tuple[int, int, float], state: str
) -> None:
    monkeypatch.setattr(disk, "read_some", lambda _: measured)
    (line,) = photo_lines(tmp_path / "my photos")
    assert (line.state, bool(line.mend)) == (state, state == "warn")
    if measured[0] == 9:
        assert f"flowerfast pack '{tmp_path}/my photos' " in line.mend


def test_photos_at_a_url_are_not_measured() -> None:
    (line,) = photo_lines(Path("s3://bucket/flowers"))
    assert (line.state, line.found.startswith("s3://bucket/flowers: not on this machine")) == ("ok", True)


def test_loops_of_links_among_photos_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(bytes(3000))
    (tmp_path / "self").symlink_to("self")
    assert read_some(tmp_path)[:2] == (1, 3000)


def test_a_disk_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(disk, "_PATIENCE", 0.02)
    monkeypatch.setattr(disk, "tried", lambda _: time.sleep(0.3))
    with pytest.raises(TimeoutError, match="has not answered"):
        list(cache_lines())


def test_a_disk_that_fails_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk, "read_some", broken)
    with pytest.raises(OSError, match="Input/output"):
        list(photo_lines(tmp_path))
