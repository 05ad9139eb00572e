"""What summary.json says of a run that is over."""

from typing import Any

import numpy as np

from flowerfast.loaders.device import device_name
from flowerfast.machine import versions
from flowerfast.photos.photos import Photos
from flowerfast.training.checkpointing import TrainingRun
from flowerfast.training.evaluate_run import answers, evaluation_loader
from flowerfast.training.evaluation import LabelEvaluation
from flowerfast.training.facts import describe_photos
from flowerfast.training.label_scores import LabelScores
from flowerfast.training.progress import Standing
from flowerfast.training.reference import beside_the_paper
from flowerfast.training.scores import Confusion, classification_report, intervals
from flowerfast.training.trained import load_run


def summarise(run: TrainingRun, standing: Standing, seconds: float) -> dict[str, Any]:
    """Its best epoch, speeds, scores by class, and what it was made with; `seconds` is how long it took."""
    history, c, loader = standing.history, run.config, run.train_loader
    best = history[standing.best_epoch]
    steady = history[1:] or history  # the first epoch pays for warm-up
    return {
        "best_epoch": standing.best_epoch,
        "best_val_acc": standing.best_val_acc,
        **{f"best_{key}": best[key] for key in ("val_map", "val_top5", "val_aug_acc") if key in best},
        "best_by": c.eval.best,
        "epochs_run": len(history),
        "stopped_early": len(history) < c.train.epochs,
        "val_protocol": "augmented" if c.eval.augmented is True else "clean",
        "model": c.model.name,
        "optimizer": c.train.optimizer,
        "ema": c.train.ema,
        "parent": c.model.parent,
        "parameters": sum(p.numel() for p in run.state.model.parameters()),
        "backend": loader.backend,
        "backend_reason": loader.backend_reason,
        "cache": loader.cache,
        "cache_reason": loader.cache_reason,
        "device": device_name(loader.device),
        "amp": run.state.precision.name,
        "images_per_sec": float(np.median([row["images_per_sec"] for row in steady])),
        "data_wait": float(np.median([row["data_wait"] for row in steady])),
        "seconds": seconds,
        "history": history,
        "classes": run.classes,
        "train_samples": len(loader.photos),
        "val_samples": len(run.val_loader.photos),
        **(_of_labels(run, standing) if run.has_several else _of_classes(run, standing)),
        "data": describe_photos(loader.photos, run.val_loader.photos),
        "commands": standing.commands,
        "bad_files": [{"path": b.path, "error": b.error} for b in loader.photos.bad],
        "versions": versions(),
    }


def _of_classes(run: TrainingRun, standing: Standing) -> dict[str, Any]:
    """What the best epoch's validation was, of one label a photo."""
    confusion, config = Confusion.read(standing.confusion, run.classes), run.config
    report = classification_report(confusion, run.classes)
    return {
        "macro_f1": report["macro_f1"],
        **intervals(confusion, config.train.seed),
        "calibration": standing.calibration or None,
        "reference": beside_the_paper(config, standing.history),
        "per_class": report["per_class"],
        "confusion": confusion.to_json(),
        "mistakes": _named(standing.mistakes, run.train_loader.photos, run.classes),
    }


def _of_labels(run: TrainingRun, standing: Standing) -> dict[str, Any]:
    """The same of several labels a photo: `threshold` tells that they are such."""
    report = LabelScores.read(standing.label_scores, run.classes).report(run.classes)
    photos, worst = run.train_loader.photos, zip(*standing.mistakes.values(), strict=True)
    mistakes = [
        {"path": photos.path(index), "label": run.classes[label], "there": there, "probability": chance}
        for index, label, there, chance in worst
    ]
    return {
        **{name: value for name, value in report.items() if name not in ("accuracy", "map")},
        "mistakes": mistakes,
    }


def _named(mistakes: dict[str, list[Any]], photos: Photos, classes: list[str]) -> list[dict[str, Any]]:
    """Mistakes, see `mistakes.confident_mistakes`, row by row, by path and names of classes."""
    rows = (dict(zip(mistakes, row, strict=True)) for row in zip(*mistakes.values(), strict=True))
    return [
        {
            "path": photos.path(row["index"]),
            "label": classes[row["label"]],
            "predicted": classes[row["predicted"]],
            "confidence": row["confidence"],
            "own": row["own"],
        }
        for row in rows
    ]


def scores_on_test(run: TrainingRun, photos: Photos) -> dict[str, Any]:
    """What summary.json says of the photos in test/: accuracy of the best weights, asked once, at the end."""
    if not len(photos):
        none = dict.fromkeys(("test_acc", "test_acc_interval", "test_macro_f1", "test_loss"))
        return {**none, "test_samples": 0}
    config, trained = run.config, load_run(run.folder.path, run.state.device)
    size = config.eval.batch_size or config.train.batch_size
    with evaluation_loader(trained, photos.with_classes(trained.classes), size, config.data) as loader:
        result = answers(trained, loader, config.train.amp)
    if isinstance(result, LabelEvaluation):
        figures = {f"test_{name}": value for name, value in result.figures().items()}
        return {**figures, "test_acc_interval": None, "test_samples": result.samples}
    return {
        "test_acc": result.accuracy,
        "test_acc_interval": intervals(result.confusion, config.train.seed)["accuracy_interval"],
        "test_macro_f1": classification_report(result.confusion, run.classes)["macro_f1"],
        "test_loss": result.loss,
        "test_samples": result.samples,
    }
