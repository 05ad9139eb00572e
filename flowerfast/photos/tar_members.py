"""Members of a tar file that anybody wrote, by WebDataset's rule of names: key, dot, suffix.

https://github.com/webdataset/webdataset, `base_plus_ext` and `group_by_keys`
"""

import io
import os
import re
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from flowerfast.errors import UserError, one_line
from flowerfast.files import open_regular
from flowerfast.photos.arrays import NPZ_ERRORS

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd begin."""
ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
LINKS, NO_END = range(2)
"""What is noted of tars: members that are no files, and tars without the blocks that end one."""
_META = re.compile(r"__[^/]*__($|/)")  # what WebDataset's readers pass over
_MOST_HEADER = 1 << 20  # bytes of a long name or of PAX fields
_LOOK_BEHIND = 1 << 20  # bytes that are looked at behind the end, where zeros fill up a record
_COPY = "copy it again, or leave it out"


class Member(NamedTuple):
    """A file in a tar: key with its folders, suffix in lower case, where its bytes lie and how many."""

    key: str
    suffix: str
    offset: int
    size: int


class _Bounded(io.FileIO):
    """A tar as `tarfile` reads its headers: no more at once than a header may have.

    https://docs.python.org/3/library/tarfile.html: a header may say any number, a negative one too.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size) or b""


def members_of(path: Path, noted: Counter[int]) -> Iterator[Member]:
    """Files of a tar in their order; LINKS and NO_END are counted.

    Hidden files, files without a suffix and folders are passed over without a word.
    Raises UserError for what is no plain tar, for one that is cut or damaged, and for names that lead out
    of their folder.
    """
    try:
        with _Bounded(open_regular(path)) as file:
            if file.read(8).startswith(_COMPRESSED):
                raise UserError(
                    f"{path}: compressed, so that no photo can be read of it by itself; unpack it to a plain "
                    ".tar (gunzip, unxz, zstd -d)"
                )
            file.seek(0)
            yield from _members(path, file, noted)
    except UserError:
        raise
    except (tarfile.TarError, *NPZ_ERRORS) as error:  # of damage it makes almost any
        raise UserError(f"{path}: no tar file that can be read ({one_line(error)}); {_COPY}") from error


def _members(path: Path, file: _Bounded, noted: Counter[int]) -> Iterator[Member]:
    with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
        at = -1
        while (member := tar.next()) is not None:
            vars(tar)["members"].clear()  # or it would hold them all
            if member.size < 0 or member.offset_data <= at:
                raise tarfile.ReadError(f"at byte {member.offset}: a header of {member.size} bytes")
            at = member.offset_data
            if member.isdir():
                continue
            if not member.isreg() or member.sparse is not None:
                noted[LINKS] += 1
            elif (named := _named(path, member.name)) is not None:
                yield Member(*named, member.offset_data, member.size)
        _check_end(path, file, tar.offset, noted)


def _named(path: Path, name: str) -> tuple[str, str] | None:
    """(key, suffix) of a member; None: it is none of a sample."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or _META.match(name):
        return None
    stem, _, suffix = parts[-1].partition(".")
    if not stem or not suffix:
        return None
    if ".." in parts or "\0" in name:
        raise UserError(f"{path}: {name!r} leads out of its folder; write the tar anew without such names")
    return "/".join([*parts[:-1], stem]), suffix.lower()


def _check_end(path: Path, file: _Bounded, at: int, noted: Counter[int]) -> None:
    """`tarfile` ends without a word at the first header that is none. Raises UserError, OSError."""
    size = os.fstat(file.fileno()).st_size
    file.seek(at)
    behind = file.read(min(size - at, _LOOK_BEHIND)) if size > at else b""
    if not behind:
        noted[NO_END] += 1
    elif any(behind[: tarfile.BLOCKSIZE]):
        raise UserError(f"{path}: damaged or cut at byte {at}, and nothing behind is read; {_COPY}")
    elif any(behind):
        raise UserError(f"{path}: another tar follows behind its end; join them with `tar -A`, not `cat`")


def passed_over(root: Path, names: Collection[str]) -> list[str]:
    """Tar files of a folder that are none of `names`: links that lead nowhere, and folders that hold some."""
    found: list[str] = []
    used = {name.partition("/")[0] for name in names}
    with suppress(OSError):
        for name in sorted(os.listdir(root)):
            if name in used or name.startswith("."):
                continue
            if name.lower().endswith(ENDINGS):
                found.append(name)
            elif any(each.lower().endswith(ENDINGS) for each in _names_in(root / name)):
                found.append(f"{name}/")
    return found


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def tars_in(root: Path, halves: Collection[str]) -> list[str]:
    """Tar files, compressed ones too, right in a folder and in its folders that `halves` names in lower case.

    Sorted; none where the folder cannot be read: whoever lists it will say so.
    """
    found: list[str] = []
    with suppress(OSError):
        for folder in ["", *sorted(name for name in os.listdir(root) if name.casefold() in halves)]:
            with suppress(OSError):
                found += [
                    f"{folder}/{name}" if folder else name for name in sorted(os.listdir(root / folder))
                ]
    tars = [name for name in found if name.lower().endswith(ENDINGS) and (root / name).is_file()]
    return [name for name in tars if not name.rpartition("/")[2].startswith(".")]
