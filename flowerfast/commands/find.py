"""What a command line names, looked at before anything slow begins."""

import errno
import os
from collections.abc import Mapping, Sequence
from glob import escape, glob
from pathlib import Path

from flowerfast.errors import UserError
from flowerfast.machine import folder_problem
from flowerfast.places import TABLES, is_table, no_photos_at, url_of

_IN_PLACE = ("jsonl", "csv")  # each answer is there at once
_TEXT = ("json", "html", *_IN_PLACE)
_LONGEST_PID = 2**22


def find_photos(arguments: Sequence[str], path_column: str | None = None) -> tuple[list[Path], list[str]]:
    """Files named by paths, folders, tables and glob patterns, in that order; and what there is to say of
    folders.

    A folder stands for the photos in it that training would take, a table for those that it names in that
    column (None: one of the usual names), a pattern for every file that matches.
    Raises UserError when an argument names nothing.
    """
    # numpy: not for a command's --help
    from flowerfast.photos.label_file import Columns, check_readable
    from flowerfast.photos.label_rows import photos_named
    from flowerfast.photos.listing import photos_in

    listed: list[Path] = []
    notes: list[str] = []
    for argument in arguments:
        path, told = Path(argument), list[str]()
        if path.is_dir():
            found, told = photos_in(path)
        elif is_table(path) and path.is_file():
            check_readable(path)
            found = photos_named(path, Columns(path_column))
        else:
            # A folder's name may look like a pattern: [old] rose/*.jpg.
            patterns = argument, os.path.join(escape(str(path.parent)), path.name)
            named = next(filter(None, (glob(text, recursive=True) for text in patterns)), [])
            found = [path] if path.is_file() else sorted(map(Path, named))
            found = [file for file in found if file.is_file()]
        if not found:
            what = "no photos in this folder" if path.is_dir() else "no such file, folder or pattern"
            if [*path.glob("*.tar")]:
                what = "shards or tar files, which evaluate takes, and predict does not"
            if path.exists() and not path.is_dir():
                what = "no regular file"
            raise UserError(f"{argument}: {what}; give photos, folders that hold some, tables or patterns")
        listed += found
        notes += told
    return listed, notes


def check_outputs(
    files: Mapping[str, Path | None],
    photos: Sequence[Path] = (),
    data: Path | None = None,
    folder: Path | None = None,
    path_column: str | None = None,
) -> None:
    """Raise UserError where one of the files to write, by option, cannot be written or is not to be.

    A file that is there is taken for an earlier output, and replaced. But none is that a run, shards or a
    saved model consist of, nor one of `photos` or a table among them, nor a photo in `data`, nor a table that
    `data` is, nor that of another option, nor any in `folder`, which the command fills; nor, where text is to
    be written, any photo. No picture is written into `data`, where it would be one of the photos.
    """
    wanted = [(form, file) for form, file in files.items() if file is not None and file != Path("-")]
    if not wanted:
        return
    tables = [each for each in photos if is_table(each)]
    table = data if data is not None and is_table(data) and data.is_file() else None
    tables += [table] if table is not None else []
    from flowerfast.photos.walk import opens, part_of  # numpy: not for a command's --help

    for place, (form, file) in enumerate(wanted):
        if any(_is_one(file, other) for _, other in wanted[:place]):
            raise UserError(f"--{form} {file}: named twice; give each a file of its own")
        if (url := url_of(file)) is not None:
            raise UserError(f"--{form} {url}: a URL; name a file on this machine")
        if file.is_dir():
            raise UserError(f"--{form} {file}: is a folder; name a file in it")
        in_place = file.exists() and (not file.is_file() or form in _IN_PLACE)
        problem = _closed(file) if in_place else _no_place(file)
        if problem is not None:
            raise UserError(f"--{form} {file}: cannot be written ({problem}); choose another file")
        whole = Path(os.path.realpath(file))
        own = part_of(whole)
        if own is not None:
            raise UserError(f"--{form} {file}: part of a {own}; name another file")
        if folder is not None and whole.is_relative_to(os.path.realpath(folder)):
            raise UserError(f"--{form} {file}: in {folder}, which this command fills; name a file elsewhere")
        if any(_is_one(file, each) for each in tables):
            raise UserError(f"--{form} {file}: the table of the photos; name another file")
        named = _named(table, path_column) if table is not None and file.is_file() else photos
        if file.is_file() and (_is_among(file, named) or _is_photo_in(data, whole)):
            raise UserError(f"--{form} {file}: one of the photos; name another file")
        if _is_photo_in(data, whole):
            raise UserError(f"--{form} {file}: a picture there is one of the photos; name a file elsewhere")
        if form in _TEXT and file.is_file() and opens(whole):
            raise UserError(f"--{form} {file}: a photo is there; name another file")


def _named(table: Path, path_column: str | None) -> Sequence[Path]:
    """The photos that a table names; none where whoever opens it will say what is wrong with it."""
    from flowerfast.photos.label_file import Columns
    from flowerfast.photos.label_rows import photos_named

    try:
        return photos_named(table, Columns(path_column))
    except UserError:
        return ()


def _is_one(file: Path, other: Path) -> bool:
    """Whether two paths name one file, which need not be there."""
    if file.exists() and other.exists():
        return os.path.samefile(file, other)
    return os.path.realpath(file) == os.path.realpath(other)


def _closed(file: Path) -> str | None:
    return None if os.access(file, os.W_OK) else os.strerror(errno.EACCES)


def _no_place(file: Path) -> str | None:
    """Why there can be no new file, which has a longer name while it is written; None: there can."""
    whole = Path(os.path.realpath(file))
    try:
        os.lstat(f"{whole}.{_LONGEST_PID}.partial")
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        return error.strerror
    return folder_problem(whole.parent)


def _is_among(file: Path, photos: Sequence[Path]) -> bool:
    return any(photo.is_file() and os.path.samefile(file, photo) for photo in photos)


def _is_photo_in(data: Path | None, whole: Path) -> bool:
    """Whether a file, links followed, lies in a folder of photos and is one of them, by name or content, or
    a tar file that holds some.
    """
    from flowerfast.photos.walk import ENDINGS, opens

    if data is None or not whole.is_relative_to(data.resolve()):
        return False
    return whole.name.lower().endswith((*ENDINGS, ".tar")) or opens(whole)


def check_folder(folder: Path) -> None:
    """Raise UserError unless there is such a folder, or table; of a URL only whoever opens it can tell."""
    if url_of(folder) is None and not folder.is_dir():
        if is_table(folder) and folder.is_file():
            from flowerfast.photos.label_file import check_readable

            check_readable(folder)
            return
        what = f"no folder, and no table ({', '.join(TABLES)})" if folder.exists() else "no such folder"
        if is_table(folder):
            what = "no regular file" if folder.exists() else "no such table"
        raise UserError(no_photos_at(folder, what))


def check_run(run: Path) -> None:
    """Raise UserError unless a run has left a model there."""
    if not any((folder / "config.json").is_file() for folder in (run / "best", run)):
        raise UserError(f"{run}: no trained model there; give the --out folder of a finished epoch")
