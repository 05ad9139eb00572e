"""What `predict` says, photo by photo: lines for people; JSON, JSON lines and CSV for scripts."""

import csv
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from flowerfast.commands.output import complain, out, writing_to
from flowerfast.commands.speech import event, printing
from flowerfast.errors import UserError, printable
from flowerfast.files import delivering, read_bytes, to_json

if TYPE_CHECKING:
    from flowerfast.training.trained import Prediction

Write = Callable[["Prediction"], None]
_BETWEEN = "|"  # labels in a cell of CSV


@contextmanager
def answers(files: dict[str, Path | None], top: int, labels: Sequence[str] = ()) -> Iterator[Write]:
    """A function that tells of a prediction everywhere: to people, and in the files given by format.

    Args:
        files: of "json", "jsonl" and "csv"; None: not wanted, `-`: standard output, and no lines for people.
        top: classes per photo, at most.
        labels: those of which a photo is given any number; none: it has one class.

    Raises UserError when a file cannot be written, or a label in CSV not be told from two, WriteFailed or
    RunFailed where a disk is why.
    """
    torn = next((name for name in labels if _BETWEEN in name), None)
    if torn is not None and files.get("csv") is not None:
        raise UserError(f"--csv: {_BETWEEN} stands between labels, and class {torn!r} has one; take --jsonl")
    several = bool(labels)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(_writer(form, file, top, several))
            for form, file in files.items()
            if file is not None
        ]
        quiet = Path("-") in files.values()

        def write(prediction: "Prediction") -> None:
            for each in writers:
                each(prediction)
            if prediction.error is not None:
                complain(f"skipped: {prediction.path}: {prediction.error}")
            elif not quiet:
                named = ", ".join(f"{name} {chance:.1%}" for name, chance in prediction.top)
                if prediction.labels is not None:
                    named = f"{', '.join(prediction.labels) or 'no label'} ({named})"
                with printing():
                    out.print_result(f"{prediction.path}: {named}")
            event("prediction", **_row(prediction))

        yield write


@contextmanager
def _writer(form: str, file: Path, top: int, several: bool) -> Iterator[Write]:
    """A function that writes a prediction to a file; only what this file itself refuses is said of it."""
    refused = printing if file == Path("-") else partial(writing_to, form, file)
    with refused(), _opened(form, file) as stream, _WRITERS[form](stream, top, several) as write_row:

        def write(prediction: "Prediction") -> None:
            with refused():  # before another output sees the error on its way out
                write_row(prediction)

        yield write


@contextmanager
def _opened(form: str, file: Path) -> Iterator[TextIO]:
    """The stream of a file. JSON is whole or not at all; of the others a kill leaves the answers so far."""
    encoding: Any = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    if file == Path("-"):
        yield sys.stdout
    elif form == "json":
        with delivering(file) as fresh, fresh.open("w", **encoding) as stream:
            yield stream
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _whole_lines(file), file.open("w", buffering=1, **encoding) as stream:
            yield stream


@contextmanager
def _whole_lines(file: Path) -> Iterator[None]:
    """Take away the last line again if it could not be written whole."""
    try:
        yield
    except OSError:
        with suppress(OSError):  # of a device, which has no end, nothing is read
            os.truncate(file, read_bytes(file).rfind(b"\n") + 1)
        raise


@contextmanager
def _json(stream: TextIO, _: int, __: bool) -> Iterator[Write]:
    before = "[\n "

    def write(prediction: "Prediction") -> None:
        nonlocal before
        stream.write(before + to_json(_row(prediction)))
        stream.flush()
        before = ",\n "

    yield write
    stream.write("[]\n" if before.startswith("[") else "\n]\n")


@contextmanager
def _jsonl(stream: TextIO, _: int, __: bool) -> Iterator[Write]:
    def write(prediction: "Prediction") -> None:
        stream.write(to_json(_row(prediction)) + "\n")
        stream.flush()

    yield write


@contextmanager
def _csv(stream: TextIO, top: int, several: bool) -> Iterator[Write]:
    table = csv.writer(stream, lineterminator="\n")
    # Readers end a line at a carriage return too, which Python quotes only where it ends its own lines.
    quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
    ranked = [f"{what}_{k + 1}" for k in range(top) for what in ("name", "probability")]
    table.writerow(["path", *(["labels"] if several else []), *ranked, "error"])

    def write(prediction: "Prediction") -> None:
        cells = [cell for pair in prediction.top for cell in pair]
        given = [_BETWEEN.join(prediction.labels or ())] if several else []
        row = [prediction.path, *given, *cells, *[""] * (2 * top - len(cells)), prediction.error or ""]
        # Scripts need names as they are; a terminal takes some for commands.
        if stream.isatty():
            row = [printable(c) if isinstance(c, str) else c for c in row]
        (quoting if any("\r" in str(cell) for cell in row) else table).writerow(row)
        stream.flush()

    yield write


def _row(prediction: "Prediction") -> dict[str, Any]:
    top = [{"name": name, "probability": chance} for name, chance in prediction.top]
    error = {} if prediction.error is None else {"error": prediction.error}
    labels = {} if prediction.labels is None else {"labels": list(prediction.labels)}
    return {"path": prediction.path, **labels, "top": top, **error}


_WRITERS = {"json": _json, "jsonl": _jsonl, "csv": _csv}
