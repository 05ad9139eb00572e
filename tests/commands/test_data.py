"""`pack` as a user meets it: what it says, what others find, what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.runs import SHORT, load, load_rows, sets

Cli = Callable[..., tuple[int, str, str]]


def test_pack_then_train_evaluate_and_compare_on_shards(cli: Cli, photos: Path, tmp_path: Path) -> None:
    code, out, err = cli("pack", photos, "shards", "--shard-size", 0.02)
    assert (code, err) == (0, "")
    assert re.search(r"36 photos in \d+ shards, .* 36 copied, 0 shrunk, 0 skipped", out)
    assert len(list((tmp_path / "shards").glob("shard-*.tar"))) > 1
    assert cli("train", photos, *SHORT, "--out", "loose")[0] == 0
    code, out, err = cli("train", "shards", *SHORT, "--out", "packed")
    assert (code, err) == (0, "")
    assert load_rows(tmp_path / "packed") == load_rows(tmp_path / "loose")  # the very same training
    loose, packed = (load(tmp_path / name / "split.json") for name in ("loose", "packed"))
    assert (packed["train"], packed["val"]) == (loose["train"], loose["val"])
    results = []
    for data in (photos, "shards"):
        assert cli("evaluate", "packed", data, "--half", "val", "--json", "eval.json")[0] == 0
        results.append(load(tmp_path / "eval.json"))
    assert results[0]["confusion"] == results[1]["confusion"]
    more = sets("train.epochs=3", f"data.path={tmp_path / 'shards'}")
    assert cli("train", "--resume", "--out", "loose", *more)[0] == 0  # begun on the folder, ended on shards
    assert cli("train", "--resume", "--out", "packed", *sets("train.epochs=3"))[0] == 0
    assert load_rows(tmp_path / "packed") == load_rows(tmp_path / "loose")
    assert len(load_rows(tmp_path / "packed")) == 3


def test_pack_says_what_other_readers_will_find(cli: Cli, photos: Path) -> None:
    said = cli("pack", photos, "one")[1]
    assert "for other readers: every photo is KEY.jpg, its label KEY.cls" in said
    with Image.open(photos / "blue/00.jpg") as image:
        image.save(photos / "blue/99.png")
    said = cli("pack", photos, "two")[1]
    assert (
        'for other readers: 36 .jpg, 1 .png; webdataset and DALI want all suffixes named, "jpg;png"' in said
    )
    assert "--format jpg makes every photo a JPEG" in said
    code, said, _ = cli("pack", photos, "three", "--format", "jpg")
    assert (code, "36 copied, 0 shrunk, 1 re-coded, 0 skipped" in said) == (0, True)
    assert "for other readers: every photo is KEY.jpg" in said
    code, _, err = cli("pack", photos, photos / "four")
    assert code == 2
    assert re.fullmatch(r"flowerfast: error: .*/four: lies in .*, the folder of the photos; .*\n", err)


def test_pack_tells_what_it_did_as_json_and_what_it_skipped(cli: Cli, photos: Path, tmp_path: Path) -> None:
    (photos / "blue/01.jpg").write_bytes(b"no photo at all")
    code, out, err = cli("pack", photos, "shards", "--max-side", 32, "--quality", 80, "--json", "-")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert (result["photos"], result["shrunk"], result["shards"]) == (35, 35, 1)
    assert result["bad"] == [{"path": "blue/01.jpg", "error": "not an image"}]
    assert result["bytes_after"] == (tmp_path / "shards/shard-000000.tar").stat().st_size
    code, out, err = cli("pack", photos, "shards", "--max-side", 32, "--quality", 80)
    assert (code, err) == (0, "skipped: blue/01.jpg: not an image\n")
    assert out.startswith("packed already: 35 photos in 1 shard,")


def test_pack_verify_finds_damage(cli: Cli, photos: Path, tmp_path: Path) -> None:
    assert cli("pack", photos, "shards")[0] == 0
    code, out, err = cli("pack", "--verify", "shards", "--set", "data.workers=1")
    assert (code, err) == (0, "")
    assert "all photos are as they were packed" in out
    shard = tmp_path / "shards/shard-000000.tar"
    harmed = bytearray(shard.read_bytes())
    harmed[600:700] = bytes(100)  # the first label: no photo's bytes
    harmed[1600:1700] = bytes(100)
    shard.write_bytes(harmed)
    code, out, err = cli("pack", "--verify", "shards")
    assert code == 1
    assert re.fullmatch(r"damaged: shards/shard-000000\.tar: \d{9}\.jpg \(\w+/\d\d\.jpg\)\n", err)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pack", "missing", "shards"], r"missing: no such folder"),
        (["pack", "photos"], r"pack photos: say where the shards go, flowerfast pack DATA OUT"),
        (["pack", "photos", "photos"], r"photos: is the folder of the photos; name another"),
        (["pack", "--verify", "photos"], r"photos: no packed photos there"),
        (["pack", "--verify", "photos", "shards"], r"--verify photos shards: give one folder"),
        (["pack", "photos", "shards", "--max-side", "0"], r"--max-side"),
        (["pack", "photos", "shards", "--quality", "101"], r"--quality"),
        (["pack", "photos", "shards", "--set", "data.on_bad=maybe"], r"data\.on_bad='?maybe"),
    ],
)
def test_pack_refuses_in_words(
    cli: Cli, photos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, err = cli(*arguments)
    assert code == 2
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not (tmp_path / "shards").exists()
