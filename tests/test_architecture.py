"""docs/architecture.md: its drawing is the import contract's, and the files it names are there."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
_WIDE = 110


def drawing() -> str:
    """The layers of the contract in pyproject.toml, top to bottom, each room with the first line it says."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    rows = [[room.strip() for room in layer.split("|")] for layer in layers]
    wide = max(len(room) for row in rows for room in row)
    rule = "─" * (_WIDE - 2)
    boxes = [
        "\n".join(f"│ {room:{wide}}  {about(room)}".ljust(_WIDE - 1) + "│" for room in row) for row in rows
    ]
    return f"┌{rule}┐\n" + f"\n├{rule}┤\n".join(boxes) + f"\n└{rule}┘"


def about(room: str) -> str:
    """The first sentence of a package's or module's docstring."""
    home = ROOT / "flowerfast" / room
    file = home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.split(r"\.(?:\s|$)", said.replace("\n", " "))[0]


def drawn(page: str) -> str:
    """The page with the drawing made anew."""
    block = f"<!-- layers -->\n```text\n{drawing()}\n```\n<!-- end layers -->"
    return re.sub(r"<!-- layers -->.*?<!-- end layers -->", lambda _: block, page, flags=re.DOTALL)


def test_the_drawing_is_that_of_the_contract() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert drawn(page) == page, "run python tests/test_architecture.py"


def test_the_path_of_a_photo_meets_seven_files_that_are_there() -> None:
    files = re.findall(r"\]\(\.\./(flowerfast/\S+\.py)\)", PAGE.read_text(encoding="utf-8"))
    assert len(files) == 7
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_photos_are_opened_in_one_place_alone() -> None:
    """By `formats.open_image`, which knows no format that starts a program or draws a page."""
    openers = re.compile(r"\bImage\.open\(|\bread_image\(|\bdecode_image\(.*ImageReadMode|torchvision\.io\b")
    rooms = [*(ROOT / "flowerfast").rglob("*.py")]
    assert len(rooms) > 100
    found = {file.name for file in rooms if openers.search(file.read_text(encoding="utf-8"))}
    assert found == {"formats.py"}


def test_rooms_import_downwards_and_never_in_a_circle() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


if __name__ == "__main__":
    PAGE.write_text(drawn(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
