"""Whether the compiled loops can be called yet, and how they come to be there without a wait.

What is in the cache folder is loaded by a thread. What is not there is compiled by a child process first: the
compiler would keep Python's interpreter lock for most of its time, and training would stand still. Until then
callers use plain operations, which give the same. Where nothing can be kept a child would be of no use, and
loops are compiled where they are called.

Importing this module imports no numba.
"""

import atexit
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from flowerfast.errors import one_line
from flowerfast.kernels import numba_problem, place

COMPILING = "compiling the CPU loops for this machine, this once: it may take a minute or two"
MEANWHILE = (
    "compiling the CPU loops for this machine, this once, in a process of its own; until they are there "
    "torchvision and Pillow make the photos ready, the same but slower"
)
SLOWER = "torchvision and Pillow make the photos ready, at half the speed or less"
_CHILD = (sys.executable, "-P", "-m", "flowerfast.kernels.ahead")
_LEFT_AFTER = 5.0  # seconds that loading gets at the exit


class Loops:
    """The compiled loops of one process. Threads may share it.

    Args:
        load: loads them all; False when some are not kept.
        compiler: command that compiles them into the cache folder, and ends with its standard input.

    Attributes:
        usable: they may be called. What has not been loaded by then is compiled at the call.
        notes: what the user should know, one line each.
    """

    def __init__(self, load: Callable[[], bool], compiler: Sequence[str]) -> None:
        self.usable, self.notes = False, list[str]()
        self._load, self._compiler = load, compiler
        self._lock, self._go = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._loading = False

    def begin(self) -> None:
        """Have them made ready, once: compiled by a child from now on, loaded after `go_on`."""
        with self._lock:
            if self.usable or self._thread is not None:
                return
            if find_spec("numba") is None:
                self._add(f"{SLOWER}: {numba_problem()}")
                return
            if not place.KEEP:
                self.usable = True
                self._add(COMPILING)
                return
            compiled = place.is_compiled()
            if not compiled:
                self._add(MEANWHILE)
            self._thread = threading.Thread(
                target=self._make_ready, args=(compiled,), name="flowerfast-loops", daemon=True
            )
            self._thread.start()
        atexit.register(self._leave)

    def go_on(self) -> None:
        """Load what is compiled: that takes the interpreter lock from others for a second."""
        self._go.set()

    def demand(self) -> None:
        """Wait for what has begun. From now on they are usable: what is missing is compiled at the call."""
        self.go_on()
        if self._thread is not None:
            self._thread.join()
        self.usable = True
        if numba_problem() is None:
            self.notes = []  # nothing is slower

    def _make_ready(self, compiled: bool) -> None:
        try:
            if not compiled:
                self._compile()
            self._go.wait()
            if not self._loaded():
                if compiled:  # they are damaged, or of another kind of CPU
                    self._add(MEANWHILE)
                    self._compile()
                if not compiled or not self._loaded():
                    raise RuntimeError(f"compiled loops are not kept in {place.CODE}")
            self.usable = True
        except (
            Exception
        ) as error:  # whatever numba, its compiler or the system raise: the run goes on without
            where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
            self._add(f"{SLOWER}: {numba_problem() or where + one_line(error)}")

    def _loaded(self) -> bool:
        self._loading = True
        try:
            return self._load()
        finally:
            self._loading = False

    def _compile(self) -> None:
        """Have a child do it. Raises OSError when there is none, RuntimeError when it failed."""
        paths = os.pathsep.join(filter(None, sys.path))  # this very package, wherever it was found
        child = subprocess.Popen(
            self._compiler,
            stdin=subprocess.PIPE,  # never written to
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths},
            start_new_session=True,  # Ctrl-C is for the parent, whose end is this one's
            creationflags=getattr(subprocess, "IDLE_PRIORITY_CLASS", 0),
        )
        assert child.stdin is not None
        assert child.stderr is not None
        with child.stdin, child.stderr:
            said = child.stderr.read().decode(errors="replace").strip().splitlines()
            if child.wait() != 0:
                raise RuntimeError(f"the loops were not compiled ({said[-1] if said else child.returncode})")

    def _add(self, note: str) -> None:
        self.notes = [*dict.fromkeys([*self.notes, note])]

    def _leave(self) -> None:
        """At the exit: the compiler's library must not be taken down while it loads."""
        if self._loading and self._thread is not None:
            self._thread.join(_LEFT_AFTER)


def _load() -> bool:
    problem = numba_problem()
    if problem is not None:
        raise RuntimeError(problem)
    from flowerfast.kernels.ahead import prepare
    from flowerfast.kernels.machine_code import Missing, only_loading

    try:
        with only_loading():
            prepare()
    except Missing:
        return False
    return True


LOOPS = Loops(_load, _CHILD)
"""Those of this process."""


def loops_usable() -> bool:
    """Whether compiled loops may be called now in this process."""
    return LOOPS.usable and numba_problem() is None
