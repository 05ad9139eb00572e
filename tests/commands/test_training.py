"""`flowerfast train` and `evaluate` as a user meets them: what is said, what is refused and how."""

import json
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image

from flowerfast.training import fit
from tests.commands.runs import SHORT, load, load_rows, sets

Cli = Callable[..., tuple[int, str, str]]


def test_train_says_how_it_goes_and_what_came_of_it(cli: Cli, photos: Path, tmp_path: Path) -> None:
    code, out, err = cli("train", photos, *SHORT, "--out", "run")
    assert (code, err) == (0, "")
    summary = load(tmp_path / "run/summary.json")
    for said in (
        f"data: 30 photos to train on, 6 to validate on, 3 classes: {photos}",
        "backend: ", "decoded cache: none (data.cache=none)", "run folder: run",
        "epoch 1/2: train loss ", "epoch 2/2: train loss ",
        f"best validation accuracy {summary['best_val_acc']:.1%} in epoch {summary['best_epoch'] + 1} of 2, ",
        "report: run/report.html",
    ):  # fmt: skip
        assert said in out


def test_what_is_left_out_and_what_lies_in_test_is_said_by_every_command(
    cli: Cli, photos: Path, tmp_path: Path
) -> None:
    root = tmp_path / "halves"
    for half in ("train", "Test"):
        shutil.copytree(photos, root / half)
    (root / "train/red/x.heic").write_bytes(b"no photo")
    note = "1 file is no photo that can be read: 1 .heic (convert to JPEG); first: train/red/x.heic"
    code, out, err = cli("train", root, *SHORT, "--out", "run")
    assert (code, err) == (0, "")
    assert "data: 30 photos to train on, 6 to validate on, 36 to test at the end, 3 classes" in out
    assert note in out
    summary = load(tmp_path / "run/summary.json")
    assert f"\ntest accuracy {summary['test_acc']:.1%} on 36 photos of test/\n" in out
    code, out, err = cli("evaluate", "run", root, "--half", "test", "--json", "-")
    assert (code, json.loads(out)["samples"], note in json.loads(out)["notes"]) == (0, 36, True)
    assert note in cli("evaluate", "run", root)[2]
    assert note in cli("pack", root, "shards")[2]
    assert note in cli("parity", root, "--backend", "cpu", "--samples", 4, *sets("data.image_size=32"))[1]


def test_a_layout_that_people_would_read_in_two_ways_is_refused(
    cli: Cli, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, photos / "train")
    code, _, err = cli("train", photos, *SHORT)
    assert code == 2
    assert "to read a split, and leave out what lies beside, set data.layout=split" in err
    code, out, _ = cli("train", photos, *SHORT, "--set", "data.layout=split")
    assert code == 0
    assert "blue/: beside train/, left out" in out


def test_a_bad_photo_is_named(cli: Cli, photos: Path) -> None:
    (photos / "blue/01.jpg").write_bytes(b"no photo at all")
    code, out, _ = cli("train", photos, *SHORT, *sets("train.epochs=1"), "--out", "run")
    assert (code, "skipped: blue/01.jpg: not an image" in out) == (0, True)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_saving_and_resume_goes_on(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert cli("train", photos, *SHORT, "--out", "undisturbed")[0] == 0
    step, steps = fit.train_step, list[object]()

    def stopping(*arguments: Any) -> Any:
        steps.append(arguments)
        if len(steps) == 6:
            signal.raise_signal(signum)
        return step(*arguments)

    monkeypatch.setattr(fit, "train_step", stopping)
    code, _, err = cli("train", photos, *SHORT, "--out", "run")
    assert (code, len(steps)) == (128 + signum, 6)
    assert err == f"flowerfast: stopped by {signum.name} after saving; go on with --resume\n"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert cli("train", "--resume", "--out", "run")[0] == 0
    assert len(steps) == 8
    assert load_rows(tmp_path / "run") == load_rows(tmp_path / "undisturbed")


def test_a_run_that_fails_exits_with_1(cli: Cli, photos: Path) -> None:
    code, _, err = cli("train", photos, *SHORT, *sets("train.lr=1e30"), "--out", "run")
    assert code == 1
    assert re.fullmatch(
        r"flowerfast: error: epoch 1, batch \d \(.+\): .+; start a new run with a lower .*\n", err
    )


def test_a_damaged_save_is_refused_in_one_line(cli: Cli, photos: Path, tmp_path: Path) -> None:
    assert cli("train", photos, *SHORT, *sets("train.epochs=1"), "--out", "run")[0] == 0
    last = tmp_path / "run/checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    (tmp_path / "run/checkpoints/last.previous.pt").unlink()  # it would stand in
    code, _, err = cli("train", "--resume", "--out", "run")
    assert code == 2
    assert re.fullmatch(r"flowerfast: error: run/checkpoints/last\.pt: cannot be read \(.*\); .*\n", err)


def one_class(root: Path) -> None:
    (root / "only").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (40, 40)).save(root / f"only/{name}.jpg")


def lone_photo(root: Path) -> None:
    one_class(root)
    (root / "lonely").mkdir()
    Image.new("RGB", (40, 40)).save(root / "lonely/a.jpg")


