"""shard_readers.py: what other readers find in our shards, and the table of it."""

import json
from pathlib import Path

import pytest

from benchmarks import shard_readers
from benchmarks.shard_readers import PACKED, READERS, Found, Reader, compared, packed
from benchmarks.shard_tables import readers as table_of

NEEDS = {"webdataset": "webdataset", "DALI": "nvidia.dali", "Hugging Face datasets": "datasets"}
NEEDS |= {"LitData": "litdata", "Mosaic Streaming": "streaming"}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("way", PACKED)
def test_others_find_every_photo_and_label_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, way: str
) -> None:
    pytest.importorskip(NEEDS[reader])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = compared(READERS[reader], tmp_path / "shards", packed(tmp_path, way))
    assert (found["found"], found["labels"], found["in_order"]) == (24, 24, True)
    if reader == "Hugging Face datasets" and way == "JPEG and PNG":
        assert (found["photos"], found["none"]) == (20, 4)  # fields of the first five samples
    else:
        assert found["photos"] == 24


def test_what_differs_is_counted_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(tars: list[Path], suffixes: list[str]) -> object:
        samples = [*READERS["webdataset"].read(tars, suffixes)][::-1]
        yield Found(samples[0].key, None, 7)
        yield Found(samples[1].key, b"another", samples[1].label)
        yield from samples[2:]

    def raising(tars: list[Path], suffixes: list[str]) -> object:
        raise ValueError("two\nlines")

    few = {
        "webdataset": READERS["webdataset"],
        "careless": Reader(careless, ("webdataset",), "read"),
        "raising": Reader(raising, (), "read"),
        "absent": Reader(careless, ("no-such-package",), "read"),
    }
    monkeypatch.setattr(shard_readers, "READERS", few)
    monkeypatch.setattr(shard_readers, "PACKED", {"plain": PACKED["plain"]})
    monkeypatch.setenv("HF_HOME", "")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert shard_readers.main(["--out", str(tmp_path / "x.json")]) == 0
    result = json.loads((tmp_path / "x.json").read_text())
    made = table_of("x.json", result)
    assert "| all | bytes, `b'3'` |" in made
    assert "| 22 of 24 photos, 1 come as `None` or empty, 23 of 24 labels, in another order |" in made
    assert "| raising: `read` |  | refused: ValueError: two" in made
    assert "| absent | no-such-package is not installed |" in made
