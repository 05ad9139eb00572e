"""A folder with one photo of each kind of fault, among good ones."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.zoo.pictures import structured


@pytest.fixture(scope="session")
def faulty_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("faulty") / "photos"
    for label, name in enumerate(("daisy", "rose")):
        (root / name).mkdir(parents=True)
        for number in range(4):
            photo = structured(90 + 10 * number, 80, seed=10 * label + number)
            photo.save(root / name / f"{name}{number}.jpg", quality=92)
    daisy, rose = root / "daisy", root / "rose"
    whole = (daisy / "daisy0.jpg").read_bytes()
    (daisy / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (daisy / "text.jpg").write_text("no photo")
    photo = structured(400, 300, seed=50)
    photo.save(daisy / "named.jpg", "PNG")
    structured(300, 400, seed=51).convert("CMYK").save(daisy / "print.jpg")
    structured(300, 300, seed=52).convert("L").convert("RGB").save(daisy / "old.jpg")
    structured(20, 60, seed=53).save(daisy / "small.png")
    Image.new("RGB", (60, 60), (200, 9, 9)).save(daisy / "red.png")
    Image.new("RGB", (70, 70), (9, 9, 200)).save(daisy / "blue.png")
    structured(1100, 1000, seed=54).save(daisy / "large.jpg")
    upright = structured(120, 80, seed=55)
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned right by 90 degrees, so stored turned left
    upright.transpose(Image.Transpose.ROTATE_90).save(daisy / "turned.png", exif=exif)
    upright.resize((60, 40)).save(daisy / "upright.jpg")
    shutil.copy(rose / "rose0.jpg", rose / "again.jpg")
    structured(100, 80, seed=1).resize((200, 160)).save(rose / "wrong.png")  # daisy1.jpg, enlarged
    return root


@pytest.fixture
def faulty(faulty_once: Path, tmp_path: Path) -> Path:
    """Photos of two classes with a fault of each kind, of this test alone."""
    return Path(shutil.copytree(faulty_once, tmp_path / "photos"))
