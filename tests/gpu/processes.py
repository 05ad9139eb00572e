"""Processes of their own, which end in time with all that they started; and what is wrong with an end."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

CODES = {"early break": (0,), "exception": (1,), "ctrl-c": (-signal.SIGINT, 1)}
"""Ways to leave an epoch in the middle and the exit codes that Python gives them.

After Ctrl-C it is 1 where another thread runs a string as code meanwhile, as namedtuples do: by that Python
forgets what ended it.
"""
READY = "drawn"
"""What a process prints that has come as far as it should before it ends."""
START = 120.0
"""Seconds until a process must have printed that."""
SOON = 20.0
"""Seconds from the ending to the end of the process."""
LEAVE = f"""
import faulthandler, itertools, json, signal, sys
from tests.gpu.place import open_loader, open_photos
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with it ignored
faulthandler.register(signal.SIGUSR1)
loader = open_loader(open_photos(sys.argv[1]), json.loads(sys.argv[2]))
batches = itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())
next(batches)
next(batches)
print("{READY}", flush=True)
if sys.argv[3] == "exception":
    raise RuntimeError("left in mid-epoch")
if sys.argv[3] == "ctrl-c":
    for batch in batches:
        del batch
"""
"""A process that draws two batches and ends without closing its loader: LEAVE FOLDER SETTINGS ENDING."""
_DUMP = 2.0  # seconds that a process which does not end gets to say where it is
_COMPLAINTS = re.compile(
    r"terminate called|segmentation|core dumped|fatal python error|exception ignored|cuda ?error|leaked",
    re.IGNORECASE,
)


@dataclass
class End:
    """How a process ended: exit code (None: not in time), seconds that took, what it said on stderr."""

    code: int | None
    seconds: float
    errors: str


def run_to_end(command: Sequence[str], limit: float, wait: bool = False, interrupt: bool = False) -> End:
    """Start a process and see it end within `limit` seconds; it and its children are gone afterwards.

    With `wait` the seconds count from its `READY`; with `interrupt` it then gets a SIGINT.
    """
    paths = os.pathsep.join(path for path in sys.path if path)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
        start_new_session=True,
    ) as process:
        guard = threading.Timer(START, _kill, (process.pid,))
        guard.start()
        try:
            assert process.stdout is not None
            for line in process.stdout if wait else ():
                if line.strip() == READY:
                    break
            guard.cancel()
            started = time.monotonic()
            if interrupt and process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                errors = process.communicate(timeout=limit)[1]
            except subprocess.TimeoutExpired:
                waited = time.monotonic() - started
                process.send_signal(signal.SIGUSR1)  # has it say where its threads are
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.communicate(timeout=_DUMP)
                _kill(process.pid)
                return End(None, waited, process.communicate()[1])
            return End(process.returncode, time.monotonic() - started, errors)
        finally:
            guard.cancel()
            _kill(process.pid)


def _kill(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of them have ended already
        os.killpg(group, signal.SIGKILL)


def judge(ending: str, end: End) -> str:
    """What is wrong with an end; empty when nothing is."""
    last = (end.errors.strip().splitlines() or ["no message"])[-1][:160]
    if end.code is None:
        return f"still running after {end.seconds:.0f} s: {end.errors.strip() or 'no message'}"
    if end.code not in CODES[ending]:
        name = signal.Signals(-end.code).name if end.code < 0 else f"exit code {end.code}"
        return f"{name}, not {CODES[ending][0]}: {last}"
    complaint = next((line for line in end.errors.splitlines() if _COMPLAINTS.search(line)), None)
    if complaint is not None:
        return f"complains: {complaint.strip()[:160]}"
    return f"ended by {last}" if ending == "ctrl-c" and last != "KeyboardInterrupt" else ""
