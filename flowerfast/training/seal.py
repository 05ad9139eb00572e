"""Checksums inside the files of a run: what is on the disk is believed when it is what was written.

Each kind of file has a place for one, at which its readers do not look: a comment, a key of its own, the
metadata of safetensors, the comment of a zip archive. So a file and its checksum are replaced in one step,
and go together wherever the file is copied. It is the SHA-256 of the file with digits 0 in its own place.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO

from flowerfast.documents import MOST_JSON, read_json
from flowerfast.errors import UserError
from flowerfast.files import open_regular, replacing

BLANK = "0" * 64
"""What stands in the place of a checksum until `seal` puts it there."""
METADATA = {"sha256": BLANK}
"""Metadata with which safetensors are to be saved."""
_MARKS = {
    ".yaml": (0, b"# sha256 "),
    ".json": (0, b'{\n "sha256": "'),
    ".safetensors": (8, b'{"__metadata__":{"sha256":"'),
    ".pt": (-len(BLANK) - 13, b"file, sha256 "),
}
"""Where the mark lies behind which the checksum stands, by suffix; from the end where negative."""
_SPOILT = 4
"""A mark of which no more bytes are others is a damaged one. What earlier versions and other programs have
there differs in more."""
_BLOCK = 1 << 20


class Damaged(UserError):
    """A file of a run is not as it was written."""


def write_sealed(file: Path, text: str) -> None:
    """Write a .yaml, or what `json.dumps` made of a mapping, with its checksum. Raises OSError."""
    mark = _MARKS[file.suffix][1].decode()
    rest = f'",\n{text[1:].lstrip()}' if file.suffix == ".json" else f"\n{text}"
    with replacing(file, durable=True) as fresh:
        fresh.write_text(f"{mark}{BLANK}{rest}", encoding="utf-8", errors="backslashreplace")
        seal(fresh, file.suffix)


def add_place(archive: Path) -> None:
    """Make room for a checksum at the end of a zip archive that has no comment. Raises OSError."""
    comment = _MARKS[".pt"][1] + BLANK.encode()
    with archive.open("rb+") as stream:
        stream.seek(-2, os.SEEK_END)  # the length of the comment ends the archive
        stream.write(len(comment).to_bytes(2, "little") + comment)


def seal(file: Path, suffix: str) -> None:
    """Put the checksum of a file, of the kind that `suffix` says, into its place. Raises OSError."""
    with file.open("rb+") as stream:
        place = _place(stream, suffix)
        digest = _digest(stream, place)
        stream.seek(place)
        stream.write(digest)


def check(file: Path) -> bool:
    """Whether a file has a checksum; those of earlier versions, and of others, have none.

    Raises Damaged when it is not that of the file, OSError when the file cannot be read.
    """
    if file.suffix not in _MARKS:
        return False
    start, mark = _MARKS[file.suffix]
    with os.fdopen(open_regular(file), "rb") as stream:
        place = _place(stream, file.suffix)
        stream.seek(max(place - len(mark), 0))
        found, stored = stream.read(len(mark)), stream.read(len(BLANK))
        if len(found) < len(mark):
            return False
        # A lost page, or all behind some byte of the mark: no program begins such a file with zeros.
        erased = start >= 0 and all(a in (b, 0) for a, b in zip(found, mark, strict=True))
        if not erased and sum(a != b for a, b in zip(found, mark, strict=True)) > _SPOILT:
            return False
        if found == mark and stored == _digest(stream, place):
            return True
    text = file.suffix in (".yaml", ".json")
    edited = "; if you have edited it, delete its line with sha256" if text else ""
    raise Damaged(f"{file}: damaged, its checksum does not fit; bring a good copy back{edited}")


def _place(stream: BinaryIO, suffix: str) -> int:
    """Where the checksum lies."""
    start, mark = _MARKS[suffix]
    return start + len(mark) if start >= 0 else stream.seek(0, os.SEEK_END) - len(BLANK)


def _digest(stream: BinaryIO, place: int) -> bytes:
    """Checksum of a whole file, as if there were none at `place`."""
    digest = hashlib.sha256()
    stream.seek(0)
    while stream.tell() < place and (block := stream.read(min(_BLOCK, place - stream.tell()))):
        digest.update(block)
    digest.update(BLANK.encode())
    stream.seek(place + len(BLANK))
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest().encode()


def read_sealed(file: Path, *, most: int = MOST_JSON) -> dict[str, Any]:
    """The mapping of a JSON file of at most so many bytes.

    Raises Damaged, OSError, or ValueError when it is no JSON mapping.
    """
    check(file)
    content = read_json(file, most=most)
    if not isinstance(content, dict):
        raise ValueError(f"{type(content).__name__} in place of a mapping")
    content.pop("sha256", None)
    return content
