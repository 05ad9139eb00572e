"""From the hub to a run: downloads, the cache, and all that a hub may do instead; it is on this machine."""

import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import load_file, save, save_file
from torch import nn

from flowerfast.errors import RunFailed, UserError
from flowerfast.training import hub as module
from flowerfast.training import run as run_module
from tests.training.local_hub import COMMIT, LocalHub, local_hub

Cli = Callable[..., tuple[int, str, str]]
Build = Callable[..., nn.Module]
close_session = getattr(huggingface_hub, "close_session", lambda: None)  # its client before 1.0 needs none
TINY = "timm/test_resnet.r160_in1k"
PAPER = "timm/resnet18.tv_in1k"
WEIGHTS = "model.safetensors"
WAYS_OUT = r"model\.weights=FILE.*model\.pretrained=false"


def made(name: str, classes: int = 1000) -> bytes:
    """Weights of a network as the hub has them, random."""
    torch.manual_seed(3)
    return save(timm.create_model(name, num_classes=classes).state_dict())


@pytest.fixture(scope="module")
def tiny() -> bytes:
    return made("test_resnet")


@pytest.fixture
def hub(tiny: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with the weights of test_resnet for this process, which has an empty cache and no patience."""
    with local_hub() as server:
        server.files[f"{TINY}/{WEIGHTS}"] = tiny
        for key in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(key, raising=False)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.address + template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
        monkeypatch.setattr(file_download, "time", SimpleNamespace(sleep=lambda _: None))
        close_session()
        yield server
        close_session()


@pytest.fixture
def start(cli: Cli, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Function (*settings, model="test_resnet") → (exit code, stdout, stderr) of `train` from the hub."""
    monkeypatch.setattr(run_module, "draw", lambda *_: None)

    def train(*settings: str, model: str = "test_resnet") -> tuple[int, str, str]:
        all_settings = ["data.image_size=32", "data.workers=1", "data.kernels=torchvision", "train.epochs=1",
                        "train.batch_size=16", "train.device=cpu", *settings]  # fmt: skip
        return cli("train", photos, "--model", model, *(x for key in all_settings for x in ("--set", key)))

    return train


def only_line(err: str) -> str:
    assert err.count("\n") == 1, err
    assert err.startswith("flowerfast: error: model.")
    return err


def kept(tmp_path: Path) -> list[str]:
    """Files of the hub's cache that hold something of a repository."""
    files = [
        *(tmp_path / "hub").glob("models--*/blobs/*"),
        *(tmp_path / "hub").glob("models--*/snapshots/*/*"),
    ]
    return [file.name for file in files]


def test_weights_are_fetched_once_and_never_asked_for_again(
    hub: LocalHub, start: Callable[..., Any], build: Build, tmp_path: Path, tiny: bytes
) -> None:
    code, out, err = start()
    assert (code, err) == (0, "")
    line = f"fetching {WEIGHTS} of {TINY} from {hub.address}, {len(tiny) / 1e6:.1f} MB\n"
    assert out.count(line) == 1
    assert hub.asked.count(f"GET {WEIGHTS}") == 1
    assert {*hub.asked} == {f"HEAD {WEIGHTS}", f"GET {WEIGHTS}"}
    hub.asked.clear()
    hub.fault = 500
    code, out, err = start()
    assert (code, err, hub.asked) == (0, "", [])
    assert "fetching" not in out
    network = build(pretrained=True).state_dict()
    weights = load_file(next((tmp_path / "hub").rglob(WEIGHTS)))
    body = [key for key in network if not key.startswith("fc.")]
    assert body
    assert all(torch.equal(network[key], weights[key]) for key in body)


def test_weights_of_no_layer_of_the_network_are_not_taken_for_its_own(
    hub: LocalHub, build: Build, tmp_path: Path
) -> None:
    save_file({"of.another.network": torch.zeros(3)}, tmp_path / "foreign.safetensors")
    hub.files[f"{TINY}/{WEIGHTS}"] = (tmp_path / "foreign.safetensors").read_bytes()
    assert "its weights cannot be used (no layer of the network is in the file); delete " in refused(
        UserError, build
    )


def test_a_repository_that_has_pickles_alone(hub: LocalHub, build: Build, tmp_path: Path) -> None:
    hub.files.clear()
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "weights.bin")
    hub.files[f"{TINY}/pytorch_model.bin"] = (tmp_path / "weights.bin").read_bytes()
    build(pretrained=True)
    assert hub.asked[:2] == [f"HEAD {WEIGHTS}", "HEAD pytorch_model.bin"]


def test_a_connection_that_breaks_once_is_taken_up_where_it_broke(hub: LocalHub, build: Build) -> None:
    hub.fault = "hiccup"
    build(pretrained=True)
    assert hub.asked.count(f"GET {WEIGHTS}") == 2


