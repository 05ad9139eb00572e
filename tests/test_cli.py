"""The command line as a user meets it: what works, what is refused and how."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from flowerfast.data.manifest import load_manifest
from flowerfast.predict import load_trained

Run = Callable[..., tuple[int, str, str]]
TINY = ("--set", "model.name=test_resnet", "--set", "model.pretrained=false", "--set", "data.image_size=32")
SHORT = (*TINY, "--set", "train.epochs=2", "--set", "train.batch_size=8", "--set", "train.lr=0.05")


def paint(file: Path, colour: tuple[int, int, int], seed: int) -> None:
    """A small JPEG of one colour with noise: enough for a tiny network to learn from."""
    noise = np.random.default_rng(seed).integers(-40, 40, (48, 56, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(file, quality=90)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of twelve photos."""
    colours = {"blue": (60, 60, 200), "green": (60, 200, 60), "red": (200, 60, 60)}
    for k, (name, colour) in enumerate(colours.items()):
        for i in range(12):
            paint(tmp_path / "photos" / name / f"{i:02d}.jpg", colour, 100 * k + i)
    return tmp_path / "photos"


def test_train_leaves_a_complete_run_folder(cli: Run, photos: Path, tmp_path: Path) -> None:
    code, out, err = cli("train", photos, *SHORT, "--out", "run")
    assert (code, err) == (0, "")
    run = tmp_path / "run"
    for name in (
        "config.yaml", "split.json", "metrics.jsonl", "summary.json", "report.html",
        "accuracy_loss_curve.png", "confusion_matrix.png", "best/config.json", "best/model.safetensors",
        "checkpoints/epoch_000.safetensors", "checkpoints/epoch_001.safetensors", "checkpoints/last.pt",
    ):  # fmt: skip
        assert (run / name).stat().st_size > 0, name
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [0, 1]
    assert set(rows[0]) == {
        "epoch", "train_loss", "train_acc", "val_loss", "val_acc", "lr",
        "images_per_sec", "data_wait", "seconds",
    }  # fmt: skip
    summary = json.loads((run / "summary.json").read_text())
    assert summary["best_val_acc"] == max(row["val_acc"] for row in rows)
    assert summary["backend"] == "torchvision"
    assert summary["backend_reason"]
    split = [summary[f"{part}_seconds"] for part in ("startup", "train", "eval", "write")]
    assert min(split) > 0
    assert sum(split) == pytest.approx(summary["seconds"])
    assert np.array(summary["confusion"]).sum() == summary["val_samples"] == 6
    assert summary["train_samples"] == 30
    assert "epoch 2/2" in out


def test_the_stored_config_is_a_valid_config(cli: Run, photos: Path, tmp_path: Path) -> None:
    assert cli("train", photos, *SHORT, "--out", "a")[0] == 0
    assert cli("train", "--config", "a/config.yaml", "--out", "b")[0] == 0
    first, second = (load_rows(tmp_path / name) for name in "ab")
    assert first == second
    assert (tmp_path / "a/config.yaml").read_text() == (tmp_path / "b/config.yaml").read_text()


