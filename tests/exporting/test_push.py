"""To the hub: it is on this machine, and takes, refuses, fails or is not there."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from flowerfast.errors import UserError
from flowerfast.exporting import push as module
from flowerfast.exporting.push import check_repository
from tests.exporting.taking_hub import TOKEN, TakingHub, taking_hub

Cli = Callable[..., tuple[int, str, str]]
close_session = getattr(huggingface_hub, "close_session", lambda: None)  # its client before 1.0 needs none
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:httpx.*")  # of how the client uses it


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TakingHub]:
    """A hub for this process, which has a token for it and little patience."""
    with taking_hub() as server:
        for key in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(key, raising=False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
        close_session()
        yield server
        close_session()


@pytest.fixture
def push(cli: Cli, run: Path, hub: TakingHub) -> Callable[..., tuple[int, str, str]]:
    """Function (*options) → (exit code, stdout, stderr) of an export that is pushed."""
    return lambda *options: cli(
        "export", run, "--format", "safetensors", "--out", "out", "--push", "alice/flowers", *options
    )


@pytest.mark.parametrize("public", [False, True])
def test_the_folder_goes_to_a_repository(
    push: Callable[..., tuple[int, str, str]], hub: TakingHub, tmp_path: Path, public: bool
) -> None:
    code, out, err = push(*["--public"] * public)
    assert (code, err) == (0, ""), err
    assert out.endswith(f"pushed: {hub.address}/alice/flowers\n")
    assert hub.files == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert {*hub.files} == {"README.md", "config.json", "model.safetensors"}
    (asked,) = hub.made
    assert (asked["organization"], asked["name"]) == ("alice", "flowers")
    assert asked.get("private", asked.get("visibility") == "private") is not public


@pytest.mark.parametrize("fault", ["no hub", "offline", "silent", "silent later", "no token", "wrong token"])
def test_a_hub_out_of_reach_is_said_before_the_work(
    push: Callable[..., tuple[int, str, str]], hub: TakingHub, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, fault: str,
) -> None:  # fmt: skip
    if fault == "no hub":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
        )
    elif fault == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif fault == "silent":
        hub.silent = ""
    elif fault == "silent later":
        monkeypatch.setattr(module, "_PATIENCE", 0.3)
        hub.silent = "whoami"
    elif fault == "no token":
        monkeypatch.delenv("HF_TOKEN")
    else:
        monkeypatch.setenv("HF_TOKEN", "hf_another")
    said = {
        "no token": "no token of .* on this machine; run hf auth login, or set HF_TOKEN$",
        "wrong token": "answers HTTP 401: see to the token",
    }.get(fault, "cannot reach .*; drop --push, and upload the folder later: hf upload")
    code, out, err = push()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("flowerfast: error: --push alice/flowers: ")
    assert re.search(said, err.strip()), err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/api/repos/create", 403, 2), ("/preupload/", 500, 1), ("/put/", 403, 1), ("/commit/", 503, 1)],
)
def test_an_upload_that_fails_leaves_the_folder(
    push: Callable[..., tuple[int, str, str]],
    hub: TakingHub,
    tmp_path: Path,
    path: str,
    status: int,
    code: int,
) -> None:
    hub.fault = path, status
    found, out, err = push()
    assert (found, err.count("\n"), "pushed" in out) == (code, 1, False), err
    assert err.startswith("flowerfast: error: --push alice/flowers: ")
    assert err.endswith("out is whole: upload it later, hf upload alice/flowers out\n")
    assert (tmp_path / "out/model.safetensors").is_file()
    assert not hub.files


@pytest.mark.parametrize("path", ["/api/repos/create", "/preupload/", "/commit/"])
def test_an_upload_that_is_never_answered_ends(
    push: Callable[..., tuple[int, str, str]], hub: TakingHub, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.5)
    monkeypatch.setattr(module, "_SLOWEST", 1e9)
    hub.silent = path
    code, out, err = push()
    hub.over.set()
    for thread in threading.enumerate():
        if thread.name == "flowerfast-waiting":
            thread.join()
    assert (code, err.count("\n"), "pushed" in out) == (1, 1, False), err
    assert "the upload failed: " in err
    assert "has not answered for" in err
    assert err.endswith("out is whole: upload it later, hf upload alice/flowers out\n")


@pytest.mark.parametrize(
    "name", ["flowers", "/flowers", "a/b/c", "a b/c", "a/..", "alice/x--y", "a/b.git", "é/b"]
)
def test_what_names_no_repository_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="give OWNER/NAME, as alice/flowers"):
        check_repository(name)
