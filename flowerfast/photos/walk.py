"""What lies in a folder of photos: files and folders, links followed, and what is left out and said so."""

import os
from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path

from flowerfast.errors import UserError
from flowerfast.photos.formats import SUFFIXES, open_image
from flowerfast.photos.shard_index import INDEX, STATE

ENDINGS = tuple(sorted(SUFFIXES))
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # and all whose names begin with a dot
_SYSTEM = frozenset({"lost+found", "system volume information", "$recycle.bin"})
_RUN = ({"config.yaml", "checkpoints"}, {"summary.json", "split.json"})
_SHARDS = ({INDEX}, {STATE})
_MARKS = frozenset().union(*_RUN, *_SHARDS)
_RUN_PARTS = frozenset(
    {
        "config.yaml",
        "split.json",
        "metrics.csv",
        "metrics.jsonl",
        "summary.json",
        "report.html",
        "checkpoints",
        "tensorboard",
    }
    | {"accuracy_loss_curve.png", "confusion_matrix.png"}
)
_MODEL = frozenset({"config.json", "model.safetensors"})
_SEARCH = ("trials.json", "best.yaml")
_LOOKS = 20  # files without a photo's name that are opened to see whether a folder holds photos
_SHOWN = 3  # names that a note gives
_LEFT = {
    "shut": "folders that cannot be read",
    "broken": "links that lead nowhere",
    "special": "what is no regular file (pipe, socket, device)",
}

Identity = tuple[int, int]
"""Device and inode."""


class Walk:
    """Looks into the folders below a root, each at most once; remembers what it left out.

    Paths are relative to the root, with / between folders; "" is the root itself. Quietly passed over: hidden
    files and folders, Thumbs.db, desktop.ini. flowerfast's own output (run folders, shards) is left out.

    Args:
        root: the folder.
        whole: a folder that cannot be read is an error, but for those that file systems make for themselves.
    """

    def __init__(self, root: Path, whole: bool = False) -> None:
        self._root, self._whole = str(root), whole
        self._outside = {_identity(folder) for folder in root.resolve().parents}
        self._below: dict[str, list[tuple[str, list[str]]]] = {}
        self._own: dict[str, str] = {}
        self._left: dict[str, dict[str, None]] = {what: {} for what in _LEFT}

    def absolute(self, path: str) -> str:
        """A path as the system knows it."""
        return os.path.join(self._root, path) if path else self._root

    def inside(self, folder: str) -> tuple[list[str], list[str]]:
        """(names of the folders, names of the files with a photo's ending) right in a folder, sorted."""
        found = self._scan(folder, set())
        names, folders, links = found if found is not None else ([], [], [])
        photos = [name for name in names if name.lower().endswith(ENDINGS)]
        return sorted([*folders, *links]), sorted(photos)

    def below(self, folder: str) -> list[tuple[str, list[str]]]:
        """(folder, its files by name) of a folder and of those below it, each before those in it, by name.

        Links to folders are followed, after all real ones: a folder that is there already, or that holds the
        root, is not listed again. So loops end, and no photo comes twice by way of folders.
        """
        if folder in self._below:
            return self._below[folder]
        above = ["", *(folder[:at] for at, letter in enumerate(folder) if letter == "/")] if folder else []
        seen = self._outside | {_identity(self.absolute(path)) for path in above}
        found: dict[str, list[str]] = {}
        links = deque([folder])
        while links:
            stack = [links.popleft()]
            while stack:
                at = stack.pop()
                scanned = self._scan(at, seen)
                if scanned is None:
                    continue
                names, folders, linked = scanned
                if names:
                    found[at] = sorted(names)
                stack += [_join(at, name) for name in sorted(folders, reverse=True)]
                links.extend(_join(at, name) for name in sorted(linked))
        self._below[folder] = sorted(found.items(), key=lambda item: item[0].split("/"))
        return self._below[folder]

    def has_photos(self, folder: str) -> bool:
        """Whether photos lie in a folder or below it; of files without a photo's name, some are opened."""
        others: list[str] = []
        for at, names in self.below(folder):
            if any(name.lower().endswith(ENDINGS) for name in names):
                return True
            others += [_join(at, name) for name in names[:_LOOKS]]
        return any(opens(Path(self.absolute(path))) for path in others[:_LOOKS])

    def is_own(self, folder: str) -> bool:
        """Whether a folder is, or holds, output of flowerfast that was left out."""
        return any(path == folder or path.startswith(f"{folder}/") for path in self._own)

    @property
    def notes(self) -> list[str]:
        """What was left out, a line each."""
        notes = _own_notes(self._own)
        left = ((what, [*self._left[what]]) for what in _LEFT)
        notes += [f"left out, {_LEFT[what]}: {some(paths)}" for what, paths in left if paths]
        return notes

    def _scan(self, folder: str, seen: set[Identity]) -> tuple[list[str], list[str], list[str]] | None:
        """Names of the files, the folders and the linked folders right in a folder; None: not one to list."""
        names: list[str] = []
        folders: list[str] = []
        links: list[str] = []
        marks: set[str] = set()
        try:
            path = self.absolute(folder)
            here = _identity(path)
            if here in seen:
                return None
            seen.add(here)
            with os.scandir(path) as entries:
                for entry in entries:
                    name = entry.name
                    if name in _MARKS:
                        marks.add(name)
                    if name.startswith(".") or name.lower() in _LITTER:
                        continue
                    kind = _kind(entry)
                    if kind == "file" or (kind == "broken" and name.lower().endswith(ENDINGS)):
                        names.append(name)  # a link that leads nowhere is named among the bad files
                    elif kind == "folder":
                        (links if entry.is_symlink() else folders).append(name)
                    else:
                        self._left[kind][_join(folder, name)] = None
        except OSError as error:
            if not folder:
                raise UserError(f"{self._root}: cannot be read ({error.strerror})") from error
            if self._whole and folder.rpartition("/")[2].lower() not in _SYSTEM:
                raise UserError(
                    f"{path}: cannot be read ({error.strerror}), so its photos would be missing; make it "
                    "readable or move it away"
                ) from error
            self._left["shut"][f"{folder}/"] = None
            return None
        own = _own(marks) if folder else None
        if own is not None:
            self._own[folder] = own
            return None
        return names, folders, links


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _identity(folder: Path | str) -> Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry[str]) -> str:
    """What lies there, links followed: file, folder, broken (a link) or special."""
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
    except OSError:
        return "broken"  # a loop of links
    return "broken" if entry.is_symlink() else "special"


