"""Which files go to DALI as they are."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.loaders.dali.files import _join, agrees
from flowerfast.plans.plan import still_plan


def test_only_files_known_to_agree_go_to_dali_as_they_are(zoo: Path) -> None:
    as_they_are = set()
    for path in sorted(zoo.rglob("*.*")):
        with Image.open(path) as image:
            size = image.size
        encoded = np.fromfile(path, np.uint8)
        if agrees(encoded, *size):
            as_they_are.add(path.name)
        assert not agrees(encoded, size[0] + 1, size[1])
    # DALI 2.4 ends the process on bytes of unknown format, so nothing unknown may pass.
    unknown = {"jpeg-cmyk.jpg", "jpeg-rgb.jpg", "png-grey-16.png", "webp-alpha.webp", "png-animated.png",
               "bmp-24.bmp"}  # fmt: skip
    known = {"chroma420_0.jpg", "chroma444_0.JPEG", "jpeg-grey.jpg", "jpeg-progressive.jpg",
             "jpeg-as-png.png", "png-rgba.png", "rgb_0.png", "png-palette.png", "webp-lossy.webp",
             "one_pixel.jpg"}  # fmt: skip
    assert not as_they_are & unknown
    assert as_they_are >= known


@pytest.mark.parametrize(
    "junk",
    [b"", b"\xff\xd8", b"\xff\xd8\xff" + bytes(100), b"\x89PNG\r\n\x1a\n" + bytes(40), bytes(100)],
)
def test_junk_never_does(junk: bytes) -> None:
    assert not agrees(np.frombuffer(junk, np.uint8), 8, 8)


def test_a_look_in_many_threads_leaves_the_warning_filters_sane(zoo: Path) -> None:
    """Two overlapping `catch_warnings` would leave everything ignored, or an error to each thread."""
    encoded, before = np.fromfile(zoo / "odd/png-palette-clear.png", np.uint8), warnings.filters[:]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: agrees(encoded, 90, 120), range(400)))
    added = [entry for entry in warnings.filters if entry not in before]
    assert [entry for entry in warnings.filters if entry not in added] == before
    assert {entry[0] for entry in added} <= {"ignore"}
    assert all(entry[3] is not None and entry[3].match("PIL.Image") for entry in added)
    with pytest.raises(UserWarning, match="still an error"):
        warnings.warn("still an error", UserWarning, stacklevel=1)


def test_a_sample_that_comes_twice_is_bad_when_one_of_its_reads_failed() -> None:
    """Else the files of a batch would stand in other rows than their labels."""
    files = [np.full(2, value, np.uint8) for value in range(4)]
    plan = still_plan(np.array([3, 5, 3, 8]), (np.full(4, 40), np.full(4, 30)), 32)
    kept, left, bad = _join(plan, [[files[0], files[1]], ["Input/output error", files[3]]])
    assert (kept.indices.tolist(), bad) == ([5, 8], {3: "Input/output error"})
    assert [file[0] for file in left] == [1, 3]