def load_rows(run: Path) -> list[dict[str, float]]:
    """Rows of metrics.jsonl without what is timed."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_sec", "data_wait")} for row in rows
    ]


def test_it_learns_and_the_best_model_loads_with_timm_alone(cli: Run, photos: Path, tmp_path: Path) -> None:
    assert cli("train", photos, *SHORT, "--set", "train.epochs=6", "--out", "run")[0] == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["best_val_acc"] >= 0.9
    trained = load_trained(tmp_path / "run", torch.device("cpu"))
    network = timm.create_model(f"local-dir:{tmp_path / 'run/best'}", pretrained=True).eval()
    cfg = network.pretrained_cfg
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        torch.testing.assert_close(
            trained.model(images), network((images / 255 - mean) / std), atol=1e-4, rtol=1e-4
        )
    assert cfg["input_size"] == (3, 32, 32)
    assert tuple(cfg["label_names"]) == trained.classes == ("blue", "green", "red")


def test_evaluate_and_predict_use_what_was_stored(cli: Run, photos: Path, tmp_path: Path) -> None:
    assert cli("train", photos, *SHORT, "--set", "train.epochs=6", "--out", "run")[0] == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    code, out, _ = cli("evaluate", "run", photos, "--half", "val", "--json", "eval.json")
    result = json.loads((tmp_path / "eval.json").read_text())
    assert code == 0
    assert result["accuracy"] == pytest.approx(summary["best_val_acc"])
    assert result["confusion"] == summary["confusion"]
    assert "recall" in out
    code, out, _ = cli("predict", "run", photos / "red", "--json", "--top-k", 2)
    rows = json.loads(out)
    assert code == 0
    assert len(rows) == 12
    assert all(len(row["top"]) == 2 for row in rows)
    assert sum(row["top"][0]["name"] == "red" for row in rows) >= 10
    code, out, _ = cli("predict", "run", photos / "blue/00.jpg")
    assert code == 0
    assert "blue" in out


def test_a_bad_photo_is_named_skipped_and_counted(cli: Run, photos: Path, tmp_path: Path) -> None:
    whole = (photos / "red/00.jpg").read_bytes()
    (photos / "red/00.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "blue/01.jpg").write_bytes(b"no photo at all")
    cli_args = ("train", photos, *SHORT, "--set", "data.max_bad=0.2")
    code, out, _ = cli(*cli_args, "--out", "run")
    assert code == 0
    assert "blue/01.jpg" in out
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert {row["path"] for row in summary["bad_files"]} == {"red/00.jpg", "blue/01.jpg"}
    code, _, err = cli(*cli_args, "--set", "data.on_bad=fail", "--out", "strict")
    assert code == 2
    assert re.search(r"blue/01\.jpg: not an image.*data\.on_bad=skip", err)
    assert not (tmp_path / "strict").exists()


def one_class(root: Path) -> None:
    paint(root / "only/a.jpg", (9, 9, 9), 0)
    paint(root / "only/b.jpg", (9, 9, 9), 1)


def lone_photo(root: Path) -> None:
    one_class(root)
    paint(root / "lonely/a.jpg", (9, 9, 9), 2)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (None, ["missing"], r"missing: no such folder; give"),
        (lambda r: r.mkdir(), ["data"], r"data: it holds no class folders; expected"),
        (lambda r: (r / "empty").mkdir(parents=True), ["data"], r"data: no photos in 1 folders"),
        (one_class, ["data"], r"only one class with photos \(only\)"),
        (lone_photo, ["data"], r"class 'lonely' has 1 readable photo"),
        (None, ["photos", "--set", "train.lrr=1"], r"unknown key 'train.lrr'; did you mean 'train.lr'\?"),
        (None, ["photos", "--set", "train.lr=-1"], r"train.lr=-1.*greater than 0"),
        (None, ["photos", "--set", "train.epochs=0"], r"train.epochs=0.*greater than or equal to 1"),
        (None, ["photos", "--set", "train.epochs"], r"--set train.epochs: expected key=value"),
        (None, ["photos", "--config", "nowhere.yaml"], r"nowhere.yaml: no such config file"),
        (None, ["photos", "--backend", "dali"], r"data.backend=dali: "),
        (None, ["photos", "--set", "model.name=resnet81"], r"model.name='resnet81': timm has no such model"),
        (None, ["photos", "--set", "model.weights=no.safetensors"], r"no.safetensors: no such file"),
        (None, ["photos", "--out", "photos"], r"photos: exists already; continue it with --resume"),
        (None, ["photos", "--resume", "--out", "none"], r"none: no run to resume there"),
        (None, ["photos", "--set", "train.device=cuda"], r"train.device=cuda: torch sees no CUDA GPU"),
        (None, ["photos", "--set", "data.cache=vram"], r"data.cache=vram: the torchvision backend keeps"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(
    cli: Run,
    photos: Path,
    tmp_path: Path,
    make: Callable[[Path], object] | None,
    arguments: list[str],
    message: str,
) -> None:
    if torch.cuda.is_available() and ("cuda" in message or "dali" in message):
        pytest.skip("there is a GPU")
    if make is not None:
        make(tmp_path / "data")
    before = {p for p in tmp_path.rglob("*") if "cache" not in str(p)}
    code, _, err = cli("train", *arguments, *([] if "--out" in arguments else ["--out", "run"]))
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert re.search(message, err)
    assert "Traceback" not in err
    assert {p for p in tmp_path.rglob("*") if "cache" not in str(p)} == before  # nothing was begun


def test_weights_of_another_shape_are_refused(cli: Run, photos: Path, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    code, _, err = cli("train", photos, *SHORT, "--set", "model.weights=vit.pth", "--out", "run")
    assert code == 2
    assert re.search(r"vit\.pth: does not fit model\.name=test_resnet: \d+ tensors missing", err)


def test_usage_errors_exit_with_2(cli: Run) -> None:
    assert cli("train", "--no-such-option")[0] == 2
    assert cli("no-such-command")[0] == 2
    code, _, err = cli("train", "photos", "--resume")
    assert (code, "--resume: name the run" in err) == (2, True)
    assert cli("predict", "nowhere", "photo.jpg")[0] == 2


def test_evaluate_refuses_classes_the_model_does_not_know(cli: Run, photos: Path) -> None:
    assert cli("train", photos, *SHORT, "--set", "train.epochs=1", "--out", "run")[0] == 0
    (photos / "red").rename(photos / "violet")
    code, _, err = cli("evaluate", "run", photos)
    assert code == 2
    assert "violet: the model knows no such class; it knows blue, green, red" in err


def test_checkpoints_keep_limits_epoch_weights(cli: Run, photos: Path, tmp_path: Path) -> None:
    settings = ("--set", "train.epochs=4", "--set", "checkpoints.keep=2")
    assert cli("train", photos, *SHORT, *settings, "--out", "run")[0] == 0
    names = sorted(p.name for p in (tmp_path / "run/checkpoints").glob("epoch_*"))
    assert names == ["epoch_002.safetensors", "epoch_003.safetensors"]


def test_patience_stops_early(cli: Run, photos: Path, tmp_path: Path) -> None:
    settings = ("--set", "train.epochs=30", "--set", "train.patience=1", "--set", "train.lr=1e-9")
    assert cli("train", photos, *SHORT, *settings, "--out", "run")[0] == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["stopped_early"]
    assert summary["epochs_run"] == summary["best_epoch"] + 2


@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_other_schedules_and_augmented_validation_train(
    cli: Run, photos: Path, tmp_path: Path, schedule: str
) -> None:
    settings = ("--set", f"train.schedule={schedule}", "--set", "eval.augmented=true")
    assert cli("train", photos, *SHORT, *settings, "--out", "run")[0] == 0
    rates = [row["lr"] for row in load_rows(tmp_path / "run")]
    assert rates[0] > rates[1] if schedule != "constant" else rates == [0.05, 0.05]
    assert json.loads((tmp_path / "run/summary.json").read_text())["val_protocol"] == "augmented"


def test_channels_last_and_cached_photos_leave_the_result_alone(
    cli: Run, photos: Path, tmp_path: Path
) -> None:
    assert cli("train", photos, *SHORT, "--out", "plain")[0] == 0
    settings = ("--set", "train.channels_last=on", "--set", "data.cache=ram", "--set", "data.cache_side=4000")
    assert cli("train", photos, *SHORT, *settings, "--out", "other")[0] == 0
    plain, other = (load_rows(tmp_path / name) for name in ("plain", "other"))
    for a, b in zip(plain, other, strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    assert json.loads((tmp_path / "other/summary.json").read_text())["cache"] == "ram"
    assert load_trained(tmp_path / "other", torch.device("cpu")).classes == ("blue", "green", "red")


def test_tensorboard_events_lie_in_the_run_folder(cli: Run, photos: Path, tmp_path: Path) -> None:
    code, _, err = cli("train", photos, *SHORT, "--set", "log.tensorboard=true", "--out", "run")
    assert (code, err) == (0, "")
    assert list((tmp_path / "run/tensorboard").glob("events.out.tfevents.*"))


def test_tensorboard_missing_is_said_before_anything_is_written(
    cli: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerfast.display.find_spec", lambda _: None)
    code, _, err = cli("train", photos, *SHORT, "--set", "log.tensorboard=true", "--out", "run")
    assert code == 2
    assert 'pip install "flowerfast[tensorboard]"' in err
    assert not (tmp_path / "run").exists()


def test_resume_needs_neither_hub_nor_weights_file(cli: Run, photos: Path, tmp_path: Path) -> None:
    weights = tmp_path / "start.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    settings = ("--set", f"model.weights={weights}", "--set", "train.schedule=constant")
    assert cli("train", photos, *SHORT, *settings, "--out", "run")[0] == 0
    weights.unlink()
    code, _, err = cli("train", "--resume", "--out", "run", "--set", "train.epochs=3")
    assert (code, err) == (0, "")
    assert len(load_rows(tmp_path / "run")) == 3


def test_synth_makes_a_folder_that_can_be_scanned(cli: Run, tmp_path: Path) -> None:
    code, out, _ = cli("synth", "flowers", "--per-class", 2, "--seed", 3)
    assert code == 0
    assert "10 photos" in out
    manifest = load_manifest(tmp_path / "flowers")
    assert manifest.classes == ("daisy", "dandelion", "rose", "sunflower", "tulip")
    assert np.bincount(manifest.label).tolist() == [2] * 5
    assert cli("synth", "flowers", "--per-class", 3)[0] == 2


def test_settings_lists_every_key_with_its_meaning(cli: Run) -> None:
    code, out, _ = cli("settings")
    assert code == 0
    assert "train.lr" in out
    assert "checkpoints.keep" in out


def test_pack_then_train_evaluate_and_compare_on_shards(cli: Run, photos: Path, tmp_path: Path) -> None:
    code, out, err = cli("pack", photos, "shards", "--shard-size", 0.02)
    assert (code, err) == (0, "")
    assert re.search(r"36 photos in \d+ shards, .* 36 copied, 0 shrunk, 0 skipped", out)
    assert len(list((tmp_path / "shards").glob("shard-*.tar"))) > 1
    assert cli("train", photos, *SHORT, "--out", "loose")[0] == 0
    code, out, err = cli("train", "shards", *SHORT, "--out", "packed")
    assert (code, err) == (0, "")
    assert load_rows(tmp_path / "packed") == load_rows(tmp_path / "loose")  # the very same training
    loose, packed = (json.loads((tmp_path / name / "split.json").read_text()) for name in ("loose", "packed"))
    assert (packed["train"], packed["val"]) == (loose["train"], loose["val"])
    results = []
    for data in (photos, "shards"):
        assert cli("evaluate", "packed", data, "--half", "val", "--json", "eval.json")[0] == 0
        results.append(json.loads((tmp_path / "eval.json").read_text()))
    assert results[0]["confusion"] == results[1]["confusion"]
    more = ("--set", "train.epochs=3", "--set", f"data.path={tmp_path / 'shards'}")
    assert cli("train", "--resume", "--out", "loose", *more)[0] == 0  # begun on the folder, ended on shards
    assert cli("train", "--resume", "--out", "packed", "--set", "train.epochs=3")[0] == 0
    assert load_rows(tmp_path / "packed") == load_rows(tmp_path / "loose")
    assert len(load_rows(tmp_path / "packed")) == 3


def test_pack_tells_what_it_did_as_json_and_what_it_skipped(cli: Run, photos: Path, tmp_path: Path) -> None:
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


def test_pack_verify_finds_damage(cli: Run, photos: Path, tmp_path: Path) -> None:
    assert cli("pack", photos, "shards")[0] == 0
    code, out, err = cli("pack", "--verify", "shards")
    assert (code, err) == (0, "")
    assert "0 photos are damaged" in out
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
        (["pack", "photos", "photos"], r"photos: is neither empty nor of packed photos"),
        (["pack", "--verify", "photos"], r"photos: no packed photos there"),
        (["pack", "--verify", "photos", "shards"], r"--verify photos shards: give one folder"),
        (["pack", "photos", "shards", "--max-side", "0"], r"--max-side"),
        (["pack", "photos", "shards", "--quality", "101"], r"--quality"),
        (["pack", "photos", "shards", "--set", "data.on_bad=maybe"], r"data\.on_bad='?maybe"),
    ],
)
def test_pack_refuses_in_words(
    cli: Run, photos: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, _, err = cli(*arguments)
    assert code == 2
    assert re.search(message, err)
    assert "Traceback" not in err
    assert not (tmp_path / "shards").exists()
