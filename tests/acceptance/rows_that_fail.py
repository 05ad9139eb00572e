"""Targets of rows that end badly, for processes of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Place


def crash(place: Place) -> Outcome:
    """Native code at its worst."""
    sys.stderr.write("the last words\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGSEGV)
    return Outcome(True, 0, "")


def hang(place: Place) -> Outcome:
    """Never answers, and leaves a process behind in a process group of its own."""
    child = subprocess.Popen(["sleep", "1000"], process_group=0)
    Path(place.scratch, "pid").write_text(str(child.pid), encoding="utf-8")
    sys.stderr.write("waiting for a stream\n")
    sys.stderr.flush()
    time.sleep(1000)
    return Outcome(True, 0, "")


def throw(place: Place) -> Outcome:
    """An exception of Python's."""
    raise RuntimeError("no such kernel\nand more")


def hold(place: Place) -> Outcome:
    """All is well, whatever is printed."""
    sys.stdout.write("noise\n")
    return Outcome(True, 3, "3 or less", place.sizes.name)
