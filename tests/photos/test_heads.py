"""Headers read by the compiled loop: what Pillow says, or nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowerfast.photos import heads as module
from flowerfast.photos.header import read_header
from flowerfast.photos.heads import read_heads
from flowerfast.photos.listing import list_photos
from tests.photos.tables import MAX_PIXELS, read_table, same

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    if module.os.name != "posix":
        pytest.skip("files are read one by one there")
    monkeypatch.setattr(module, "MANY", 1)


def agree(root: Path) -> int:
    """How many files the loop knows: of these it says what Pillow says."""
    listing = list_photos(root, "classes")
    found = read_heads(root, listing, None)
    for i in np.flatnonzero(found[:, 0]).tolist():
        header = read_header(root / listing.path(i), MAX_PIXELS)
        assert (*found[i].tolist(),) == header[:3], listing.path(i)
    return int((found[:, 0] > 0).sum())


def test_it_says_what_pillow_says(zoo: Path, turned: tuple[Path, Path]) -> None:
    assert agree(zoo) > 15
    assert agree(turned[0]) > 20


def test_a_table_is_the_same_with_it_and_without(
    zoo: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    quick = read_table(zoo, progress=lambda done, total: seen.append((done, total)))
    assert seen
    for file in (own_cache / "manifests").iterdir():
        file.unlink()
    monkeypatch.setattr(module, "MANY", 1 << 60)
    assert same(quick, read_table(zoo))


def test_a_limit_of_pixels_holds(photo_folder: Write) -> None:
    folder = photo_folder({"a": 6, "b": 6})
    table = read_table(folder, max_pixels=1300)
    assert {bad.path for bad in table.bad} == {f"{kind}/{kind}_003.jpg" for kind in "ab"}
    assert "61x47 pixels, more than data.max_pixels=1300" in table.bad[0].error


def test_of_a_damaged_header_it_says_what_pillow_says_or_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x112], exif[0x10E], exif[0x132] = 6, "a description of what is to be seen", "2024:01:01 00:00:00"
    photo = Image.fromarray(rng.integers(0, 256, (40, 56, 3), np.uint8))
    forms = {
        "exif": {"exif": exif},
        "plain": {},
        "icc": {"icc_profile": bytes(3000)},
        "said": {"comment": b""},
    }
    (tmp_path / "a").mkdir()
    for name, options in forms.items():
        photo.save(tmp_path / "whole.jpg", quality=60, **options)
        content = np.frombuffer((tmp_path / "whole.jpg").read_bytes(), np.uint8)
        for case in range(250):
            changed, at = content.copy(), rng.integers(0, 400, rng.integers(1, 4))
            changed[at] = rng.choice([0, 1, 2, 6, 255, 0xD8, 0xDA, 0xE1, *rng.integers(0, 256, 4)], len(at))
            end = rng.integers(300, len(content)) if case % 5 == 0 else len(content)
            (tmp_path / f"a/{name}-{case:03d}.jpg").write_bytes(changed[:end].tobytes())
    (tmp_path / "whole.jpg").unlink()
    assert 100 < agree(tmp_path) < 1000
