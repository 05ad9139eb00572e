"""Command line: translate, call, print.

Exit codes: 0 success, 1 the run failed, as on a disk that is full, broken or read-only, 2 wrong input,
129/130/143 stopped by SIGHUP/SIGINT/SIGTERM, 141 the reader of standard output has closed it.
"""

import errno
import gc
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from flowerfast import __version__
from flowerfast.commands.data import pack, synth
from flowerfast.commands.doctor import doctor
from flowerfast.commands.exporting import export
from flowerfast.commands.fetching import fetch
from flowerfast.commands.measuring import bench, parity
from flowerfast.commands.output import complain, fail, out, print_text_alone
from flowerfast.commands.report import report
from flowerfast.commands.scanning import scan
from flowerfast.commands.settings import settings
from flowerfast.commands.show import show
from flowerfast.commands.signals import Interrupted, Interrupts, end_at_once
from flowerfast.commands.speech import PipeClosed, speak_plainly
from flowerfast.commands.training import evaluate, predict, train
from flowerfast.commands.tuning import tune
from flowerfast.commands.usage import explain_usage
from flowerfast.errors import (
    RunFailed,
    Stopped,
    UserError,
    WriteFailed,
    memory_line,
    printable,
    write_failure,
)
from flowerfast.machine import lend_home
from flowerfast.places import url_of
from flowerfast.ranks.meeting import leave
from flowerfast.ranks.telling import speaks
from flowerfast.ranks.who import check_alone, current

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes a third of the time to answer
    help="Fine-tune an image classifier on a folder of photos without waiting for the data.",
)
_UsageError: Any = typer.BadParameter.__base__  # click's own, or that of the click inside newer typers


def _version(wanted: bool) -> None:
    if wanted:
        out.print(f"flowerfast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    if context.invoked_subcommand != "train" and os.environ.get("MASTER_ADDR"):
        if os.environ.get("RANK"):
            check_alone(f"flowerfast {context.invoked_subcommand}")
        del os.environ["MASTER_ADDR"]  # srun's tasks, such as those of pack --part, are each alone


# torch and timm take seconds to import: commands import what they call, so that --help answers at once, and
# look first at what can be refused without them.
for _command in (
    *(train, tune, evaluate, predict, report, export),
    *(scan, show, parity, bench, doctor),
    *(pack, synth, fetch, settings),
):
    app.command()(_command)


def run() -> int:
    """Do what the command line says; the exit code."""
    try:
        _refuse_unset(sys.argv[1:])
        with Interrupts():
            _look_around()
            lend_home()  # before a command imports the libraries that look for one
            code = int(app(standalone_mode=False) or 0)
            leave()
            return code
    except UserError as error:
        _tell(error, f"error: {error}")
        return 2
    except _UsageError as error:
        if speaks(error):
            explain_usage(error)
        return 2
    except Interrupted as stopped:
        _tell(stopped, str(stopped))
        return 128 + stopped.signum
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except PipeClosed:
        return _PIPE_CLOSED
    except Stopped as stopped:
        _tell(stopped, f"{stopped}; go on with --resume")
        return 128 + stopped.signum
    except RunFailed as error:
        _tell(error, f"error: {error}")
        return 1
    except (MemoryError, RuntimeError) as error:
        line = memory_line(error)
        if line is None:
            raise
        _tell(error, f"error: {line}")
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        # Of a rename, what it would have replaced: the temporary file is gone.
        where = os.fsdecode(error.filename if error.filename2 is None else error.filename2)
        failed = error if isinstance(error, WriteFailed) else write_failure(error, Path(where), 0)
        # EIO is met by who reads, too.
        if failed is not None and (failed is error or error.errno != errno.EIO):
            _tell(error, f"error: {failed.line('run the same command again')}")
            return 1
        if error.errno not in _PATHS:
            raise
        _tell(error, f"error: {where}: {error.strerror}; check that path and who may use it")
        return 2
    finally:
        speak_plainly()


def _look_around() -> None:
    """Raise UserError in a folder that is gone, which libraries crash in."""
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the current folder has been deleted; change to another one") from None


def _tell(error: BaseException, line: str) -> None:
    """Say why the command ends; of several ranks the first does so for all, others what is theirs alone."""
    rank = current().rank
    if speaks(error) and not (rank and isinstance(error, Interrupted)):
        fail(f"flowerfast: {f'rank {rank}: ' if rank else ''}{line}")
    leave(error)


def _refuse_unset(arguments: list[str]) -> None:
    """Raise UserError for what an empty variable leaves: an argument without a character, which pathlib takes
    for the current folder, and a URL without a bucket, whose next folder it takes for one.
    """
    for before, argument in zip(["flowerfast", *arguments], arguments, strict=False):
        _, given, value = argument.partition("=") if argument.startswith("--") else ("", "=", argument)
        if given and value == "":
            what = argument or before
            raise UserError(
                f"{what} '': an empty argument, of a variable that is not set perhaps; give a value"
            )
        if ":///" in value:
            url_of(value)


_PATHS = (
    *(errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR),
    *(errno.EISDIR, errno.EEXIST, errno.EIO),
)
"""What is wrong with a path that somebody named, wherever it is met."""
_PIPE_CLOSED = 141  # as shells have it of a process that SIGPIPE ends


def main() -> None:
    """Entry point of the `flowerfast` command: ends the process."""
    print_text_alone()
    try:
        with Interrupts():  # beyond those of `run`
            code = run()
    except Interrupted as stopped:
        _tell(stopped, str(stopped))
        code = 128 + stopped.signum
    except OSError as error:
        if error.filename is not None or write_failure(error, Path(), 0) is None:
            raise
        complain(f"flowerfast: error: standard output: cannot be written ({error.strerror})")
        code = 1
    except Exception:  # a fault of this program: Python's own words, but for what would command a terminal
        with suppress(OSError):
            sys.stderr.write(printable(traceback.format_exc(), keep="\n"))
        code = 1
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _PIPE_CLOSED
    except OSError as error:
        complain(f"flowerfast: error: standard output cannot be written ({error.strerror})")
        code = 1
    end_at_once(code)
    # To take apart, object by object, what torch and timm have loaded takes seconds.
    if code:
        os._exit(code)
    gc.freeze()
    sys.exit(0)
