"""A folder and a URL are told apart, whatever a `Path` has made of the URL."""

from pathlib import Path

import pytest

from flowerfast.arguments import path, place
from flowerfast.errors import UserError
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
    "folder",
    ["photos", "/photos", "./a:b", "C:/photos", "c:\\photos", "~/x", "a:b/c", "/s3:/bucket", "/s3:", "C:"],
)
def test_all_else_is_a_folder(folder: str) -> None:
    assert url_of(folder) is None
    assert in_full(folder) == str(Path(folder).resolve())
    assert spelled(Path(folder)) == str(Path(folder))


@pytest.mark.parametrize("url", ["s3://", "gs://", "https://", "file:///", "S3:", "hf:/", "memory:////"])
def test_a_url_that_ends_before_its_place_is_no_folder(url: str) -> None:
    for given in (url, Path(url)):
        with pytest.raises(
            UserError, match=rf"^{url.lower().rstrip('/')}//: a URL that ends there; give all of"
        ):
            url_of(given)
        with pytest.raises(UserError, match="a URL that ends there"):
            path("out", given)


@pytest.mark.parametrize("url", ["s3:///flowers", "GS:////a/b", "https:///x"])
def test_an_empty_bucket_in_text_does_not_make_one_of_the_folder(url: str) -> None:
    for look in (url_of, lambda given: place("data", given)):
        with pytest.raises(
            UserError, match=rf"^{url}: no bucket or host after .+://, of a variable .*; put its name"
        ):
            look(url)
    assert url_of("memory:///a/b") == "memory://a/b"
    assert url_of(Path(url)) is not None  # where that cannot be seen any more


def test_a_chain_of_urls_is_no_folder() -> None:
    for given in ("simplecache::s3://bucket/a", Path("blockcache::memory://a/b")):
        with pytest.raises(UserError, match=rf"^{given}: a chain of URLs; give the last one alone"):
            url_of(given)
    assert url_of("a::b/c") is None


@pytest.mark.parametrize(
    "url", ["https://ann:secret@host/a", Path("ftp://ann:se:cr@et@host/a"), "http://:x@h/a"]
)
def test_a_password_in_a_url_is_refused_and_not_said(url: str | Path) -> None:
    with pytest.raises(
        UserError, match=r"://(ann)?:\*\*\*@h(ost)?/a: a password in a URL comes to lie"
    ) as met:
        url_of(url)
    assert "secret" not in str(met.value)
    assert "se:cr" not in str(met.value)


@pytest.mark.parametrize(
    "given", ["sftp://ann@host/a", "https://host:80/a@b", "hf://datasets/me/x@v1:2", "a:b@c"]
)
def test_what_only_looks_like_a_password_is_none(given: str) -> None:
    assert given in (url_of(given), spelled(given))
