"""The findings as a page: one file without scripts or links, thumbnails in it, bounded in number."""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from flowerfast.errors import printable
from flowerfast.machine import Progress, usable_cores
from flowerfast.photos.decode import DecodeError
from flowerfast.photos.photos import Photos, iter_chunks
from flowerfast.photos.workers import Workers, in_order
from flowerfast.scanning.findings import Finding
from flowerfast.scanning.look import enough

SIDE = 128
"""Pixels of a thumbnail's long side."""
SHOWN, LISTED = 24, 200
"""Photos of a finding that are drawn, and that are named where none is drawn."""
GROUPS, MEMBERS = 24, 6
"""Groups of a finding that are drawn, and photos of each."""
MOST_CLASSES = 200
"""Rows of the table of classes: the largest."""
_CHUNK = 4  # photos per task


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
        largest=max([row["photos"] for row in classes], default=0) or 1,
        findings=[finding for finding in findings if finding.photos],
        clean=[finding for finding in findings if not finding.photos],
        thumbnails=_thumbnails(photos, sorted({*_drawn(findings)}), progress),
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


def _thumbnails(photos: Photos, rows: list[int], progress: Progress | None) -> dict[int, str]:
    """Data URIs of small JPEGs, by sample index."""

    def work(some: np.ndarray) -> list[str | None]:
        return [_thumbnail(photos, row) for row in some.tolist()]

    made: dict[int, str] = {}
    pieces, threads = [*iter_chunks(np.array(rows, np.int64), _CHUNK)], usable_cores()
    with closing(Workers(threads, "flowerfast-thumbnails")) as pool:
        for piece, drawn in zip(pieces, in_order(pool, work, pieces, 2 * threads, photos.place), strict=True):
            made |= {row: uri for row, uri in zip(piece.tolist(), drawn, strict=True) if uri is not None}
            if progress:
                progress(int(np.searchsorted(rows, piece[-1])) + 1, len(rows))
    return made


def _thumbnail(photos: Photos, row: int) -> str | None:
    try:
        image = Image.fromarray(photos.decode(row, shrink=enough(photos, row)))
    except (OSError, DecodeError):
        return None
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
