"""`flowerfast export`: what it leaves, what it checks on, what it refuses."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
import yaml
from huggingface_hub import ModelCard

import flowerfast as ff
from flowerfast.errors import UserError
from flowerfast.training.trained import load_run
from tests.exporting.conftest import NAMES

Cli = Callable[..., tuple[int, str, str]]
Quick = Callable[[bytes], None]


def test_onnx_with_a_card_is_checked_on_the_validation_split(cli: Cli, run: Path, quick: Quick) -> None:
    code, out, err = cli("export", run)
    assert (code, err) == (0, "")
    assert (
        "checked against PyTorch on 9 photos of the validation split: probabilities differ by at most" in out
    )
    assert {file.name for file in (run / "onnx").iterdir()} == {"model.onnx", "README.md"}
    assert f"{run / 'onnx' / 'model.onnx'}: " in out
    code, out, err = cli("export", run)
    assert (code, out) == (2, "")
    assert err.startswith(f"flowerfast: error: --out {run / 'onnx'}: exists already; name another folder")
    assert err.count("\n") == 1


def test_json_alone_goes_to_standard_output(cli: Cli, run: Path, quick: Quick) -> None:
    code, out, err = cli("export", run / "best", "--out", "new/folder", "--json", "-")
    result = json.loads(out)
    assert (code, err, result["folder"], result["format"]) == (0, "", "new/folder", "onnx")
    assert result["checked"]["photos"] == 9
    assert result["classes"] == [*NAMES]
    assert set(result["files"]) == {"model.onnx", "README.md"}


def test_timm_opens_the_safetensors(run: Path, tmp_path: Path) -> None:
    result = ff.export(run, tmp_path / "out", format="safetensors")
    assert ({*result.files}, result.checked) == ({"config.json", "model.safetensors", "README.md"}, None)
    network = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
    pixels = torch.rand(2, 3, 40, 40)
    with torch.inference_mode():
        assert torch.equal(network(pixels), load_run(run, "cpu").model.network(pixels))
    assert load_run(tmp_path / "out", "cpu").classes == NAMES
    with pytest.raises(UserError, match=r"^--data .*: only an ONNX file is checked on photos"):
        ff.export(run, tmp_path / "other", format="safetensors", data=tmp_path)
    with pytest.raises(UserError, match=r"^format='onyx': give one of onnx, safetensors$"):
        ff.export(run, tmp_path / "other", format=cast(Any, "onyx"))


# ------------------------------------------------------------------------------------------------- the photos


def test_without_photos_made_images_are_taken_and_that_is_said(
    cli: Cli, made: Path, run: Path, quick: Quick, tmp_path: Path
) -> None:
    shutil.copytree(made / "photos", tmp_path / "photos")
    _edit(run / "config.yaml", data={"path": str(tmp_path / "photos")})
    assert "on 9 photos of the validation split" in cli("export", run, "--out", "1")[1]
    next((tmp_path / "photos").rglob("*.jpg")).unlink()
    code, out, err = cli("export", run, "--out", "2")
    assert (code, "checked against PyTorch on 64 made images: " in out) == (0, True)
    assert "gone since the run began" in err
    shutil.rmtree(tmp_path / "photos")
    code, out, err = cli("export", run, "--out", "3")
    assert (code, "checked against PyTorch on 64 made images: " in out) == (0, True)
    assert err.count("\n") == 1
    assert err.startswith("the photos of the run's validation split are not at hand (")
    assert err.endswith("checked on made images; give photos with --data DATA\n")
    code, out, err = cli("export", run, "--out", "4", "--data", made / "photos")
    assert (code, err, "on 30 photos of photos: " in out) == (0, "", True)


def test_photos_that_cannot_be_read_are_no_photos(
    cli: Cli, made: Path, run: Path, quick: Quick, tmp_path: Path
) -> None:
    shutil.copytree(made / "photos", tmp_path / "photos")
    for file in (tmp_path / "photos").rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:-300])  # whole headers: the scan takes them for photos
    good = tmp_path / "photos" / NAMES[0] / "0.jpg"
    shutil.copyfile(made / "photos" / NAMES[0] / "0.jpg", good)
    code, out, _ = cli("export", run, "--out", "1", "--data", tmp_path / "photos")
    assert (code, "checked against PyTorch on" in out) == (0, True)
    (tmp_path / "empty").mkdir()
    assert cli("export", run, "--out", "2", "--data", tmp_path / "empty")[0] == 2
    assert not (tmp_path / "2").exists()


# ----------------------------------------------------------------------------------------------- the refusals


@pytest.mark.parametrize("name", ["config.yaml", "split.json", "summary.json", "best/config.json"])
def test_a_damaged_file_of_a_run_is_refused(cli: Cli, run: Path, quick: Quick, name: str) -> None:
    content = bytearray((run / name).read_bytes())
    content[len(content) * 2 // 3] ^= 1
    (run / name).write_bytes(content)
    code, out, err = cli("export", run)
    assert (code, out.count("\n") <= 1, err.count("\n")) == (2, True, 1)
    assert f"{name}: damaged, its checksum does not fit; bring a good copy back" in err
    assert not (run / "onnx").exists()
    assert not [*run.glob("*.partial")]


@pytest.mark.parametrize("form", ["onnx", "safetensors"])
def test_damaged_weights_are_refused(cli: Cli, run: Path, form: str) -> None:
    content = bytearray((run / "best/model.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "best/model.safetensors").unlink()  # a hard link to those of its epoch
    (run / "best/model.safetensors").write_bytes(content)
    code, _, err = cli("export", run, "--format", form)
    assert (code, "model.safetensors: damaged, its checksum does not fit" in err) == (2, True)
    assert not (run / form).exists()


def test_places_that_cannot_be_taken_are_refused_before_the_work(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("flowerfast.exporting.export.onnx_bytes", lambda _: pytest.fail("work has begun"))
    (tmp_path / "file").write_text("kept")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("kept")
    said = {
        "file": "is no folder",
        "file/in": "is no folder); name another folder",
        "full": "exists already",
        run / "checkpoints/new": "part of a run folder",
    }
    for out, why in said.items():
        code, printed, err = cli("export", run, "--out", out)
        assert (code, printed, err.count("\n"), why in err) == (2, "", 1, True), err
    assert (tmp_path / "file").read_text() == (tmp_path / "full/mine").read_text() == "kept"
    for arguments, why in (
        ([run, "--out", "/proc"], "something is mounted there; name a folder in it"),
        ([tmp_path / "full"], "no trained model there"),
        ([run, "--data", "nowhere"], "no such folder"),
        ([run, "--json", run / "split.json"], "part of a run folder"),
        ([run, "--public"], "--public: says how a repository of --push is made"),
        ([run, "--push", "flowers"], "--push flowers: give OWNER/NAME, as alice/flowers"),
        ([run, "--push", "a/b/c"], "--push a/b/c: give OWNER/NAME"),
    ):
        code, printed, err = cli("export", *arguments)
        assert (code, printed, err.count("\n"), why in err) == (2, "", 1, True), err


def test_nothing_is_left_of_an_export_that_fails(
    cli: Cli, run: Path, quick: Quick, onnx_content: bytes, tmp_path: Path
) -> None:
    quick(onnx_content[:1000])
    (tmp_path / "empty").mkdir()
    for out in ("empty", "new/folder"):
        code, _, err = cli("export", run, "--out", out)
        assert (code, err.count("\n"), "onnxruntime does not take the ONNX file" in err) == (1, 1, True)
    assert not [*(tmp_path / "empty").iterdir(), *(tmp_path / "new").iterdir(), *tmp_path.glob("*.partial")]


@pytest.mark.parametrize(
    ("error", "said"),
    [(errno.EBUSY, "something is mounted there; name a folder in it"), (errno.ENOTEMPTY, "exists already")],
)
def test_a_folder_that_cannot_be_replaced_after_all_is_named(
    cli: Cli, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int, said: str
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(error, os.strerror(error), source, None, target)

    monkeypatch.setattr("flowerfast.exporting.fresh.os.rename", refuse)
    code, _, err = cli("export", run, "--format", "safetensors", "--out", "new")
    assert (code, err.count("\n"), f"--out new: {said}" in err) == (2, 1, True), err
    assert not [*tmp_path.glob("new*")]


def test_of_metrics_no_more_is_read_than_a_run_writes(
    cli: Cli, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowerfast.exporting.source.MOST_JSON", 1000)
    with (run / "metrics.jsonl").open("ab") as file:
        file.truncate(1 << 40)
    code, _, err = cli("export", run, "--format", "safetensors", "--out", "new")
    assert (code, err.count("\n"), "metrics.jsonl is larger than 1,000 bytes" in err) == (2, 1, True), err


# --------------------------------------------------------------------------------------------- the model card


def test_the_card_is_what_the_hub_reads(run: Path, quick: Quick, made: Path) -> None:
    folder = ff.export(run).folder
    text = (folder / "README.md").read_text(encoding="utf-8")
    card, summary = ModelCard.load(folder / "README.md"), json.loads((run / "summary.json").read_text())
    front = card.data.to_dict()
    assert (front["library_name"], front["pipeline_tag"]) == ("onnx", "image-classification")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.dataset_name, result.dataset_split) == (
        "accuracy",
        "photos",
        "validation",
    )
    assert result.metric_value == round(summary["best_val_acc"], 4)
    low, high = summary["accuracy_interval"]
    assert f"| {summary['best_val_acc']:.1%} | {low:.1%} to {high:.1%} | 9 photos |" in text
    assert f"torch {summary['versions']['torch']}".replace(".", r"\.") in text
    rows = [line for line in text.splitlines() if line.endswith(" 3 |")]
    assert [row.partition(" | ")[0] for row in rows] == [
        r"| \[x\]\(y\) \*z\*", r"| a\|b \`c\` \<i\>", r"| line\\nbreak",
    ]  # fmt: skip
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert (settings["train"]["ema"], settings["eval"]["image_size"]) == (0.5, 40)
    assert str(made) not in text
    assert str(run) not in text


def test_a_card_gives_no_accuracy_that_is_not_of_these_weights(cli: Cli, run: Path) -> None:
    shutil.copytree(run / "best", run.parent / "alone")
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{}\n")
    code, _, err = cli("export", run, "--format", "safetensors", "--out", "1")
    assert (code, "the run has gone on since its summary.json was written" in err) == (0, True)
    (run / "summary.json").unlink()
    assert "it has no summary.json" in cli("export", run, "--format", "safetensors", "--out", "2")[2]
    code, _, err = cli("export", "alone", "--format", "safetensors")
    assert (code, "there is no run folder around these weights" in err) == (0, True)
    text = (run.parent / "alone/safetensors/README.md").read_text()
    assert "Not known: there is no run folder" in text
    assert "%" not in text
    assert ModelCard.load(run.parent / "1/README.md").data.eval_results is None


def _edit(file: Path, **sections: dict[str, Any]) -> None:
    """Change settings in a config.yaml, as people do: without its checksum."""
    content = yaml.safe_load(file.read_text())
    for section, values in sections.items():
        content[section] |= values
    file.write_text(yaml.safe_dump(content))


def test_the_images_that_are_made_differ() -> None:
    from flowerfast.exporting.images import _made

    images = np.concatenate([*_made(40)])
    assert images.shape == (64, 3, 40, 40)
    assert len({image.tobytes() for image in images}) == 64
