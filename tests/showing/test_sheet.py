"""The picture: every cell is on it pixel by pixel, and nothing of a name can break it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.errors import UserError
from flowerfast.showing.cells import Cell, Row, Shown
from flowerfast.showing.sheet import check_format, check_size, describe, draw, save


def shown(size: int, rows: int = 2, columns: int = 3, path: str = "rose/a.jpg") -> Shown:
    rng = np.random.default_rng(size)

    def pixels(*shape: int) -> np.ndarray:
        return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)

    lines = ("crop 1x1 at 0, 0", "a line that is far too long for any column of a sheet " * 3)
    return Shown(
        tuple(
            Row(
                path,
                "rose",
                pixels(40, 3),
                {0: (0, 0, 1, 1), 1: (0, 0, 3, 40)},
                tuple(
                    Cell(f"epoch {at}", lines, pixels(size, size), at, None, "cpu", {})
                    for at in range(columns)
                ),
            )
            for _ in range(rows)
        ),
        ("cpu",),
        (),
    )


@pytest.mark.parametrize("size", [32, 200])
def test_every_cell_is_on_the_sheet_as_it_is(size: int, tmp_path: Path) -> None:
    what = shown(size)
    sheet = draw(what, "title")
    save(sheet, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    taken = np.zeros(pixels.shape[:2], int)
    for row, boxes in zip(what.rows, sheet.boxes, strict=True):
        for cell, (left, top, width, height) in zip(row.cells, boxes, strict=True):
            assert np.array_equal(pixels[top : top + height, left : left + width], cell.pixels)
            taken[top : top + height, left : left + width] += 1
    assert taken.max() == 1
    told = describe(what, sheet, {"seed": 0})
    assert [cell["box"] for cell in told["cells"]] == [list(box) for boxes in sheet.boxes for box in boxes]


def test_the_formats(tmp_path: Path) -> None:
    sheet = draw(shown(32), "title")
    for suffix, begins in (
        (".png", b"\x89PNG"),
        (".JPG", b"\xff\xd8"),
        (".jpeg", b"\xff\xd8"),
        (".pdf", b"%PDF"),
    ):
        file = tmp_path / f"sheet{suffix}"
        check_format(file)
        for _ in range(2):
            save(sheet, file)
        once = file.read_bytes()
        assert once.startswith(begins)
        save(sheet, file)
        assert file.read_bytes() == once
    with pytest.raises(UserError, match=r"--out sheet\.svg: \.svg is not drawn; give one of \.png"):
        check_format(Path("sheet.svg"))
    with pytest.raises(UserError, match="no suffix is not drawn"):
        check_format(Path("sheet"))


def test_too_many_pictures_for_one_sheet_are_refused() -> None:
    check_size(224, 100, 10)
    with pytest.raises(UserError, match="too many for one sheet; lower --samples"):
        check_size(224, 100_000, 3)
    with pytest.raises(UserError, match="too many for one sheet"):
        check_size(2048, 20, 20)


def test_names_of_any_kind_are_drawn() -> None:
    for path in ("\x1b[31m\n\u202e.jpg", "花/ひ.jpg", "a" * 300, "\udcff.jpg", ""):
        what = shown(32, 1, 1, path)
        draw(replace(what, rows=what.rows), path)
