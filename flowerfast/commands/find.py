"""Photos that a command line names."""

from collections.abc import Sequence
from glob import glob
from pathlib import Path

from flowerfast.errors import UserError
from flowerfast.photos.formats import SUFFIXES


def find_photos(arguments: Sequence[str]) -> list[Path]:
    """Photos named by files, folders (searched through) and glob patterns. Raises UserError for none."""
    listed: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_file():
            listed.append(path)
            continue
        inside = path.rglob("*") if path.is_dir() else map(Path, glob(argument, recursive=True))
        photos = sorted(p for p in inside if p.suffix.lower() in SUFFIXES and p.is_file())
        if not photos:
            what = "no photos in this folder" if path.is_dir() else "no such file, folder or pattern"
            raise UserError(
                f"{argument}: {what}; give photos ({', '.join(sorted(SUFFIXES))}), folders or globs"
            )
        listed += photos
    return listed
