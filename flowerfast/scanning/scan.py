"""`scan`: photos looked over before anybody trains on them."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.arguments import of_kind, path, place, progress_bars, whole
from flowerfast.config import DataConfig, EvalConfig
from flowerfast.errors import UserError
from flowerfast.files import delivering
from flowerfast.machine import ProgressBars, no_bars
from flowerfast.photos.layout import VAL
from flowerfast.photos.photos import Photos
from flowerfast.places import spelled
from flowerfast.scanning import alike
from flowerfast.scanning.findings import Finding, Notes, RunFigures, of_damage, of_groups, of_oddities
from flowerfast.scanning.look import Looks, look_at
from flowerfast.scanning.page import render
from flowerfast.scanning.quarantine import check_quarantine, copy_files
from flowerfast.training.facts import sizes

DISTANCE, TINY, HUGE = 6, 32, 25.0
"""Defaults: bits in which hashes of like photos differ, pixels of a short side, megapixels."""
_FOLDS = ("", "train", "val", "test")
_CROWDED = (
    "so many photos are alike that not all of them were compared with each other: groups of near duplicates "
    "may be apart that belong together"
)
_BATCH = 64  # photos that go through the model at a time


@dataclass(frozen=True)
class ClassCount:
    """Photos of a class that can be decoded: how many, how many bytes, and how many in each half."""

    name: str
    photos: int
    bytes: int
    halves: dict[str, int]


@dataclass(frozen=True)
class ScanResult:
    """What a scan found.

    Attributes:
        photos: the photos that were looked at.
        data: where they are, as it was given.
        samples: photos that can be decoded.
        classes: of each class how many, by label.
        imbalance: photos of the largest class / photos of the smallest; None where one has none.
        sizes: by "width", "height" (pixels, upright), "megapixels" and "bytes": smallest, median and largest.
        formats: photos by format, by content.
        split: which halves those of `Noted.half` are, in words.
        findings: all kinds, those that found nothing too.
        run: how the run did that was asked, None: none was.
        notes: how the folder was read and what was left out, a line each.
        seconds: that the scan took.
    """

    photos: Photos = field(repr=False)
    data: str
    samples: int
    classes: tuple[ClassCount, ...]
    imbalance: float | None
    sizes: dict[str, tuple[float, float, float]]
    formats: dict[str, int]
    split: str
    findings: tuple[Finding, ...]
    run: RunFigures | None
    notes: tuple[str, ...]
    seconds: float

    @property
    def wants_eye(self) -> bool:
        """Whether there is something that a person should look at before training."""
        return any(finding.wants_eye and finding.photos for finding in self.findings)

    def finding(self, kind: str) -> Finding:
        """The finding of that kind. Raises KeyError."""
        return {finding.kind: finding for finding in self.findings}[kind]

    def to_json(self) -> dict[str, Any]:
        """The content of `flowerfast scan --json`: all but the photos."""
        figures: dict[str, Any] = {
            "data": self.data,
            "samples": self.samples,
            "wants_eye": self.wants_eye,
            "classes": [asdict(count) for count in self.classes],
            "imbalance": self.imbalance,
            "sizes": {
                name: dict(zip(("min", "median", "max"), three, strict=True))
                for name, three in self.sizes.items()
            },
            "formats": self.formats,
            "split": self.split,
            "findings": [finding.to_json() for finding in self.findings],
            "notes": list(self.notes),
            "seconds": self.seconds,
        }
        return figures | ({"run": asdict(self.run)} if self.run is not None else {})

    def write_html(self, file: Path | str, bars: ProgressBars = no_bars) -> None:
        """Write the findings as one self-contained page with thumbnails. Raises OSError."""
        file = path("write_html: file", file)
        with progress_bars(bars)("thumbnails") as bar:
            page = render(self.photos, self.to_json(), self.findings, bar)
        with delivering(file) as fresh:
            fresh.write_text(page, encoding="utf-8", errors="backslashreplace")

    def quarantine(self, folder: Path | str, bars: ProgressBars = no_bars) -> tuple[int, list[str]]:
        """Copy the files of findings that want a person's eye to `folder`, class folders and all.

        How many were copied, and why others could not be, a line each. Raises UserError where the folder
        holds something, or lies among the photos; WriteFailed when the disk takes no more.
        """
        folder = path("quarantine: folder", folder)
        check_quarantine(folder, Path(self.data))
        chosen = [photo for finding in self.findings if finding.wants_eye for photo in finding.photos]
        with progress_bars(bars)("copying") as bar:
            return copy_files(self.photos, chosen, folder, bar)


def scan(
    data: Photos | Path | str,
    *,
    run: Path | str | None = None,
    distance: int = DISTANCE,
    tiny: int = TINY,
    huge: float = HUGE,
    seed: int = 0,
    device: str = "auto",
    options: DataConfig | None = None,
    protocol: EvalConfig | None = None,
    bars: ProgressBars = no_bars,
) -> ScanResult:
    """Decode all photos of a folder, or of shards, and say what is wrong or odd.

    Args:
        data: photos, or where they are. Of `Photos` that were opened elsewhere those of the set are looked
            at; with `run` they should be turned as the run's were.
        run: folder of a trained run, or its best/, whose answers tell of label errors and mistakes.
        distance: bits of 64 in which the hashes of two photos that are nearly the same may differ, 0 to 7.
        tiny: pixels of the short side below which a photo is tiny.
        huge: megapixels above which it is huge.
        seed: of the split that training would make, with `val_fraction` of `options`.
        device: of the run: auto, cpu, cuda or mps.
        options: settings of section `data`; files that cannot be decoded are never too many. With `run`,
            whether EXIF orientation is applied is the model's.
        protocol: settings of section `eval` that take the place of the run's, as in `evaluate`.
        bars: makes a progress bar with a title, which is told (done, total).

    Raises UserError when there are no photos, or the run does not know their classes; RunFailed when a disk
    does not answer.
    """
    started = time.perf_counter()
    of_kind("scan: options", options, DataConfig | None, "ff.DataConfig(...)")
    of_kind("scan: protocol", protocol, EvalConfig | None, "ff.EvalConfig(...)")
    of_kind("scan: huge", huge, float | int, "megapixels")
    distance = whole("scan: distance", distance, 0, alike.FARTHEST + 1)
    tiny, seed = whole("scan: tiny", tiny, 0), whole("scan: seed", seed, 0)
    bars, settings = progress_bars(bars), options or DataConfig()
    folder = None if run is None else path("scan: run", run)
    if folder is not None:
        # torch, which takes seconds to import:
        from flowerfast.scanning import labels
        from flowerfast.training.evaluate_run import check_classes
        from flowerfast.training.trained import load_run

        trained = load_run(folder, device).at(EvalConfig() if protocol is None else protocol)
        settings = settings.model_copy(update={"exif": trained.exif})
    settings = settings.model_copy(update={"on_bad": "skip", "max_bad": 1.0})
    given = data.source if isinstance(data, Photos) else place("scan: data", data)
    with bars("reading headers") as bar:
        photos = data if isinstance(data, Photos) else Photos.open(given, settings, bar, min_classes=1)
    halves, split = _halves(photos, settings.val_fraction, seed)
    if folder is not None:
        if photos.multilabel or trained.multilabel:
            which = given if photos.multilabel else folder
            raise UserError(
                f"scan --run {folder}: {which} has several labels a photo, and confident learning takes one; "
                "scan without --run, and see the AP of each class in evaluate"
            )
        check_classes(trained, photos)
        learnt = labels.trained_on(folder, photos)
        if learnt.whole:
            halves, split = learnt.halves(photos), f"those of {spelled(folder)}"
    with bars("decoding") as bar:
        looks = look_at(photos, settings.workers, bar)
    notes, blank = Notes(photos, halves), np.array([look.is_blank for look in looks.looks], bool)
    with bars("comparing") as bar:
        groups, crowded = alike.groups(looks.digests, looks.hashes, looks.tones, blank, distance, bar)
    findings = [
        *of_damage(photos, looks, notes),
        *of_groups(looks, notes, groups),
        *of_oddities(photos, looks, notes, tiny, huge),
    ]
    said, figures = [*photos.notes, *([_CROWDED] if crowded else [])], None
    if photos.multilabel:
        bare = len(looks.rows) - len(np.unique(photos.table.pairs(looks.rows)[0]))
        said.append(f"classes are counted by label: {bare} of {len(looks.rows)} photos have none")
    if folder is not None and len(looks.rows):
        with bars("asking the run") as bar:
            chosen = photos.subset(looks.rows).with_classes(trained.classes)
            judged = labels.judge(trained, chosen, _BATCH, settings, bar)
        of_run, figures = labels.of_labels(judged, trained.classes, learnt.rows, notes, spelled(folder))
        findings += of_run
        said.append(learnt.note)
    return ScanResult(
        photos=photos,
        data=spelled(given),
        samples=len(looks.rows),
        split=split,
        findings=tuple(findings),
        run=figures,
        notes=tuple(said),
        seconds=time.perf_counter() - started,
        **_figures(photos, looks, halves),
    )


def _halves(photos: Photos, val_fraction: float, seed: int) -> tuple[list[str], str]:
    """Half of each sample of the whole folder, and in words which halves these are."""
    halves = [_FOLDS[fold] for fold in photos.table.fold.tolist()]
    if (photos.table.fold == VAL).any():
        return halves, "those of the folder"
    try:
        train, val = photos.split(val_fraction, seed)
    except UserError as error:
        return halves, f"none can be made ({error})"
    for half, part in (("train", train), ("val", val)):
        for row in part.indices.tolist():
            halves[row] = half
    return halves, f"those that training would make (data.val_fraction={val_fraction:g}, train.seed={seed})"


def _figures(photos: Photos, looks: Looks, halves: Sequence[str]) -> dict[str, Any]:
    """Counts and sizes of the photos that can be decoded."""
    table, rows = photos.table, looks.rows
    of_half = np.array([halves[row] for row in rows.tolist()], np.str_)
    position, labels = table.pairs(rows)
    classes = []
    for label, name in enumerate(photos.classes):
        mine = position[labels == label]
        parts = Counter(of_half[mine].tolist())
        counts = {half: parts[half] for half in _FOLDS[1:] if half in parts}
        classes.append(ClassCount(name, len(mine), int(table.size[rows[mine]].sum()), counts))
    many = [count.photos for count in classes]
    return {
        "classes": tuple(classes),
        "imbalance": max(many) / min(many) if all(many) else None,
        "sizes": sizes(photos, rows),
        "formats": dict(Counter(look.format for look in looks.looks).most_common()),
    }