def config_without_photos(root: Path) -> None:
    root.with_name("mine.yaml").write_text("train: {epochs: 1}\n")


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (None, ["missing"], r"missing: no such folder; give"),
        (None, ["--set", "data.path=missing"], r"missing: no such folder; give"),
        (lambda r: r.mkdir(), ["data"], r"data: it holds no class folders; expected"),
        (lambda r: (r / "empty").mkdir(parents=True), ["data"], r"data: no photos in 1 folders"),
        (one_class, ["data"], r"only one class with photos \(only\)"),
        (lone_photo, ["data"], r"class 'lonely' has 1 readable photo"),
        (None, ["photos", "--set", "train.lrr=1"], r"unknown key 'train.lrr'; did you mean 'train.lr'\?"),
        (None, ["photos", "--set", "train.lr=-1"], r"train.lr=-1.*greater than 0"),
        (None, ["photos", "--set", "train.epochs=0"], r"train.epochs=0.*greater than or equal to 1"),
        (None, ["photos", "--set", "train.epochs"], r"--set train.epochs: expected key=value"),
        (None, ["photos", "--config", "nowhere.yaml"], r"nowhere.yaml: no such config file"),
        (None, ["--config", "paper"], r"--config paper: no photos are named; give their folder"),
        (config_without_photos, ["--config", "mine.yaml"], r"--config mine.yaml: no photos are named"),
        (None, ["photos", "--backend", "dali"], r"data.backend=dali: "),
        (None, ["photos", "--backend", "gpu"], r"data.backend='gpu': input should be 'auto', 'cpu'"),
        (None, ["photos", "--set", "model.name=resnet81"], r"model.name='resnet81': timm has no such model"),
        (None, ["photos", "--set", "model.weights=no.safetensors"], r"no.safetensors: no such file"),
        (None, ["photos", "--seed", "-1"], r"train.seed=-1: input should be greater"),
        (None, ["photos", "--out", "x" * 300], r"out='x+…: File name too long; give another path"),
        (None, ["photos", "--set", "data.cache_dir='a\0b'"], r"data.cache_dir=.*U\+0000"),
        (None, ["photos", "--set", "train.batch_size=true"], r"train.batch_size=True: give a number"),
        (None, ["photos", "--out", "photos"], r"photos: exists already; choose another --out"),
        (None, ["photos", "--resume"], r"--resume: name the run to go on with, --out RUN"),
        (None, ["photos", "--resume", "--out", "none"], r"none: no run to resume there"),
        (None, ["photos", "--set", "train.device=cuda"], r"train.device=cuda: torch sees no CUDA GPU"),
        (None, ["photos", "--set", "data.cache=vram"], r"data.cache=vram: the cpu backend keeps"),
    ],
)
def test_bad_input_gets_one_line_and_code_2(
    cli: Cli,
    photos: Path,
    tmp_path: Path,
    make: Callable[[Path], object] | None,
    arguments: list[str],
    message: str,
) -> None:
    if torch.cuda.is_available() and ("cuda" in message or "dali" in message or "vram" in message):
        pytest.skip("there is a GPU")
    if make is not None:
        make(tmp_path / "data")
    before = set(tmp_path.rglob("*"))
    out = [] if "--out" in arguments or "--resume" in arguments else ["--out", "run"]
    code, _, err = cli("train", *arguments, *out)
    assert code == 2
    assert re.fullmatch(rf"flowerfast: error: .*{message}.*\n", err)
    assert set(tmp_path.rglob("*")) == before  # nothing was begun


def test_weights_of_another_shape_are_refused(cli: Cli, photos: Path, tmp_path: Path) -> None:
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    code, _, err = cli("train", photos, *SHORT, "--set", "model.weights=vit.pth", "--out", "run")
    assert code == 2
    assert re.search(r"vit\.pth: does not fit model\.name=test_resnet: none of its \d+ tensors", err)


def test_tensorboard_events_lie_in_the_run_folder(cli: Cli, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    code, _, err = cli("train", photos, *SHORT, "--set", "log.tensorboard=true", "--out", "run")
    assert (code, err) == (0, "")
    assert list((tmp_path / "run/tensorboard").glob("events.out.tfevents.*"))


def test_tensorboard_missing_is_said_before_anything_is_written(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerfast.commands.display.find_spec", lambda _: None)
    code, _, err = cli("train", photos, *SHORT, "--set", "log.tensorboard=true", "--out", "run")
    assert code == 2
    assert 'pip install "flowerfast[tensorboard]"' in err
    assert not (tmp_path / "run").exists()


def test_evaluate_uses_what_was_stored(cli: Cli, trained: Any, tmp_path: Path) -> None:
    for run in (trained.run, trained.run / "best"):
        code, out, err = cli("evaluate", run, trained.photos, "--half", "val", "--json", "eval.json")
        assert (code, err) == (0, "")
        result = load(tmp_path / "eval.json")
        assert result["accuracy"] == pytest.approx(trained.summary["best_val_acc"])
        assert result["accuracy"] > 0.8
        assert result["confusion"] == trained.summary["confusion"]
        assert "recall" in out
        low, high = result["accuracy_interval"]
        assert f"accuracy {result['accuracy']:.2%} (95% interval {low:.2%} to {high:.2%}), macro F1 " in out
        calibration = result["calibration"]
        assert calibration["ece"] == pytest.approx(trained.summary["calibration"]["ece"])
        assert f"\nexpected calibration error {calibration['ece']:.2%}; " in out
    code, out, err = cli("evaluate", trained.run, trained.photos, "--json", "-")
    assert (code, err) == (0, "")
    assert json.loads(out)["samples"] == 36
