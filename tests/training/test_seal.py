"""Checksums inside files: each kind has a place, each flipped bit is seen, files of others have none."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from flowerfast.training.saves import write_save
from flowerfast.training.seal import METADATA, Damaged, check, read_sealed, seal, write_sealed

CONTENT = {"sha": 1, "b": ["x", "ä"]}


def write(folder: Path, name: str) -> Path:
    """A small file of each kind, with its checksum."""
    file = folder / name
    if file.suffix == ".json":
        write_sealed(file, json.dumps(CONTENT))
    elif file.suffix == ".yaml":
        write_sealed(file, yaml.safe_dump(CONTENT))
    elif file.suffix == ".pt":
        write_save({"w": torch.arange(3)}, file, ".pt")
    else:
        save_file({"w": torch.arange(3)}, file, METADATA)
        seal(file, file.suffix)
    return file


KINDS = pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.pt", "a.safetensors"])


@KINDS
def test_every_flipped_bit_is_seen(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name)
    assert check(file)
    good = file.read_bytes()
    for place in range(len(good)):
        file.write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
        with pytest.raises(
            Damaged, match=f"{name}: damaged, its checksum does not fit; bring a good copy back"
        ):
            check(file)


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.safetensors"])
def test_a_lost_page_is_seen(tmp_path: Path, name: str) -> None:
    """The first, in which the checksum lies, too. A save without its end is no archive any more."""
    file = write(tmp_path, name)
    good = file.read_bytes()
    for place in range(0, len(good), 512):
        file.write_bytes((good[:place] + bytes(512))[: len(good)] + good[place + 512 :])
        with pytest.raises(Damaged):
            check(file)


@pytest.mark.parametrize("name", ["a.json", "a.yaml", "a.safetensors"])
def test_a_lost_end_is_seen_wherever_it_begins(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name)
    good = file.read_bytes()
    for place in range(len(good.rstrip(b"\0"))):
        file.write_bytes(good[:place] + bytes(len(good) - place))
        with pytest.raises(Damaged):
            check(file)


@KINDS
def test_readers_do_not_look_at_it(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name)
    if name == "a.json":
        content = json.loads(file.read_text(encoding="utf-8"))
        assert len(content.pop("sha256")) == 64
        assert content == CONTENT
        assert read_sealed(file) == CONTENT
    elif name == "a.yaml":
        assert yaml.safe_load(file.read_text(encoding="utf-8")) == CONTENT
    elif name == "a.pt":
        assert torch.equal(torch.load(file, weights_only=True)["w"], torch.arange(3))
    else:
        assert torch.equal(load_file(file)["w"], torch.arange(3))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b"{}"), ("a.json", b""), ("a.json", b'{\n "best_epoch": 1}'), ("a.json", b'{"sha": 2}'),
     ("a.yaml", b"data:\n  path: x\n"), ("a.yaml", b""), ("a.pt", b"x"), ("a.txt", b"x")],
)  # fmt: skip
def test_other_files_have_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert not check(tmp_path / name)


def test_other_metadata_is_none(tmp_path: Path) -> None:
    save_file({"w": torch.arange(30)}, tmp_path / "a.safetensors", {"format": "pt"})
    torch.save({"w": 1}, tmp_path / "a.pt")
    assert not check(tmp_path / "a.safetensors")
    assert not check(tmp_path / "a.pt")
