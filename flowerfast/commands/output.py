"""What commands print and write: tables and sentences for people, JSON for scripts."""

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from flowerfast.commands.find import check_outputs
from flowerfast.commands.speech import SPEECH, PipeClosed, event, printing
from flowerfast.errors import Fact, RunFailed, UserError, WriteFailed, printable
from flowerfast.files import delivering, to_json, writing
from flowerfast.places import spelled

if TYPE_CHECKING:
    from flowerfast.commands.parity import Parity
    from flowerfast.exporting.export import Exported
    from flowerfast.packing.pack import Packed

_ENDLESS = 100_000  # columns of what is no terminal: nothing is cut or folded there


class _TextConsole(Console):
    """A console to which strings are text, also in tables: no markup, emoji codes, control characters.

    It prints for people alone: nothing where the command is quiet, or speaks to scripts.
    """

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else _ENDLESS
        super().__init__(highlight=False, markup=False, emoji=False, width=width)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as text, one line."""
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, unless the command says little."""
        if not (SPEECH.is_quiet or SPEECH.is_json):
            super().print(*objects, **options)

    def print_result(self, text: str) -> None:
        """The line that tells what came of the command: a quiet one prints it too."""
        if not SPEECH.is_json:
            super().print(text, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Whoever reads has closed the pipe."""
        raise PipeClosed


for _name in ("stdout", "stderr"):
    if getattr(sys, _name) is None:  # closed by whoever started this: what is said goes nowhere
        setattr(sys, _name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
out = _TextConsole()
_as_python_has_it = warnings.formatwarning


class _TextFormatter(logging.Formatter):
    """Messages of loggers as text: those of other libraries name files too."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, without control characters but the ends of a traceback's lines."""
        return printable(super().format(record), keep="\n")


def print_text_alone() -> None:
    """Have all that this process prints be text that its streams can take, whoever prints it.

    Of what a stream cannot encode, escapes are printed. So are control characters in what loggers without a
    handler say, and in warnings; what commands print passes `out` or `complain`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_TextFormatter())
    warnings.formatwarning = lambda *about, **more: printable(_as_python_has_it(*about, **more), keep="\n")


def print_evaluation(result: dict[str, Any], said: Sequence[str] = ()) -> None:
    """A table of classes, then accuracy, loss and calibration; notes but those that were `said` before."""
    several = ("average_precision",) if "map" in result else ()
    keys = (*several, "precision", "recall", "f1")
    heads = [*(["AP"] if several else []), "precision", "recall", "F1", "photos"]
    table = Table(Column("class", overflow="fold"), *heads)
    for row in result["per_class"]:
        scores = ("–" if row[key] is None else f"{row[key]:.1%}" for key in keys)
        table.add_row(row["name"], *scores, str(row["support"]))
    out.print(table)
    say(note for note in result["notes"] if note not in said)
    for bad in result["bad_files"]:
        complain(f"skipped: {bad['path']}: {bad['error']}")
    if several:
        out.print_result(
            f"mAP {result['map']:.2%}; at a probability of {result['threshold']:g} micro F1 "
            f"{result['micro_f1']:.2%}, macro F1 {result['macro_f1']:.2%}, right decisions "
            f"{result['accuracy']:.2%}; loss {result['loss']:.4f}, {result['samples']} photos"
        )
        return
    top5 = f"top-5 {result['top5']:.2%}, " if "top5" in result else ""
    out.print_result(
        f"accuracy {result['accuracy']:.2%}{_interval(result['accuracy_interval'])}, {top5}"
        f"macro F1 {result['macro_f1']:.2%}{_interval(result['macro_f1_interval'])}, "
        f"loss {result['loss']:.4f}, {result['samples']} photos"
    )
    calibration = result["calibration"]
    line = f"expected calibration error {calibration['ece']:.2%}"
    if calibration["temperature"] is not None:
        line += (
            f"; with temperature {calibration['temperature']:.3f} {calibration['scaled_ece']:.2%}, "
            "which was fitted on these same photos: expect less of it on others"
        )
    else:
        line += f"; no temperature: {calibration['problem']}"
    out.print(line, soft_wrap=True)


def _interval(ends: list[float] | None) -> str:
    """Behind a figure, between which its bootstrap lies."""
    return f" (95% interval {ends[0]:.2%} to {ends[1]:.2%})" if ends is not None else ""


def print_settings(rows: list[tuple[str, Any, str]]) -> None:
    """Settings, (key, default, meaning), by section."""
    wide = max(len(key) for key, *_ in rows)
    from flowerfast.config import describe_sections

    for section, about in describe_sections().items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        table.add_column(min_width=wide, no_wrap=True)
        for name in ("default", "meaning"):
            table.add_column(name, overflow="fold")
        mine = [row for row in rows if row[0].startswith(f"{section}.")]
        for key, default, meaning in mine:
            table.add_row(key, json.dumps(default), meaning)
        if mine:
            out.print(f"{section}: {about}", style="bold")
            out.print(table)


def print_packed(result: "Packed", folder: Path) -> None:
    """What a packing run made."""
    say(result.notes)
    for bad in result.bad:
        complain(f"skipped: {bad.path}: {bad.error}")
    before, after = (f"{size / 1e6:,.1f} MB" for size in (result.bytes_before, result.bytes_after))
    done = "" if result.fresh else "packed already: "
    recoded = f"{result.recoded} re-coded, " if result.recoded else ""
    seekable = f", {result.seekable} of them seekable" if result.seekable else ""
    out.print_result(
        f"{done}{result.photos} photos{seekable} in {result.shards} shard{'s' * (result.shards != 1)}, "
        f"{before} -> {after}: "
        f"{result.photos - result.shrunk - result.recoded} copied, {result.shrunk} shrunk, {recoded}"
        f"{len(result.bad)} skipped"
    )
    out.print(f"shards: {spelled(folder)}", soft_wrap=True)
    if result.suffixes:
        out.print(_for_other_readers(result.suffixes, result.labels), soft_wrap=True)


def _for_other_readers(suffixes: dict[str, int], labels: str) -> str:
    """What webdataset, DALI and Hugging Face datasets find in shards with so many photos per suffix."""
    names = sorted(suffixes, key=lambda suffix: (-suffixes[suffix], suffix))
    if len(names) == 1:
        what = "label KEY.cls" if labels == "cls" else f"labels KEY.{labels}, the numbers of its classes"
        return f"for other readers: every photo is KEY.{names[0]}, its {what}"
    counts = ", ".join(f"{suffixes[name]:,} .{name}" for name in names)
    return (
        f'for other readers: {counts}; webdataset and DALI want all suffixes named, "{";".join(names)}", and '
        "Hugging Face datasets refuses such shards or gives None for the suffixes that its first samples "
        "lack; --format jpg makes every photo a JPEG"
    )


def print_exported(result: "Exported", quiet: bool) -> None:
    """What an export made; when `quiet`, notes alone."""
    say(result.notes)
    if quiet:
        return
    if result.checked is not None:
        out.print(
            f"checked against PyTorch on {result.checked.photos} {result.checked.on}: probabilities differ "
            f"by at most {result.checked.difference:.1e}, the most likely class is the same",
            soft_wrap=True,
        )
    for name, size in result.files.items():
        out.print(f"{result.folder / name}: {size / 1e6:,.2f} MB", soft_wrap=True)
    if result.pushed is not None:
        out.print(f"pushed: {result.pushed}", soft_wrap=True)


def print_parity(result: "Parity", said: Sequence[str] = ()) -> None:
    """A table of steps, then whether they are within the bounds; notes but those that were `said` before."""
    answers = any(step.top1_differs is not None for step in result.steps)
    table = Table("step", "pictures", "mean", "p99", "max", caption="absolute differences in levels of 255")
    for name in ("other top-1",) * answers + ("worst mean", "of photo"):
        table.add_column(name, overflow="fold")
    for step in result.steps:
        figures = [str(step.samples), f"{step.mean:.3f}", f"{step.p99:g}", str(step.max)]
        if answers:
            figures.append("" if step.top1_differs is None else f"{step.top1_differs:.2%}")
        photo = step.worst_photo if step.max else ""
        table.add_row(step.step, *figures, f"{step.worst_mean:.2f}", photo)
    out.print(table)
    for note in result.notes:
        if note not in said:
            out.print(note, soft_wrap=True)
    for bad in result.bad:
        complain(f"skipped: {bad.path}: {bad.error}")
    bounds, verdict = result.bounds, "within" if result.ok else "outside"
    tested = f"{result.backend} (decoding on the {result.decoder.upper()})"
    out.print(
        f"{tested} against torchvision: {verdict} the bounds "
        f"(mean at most {bounds.mean:g}, p99 at most {bounds.p99:g}, in {' and '.join(bounds.steps)})",
        soft_wrap=True,
    )


@contextmanager
def writing_to(option: str, file: Path) -> Iterator[None]:
    """Within, a file that an option names and that cannot be written is a UserError.

    Where its disk is why, WriteFailed: that is no wrong input.
    """
    try:
        with writing(file):
            yield
    except BrokenPipeError:
        raise PipeClosed from None
    except WriteFailed:
        raise
    except OSError as error:
        raise UserError(
            f"--{option} {file}: cannot be written ({error.strerror}); choose another file"
        ) from error


def write_json(file: Path | None, result: Any) -> None:
    """Write a result where --json says: nowhere, standard output for -, or a file, see `writing_to`.

    Where events are told, it is one too. What `check_outputs` refuses was refused before the work, but for
    what the work itself has made.
    """
    check_outputs({"json": file})
    text = to_json(result, indent=1) + "\n"
    if file == Path("-"):
        with printing():
            sys.stdout.write(text)
            sys.stdout.flush()
    elif file is not None:
        with writing_to("json", file), delivering(file) as fresh:
            fresh.write_text(text, encoding="utf-8")
    event("result", result=result)


_NOBODY = OSError, PipeClosed, RunFailed  # a full disk, a closed pipe


def complain(text: str) -> None:
    """A warning, a line on standard error or an event; none where nobody takes it."""
    with suppress(*_NOBODY):  # there is no other place to say so
        if SPEECH.is_json:
            event("warning", text=text)
        else:
            _write_error(text)


def fail(text: str) -> None:
    """Why the command ends, as a line on standard error and as an event; none where nobody takes it."""
    with suppress(*_NOBODY):
        _write_error(text)
    with suppress(*_NOBODY):
        event("error", text=text)


def _write_error(text: str) -> None:
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def tell(text: str) -> None:
    """Something that is as it should be: a line on standard output, or an event."""
    event("note", text=text)
    out.print(text, soft_wrap=True)


def say(notes: Iterable[str]) -> None:
    """Notes as lines on standard error, or events: warnings, but for facts."""
    for note in notes:
        if not isinstance(note, Fact):
            complain(note)
        elif SPEECH.is_json:
            event("note", text=note)
        elif not SPEECH.is_quiet:
            _write_error(note)


def say_compiling(kernels: str, waited: bool = True) -> list[str]:
    """Say what the user should know before `data.kernels` are first used on this machine; what was said.

    `waited` as in `compiling_notes`.
    """
    from flowerfast.pixels.executor import compiling_notes

    notes = compiling_notes(kernels, waited)
    if not SPEECH.is_quiet:  # no warning: it is as it should be
        say(notes)
    return notes