def refused(kind: type[Exception], build: Build, **options: Any) -> str:
    """The one line of a network that cannot be had."""
    with pytest.raises(kind) as caught:
        build(pretrained=True, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [("cut", "did not arrive whole"), ("stalls", "did not arrive whole"),
     ("short", r"did not arrive whole \(Consistency check failed"), ("spoilt", "its checksum does not fit"),
     (500, "answers HTTP 500"), (503, "answers HTTP 503"), (429, "answers HTTP 429")],
)  # fmt: skip
def test_what_the_hub_does_wrong_leaves_nothing_and_the_next_start_works(
    hub: LocalHub, build: Build, tmp_path: Path, fault: str | int, said: str
) -> None:
    hub.fault = fault
    expected = rf"^model.* model\.name=test_resnet: .*{said}.*nothing of it is kept: try again.*{WAYS_OUT}"
    assert re.search(expected, refused(RunFailed, build))
    assert kept(tmp_path) == []
    hub.fault = None
    build(pretrained=True)
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [("silent", r"cannot reach {hub} for {repo} \(.*timed out.*\)"),
     ("no hub", "cannot reach {hub} for {repo}"),
     ("offline", r"cannot reach {hub} for {repo} \(.*HF_HUB_OFFLINE"),
     ("no repository", r"{hub}/{repo}: no such repository or revision.*HTTP 404"),
     (404, "no such repository.*404"), (401, "or none that may be read .HTTP 401"),
     (403, r"refused \(HTTP 403\)"), ("portal", "is not that of a hub"),
     ("no weights", "no model.safetensors or pytorch_model.bin there")],
)  # fmt: skip
def test_without_weights_to_be_had_the_ways_out_are_named(
    hub: LocalHub, build: Build, monkeypatch: pytest.MonkeyPatch, fault: str | int, said: str
) -> None:
    if fault == "no hub":
        hub.server_close()
    elif fault == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif fault in ("no repository", "no weights"):
        hub.files = {f"{TINY}/config.json": b"{}"} if fault == "no weights" else {}
    else:
        hub.fault = fault
    said = said.format(hub=re.escape(hub.address), repo=re.escape(TINY))
    assert re.search(rf"{said}.*{WAYS_OUT}", refused(UserError, build))
    assert len(hub.asked) <= 2


@pytest.mark.parametrize(("fault", "code"), [("cut", 1), (503, 1), ("silent", 2), ("no hub", 2)])
def test_a_run_that_has_no_weights_says_so_in_one_line_and_leaves_no_folder(
    hub: LocalHub, start: Callable[..., Any], tmp_path: Path, fault: str | int, code: int
) -> None:
    hub.fault = fault
    if fault == "no hub":
        hub.server_close()
    found, _, err = start()
    assert (found, only_line(err).startswith("flowerfast: error: model.pretrained=true, ")) == (code, True)
    assert not (tmp_path / "runs").exists()


def test_a_disk_that_is_full_is_named(hub: LocalHub, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "hf_hub_download", fail)
    line = (
        r"hub: cannot be written \(No space left on device: .* needed, .* free\); make room, then try again$"
    )
    assert re.search(line, refused(RunFailed, build))


def test_weights_that_were_damaged_in_the_cache_name_the_file_to_delete(hub: LocalHub, build: Build) -> None:
    build(pretrained=True)
    (blob,) = Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*")
    blob.write_bytes(blob.read_bytes()[:1000])
    line = refused(UserError, build)
    assert "model.name=test_resnet: its weights cannot be used (" in line
    assert f"delete {blob} to have it fetched again" in line
    blob.unlink()
    build(pretrained=True)


@pytest.mark.parametrize("content", [b"", b"junk", "more than tensors"], ids=str)
def test_pickles_that_are_no_tensors_are_refused(
    hub: LocalHub, build: Build, tmp_path: Path, content: bytes | str
) -> None:
    if isinstance(content, str):
        torch.save({"conv1.weight": tmp_path}, tmp_path / "weights.bin")  # a path is harmless, and no tensor
        content = (tmp_path / "weights.bin").read_bytes()
    hub.files = {f"{TINY}/pytorch_model.bin": content}
    assert "model.name=test_resnet: its weights cannot be used (" in refused(UserError, build)


def test_weights_of_another_shape_are_refused(hub: LocalHub, build: Build) -> None:
    state = timm.create_model("test_resnet").state_dict()
    hub.files[f"{TINY}/{WEIGHTS}"] = save({**state, "bn1.weight": torch.ones(3)})
    assert "model.name=test_resnet: its weights cannot be used (" in refused(UserError, build)


# ------------------------------------------------------------------ networks that a repository describes


