"""What the machine lets this process use: cores, memory, disk and folders to write in.

Of a container its limits count, not the host's: cores and memory are read from cgroup v2 too.
https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import logging
import math
import os
import platform
import re
import shlex
import shutil
import stat
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from flowerfast.errors import UserError

T = TypeVar("T")

logger = logging.getLogger("flowerfast")
"""What has no other way to people; without a handler of theirs, warnings go to standard error."""

Progress = Callable[[int, int], None]
"""Told how far a piece of work is: (done, in all)."""
ProgressBars = Callable[[str], AbstractContextManager[Progress | None]]
"""Makes a `Progress` with a title for as long as the work lasts, or None where nobody looks."""

_CGROUPS, _OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_UNKNOWN_MEMORY = 2 << 30  # bytes: not Linux, assume little


def no_bars(_: str) -> AbstractContextManager[Progress | None]:
    """No progress bars."""
    return nullcontext()


def sharing() -> int:
    """Processes that work together on this machine, as torchrun has started them; 1: this one alone."""
    named = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(int(named), 1) if named.isascii() and named.isdecimal() else 1


def usable_cores() -> int:
    """CPU cores this process may use: those it may run on, no more than its container's quota gives, and of
    both its share where it is one of several (`sharing`).
    """
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [text.split() for text in _limits("cpu.max")]
    shares = [int(quota) / int(period) for quota, period in quotas if quota != "max"]
    return max(1, min([mine, *map(math.ceil, shares)]) // sharing())


def cpu_name() -> str:
    """Model of the host's CPU, as far as it is known."""
    lines = (_read(Path("/proc/cpuinfo")) or "").splitlines()
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor()


def free_memory() -> int:
    """Bytes of memory this process can still take: free on the host, and left of its container's limit; its
    share where it is one of several.
    """
    try:
        with open("/proc/meminfo") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        free = _UNKNOWN_MEMORY
    return min([free, *_container_memory(left=True)]) // sharing()


def total_memory() -> int | None:
    """Bytes of memory of the machine, or of the container if that has less; None: not known."""
    try:
        host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    return min([host, *_container_memory(left=False)])


def _container_memory(left: bool) -> Iterator[int]:
    """Limits in bytes of the control groups this process is in; with `left`, what is not used of them."""
    for group in _groups():
        limit = _read(group / "memory.max")
        if limit is None or limit == "max":
            continue
        if not left:
            yield int(limit)
            continue
        used = int(_read(group / "memory.current") or 0)
        # Pages of files count as used, and are given up when memory is short.
        kept = [line.split() for line in (_read(group / "memory.stat") or "").splitlines()]
        yield max(int(limit) - used + sum(int(pages) for name, pages in kept if name == "inactive_file"), 0)


def _limits(name: str) -> list[str]:
    """One limit of all control groups this process is in."""
    return [text for group in _groups() if (text := _read(group / name))]


def _groups() -> Iterator[Path]:
    """Folders of the control groups (v2) this process is in, innermost first."""
    own = next((line for line in (_read(_OWN_CGROUP) or "").splitlines() if line.startswith("0::/")), "")
    parts = Path(own[len("0::/") :]).parts if own else ()
    for count in range(len(parts), -1, -1):
        yield _CGROUPS.joinpath(*parts[:count])


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def free_disk(folder: Path) -> int:
    """Bytes free on the disk of a folder."""
    return shutil.disk_usage(folder).free


def folder_problem(folder: Path) -> str | None:
    """Why nothing can be written in `folder`, or the folder not be made; None: it can. Nothing is made."""
    there = next(str(above) for above in (folder, *folder.absolute().parents) if os.path.exists(above))
    if not os.path.isdir(there):
        return f"{there} is no folder"
    return None if os.access(there, os.W_OK | os.X_OK) else f"{there} cannot be written to"


def user_cache_dir() -> Path:
    """flowerfast's cache folder: $FLOWERFAST_CACHE, else flowerfast under the user's cache folder.

    Where it cannot be written, a temporary folder that is this user's alone, which is said once. Where there
    is none either, it cannot be written, and whoever would keep something there goes on without.
    """
    return _usable_cache(wanted_cache_dir())


