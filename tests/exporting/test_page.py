"""docs/export.md: its script is that of the model card, needs no torch, and answers as `predict` does."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import flowerfast as ff
from tests.exporting.conftest import NAMES

PAGE = (Path(__file__).parents[2] / "docs/export.md").read_text(encoding="utf-8")
SCRIPT = next(
    block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "onnxruntime" in block
)
WITHOUT_TORCH = "import sys; sys.modules['torch'] = sys.modules['flowerfast'] = None; exec(sys.stdin.read())"


def test_the_script_answers_as_predict_does(
    cli: Callable[..., tuple[int, str, str]], made: Path, onnx_content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_content)
    photos = [file for number in range(4) for file in sorted((made / "photos").glob(f"*/{number}.jpg"))]
    turned = Image.Exif()
    turned[0x112] = 6
    for number, photo in enumerate(photos):  # names that a line can hold; some are stored turned
        with Image.open(photo) as image:
            image.save(tmp_path / f"{number}.jpg", exif=turned if number % 2 else b"")
    names = [f"{number}.jpg" for number in range(len(photos))]
    code, out, _ = cli("predict", made / "run", *names, "--json", "-")
    expected = {row["path"]: row["top"][0] for row in json.loads(out)}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "model.onnx", *names],
        input=SCRIPT, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = re.findall(rf"^(\d+\.jpg) ({'|'.join(map(re.escape, NAMES))}) (\S+)$", done.stdout, re.MULTILINE)
    assert (code, done.stderr, [name for name, *_ in lines]) == (0, "", names)
    for name, said, chance in lines:
        assert said == expected[name]["name"]
        assert float(chance) == pytest.approx(expected[name]["probability"], abs=6e-5)  # 4 digits


def test_the_script_is_that_of_the_card(
    run: Path, quick: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = (ff.export(run).folder / "README.md").read_text(encoding="utf-8")
    assert f"```python\n{SCRIPT}```" in card
