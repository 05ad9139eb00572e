"""Processes that end in mid-epoch end soon, with the exit code of what ended them, and in silence."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.acceptance.leaver import READY
from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Kind, Place

CODES = {"early break": 0, "exception": 1, "ctrl-c": -signal.SIGINT}
"""Endings, and the exit codes that Python gives them."""
SOON = 20.0
"""Seconds from the ending to the end of the process."""
_COMPLAINTS = re.compile(
    r"terminate called|segmentation|core dumped|fatal python error|exception ignored|cuda ?error|leaked",
    re.IGNORECASE,
)


@dataclass
class End:
    """How a process ended."""

    code: int | None
    seconds: float
    errors: str


def clean_exit(place: Place, kind: Kind) -> Outcome:
    """Early break, exception and Ctrl-C, each in a process of its own."""
    with ThreadPoolExecutor(len(CODES)) as pool:
        found = pool.map(lambda ending: run_to_end(leaver(place, kind, ending), ending == "ctrl-c"), CODES)
        ends = dict(zip(CODES, found, strict=True))
    problems = {ending: judge(ending, end) for ending, end in ends.items()}
    wrong = [f"{ending}: {problem}" for ending, problem in problems.items() if problem]
    slowest = max(end.seconds for end in ends.values())
    detail = "; ".join(wrong) or f"{', '.join(CODES)}: the slowest took {slowest:.1f} s"
    bound = f"{len(CODES)} endings: right exit code, no complaint, within {SOON:g} s"
    return Outcome(not wrong, len(CODES) - len(wrong), bound, detail, place.unseen(kind))


def leaver(place: Place, kind: Kind, ending: str) -> list[str]:
    """Command of the process that ends so."""
    return [sys.executable, "-m", "benchmarks.acceptance.leaver", json.dumps(place.to_json()), kind, ending]


def run_to_end(command: list[str], interrupt: bool) -> End:
    """Start a process, wait until it has drawn, interrupt it if so told, and see it end."""
    # In this process's group, so that whoever ends the row ends these too.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == READY:
            break
    started = time.monotonic()
    if interrupt and process.poll() is None:
        os.kill(process.pid, signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=SOON)
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
        return End(None, time.monotonic() - started, errors)
    return End(process.returncode, time.monotonic() - started, errors)


def judge(ending: str, end: End) -> str:
    """What is wrong with an end; empty when nothing is."""
    last = (end.errors.strip().splitlines() or ["no message"])[-1][:160]
    if end.code is None:
        return f"still running after {SOON:g} s: {last}"
    if end.code != CODES[ending]:
        name = signal.Signals(-end.code).name if end.code < 0 else f"exit code {end.code}"
        return f"{name}, not {CODES[ending]}: {last}"
    complaint = next((line for line in end.errors.splitlines() if _COMPLAINTS.search(line)), None)
    return f"complains: {complaint.strip()[:160]}" if complaint else ""