@pytest.fixture
def flowers(hub: LocalHub, tmp_path: Path) -> str:
    """A model of somebody's on the hub, with its description."""
    torch.manual_seed(5)
    network = timm.create_model("test_resnet", num_classes=3)
    about = {"label_names": ["blue", "green", "red"]}
    timm.models.save_for_hf(network, str(tmp_path / "made"), model_config=about, safe_serialization=True)
    for name in ("config.json", WEIGHTS):
        hub.files[f"someone/flowers/{name}"] = (tmp_path / "made" / name).read_bytes()
    return "hf-hub:someone/flowers"


def test_a_repository_names_a_model_whose_files_are_of_one_commit(
    hub: LocalHub, flowers: str, start: Callable[..., Any], build: Build, tmp_path: Path
) -> None:
    assert start(model=flowers)[::2] == (0, "")
    assert [each for each in hub.asked if each.startswith("GET")] == ["GET config.json", f"GET {WEIGHTS}"]
    hub.asked.clear()
    hub.fault = "silent"
    build(f"{flowers}@{COMMIT}", classes=("blue", "green", "red"), pretrained=True)
    network = build(flowers, classes=("blue", "green", "red"), pretrained=True).state_dict()
    weights = load_file(tmp_path / "made" / WEIGHTS)
    assert all(torch.equal(network[key], value) for key, value in weights.items())
    assert hub.asked == []


@pytest.mark.parametrize("fault", ["silent", 503, "cut", "no repository", "no name"])
def test_every_command_that_asks_for_a_description_says_so_in_one_line(
    hub: LocalHub, flowers: str, start: Callable[..., Any], cli: Cli, photos: Path, fault: str | int
) -> None:
    if fault == "no repository":
        hub.files.clear()
    elif fault == "no name":
        flowers = "hf-hub:a//b"
    else:
        hub.fault = fault
    expected = 1 if fault in (503, "cut") else 2
    sets = ("--set", f"model.name={flowers}", "--set", "eval.crop_pct=null", "--set", "data.image_size=32")
    for code, _, err in (start(model=flowers), cli("parity", photos, *sets)):
        assert code == expected
        assert only_line(err).startswith(f"flowerfast: error: model.name={flowers}: ")
        assert "a name of timm's or local-dir:FOLDER" in err


# -------------------------------------------------------------------- the paper's, in processes of their own


_UNDRAWN = """
import sys
from flowerfast.commands import cli
from flowerfast.training import run
run.draw = lambda *_: None  # curves and report take longer than the training
sys.exit(cli.run())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a terminal as Linux has it")
def test_the_papers_weights_come_from_the_hub_once_and_then_from_the_cache_offline(
    photos: Path, tmp_path: Path
) -> None:
    """As users start it: the hub is named by HF_ENDPOINT, which its client reads when it is imported."""
    import pty
    import termios

    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "127.0.0.1"}
    environment.pop("HF_HUB_CACHE", None)
    sets = ("data.image_size=32", "data.workers=1", "data.kernels=torchvision", "train.epochs=1",
            "train.device=cpu")  # fmt: skip
    arguments = [part for each in sets for part in ("--set", each)]
    with local_hub() as hub:
        hub.files[f"{PAPER}/{WEIGHTS}"] = made("resnet18.tv_in1k")
        environment["HF_ENDPOINT"] = hub.address
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 150))
        done = subprocess.run(
            [sys.executable, "-c", _UNDRAWN, "train", photos, "--config", "paper", *arguments],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=theirs, text=True,
        )  # fmt: skip
        os.close(theirs)
        terminal = _read(ours)
        assert done.returncode == 0, terminal
        assert re.search(rf"{WEIGHTS}: 100%.*46\.\d", terminal)
        assert f"fetching {WEIGHTS} of {PAPER} from {hub.address}, 46." in done.stdout
        assert (hub.asked.count(f"GET {WEIGHTS}"), len({*hub.asked})) == (1, 2)
    (row,) = (tmp_path / "runs/photos-001/metrics.jsonl").read_text().splitlines()
    assert {"val_acc", "val_loss", "val_aug_acc", "val_aug_loss"} < json.loads(row).keys()
    code = "from flowerfast.training.hub import HubFile\nprint(HubFile(PLACE, (FILE,), '', '').fetch())"
    code = code.replace("PLACE", repr(PAPER)).replace("FILE", repr(WEIGHTS))
    again = subprocess.run(
        [sys.executable, "-c", code], env={**environment, "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (again.returncode, again.stderr) == (0, "")
    assert Path(again.stdout.strip()).read_bytes() == hub.files[f"{PAPER}/{WEIGHTS}"]


def _read(terminal: int) -> str:
    parts = []
    while True:
        try:
            parts.append(os.read(terminal, 65536))
        except OSError:  # its other end is closed
            os.close(terminal)
            return b"".join(parts).decode()
