"""What a command line names, looked at before anything slow begins."""

from collections.abc import Sequence
from glob import glob
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
            found = [path] if path.is_file() else sorted(map(Path, glob(argument, recursive=True)))
            found = [file for file in found if file.is_file()]
        if not found:
            what = "no photos in this folder" if path.is_dir() else "no such file, folder or pattern"
            raise UserError(f"{argument}: {what}; give photos, folders that hold some, or patterns")
        listed += found
        notes += told
    return listed, notes


def check_folder(folder: Path) -> None:
    """Raise UserError unless there is such a folder."""
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "no such folder"
        raise UserError(f"{folder}: {what}; give a folder that holds one folder of photos per class")


def check_run(run: Path) -> None:
    """Raise UserError unless a run has left a model there."""
    if not any((folder / "config.json").is_file() for folder in (run / "best", run)):
        raise UserError(f"{run}: no trained model there; give the --out folder of a finished epoch")