def wanted_cache_dir() -> Path | None:
    """The cache folder that is meant, whether it can be written or not; None: this user has no home."""
    own, base = os.environ.get("FLOWERFAST_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(own) if own else Path(base or Path.home() / ".cache") / "flowerfast"
    except RuntimeError:
        return None


@lru_cache
def _usable_cache(wanted: Path | None) -> Path:
    problem = folder_problem(wanted) if wanted is not None else "this user has no home folder"
    if wanted is not None and problem is None:
        return wanted
    folder = _temporary_folder()
    kept = f"caches are kept in {folder}" if folder else "nothing is kept for the next run"
    logger.warning("flowerfast: %s: %s; set FLOWERFAST_CACHE to a folder for them", problem, kept)
    return folder or wanted or Path(os.devnull, "flowerfast")


def _temporary_folder() -> Path | None:
    """A folder for this user's caches among the temporary files; None: none can be written.

    Not by `tempfile`, whose last resort is the current folder, perhaps one of photos.
    """
    user = os.getuid() if os.name == "posix" else 0
    for base in _temporary_places():
        folder = base / f"flowerfast-{user}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.lstat()
        except OSError:
            continue
        # Compiled code is loaded from it: nobody else may have made it, or write to it.
        safe = stat.S_ISDIR(status.st_mode) and status.st_uid == user and not status.st_mode & 0o022
        if (safe or os.name != "posix") and folder_problem(folder) is None:
            return folder
    return None


def _temporary_places() -> list[Path]:
    named = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
    return [Path(place) for place in (*named, "/tmp", "/var/tmp") if place]


def lend_home() -> None:
    """Give other libraries a place for what they keep in the user's home or in /tmp, where that cannot be.

    Without a home (a container's random user) some make a folder called "~" where they stand, or fail. A home
    that is known stays, though it cannot be written: models may lie there. Child processes inherit it all.
    Raises UserError when there is no place at all.
    """
    cache = user_cache_dir()
    if folder_problem(cache) is not None:
        try:
            tempfile.gettempdir()  # the current folder, if nothing else
        except FileNotFoundError:
            raise UserError(
                "no folder for temporary files can be written, and torch needs one; set TMPDIR to one"
            ) from None
        logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it would say once more what has been said
        return
    if os.name == "posix" and all(folder_problem(place) for place in _temporary_places()):
        (cache / "tmp").mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = str(cache / "tmp")
    try:
        home = Path.home()
    except RuntimeError:
        home = cache / "home"
        os.environ |= {"HOME": str(home), "FLOWERFAST_CACHE": str(cache)}
    places = (
        os.environ.get("XDG_CONFIG_HOME") or home / ".config",
        os.environ.get("XDG_CACHE_HOME") or home / ".cache",
    )
    if any(folder_problem(Path(place, "matplotlib")) for place in places):
        os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))


def within(seconds: float, what: str, work: Callable[[], T]) -> T:
    """What a piece of work returns or raises, in a thread that is left behind when it takes longer.

    Raises TimeoutError, which names `what` has not answered.
    """
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # raised where it is waited for
            failed.append(error)

    thread = threading.Thread(target=run, name="flowerfast-waiting", daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"{what}: has not answered for {seconds:.0f} s")
    return done[0]


def command_line() -> str | None:
    """The command that this process is, as it can be given again; None: no flowerfast command."""
    program = Path(sys.argv[0]) if sys.argv else Path()
    if program.name != "flowerfast" and program.parts[-2:] != ("flowerfast", "__main__.py"):
        return None
    return shlex.join(["flowerfast", *sys.argv[1:]])


def versions() -> dict[str, str]:
    """Versions of what decides speed and pixels."""
    # Only now: --help need not wait for it.
    from importlib.metadata import PackageNotFoundError, version

    installed = {"python": platform.python_version()}
    names = ("flowerfast", "torch", "torchvision", "timm", "numpy", "pillow", "simplejpeg", "numba")
    for name in (*names, "nvidia-dali-cuda120", "nvidia-dali-cuda130"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def ignore_warnings(module: str = "", message: str = "") -> None:
    """Ignore the warnings of a module, or of a wording (regular expressions), for good.

    `catch_warnings` is not safe in threads: of two that overlap one leaves its filter in place for ever, and
    the other works without.
    """
    words = re.compile(message, re.IGNORECASE) if message else None
    where = re.compile(module) if module else None
    if ("ignore", words, Warning, where, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", message, module=module)
