"""A command in a process of its own, ended with all its workers when it takes too long."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerfast.bench.child import ChildFailed

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    """A command that ended well: when it was started (time.time), seconds it took, what it printed."""

    started: float
    seconds: float
    output: str


def run_python(arguments: Sequence[str], limit: float) -> Done:
    """Run `python ARGUMENTS` in this checkout.

    Raises ChildFailed, in one line, when it fails or hangs; exit code 2 says that it cannot run here.
    """
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    started, clock = time.time(), time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"no answer within {limit:g} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):  # all of them have ended already
                os.killpg(process.pid, signal.SIGKILL)
    seconds = time.perf_counter() - clock
    if process.returncode:
        said = [line.strip("│ ") for line in errors.splitlines() if line.strip("│ ╭╮╰╯─")]
        last = said[-1][:300] if said else f"exit code {process.returncode}"
        raise ChildFailed(last, skipped=process.returncode == 2)
    return Done(started, seconds, output)