def _own(marks: set[str]) -> str | None:
    if any(run <= marks for run in _RUN):
        return "run folder"
    return "folder of shards" if any(shards <= marks for shards in _SHARDS) else None


def part_of(file: Path) -> str | None:
    """What a file of this path is part of: a run folder, a folder of shards, a search, a saved model;
    None: of none.
    """
    for folder in file.parents:
        own = _own({mark for mark in _MARKS if os.path.lexists(folder / mark)})
        first = file.relative_to(folder).parts[0]
        packed = first in (INDEX, STATE) or (first.endswith(".tar") and file.parent == folder)
        if own is not None and (first in _RUN_PARTS if own == "run folder" else packed):
            return own
    if file.name in _SEARCH and all(os.path.lexists(file.parent / name) for name in (_SEARCH[0], "round-1")):
        return "search"
    model = file.name in _MODEL and all(os.path.lexists(file.parent / name) for name in _MODEL)
    return "saved model" if model else None


def _own_notes(own: dict[str, str]) -> list[str]:
    """A line for each folder that holds output of flowerfast."""
    groups = Counter((path.rpartition("/")[0], kind) for path, kind in own.items())
    notes = []
    for (above, kind), count in groups.items():
        first = next(p for p, k in own.items() if (p.rpartition("/")[0], k) == (above, kind))
        if count == 1:
            notes.append(f"{first}/: a {kind} of flowerfast, left out")
        else:
            several = kind.replace("folder", "folders", 1)
            notes.append(f"{above or '.'}/: {count} {several} of flowerfast, left out")
    return notes


def opens(file: Path) -> bool:
    """Whether a file is a photo by its content."""
    try:
        with open_image(file):
            return True
    except Exception:  # of what is no photo Pillow's plugins make almost any
        return False
