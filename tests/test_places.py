"""A folder and a URL are told apart, whatever a `Path` has made of the URL."""

from pathlib import Path

import pytest

from flowerfast.places import in_full, spelled, url_of


@pytest.mark.parametrize(
    "url",
    ["s3://bucket/shards", "https://host:8080/a/b", "hf://datasets/me/flowers", "gs://b", "file:///tmp/x"],
)
def test_a_url_is_found_again_behind_a_path(url: str) -> None:
    for given in (url, f"{url}/", Path(url)):
        assert url_of(given) == in_full(given) == spelled(given) == url
    assert url_of(Path(url) / "part-001-of-002") == f"{url}/part-001-of-002"


@pytest.mark.parametrize(
    "folder", ["photos", "/photos", "./a:b", "C:/photos", "c:\\photos", "~/x", "a:b/c", "/s3:/bucket", "s3:"]
)
def test_all_else_is_a_folder(folder: str) -> None:
    assert url_of(folder) is None
    assert in_full(folder) == str(Path(folder).resolve())
    assert spelled(Path(folder)) == str(Path(folder))
