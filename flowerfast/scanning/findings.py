"""What a scan finds, as plain data, and how it follows from the looks at all photos."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from flowerfast.config import DataConfig
from flowerfast.files import read_bytes
from flowerfast.photos.header import check_bytes
from flowerfast.photos.layout import FREE
from flowerfast.photos.photos import Photos
from flowerfast.scanning.alike import distances
from flowerfast.scanning.look import Look, Looks, ends_early

_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
}
"""By which files of `formats.FORMATS` are named."""


@dataclass(frozen=True)
class Noted:
    """A photo in a finding.

    Attributes:
        path: relative to the folder, with / between folders.
        index: sample index; None: not one of the samples, for its header cannot be read.
        label: its class.
        half: train, val or test; "" where no split is known.
        why: what is to be said of it.
        suggested: class that the run gives it; None in findings that ask no run, as the next two.
        probability, own_probability: of that class and of its own, 0 to 1.
        trained_on: whether the run was trained on it; None: not known.
    """

    path: str
    index: int | None
    label: str
    half: str
    why: str = ""
    suggested: str | None = None
    probability: float | None = None
    own_probability: float | None = None
    trained_on: bool | None = None


@dataclass(frozen=True)
class Group:
    """Photos that are the same.

    Attributes:
        photos: two or more, by sample index.
        exact: all files are equal byte for byte.
        distance: most bits of 64 in which the hash of one differs from that of the first.
    """

    photos: tuple[Noted, ...]
    exact: bool
    distance: int


@dataclass(frozen=True)
class Finding:
    """One kind of what was found.

    Attributes:
        kind: its name, for scripts.
        about: what it means, for people.
        wants_eye: whether a person should look before training on these photos.
        photos: those concerned, each once; of groups all members.
        groups: of findings about photos that are the same; None: it is about single photos.
    """

    kind: str
    about: str
    wants_eye: bool
    photos: tuple[Noted, ...]
    groups: tuple[Group, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        """Its fields; fields of photos that say nothing are left out."""
        listed = {"photos": [_plain(photo) for photo in self.photos]}
        if self.groups is not None:
            listed = {"groups": [self._group(group) for group in self.groups]}
        about = {"kind": self.kind, "about": self.about, "wants_eye": self.wants_eye}
        return {**about, "count": len(self.photos), **listed}

    @staticmethod
    def _group(group: Group) -> dict[str, Any]:
        photos = [_plain(photo) for photo in group.photos]
        return {"exact": group.exact, "distance": group.distance, "photos": photos}


def _plain(photo: Noted) -> dict[str, Any]:
    return {name: value for name, value in asdict(photo).items() if value not in (None, "")}


@dataclass(frozen=True)
class RunFigures:
    """How a run did on the photos.

    Attributes:
        run: its folder.
        trained_on, out_of_sample: photos that it was trained on, and others. Both 0 where it does not tell.
        trained_accuracy, accuracy: its accuracy on these, 0 to 1; None without any. Where it does not tell,
            `accuracy` is that on all.
        thresholds: by class, the mean probability of photos labelled so, on photos out of sample where there
            are such; classes without a photo have none.
    """

    run: str
    trained_on: int
    out_of_sample: int
    trained_accuracy: float | None
    accuracy: float | None
    thresholds: dict[str, float]


class Notes:
    """Makes `Noted` of samples.

    Args:
        photos: the samples.
        halves: of each sample of the whole folder, train, val, test or "".
    """

    def __init__(self, photos: Photos, halves: Sequence[str]) -> None:
        self._photos, self._halves, self.are_sets = photos, halves, photos.multilabel
        self._of_fold = {}
        for fold in np.setdiff1d(photos.table.fold, [FREE]).tolist():
            alike = {halves[row] for row in np.flatnonzero(photos.table.fold == fold).tolist()}
            # Of train/ without val/ there are two.
            self._of_fold[fold] = alike.pop() if len(alike) == 1 else ""

    def of(self, row: int, why: str = "", **more: Any) -> Noted:
        """Of one sample."""
        label = self._photos.table.named(int(self._photos.table.label[row]))
        return Noted(self._photos.path(row), row, label, self._halves[row], why, **more)

    def of_bad(self, place: int) -> Noted:
        """Of a file that is no sample, by its place in the table's `bad`."""
        table = self._photos.table
        bad, half = table.bad[place], self._of_fold.get(int(table.bad_fold[place]), "")
        return Noted(bad.path, None, table.named(int(table.bad_label[place])), half, bad.error)


