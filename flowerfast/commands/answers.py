"""What `predict` says, photo by photo: lines for people; JSON, JSON lines and CSV for scripts."""

import csv
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from flowerfast.commands.output import PipeClosed, complain, out
from flowerfast.errors import UserError, printable
from flowerfast.files import delivering, to_json, writing

if TYPE_CHECKING:
    from flowerfast.training.trained import Prediction

Write = Callable[["Prediction"], None]


@contextmanager
def answers(files: dict[str, Path | None], top: int) -> Iterator[Write]:
    """A function that tells of a prediction everywhere: to people, and in the files given by format.

    Args:
        files: of "json", "jsonl" and "csv"; None: not wanted, `-`: standard output, and no lines for people.
        top: classes per photo, at most.

    Raises UserError when a file cannot be written.
    """
    with ExitStack() as stack:
        writers = [
            stack.enter_context(_WRITERS[form](stack.enter_context(_opened(form, file)), top))
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
                out.print(f"{prediction.path}: {named}", soft_wrap=True)

        yield write


@contextmanager
def _opened(form: str, file: Path) -> Iterator[TextIO]:
    """The stream of a file. JSON is whole or not at all; of the others a kill leaves the answers so far."""
    encoding: Any = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    try:
        if file == Path("-"):
            yield sys.stdout
        elif form == "json":
            with delivering(file) as fresh, fresh.open("w", **encoding) as stream:
                yield stream
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            with writing(file), _whole_lines(file), file.open("w", buffering=1, **encoding) as stream:
                yield stream
    except BrokenPipeError:
        raise PipeClosed from None
    except OSError as error:
        raise UserError(
            f"--{form} {file}: cannot be written ({error.strerror}); choose another file"
        ) from error


@contextmanager
def _whole_lines(file: Path) -> Iterator[None]:
    """Take away the last line again if it could not be written whole."""
    try:
        yield
    except OSError:
        with suppress(OSError), file.open("rb+") as stream:
            content = stream.read()
            stream.truncate(content.rfind(b"\n") + 1)
        raise


@contextmanager
def _json(stream: TextIO, _: int) -> Iterator[Write]:
    before = "[\n "

    def write(prediction: "Prediction") -> None:
        nonlocal before
        stream.write(before + to_json(_row(prediction)))
        stream.flush()
        before = ",\n "

    yield write
    stream.write("[]\n" if before.startswith("[") else "\n]\n")


@contextmanager
def _jsonl(stream: TextIO, _: int) -> Iterator[Write]:
    def write(prediction: "Prediction") -> None:
        stream.write(to_json(_row(prediction)) + "\n")
        stream.flush()

    yield write


@contextmanager
def _csv(stream: TextIO, top: int) -> Iterator[Write]:
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(
        ["path", *(f"{what}_{k + 1}" for k in range(top) for what in ("name", "probability")), "error"]
    )

    def write(prediction: "Prediction") -> None:
        cells = [cell for pair in prediction.top for cell in pair]
        row = [prediction.path, *cells, *[""] * (2 * top - len(cells)), prediction.error or ""]
        # Scripts need names as they are; a terminal takes some for commands.
        table.writerow([printable(c) if isinstance(c, str) else c for c in row] if stream.isatty() else row)
        stream.flush()

    yield write


def _row(prediction: "Prediction") -> dict[str, Any]:
    top = [{"name": name, "probability": chance} for name, chance in prediction.top]
    error = {} if prediction.error is None else {"error": prediction.error}
    return {"path": prediction.path, "top": top, **error}


_WRITERS = {"json": _json, "jsonl": _jsonl, "csv": _csv}
