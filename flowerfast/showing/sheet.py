"""A contact sheet as one picture: cells are pasted pixel by pixel, never scaled."""

import io
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image, ImageDraw, ImageFont

from flowerfast.errors import UserError, printable
from flowerfast.files import delivering
from flowerfast.showing.cells import Cell, Row, Shown

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".pdf": "PDF"}
MOST_SIDE, MOST_PIXELS = 65_000, 200_000_000
"""A JPEG, and so the page of a PDF, can have no more than 65,535 pixels a side; memory takes 3 bytes each."""
_LEAST = 184  # pixels: width of a column, for the words
_FONT, _LINE, _GAP, _MARGIN = 11, 15, 10, 16  # pixels
_INK, _PALE, _PAPER = (24, 24, 24), (110, 110, 110), (255, 255, 255)
# Okabe and Ito: told apart by the colour-blind too.
_COLOURS = ((213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233))
_DPI = 144

Box = tuple[int, int, int, int]
"""(left, top, width, height) in pixels of the sheet."""


@dataclass(frozen=True)
class Sheet:
    """The picture, and where each cell lies: `boxes[row][cell]`, in the order of `Shown`."""

    image: Image.Image
    boxes: tuple[tuple[Box, ...], ...]


def check_format(path: Path) -> None:
    """Raise UserError unless the suffix is one that can be drawn: to be called before the work."""
    if path.suffix.lower() not in FORMATS:
        kinds = ", ".join(FORMATS)
        raise UserError(f"--out {path}: {path.suffix or 'no suffix'} is not drawn; give one of {kinds}")


def check_size(size: int, rows: int, columns: int) -> None:
    """Raise UserError where a sheet of so many cells would be too large: to be called before the work."""
    width, height = _extent(size, rows, columns, 4)
    if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS:
        raise UserError(
            f"show: {rows} photos with {columns} pictures each make {width}x{height} pixels, too many for "
            "one sheet; lower --samples, --epochs or data.image_size"
        )


def draw(shown: Shown, title: str) -> Sheet:
    """Draw everything; of a cell the pixels are on the sheet as they are."""
    size = len(shown.rows[0].cells[0].pixels)  # of the first epoch, in which all photos come
    columns = max(len(row.cells) for row in shown.rows)
    words = max((len(cell.lines) for row in shown.rows for cell in row.cells), default=0)
    image = Image.new("RGB", _extent(size, len(shown.rows), columns, words), _PAPER)
    pen = ImageDraw.Draw(image)
    _write(pen, (_MARGIN, _MARGIN), title, image.width - 2 * _MARGIN, _INK, bold=True)
    boxes, top = [], _MARGIN + 2 * _LINE
    for row in shown.rows:
        boxes.append(_draw_row(image, pen, row, size, top))
        top += _row_height(size, words)
    return Sheet(image, tuple(boxes))


def save(sheet: Sheet, path: Path) -> None:
    """Write the sheet in the format of the suffix: whole, or not at all. Raises OSError."""
    kind = FORMATS[path.suffix.lower()]
    options: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 95, "subsampling": 0, "dpi": (_DPI, _DPI)},
        "PDF": {"quality": 95, "resolution": _DPI, "creationDate": None, "modDate": None},
    }
    drawn = io.BytesIO()  # what a full disk lacks is known then
    sheet.image.save(drawn, kind, **options.get(kind, {}))
    with delivering(path) as fresh:
        fresh.write_bytes(drawn.getbuffer())


def _extent(size: int, rows: int, columns: int, words: int) -> tuple[int, int]:
    width = 2 * _MARGIN + (columns + 1) * (max(size, _LEAST) + _GAP) - _GAP
    return width, 2 * _MARGIN + 2 * _LINE + rows * _row_height(size, words)


def _row_height(size: int, words: int) -> int:
    return 2 * _LINE + max(size, _LEAST) + (words + 1) * _LINE + _GAP


def _draw_row(image: Image.Image, pen: ImageDraw.ImageDraw, row: Row, size: int, top: int) -> tuple[Box, ...]:
    wide, left = max(size, _LEAST), _MARGIN
    height, width = row.photo.shape[:2]
    pen.line((left, top, image.width - _MARGIN, top), _PALE)
    top += 4
    whole = image.width - 2 * _MARGIN
    _write(pen, (left, top), f"{row.path}   {row.label}, {width}x{height}", whole, _INK, bold=True)
    top += _LINE
    _write(pen, (left, top), "original, and where it is cropped", wide, _PALE)
    _paste_photo(image, row, wide, (left, top + _LINE))
    boxes = []
    for cell in row.cells:
        left += wide + _GAP
        boxes.append((left, top + _LINE, size, size))
        _draw_cell(image, pen, cell, wide, (left, top))
    return tuple(boxes)


def _draw_cell(
    image: Image.Image, pen: ImageDraw.ImageDraw, cell: Cell, wide: int, place: tuple[int, int]
) -> None:
    left, top = place
    colour = _COLOURS[cell.epoch % len(_COLOURS)] if cell.step is None and cell.backend else _PALE
    _write(pen, (left, top), cell.title, wide, colour)
    image.paste(Image.fromarray(cell.pixels), (left, top + _LINE))
    under = top + _LINE + max(len(cell.pixels), _LEAST) + 3
    for number, line in enumerate(cell.lines):
        _write(pen, (left, under + number * _LINE), line, wide, _INK)


def _paste_photo(image: Image.Image, row: Row, wide: int, place: tuple[int, int]) -> None:
    """The whole photo, as large as a column allows, with a frame for each crop."""
    photo = Image.fromarray(row.photo)
    scale = min(wide / photo.width, wide / photo.height)
    size = max(round(photo.width * scale), 1), max(round(photo.height * scale), 1)
    small = photo.resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(small)
    for epoch, (left, top, width, height) in row.windows.items():
        corners = (left * scale, top * scale, (left + width) * scale - 1, (top + height) * scale - 1)
        corners = (*corners[:2], max(corners[0], corners[2]), max(corners[1], corners[3]))
        pen.rectangle(corners, outline=_COLOURS[epoch % len(_COLOURS)], width=2)
    image.paste(small, place)


def _write(
    pen: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    room: int,
    colour: tuple[int, int, int],
    bold: bool = False,
) -> None:
    """A line of text, with its middle left out where it is wider than `room` pixels."""
    font, line = _font(bold), printable(text)
    if pen.textlength(line, font) > room:
        kept = len(line)
        while kept > 2 and pen.textlength(_shortened(line, kept), font) > room:
            kept -= 1
        line = _shortened(line, kept)
    pen.text(place, line, colour, font)


def _shortened(line: str, kept: int) -> str:
    return f"{line[: kept // 2]}…{line[-((kept + 1) // 2) :]}"


@cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Pillow's own font lacks most alphabets."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name), _FONT)


def describe(shown: Shown, sheet: Sheet, environment: dict[str, Any]) -> dict[str, Any]:
    """All that is on a sheet, and where, in types that JSON knows."""
    cells = [
        {
            "photo": row.path,
            "label": row.label,
            "epoch": cell.epoch,
            "step": cell.step,
            "backend": cell.backend,
            "box": list(box),
            "plan": cell.plan,
            "lines": list(cell.lines),
        }
        for row, boxes in zip(shown.rows, sheet.boxes, strict=True)
        for cell, box in zip(row.cells, boxes, strict=True)
    ]
    return {**environment, "backends": list(shown.backends), "cells": cells, "notes": list(shown.notes)}