def of_damage(photos: Photos, looks: Looks, notes: Notes) -> list[Finding]:
    """Files that training would skip, and those that end early, most of which are among them."""
    whole = len(photos) == len(photos.table)  # a subset does not answer for files that are no sample
    files = [notes.of_bad(place) for place in range(len(photos.table.bad)) if whole]
    samples = [notes.of(row, why) for row, why in looks.damaged.items()]
    cut = [file for file in files if _is_cut(photos.root / file.path)]
    cut += [photo for photo in samples if photo.index in looks.cut]
    cut += _where(looks, notes, lambda _, look: "can be decoded all the same" if look.is_cut else None)
    return [
        Finding("damaged", "cannot be decoded: training skips them", True, (*files, *samples)),
        Finding("truncated", "end early, as after a copy that broke off", True, tuple(cut)),
    ]


def _is_cut(file: Path) -> bool:
    """Whether a file whose header cannot be read ends early."""
    try:
        check_bytes(file.stat().st_size, DataConfig().max_pixels)
        return ends_early(read_bytes(file))
    except OSError:
        return False


def of_oddities(photos: Photos, looks: Looks, notes: Notes, tiny: int, huge: float) -> list[Finding]:
    """Photos that training takes, but that are not as most are."""
    width, height = (
        dict(zip(looks.rows.tolist(), s.tolist(), strict=True)) for s in photos.sizes(looks.rows)
    )
    turns = photos.table.orientation

    def size(row: int) -> str:
        return f"{width[row]}x{height[row]} pixels"

    kinds: list[tuple[str, str, Callable[[int, Look], str | None]]] = [
        (
            "mislabelled",
            "the content is of another format than the name says",
            lambda row, look: mislabelled(photos.path(row), look.format),
        ),
        (
            "tiny",
            f"short side below {tiny} pixels",
            lambda row, _: size(row) if min(width[row], height[row]) < tiny else None,
        ),
        (
            "huge",
            f"more than {huge:g} megapixels: slow to decode",
            lambda row, _: size(row) if width[row] * height[row] > huge * 1e6 else None,
        ),
        ("blank", "of one tone all over", lambda _, look: "one tone" if look.is_blank else None),
        (
            "grey",
            "without colour",
            lambda _, look: f"stored as {look.mode}" if look.is_grey and not look.is_blank else None,
        ),
        (
            "cmyk",
            "stored for print: colours are converted without a profile",
            lambda _, look: f"stored as {look.mode}" if look.mode == "CMYK" else None,
        ),
        (
            "turned",
            "stored turned: upright with data.exif=apply alone",
            lambda row, _: f"EXIF orientation {turns[row]}" if turns[row] > 1 else None,
        ),
    ]
    return [Finding(kind, about, False, _where(looks, notes, why)) for kind, about, why in kinds]


def _where(looks: Looks, notes: Notes, why: Callable[[int, Look], str | None]) -> tuple[Noted, ...]:
    """The photos of which `why` says something."""
    said = ((row, why(row, look)) for row, look in zip(looks.rows.tolist(), looks.looks, strict=True))
    return tuple(notes.of(row, words) for row, words in said if words is not None)


def mislabelled(path: str, kind: str) -> str | None:
    """What is wrong with the suffix of a photo of a format; None: nothing, or it has none."""
    suffix = PurePosixPath(path).suffix.lower()
    right = not suffix or suffix in _SUFFIXES.get(kind, (suffix,))
    return None if right else f"named {suffix}, is {kind}"


def of_groups(looks: Looks, notes: Notes, found: Iterable[np.ndarray]) -> list[Finding]:
    """Duplicates, and those of them that lie under two classes or in two halves.

    `found` are places in `looks`, as `alike.groups` gives them.
    """
    hashes, listed = looks.hashes, []
    apart = "with other labels" if notes.are_sets else "under two classes"
    for places in found:
        far = int(distances(hashes[places], np.full(len(places), hashes[places[0]])).max())
        exact = len({looks.looks[place].digest for place in places.tolist()}) == 1
        rows = looks.rows[places].tolist()
        listed.append(Group(tuple(notes.of(row) for row in rows), exact, far))
    kinds: list[tuple[str, str, bool, Callable[[Group], bool]]] = [
        ("exact", "the same file more than once", False, lambda group: group.exact),
        ("near", "nearly the same photo more than once", False, lambda group: not group.exact),
        (
            "two_classes",
            f"the same photo {apart}: one label is wrong",
            True,
            lambda group: len({photo.label for photo in group.photos}) > 1,
        ),
        (
            "both_halves",
            "the same photo in two halves of the split: validation flatters",
            True,
            lambda group: len({photo.half for photo in group.photos} - {""}) > 1,
        ),
    ]
    findings = []
    for kind, about, wants_eye, belongs in kinds:
        those = tuple(group for group in listed if belongs(group))
        members = tuple(photo for group in those for photo in group.photos)
        findings.append(Finding(kind, about, wants_eye, members, those))
    return findings
