"""What a command line names, looked at before anything slow begins."""

import os
from collections.abc import Mapping, Sequence
from glob import escape, glob
from pathlib import Path

from flowerfast.errors import UserError


def find_photos(arguments: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files named by paths, folders and glob patterns, in that order; and what there is to say of folders.

    A folder stands for the photos in it that training would take, a pattern for every file that matches.
    Raises UserError when an argument names nothing.
    """
    from flowerfast.photos.listing import photos_in  # numpy: not for a command's --help

    listed: list[Path] = []
    notes: list[str] = []
    for argument in arguments:
        path, told = Path(argument), list[str]()
        if path.is_dir():
            found, told = photos_in(path)
        else:
            # A folder's name may look like a pattern: [old] rose/*.jpg.
            patterns = argument, os.path.join(escape(str(path.parent)), path.name)
            named = next(filter(None, (glob(text, recursive=True) for text in patterns)), [])
            found = [path] if path.is_file() else sorted(map(Path, named))
            found = [file for file in found if file.is_file()]
        if not found:
            what = "no photos in this folder" if path.is_dir() else "no such file, folder or pattern"
            raise UserError(f"{argument}: {what}; give photos, folders that hold some, or patterns")
        listed += found
        notes += told
    return listed, notes


def check_outputs(files: Mapping[str, Path | None], photos: Sequence[Path]) -> None:
    """Raise UserError where one of the files to write, by option, is one of the photos, or another's."""
    wanted = [(form, file) for form, file in files.items() if file is not None]
    for place, (form, file) in enumerate(wanted):
        if any(file == other for _, other in wanted[:place]):
            raise UserError(f"--{form} {file}: named twice; give each a file of its own")
        if file.is_dir():
            raise UserError(f"--{form} {file}: is a folder; name a file in it")
        whole = file.resolve()
        if any(photo.name == file.name and photo.resolve() == whole for photo in photos):
            raise UserError(f"--{form} {file}: one of the photos; name another file")


def check_folder(folder: Path) -> None:
    """Raise UserError unless there is such a folder."""
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what}; give a folder that holds one folder of photos per class")


def check_run(run: Path) -> None:
    """Raise UserError unless a run has left a model there."""
    if not any((folder / "config.json").is_file() for folder in (run / "best", run)):
        raise UserError(f"{run}: no trained model there; give the --out folder of a finished epoch")
