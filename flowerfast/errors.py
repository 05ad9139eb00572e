"""The failures that users meet."""

import signal
import unicodedata

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


class UserError(ValueError):
    """Wrong input: the message is one line that says what, where and what to do. Commands exit with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class RunFailed(RuntimeError):
    """The run cannot go on; the message is one line with the way out. Commands exit with 1."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Stopped(Exception):
    """A signal asked the run to stop; everything is saved. Commands exit with 128 + `signum`."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after saving")
        self.signum = signum


def one_line(error: BaseException) -> str:
    """What an exception says, as one line: the system's words for an OSError, else the first of its own."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
