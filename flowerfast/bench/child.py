"""The parent's side of a measurement: one process per variant, spoken to in lines of JSON."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from flowerfast.bench.rounds import Round
from flowerfast.bench.usage import memory_bytes, sessions

_ROOT = Path(__file__).resolve().parents[2]
_WATCH = 0.25  # seconds between two looks at a child's memory while it warms up


@dataclass(frozen=True)
class Variant:
    """Something to be measured.

    Attributes:
        name: its row in the results.
        target: `module:function`; the function returns a `Source`, or epochs without end (to `Child.call`:
            anything that is JSON).
        options: the function's keyword arguments; must be JSON.
        root: checkout whose code is measured.
    """

    name: str
    target: str
    options: dict[str, Any] = field(default_factory=dict)
    root: Path = _ROOT


class ChildFailed(Exception):
    """A child could not start, died or did not answer in time; the message is one line.

    Attributes:
        skipped: it said itself that it cannot run here.
    """

    def __init__(self, message: str, skipped: bool = False) -> None:
        super().__init__(message)
        self.skipped = skipped


class Child(contextlib.AbstractContextManager["Child"]):
    """A process of its own for one variant: native crashes and clashing libraries end with it.

    It leads a session, so that its workers can be counted and ended with it.

    Args:
        variant: what it shall do.
        environment: variables to set beside this process's own.

    Attributes:
        memory: highest number of bytes seen so far that no file backs, its workers' included; None: unknown.
    """

    def __init__(self, variant: Variant, environment: Mapping[str, str]) -> None:
        self.memory: int | None = None
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        paths = [str(variant.root), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "flowerfast.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._order = {"target": variant.target, "options": variant.options}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        self._pending = b""

    @property
    def session(self) -> int:
        """Id of the session that holds the process and its workers."""
        return self._process.pid

    def open(self, limit: float) -> float:
        """Import, prepare and draw a whole epoch within `limit` seconds: seconds of that epoch."""
        return float(self._ask(self._order, limit, watch=True)["ready"])

    def call(self, limit: float) -> Any:
        """What the variant's function returns, called within `limit` seconds; the process is done then."""
        return self._ask({**self._order, "once": True}, limit, watch=True)["value"]

    def round(self, seconds: float, limit: float) -> Round:
        """One round of at least so many seconds."""
        return Round(**self._ask({"seconds": seconds}, limit, watch=False))

    def look_at_memory(self) -> None:
        """Take note of what the session holds now."""
        held = memory_bytes(self.session)
        if held is not None:
            self.memory = max(held, self.memory or 0)

    def close(self) -> None:
        """End the process and all its workers, those in process groups of their own too."""
        others = sessions().get(self.session, [])
        with contextlib.suppress(ProcessLookupError):  # all of them have ended already
            os.killpg(self._process.pid, signal.SIGKILL)
        for process in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()
        self._selector.close()
        for stream in (self._stdin, self._stdout, self._errors):
            with contextlib.suppress(OSError):
                stream.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, message: dict[str, Any], limit: float, watch: bool) -> dict[str, Any]:
        try:
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()
        except OSError:
            pass  # it has died: reading finds out how
        answer: dict[str, Any] = json.loads(self._line(limit, watch))
        if "error" in answer:
            raise ChildFailed(answer["error"], answer["skipped"])
        return answer

    def _line(self, limit: float, watch: bool) -> bytes:
        """Next line of the child. While it warms up its memory is watched: nothing is timed then."""
        until = time.monotonic() + limit
        while b"\n" not in self._pending:
            left = until - time.monotonic()
            if left <= 0:
                raise ChildFailed(f"no answer within {limit:g} s{self._last_words()}")
            if self._selector.select(min(left, _WATCH) if watch else left):
                piece = os.read(self._stdout.fileno(), 65536)
                if not piece:
                    raise ChildFailed(self._cause_of_death())
                self._pending += piece
            elif watch:
                self.look_at_memory()
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _cause_of_death(self) -> str:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return f"closed its output{self._last_words()}"
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        reason = ", perhaps for want of memory" if code == -signal.SIGKILL else ""
        return f"{how}{reason}{self._last_words()}"

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return f": {lines[-1][:200]}" if lines else ""
