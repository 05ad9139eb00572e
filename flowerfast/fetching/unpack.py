"""Photos out of an archive: regular files of a known shape, and nothing else, whatever it says."""

import shutil
import tarfile
import zlib
from collections import Counter
from gzip import BadGzipFile
from pathlib import Path

from flowerfast.errors import RunFailed, one_line
from flowerfast.files import writing
from flowerfast.machine import Progress

_MOST = 8
"""Times the bytes of the archive that its files may have together: photos do not shrink."""


def unpack(
    archive: Path, target: Path, top: str, photos: int, progress: Progress | None = None
) -> Counter[str]:
    """Write TOP/CLASS/PHOTO and TOP/FILE of a tar archive to `target`, a new folder; photos by class.

    Raises RunFailed for an archive that is damaged, that holds anything but such files (links, devices, other
    paths), other than so many photos, or more bytes than photos can have; WriteFailed for the disk.
    """
    left, counts = _MOST * archive.stat().st_size, Counter[str]()
    target.mkdir()
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isdir():
                    continue
                left -= member.size
                place = _place(member, top)
                if left < 0 or counts.total() > photos:
                    raise RunFailed(f"{archive}: holds more than {photos:,} photos can have; not unpacked")
                file = target.joinpath(*place)
                with writing(file, member.size):
                    file.parent.mkdir(exist_ok=True)
                    source = tar.extractfile(member)
                    assert source is not None  # of a regular file
                    with source, file.open("xb") as stream:
                        shutil.copyfileobj(source, stream)
                if len(place) == 2:
                    counts[place[0]] += 1
                if progress is not None:
                    progress(counts.total(), photos)
    except (tarfile.TarError, EOFError, zlib.error, BadGzipFile, FileExistsError) as error:
        raise RunFailed(f"{archive}: cannot be unpacked ({one_line(error)})") from error
    if counts.total() != photos:
        raise RunFailed(f"{archive}: holds {counts.total():,} photos, not {photos:,}")
    return counts


def _place(member: tarfile.TarInfo, top: str) -> tuple[str, ...]:
    """Where a member goes, below the target. Raises RunFailed unless it is a regular file in its place."""
    first, *place = member.name.split("/")
    plain = all(part.strip(". ") and not set(part) & set("\\:\0") for part in place)
    if not member.isreg() or first != top or len(place) not in (1, 2) or not plain:
        kind = "" if member.isreg() else ", no regular file"
        raise RunFailed(f"the archive holds {member.name!r}{kind}: not what is wanted, not unpacked")
    return tuple(place)
