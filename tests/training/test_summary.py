"""What summary.json says: the photos in test/, notes."""

import html
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.training.evaluate_run import evaluate
from flowerfast.training.run import TrainResult

Train = Callable[..., TrainResult]
Rows = Callable[[Path], list[dict[str, float]]]


@pytest.mark.parametrize("halves", [("train", "test"), ("Training", "valid", "Testing")])
def test_what_lies_in_test_is_asked_once_at_the_end(
    train_tiny: Train, photos: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch, halves: tuple[str, ...]
) -> None:
    root = photos.parent / "halves"
    for half in halves:
        shutil.copytree(photos, root / half)
    for path in (root / halves[-1]).rglob("*.jpg"):
        if path.stem > "04":
            path.unlink()  # so that each set has a number of its own
    seen: list[set[str]] = []
    engine = Loader.epoch

    def watched(loader: Loader, *args: Any) -> Iterator[Batch]:
        seen.append({loader.photos.path(i).split("/")[0] for i in loader.photos.indices.tolist()})
        return engine(loader, *args)

    monkeypatch.setattr(Loader, "epoch", watched)
    result = train_tiny(data=root, plots=True)
    held = halves[1] if len(halves) == 3 else halves[0]
    assert seen == [{halves[0]}, {held}] * 2 + [{halves[-1]}]
    assert result.summary["test_samples"] == 15
    counts = result.summary["train_samples"], result.summary["val_samples"]
    assert counts == ((36, 36) if len(halves) == 3 else (30, 6))
    report = evaluate(result.folder, root, half="test", device="cpu")
    assert (report["samples"], report["accuracy"]) == (15, result.summary["test_acc"])
    page = (result.folder / "report.html").read_text(encoding="utf-8")
    assert "<dt>Test accuracy</dt>" in page
    assert f"{result.summary['test_acc']:.1%}" in page
    monkeypatch.setattr(Loader, "epoch", engine)
    without = train_tiny("without", data=_without(root, halves[-1]))
    assert rows(without.folder) == rows(result.folder)  # nothing else hung on it
    assert (without.summary["test_acc"], without.summary["test_samples"]) == (None, 0)


def _without(root: Path, half: str) -> Path:
    shutil.rmtree(root / half)
    return root


def test_notes_on_the_folder_are_in_summary_and_report(train_tiny: Train, photos: Path) -> None:
    (photos / "red/x.heic").write_bytes(b"no photo")
    result = train_tiny(plots=True)
    (note,) = (note for note in result.summary["notes"] if "heic" in note)
    assert "1 .heic (convert to JPEG); first: red/x.heic" in note
    assert note in html.unescape((result.folder / "report.html").read_text(encoding="utf-8"))


def test_a_run_keeps_its_mistakes_its_commands_and_facts_of_its_photos(
    train_tiny: Train, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/flowerfast", "train", "my photos", "--epochs", "1"])
    train_tiny(settings={"train.epochs": 1})
    monkeypatch.setattr("sys.argv", ["/x/flowerfast/__main__.py", "train", "--resume", "--out", "run"])
    result = train_tiny(resume=True, settings={"train.epochs": 2}, plots=True)
    summary = result.summary
    assert summary["commands"] == [
        "flowerfast train 'my photos' --epochs 1",
        "flowerfast train --resume --out run",
    ]
    confusion, mistakes = summary["confusion"], summary["mistakes"]
    pairs = zip(confusion["true"], confusion["predicted"], confusion["count"], strict=True)
    assert len(mistakes) == sum(count for true, predicted, count in pairs if true != predicted)
    assert [row["confidence"] for row in mistakes] == sorted(
        (r["confidence"] for r in mistakes), reverse=True
    )
    assert all(row["path"].split("/")[0] == row["label"] != row["predicted"] for row in mistakes)
    assert all(0 <= row["own"] <= row["confidence"] <= 1 for row in mistakes)
    halves = summary["data"]["halves"]
    assert (sum(halves["train"]), sum(halves["val"])) == (summary["train_samples"], summary["val_samples"])
    page = html.unescape((result.folder / "report.html").read_text(encoding="utf-8"))
    assert page.count("data:image/jpeg;base64,") == len(mistakes) + 8  # a batch has so many
    assert "flowerfast train 'my photos' --epochs 1\nflowerfast train --resume --out run" in page
    monkeypatch.setattr("sys.argv", ["train.py", "--secret", "x"])  # no command of ours
    assert train_tiny("other").summary["commands"] == []
