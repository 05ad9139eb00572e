"""What commands print and write: tables and sentences for people, JSON for scripts."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowerfast.errors import UserError
from flowerfast.machine import write_text

if TYPE_CHECKING:
    from flowerfast.commands.parity import Parity
    from flowerfast.packing.pack import Packed
    from flowerfast.training.trained import Prediction

out = Console(highlight=False, markup=False)  # names are the user's: [b] in one is no command


def print_evaluation(result: dict[str, Any]) -> None:
    """A table of classes, then accuracy and loss."""
    table = Table("class", "precision", "recall", "F1", "photos")
    for row in result["per_class"]:
        scores = (f"{row[key]:.1%}" for key in ("precision", "recall", "f1"))
        table.add_row(row["name"], *scores, str(row["support"]))
    out.print(table)
    for bad in result["bad_files"]:
        complain(f"skipped: {bad['path']}: {bad['error']}")
    top5 = f"top-5 {result['top5']:.2%}, " if "top5" in result else ""
    out.print(
        f"accuracy {result['accuracy']:.2%}, {top5}loss {result['loss']:.4f}, {result['samples']} photos"
    )


def print_predictions(predictions: "list[Prediction]") -> None:
    """A table of photos and their most likely classes."""
    shown = max((len(p.top) for p in predictions), default=0)
    table = Table("photo", *(f"{k + 1}." for k in range(shown)))
    for p in predictions:
        if p.error is None:
            table.add_row(p.path, *(f"{name} {chance:.1%}" for name, chance in p.top))
    out.print(table)


def print_packed(result: "Packed", folder: Path) -> None:
    """What a packing run made."""
    for bad in result.bad:
        complain(f"skipped: {bad.path}: {bad.error}")
    before, after = (f"{size / 1e6:,.1f} MB" for size in (result.bytes_before, result.bytes_after))
    done = "" if result.fresh else "packed already: "
    out.print(
        f"{done}{result.photos} photos in {result.shards} shard{'s' * (result.shards != 1)}, "
        f"{before} -> {after}: "
        f"{result.photos - result.shrunk} copied, {result.shrunk} shrunk, {len(result.bad)} skipped"
    )
    out.print(f"shards: {folder}", soft_wrap=True)


def print_parity(result: "Parity") -> None:
    """A table of steps, then whether they are within the bounds."""
    answers = any(step.top1_differs is not None for step in result.steps)
    table = Table("step", "pictures", "mean", "p99", "max", caption="absolute differences in levels of 255")
    for name in ("other top-1",) * answers + ("worst mean", "of photo"):
        table.add_column(name, overflow="fold")
    for step in result.steps:
        figures = [str(step.samples), f"{step.mean:.3f}", f"{step.p99:g}", str(step.max)]
        if answers:
            figures.append("" if step.top1_differs is None else f"{step.top1_differs:.2%}")
        photo = Text(step.worst_photo if step.max else "")
        table.add_row(step.step, *figures, f"{step.worst_mean:.2f}", photo)
    out.print(table)
    for note in result.notes:
        out.print(Text(note), soft_wrap=True)
    for bad in result.bad:
        complain(f"skipped: {bad.path}: {bad.error}")
    bounds, verdict = result.bounds, "within" if result.ok else "outside"
    tested = f"{result.backend} (decoding on the {result.decoder.upper()})"
    out.print(
        f"{tested} against torchvision: {verdict} the bounds "
        f"(mean at most {bounds.mean:g}, p99 at most {bounds.p99:g}, in {' and '.join(bounds.steps)})",
        soft_wrap=True,
    )


def write_json(file: Path | None, result: Any) -> None:
    """Write a result where --json says: nowhere, standard output for -, or a file. Raises UserError."""
    text = json.dumps(result, indent=1) + "\n"
    if file == Path("-"):
        sys.stdout.write(text)
    elif file is not None:
        try:
            write_text(file, text)
        except OSError as error:
            raise UserError(
                f"--json {file}: cannot be written ({error.strerror}); choose another file"
            ) from error


def complain(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(text + "\n")
