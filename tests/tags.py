"""Photos with several labels, and the tables that say so in each form."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = ("blue", "green", "red")


def tagged(root: Path, count: int = 36) -> np.ndarray:
    """Photos root/photos/NN.jpg, a channel bright for each label: bool (count, 3), which they have."""
    rng = np.random.default_rng(0)
    has = rng.random((count, 3)) < 0.45
    has[:8] = [[bool(number >> bit & 1) for bit in range(3)] for number in range(8)]
    (root / "photos").mkdir(parents=True)
    for number, labels in enumerate(has):
        pixels = 60 + 140 * labels[[2, 1, 0]] + rng.integers(-40, 40, (48, 56, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"photos/{number:02d}.jpg", quality=90)
    return has


def cells(file: Path, has: np.ndarray, separator: str = " ", names: Sequence[str] = NAMES) -> Path:
    """A table with a cell of labels for each photo."""
    named = [separator.join(n for n, one in zip(names, row, strict=True) if one) for row in has]
    return _write(file, ["image", "tags"], [[text] for text in named])


def flags(file: Path, has: np.ndarray, names: Sequence[str] = NAMES) -> Path:
    """A table with a column of 0 and 1 for each label."""
    return _write(file, ["image", *names], has.astype(int).tolist())


def _write(file: Path, head: list[str], rows: list[list[object]]) -> Path:
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(head)
        table.writerows([f"photos/{number:02d}.jpg", *row] for number, row in enumerate(rows))
    return file
