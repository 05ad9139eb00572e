"""Photos with several labels in shards: as the table has them, whole and in parts, for other readers too."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flowerfast.config import DataConfig
from flowerfast.errors import UserError
from flowerfast.packing.pack import pack
from flowerfast.packing.parts import parse_part
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.label_sets import LabelSets
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX, read_index, write_index
from tests.tags import NAMES, flags, tagged

COLUMNS = DataConfig(label_columns="*")
SMALL = PackSettings(shard_bytes=20_480)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return flags(tmp_path / "flags.csv", tagged(tmp_path, 12))


def test_shards_have_the_labels_of_the_table(table: Path, tmp_path: Path) -> None:
    packed = pack(table, tmp_path / "shards", SMALL, COLUMNS)
    assert (packed.photos, packed.labels) == (12, "json")
    shards, photos = Photos(tmp_path / "shards"), Photos(table, label_columns="*")
    assert (shards.classes, shards.multilabel) == (NAMES, True)
    assert np.array_equal(shards.labels, photos.labels)
    for ours, theirs in zip(shards.split(0.3, 1), photos.split(0.3, 1), strict=True):
        assert np.array_equal(ours.indices, theirs.indices)
    some = Photos(tmp_path / "shards", classes=["red"])
    assert (some.classes, some.labels.tolist()) == (("red",), photos.labels[:, [2]].tolist())
    assert some.fingerprint != shards.fingerprint
    assert not pack(table, tmp_path / "shards", SMALL, COLUMNS).fresh  # done already
    pack(tmp_path / "shards", tmp_path / "again", SMALL, DataConfig())
    assert Photos(tmp_path / "again").fingerprint == shards.fingerprint


def test_other_readers_find_a_list_of_numbers_beside_each_photo(table: Path, tmp_path: Path) -> None:
    pack(table, tmp_path / "shards", SMALL, COLUMNS)
    found, labels = {}, Photos(table, label_columns="*").labels
    for shard in sorted((tmp_path / "shards").glob("*.tar")):
        with tarfile.open(shard) as members:
            for member in members:
                if member.name.endswith(".json"):
                    content = members.extractfile(member)
                    assert content is not None
                    found[int(member.name[:9])] = json.load(content)
    assert found == {row: np.flatnonzero(has).tolist() for row, has in enumerate(labels)}


def test_parts_are_together_what_is_packed_whole(table: Path, tmp_path: Path) -> None:
    pack(table, tmp_path / "whole", SMALL, COLUMNS)
    for number in (1, 2):
        pack(table, tmp_path / "parts", SMALL, COLUMNS, part=parse_part(f"{number}/2"))
    assert read_index(tmp_path / "parts").fingerprint == read_index(tmp_path / "whole").fingerprint
    assert np.array_equal(Photos(tmp_path / "parts").labels, Photos(tmp_path / "whole").labels)


def test_a_killed_packing_goes_on(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(table, tmp_path / "whole", SMALL, COLUMNS)
    with monkeypatch.context() as patch:
        patch.setattr("flowerfast.packing.shard_writer.write_index", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack(table, tmp_path / "out", SMALL, COLUMNS)
    pack(table, tmp_path / "out", replace(SMALL, quality=80), COLUMNS)  # what it left is known as its own
    assert np.array_equal(Photos(tmp_path / "out").labels, Photos(tmp_path / "whole").labels)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_index_with_sets_that_are_none_is_refused(table: Path, tmp_path: Path) -> None:
    pack(table, tmp_path / "shards", SMALL, COLUMNS)
    index = read_index(tmp_path / "shards")
    assert index.version == 2  # which earlier versions refuse, in one line
    assert index.sets is not None
    for members in (index.sets.members + 1, index.sets.members[:-1]):
        write_index(replace(index, sets=LabelSets(members, index.sets.ends)), tmp_path / "shards")
        with pytest.raises(UserError, match=r"no index of this flowerfast \((a set|sets) .+\); bring"):
            read_index(tmp_path / "shards")
    write_index(replace(index, sets=LabelSets(np.zeros(0, np.int32), np.zeros(1, np.int64))), tmp_path)
    with pytest.raises(UserError, match=r"a label, fold or orientation that there is not"):
        read_index(tmp_path)
    (tmp_path / INDEX).unlink()
