"""The findings as a page: one file without scripts or links, thumbnails in it, bounded in number."""

from collections.abc import Iterator, Sequence
from typing import Any

import jinja2

from flowerfast.errors import printable
from flowerfast.machine import Progress
from flowerfast.photos.photos import Photos
from flowerfast.scanning.findings import Finding
from flowerfast.training.thumbnails import thumbnails

SHOWN, LISTED = 24, 200
"""Photos of a finding that are drawn, and that are named where none is drawn."""
GROUPS, MEMBERS = 24, 6
"""Groups of a finding that are drawn, and photos of each."""
MOST_CLASSES = 200
"""Rows of the table of classes: the largest."""


def render(
    photos: Photos, summary: dict[str, Any], findings: Sequence[Finding], progress: Progress | None = None
) -> str:
    """The page. `summary` is `ScanResult.to_json`; photos that cannot be decoded any more have no picture."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("flowerfast.scanning"),
        autoescape=True,  # names of files and classes are the user's
        finalize=lambda value: printable(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    classes = sorted(summary["classes"], key=lambda row: -row["photos"])
    return environment.get_template("scan.html.j2").render(
        summary=summary,
        classes=classes[:MOST_CLASSES],
        halves=[half for half in ("train", "val", "test") if any(half in row["halves"] for row in classes)],
        largest=max([row["photos"] for row in classes], default=0) or 1,
        findings=[finding for finding in findings if finding.photos],
        clean=[finding for finding in findings if not finding.photos],
        thumbnails=thumbnails(photos, sorted({*_drawn(findings)}), progress),
        shown=SHOWN,
        listed=LISTED,
        groups=GROUPS,
        members=MEMBERS,
    )


def _drawn(findings: Sequence[Finding]) -> Iterator[int]:
    """Samples that the page shows."""
    for finding in findings:
        groups = [group.photos[:MEMBERS] for group in (finding.groups or ())[:GROUPS]] or [
            finding.photos[:SHOWN]
        ]
        yield from (photo.index for group in groups for photo in group if photo.index is not None)
