"""The failures that users meet."""

import errno
import os
import re
import shutil
import signal
import unicodedata
from pathlib import Path

_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str, keep: str = "") -> str:
    """The text as one line that no terminal takes for a command, for names are the user's.

    Control characters, line separators, marks that turn the direction of writing and bytes that are no UTF-8
    (lone surrogates, as Python carries them) come out as backslash escapes, but for the characters `keep`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not _is_control(c) else _escaped(c) for c in text)


def _is_control(character: str) -> bool:
    return character in _TURNING or unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # of a name that is no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


_PASSWORD = re.compile(r"(\w:/{1,2}[^/@:\s]*):[^/\s]*@")  # of a URL, which a `Path` may have had


def without_passwords(text: str) -> str:
    """The text, but for passwords of URLs in it."""
    return _PASSWORD.sub(r"\1:***@", text)


class Fact(str):
    """A note of something that is as it should be: who wants to hear little is not told."""


class Said(Exception):
    """An error that is said in one line.

    Attributes:
        everywhere: all ranks of a run raise it, so that the first alone says it (see `ranks`).
    """

    everywhere = False


class UserError(Said, ValueError):
    """Wrong input: the message is one line that says what, where and what to do. Commands exit with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(without_passwords(message)))


class RunFailed(Said, RuntimeError):
    """The run cannot go on; the message is one line with the way out. Commands exit with 1.

    So it is where a disk is full, broken or read-only: what was asked for is right.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(without_passwords(message)))


class Stopped(Said):
    """A signal asked the run to stop; everything is saved. Commands exit with 128 + `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after saving")
        self.signum = signum


_MOST_CHARACTERS = 500


def one_line(error: BaseException) -> str:
    """What an exception says, as one line: the system's words for an OSError, else the first of its own.

    Cut where it is longer than anybody reads: it may repeat what a file from anywhere says.
    """
    line = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return line if len(line) <= _MOST_CHARACTERS else line[: _MOST_CHARACTERS - 3] + "..."


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_DISK = _FULL | {errno.EROFS, errno.EIO}
# As Rust has it, in which safetensors is written: its words, and those that it has for programmers.
_FOREIGN = re.compile(r"(?:\(os error|Os \{ code:) (\d+)\b")


class WriteFailed(OSError):
    """A file cannot be written, for its disk is full, broken or read-only.

    `filename` is the file, `strerror` the system's words, with the bytes needed and free of a full disk.
    """

    @property
    def is_full(self) -> bool:
        """Whether room would help, on the disk, in a quota or under a limit of file sizes."""
        return self.errno in _FULL

    @property
    def what(self) -> str:
        """The file, and what is wrong."""
        return f"{self.filename}: cannot be written ({self.strerror})"

    def line(self, then: str) -> str:
        """One line for people: the file, what is wrong, and the way out, which ends with `then`."""
        return f"{self.what}; {'make room' if self.is_full else 'see to that disk'}, then {then}"


def write_failure(error: BaseException, file: Path, needed: int) -> WriteFailed | None:
    """What ended the writing of `file`, which takes at least `needed` bytes; None: it was not its disk.

    Libraries that meet a full disk raise exceptions of their own, or of their cleaning up: the first one
    in the chain that tells of the disk counts.
    """
    if isinstance(error, WriteFailed | UserError | RunFailed) or not isinstance(error, Exception):
        return None
    met: BaseException | None = error
    while met is not None:
        said = _FOREIGN.search(str(met))
        code = met.errno if isinstance(met, OSError) else int(said[1]) if said else None
        if code in _DISK and _lies_with(file, met):
            return WriteFailed(code, os.strerror(code) + _room(code, file, needed), str(file))
        met = met.__cause__ or (None if met.__suppress_context__ else met.__context__)
    return None


def _lies_with(file: Path, error: BaseException) -> bool:
    """Whether what the system named, if anything, is the file, beside, within or above it."""
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)  # of a copy, where it goes
    if not isinstance(named, str | os.PathLike):
        return True
    return Path(named).is_relative_to(file.parent) or file.is_relative_to(named)


def _room(code: int, file: Path, needed: int) -> str:
    """What is needed and what there is, as far as it is known."""
    if code not in _FULL:
        return ""
    words = [f"at least {needed:,} bytes needed"] if needed else []
    try:
        there = next(folder for folder in file.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(there).free
        if code == errno.ENOSPC and free > needed and _is_out_of_inodes(there):
            return f": {free:,} bytes are free, but it may hold no more files, whatever their size; see df -i"
        words.append(f"{free:,} free")
    except OSError:
        pass  # a disk that cannot even say that
    if code == errno.EFBIG:
        words.append("files of this process may be limited, see ulimit -f")
    return ": " * bool(words) + ", ".join(words)


def _is_out_of_inodes(folder: Path) -> bool:
    """Whether a disk that counts its inodes has none left. Raises OSError."""
    if not hasattr(os, "statvfs"):
        return False
    disk = os.statvfs(folder)
    return disk.f_files > 0 and disk.f_favail == 0


_NO_MEMORY = re.compile(r"out of memory|allocate memory|can't allocate", re.IGNORECASE)


def memory_line(error: BaseException) -> str | None:
    """One line for an exception that means too little memory, on the GPU or off it; None: it does not."""
    words = one_line(error)
    if not isinstance(error, MemoryError) and not _NO_MEMORY.search(words):
        return None
    smaller = "lower train.batch_size (evaluate: --batch-size) or data.image_size"
    if "CUDA" in words:
        more = "set train.amp=bf16, or data.cache=ram where it is vram"
    else:
        more = "lower data.prefetch or data.workers, or set data.cache=disk where it is ram"
    return f"not enough memory ({'. '.join(words.split('. ')[:2]).rstrip('.')}); {smaller}, {more}"
