"""Names, sizes and times of photos: links, and the arrays that hold them."""

import os
from pathlib import Path

import numpy as np
import pytest

from flowerfast.errors import UserError
from flowerfast.photos import listing
from flowerfast.photos.listing import Listing, list_photos, split_paths


def paths(listing: Listing) -> list[str]:
    return split_paths(listing.path_bytes, listing.path_ends)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode("utf-8", "surrogateescape"))


def link(at: Path, to: Path | str) -> None:
    try:
        at.symlink_to(to)
    except OSError:
        pytest.skip("this file system has no links")


def test_rows_are_those_of_the_file_system(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/2.jpg",
        "b/10.JPG",
        "b/deep/er/ü.png",
        "b/deep/z.webp",
        "a/x.bmp",
        "a/notes.txt",
        "c/n.txt",
    )
    found = list_photos(tmp_path)
    assert found.classes == ("a", "b", "c")
    photos = ["a/x.bmp", "b/10.JPG", "b/2.jpg", "b/deep/z.webp", "b/deep/er/ü.png"]
    assert paths(found) == ["a/notes.txt", *photos, "c/n.txt"]  # what is in the others only the content tells
    assert found.label.tolist() == [0, 0, 1, 1, 1, 1, 2]
    assert found.named.tolist() == [False, *[True] * 5, False]
    named = found.only(found.named)
    assert (named.classes, paths(named), named.label.tolist()) == (("a", "b"), photos, [0, 1, 1, 1, 1])
    stats = [(tmp_path / path).stat() for path in paths(found)]
    assert found.size.tolist() == [stat.st_size for stat in stats]
    assert found.mtime_ns.tolist() == [stat.st_mtime_ns for stat in stats]
    dtypes = [getattr(found, name).dtype for name in ("label", "fold", "size", "mtime_ns", "path_ends")]
    assert dtypes == [np.int32, np.uint8, np.int64, np.int64, np.int64]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/one.jpg", "store/two.jpg", "root/a/x.jpg", "root/b/y.jpg")
    link(tmp_path / "root/a/linked", tmp_path / "store")
    link(tmp_path / "root/b/link.jpg", tmp_path / "store/one.jpg")
    link(tmp_path / "root/b/gone.jpg", "nowhere.jpg")
    found = list_photos(tmp_path / "root")
    assert paths(found) == [
        "a/x.jpg", "a/linked/one.jpg", "a/linked/two.jpg", "b/gone.jpg", "b/link.jpg", "b/y.jpg",
    ]  # fmt: skip
    assert found.size[4] == (tmp_path / "store/one.jpg").stat().st_size
    assert found.size[3] == len("nowhere.jpg")  # of the link itself


@pytest.mark.parametrize(
    ("at", "to"),
    [("a/up", ".."), ("a/up", "../.."), ("a/deep/round", "../../a"), ("a/deep/here", "."), ("b/up", "..")],
)
@pytest.mark.parametrize("halves", [("",), ("train/", "val/")])
def test_a_link_back_to_a_folder_above_lists_nothing_twice(
    tmp_path: Path, halves: tuple[str, ...], at: str, to: str
) -> None:
    """Else one photo would come dozens of times, and `up -> ..` would bring the other classes' photos."""
    names = [half + name for half in halves for name in ("a/deep/y.jpg", "a/x.jpg", "b/z.jpg")]
    touch(tmp_path / "root", *names)
    for half in halves:
        link(tmp_path / "root" / half / at, to)
    found = list_photos(tmp_path / "root")
    assert sorted(paths(found)) == sorted(names)
    labels = [path.split("/")[-2 - ("deep" in path)] for path in paths(found)]
    assert [found.classes[label] for label in found.label] == labels
    assert found.classes == ("a", "b")


def test_a_link_to_itself_is_no_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "b/y.jpg")
    for at in ("loop", "a/loop"):
        link(tmp_path / at, "loop")
    assert paths(list_photos(tmp_path)) == ["a/x.jpg", "b/y.jpg"]


def test_the_fingerprint_tells_where_one_name_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "b/y.jpg")
    one = list_photos(tmp_path)
    other = Listing(**{**vars(one), "path_ends": one.path_ends - np.array([1, 0])})
    assert one.fingerprint() != other.fingerprint()
    assert one.fingerprint() == list_photos(tmp_path).fingerprint()
    assert one.fingerprint(1) != one.fingerprint(2)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "a/shut/z.jpg", "b/y.jpg")
    (tmp_path / "a/shut").chmod(0)
    with pytest.raises(UserError, match=r"a/shut: cannot be read \(Permission denied\), so its photos would"):
        list_photos(tmp_path)
    (tmp_path / "a/shut").chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("then", ["gone", "pipe"])
def test_what_goes_between_two_looks_is_a_bad_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """A photo, and a whole folder, that are there when names are listed, and not when sizes are."""
    touch(tmp_path, "a/x.jpg", "a/y.jpg", "b/z.jpg", "c/z.jpg")
    part = listing._part

    def late(folder: str, prefix: str, names: list[str]) -> object:
        (tmp_path / "a/x.jpg").unlink(missing_ok=True)
        if prefix == "b":
            (tmp_path / "b/z.jpg").unlink()
            (tmp_path / "b").rmdir()
            if then == "pipe":
                os.mkfifo(tmp_path / "b")
        return part(folder, prefix, names)

    monkeypatch.setattr(listing, "_part", late)
    found = list_photos(tmp_path)
    assert paths(found) == ["a/x.jpg", "a/y.jpg", "b/z.jpg", "c/z.jpg"]
    assert found.size.tolist() == [0, 7, 0, 7]
