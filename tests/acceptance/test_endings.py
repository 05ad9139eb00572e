"""The exit rows: three endings that are as they should be, and those that are not."""

import signal
import sys

import pytest

from benchmarks.acceptance import endings
from benchmarks.acceptance.endings import End, judge, run_to_end
from benchmarks.acceptance.place import Place

TRACEBACK = "Traceback (most recent call last):\nRuntimeError: left in mid-epoch"
IGNORED = (
    "Exception ignored in: <generator object>\nAttributeError: 'NoneType' object has no attribute 'Outputs'"
)


def test_processes_end_cleanly_in_mid_epoch(place: Place):
    found = endings.clean_exit(place, "cpu")
    assert (found.holds, found.figure) == (True, 3), found


@pytest.mark.parametrize(
    ("ending", "end", "problem"),
    [
        ("early break", End(0, 1, ""), ""),
        ("exception", End(1, 1, TRACEBACK), ""),
        ("ctrl-c", End(-signal.SIGINT, 1, "KeyboardInterrupt"), ""),
        ("ctrl-c", End(0, 1, ""), "exit code 0"),
        ("early break", End(-signal.SIGSEGV, 1, "x"), "SIGSEGV"),
        ("exception", End(-signal.SIGABRT, 1, TRACEBACK), "SIGABRT"),
        ("exception", End(1, 1, f"{TRACEBACK}\n{IGNORED}"), "complains: Exception ignored"),
        ("early break", End(0, 1, "CUDA error: driver shutting down"), "complains: CUDA error"),
        ("ctrl-c", End(None, 20, "stuck here"), "still running after 20 s: stuck here"),
    ],
)
def test_ends_are_judged(ending, end, problem):
    assert judge(ending, end).startswith(problem)
    assert bool(judge(ending, end)) == bool(problem)


def program(text: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, sys, time; print('drawn', flush=True); {text}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("sys.stderr.write('stuck\\n'); sys.stderr.flush(); time.sleep(100)", "still running"),
        ("sys.exit(5)", "exit code 5"),
    ],
)
def test_a_process_that_crashes_or_hangs_at_its_end_is_seen(
    place: Place, monkeypatch: pytest.MonkeyPatch, text, problem
):
    monkeypatch.setattr(endings, "SOON", 1.0)
    monkeypatch.setattr(endings, "CODES", {"early break": 0})
    monkeypatch.setattr(endings, "leaver", lambda place, kind, ending: program(text))
    found = endings.clean_exit(place, "gpu")
    assert (found.holds, found.figure) == (False, 0)
    assert problem in found.detail


def test_only_ctrl_c_is_interrupted():
    wait = "time.sleep(0.3)"
    assert run_to_end(program(wait), interrupt=False).code == 0
    handled = f"signal.signal(signal.SIGINT, signal.default_int_handler); {wait}; time.sleep(100)"
    assert run_to_end(program(handled.replace("0.3", "100")), interrupt=True).code in (-signal.SIGINT,)
