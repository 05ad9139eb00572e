"""decoders.py: what a decoder does to a file is told from what it gives, and a crash is an answer."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import decoder_calls, decoders
from benchmarks.decoder_tables import cell
from benchmarks.decoder_tables import decoders as table_of
from tests.zoo.kinds import all_kinds, content

KINDS = {kind.name: kind for kind in all_kinds()}


@pytest.fixture
def files(tmp_path: Path) -> Any:
    """Function (name of a kind) → its file."""

    def write(name: str) -> Path:
        (tmp_path / KINDS[name].file).write_bytes(content(name))
        return tmp_path / KINDS[name].file

    return write


def test_pixels_are_judged_beside_pillows(files: Any) -> None:
    plain, kind = files("png-rgb"), KINDS["png-rgb"]
    expected = decoders.references(plain, kind)
    pixels = expected["upright"].astype(np.uint8)
    brighter = pixels + (pixels < 255)
    cells = [
        (pixels, "equal"),
        (brighter, "±1"),
        (pixels[..., ::-1], "other"),
        (np.stack([pixels] * 3), "all frames"),
        (pixels.astype(np.uint16), "16 bits"),
        (pixels[1:], "other size"),
    ]
    for found, said in cells:
        assert cell({"end": "pixels", **decoders.judged(found, expected)}) == said


@pytest.mark.parametrize("name", ["jpeg-orientation-6", "tiff-orientation-6", "jpeg-orientation-3"])
def test_turned_is_told_from_stored(files: Any, name: str) -> None:
    expected = decoders.references(files(name), KINDS[name])
    for way, said in (("upright", "turned"), ("stored", "as stored")):
        found = decoders.judged(expected[way].astype(np.uint8), expected)
        assert cell({"end": "pixels", **found}) == said


def test_a_decoder_works_in_a_process_of_its_own(files: Any, tmp_path: Path) -> None:
    given = [files("png-rgb"), files("jpeg-12-bit"), files("jpeg-grey")]
    ends = [answer["end"] for answer in decoders.answers("Pillow", given, tmp_path)]
    assert ends == ["pixels", "refused", "pixels"]


def test_a_crash_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = tmp_path / "child"
    child.write_text(
        f"#!{sys.executable}\nimport os, sys\nfor line in sys.stdin:\n"
        "    if 'bad' in line: os.abort()\n    print('{\"end\": \"pixels\"}', flush=True)\n"
    )
    child.chmod(0o755)
    monkeypatch.setattr(decoders.sys, "executable", str(child))
    given = [tmp_path / name for name in ("a", "bad", "b", "bad2", "c")]
    ends = [answer["end"] for answer in decoders.answers("any", given, tmp_path)]
    assert ends == ["pixels", "crashed", "pixels", "crashed", "pixels"]


def test_results_become_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [KINDS[name] for name in ("jpeg-baseline", "jpeg-progressive", "jpeg-cmyk", "png-grey-16")]
    monkeypatch.setattr(decoders, "all_kinds", lambda: few)
    monkeypatch.setitem(
        decoder_calls.DECODERS, "none", decoder_calls.Decoder(lambda: None, ("no-such-thing",))
    )
    assert decoders.main(["--out", str(tmp_path / "x.json"), "--only", "Pillow,simplejpeg,none"]) == 0
    made = table_of("x.json", json.loads((tmp_path / "x.json").read_text()))
    assert "| jpeg: baseline, progressive | equal | equal |" in made
    assert "| jpeg: cmyk | equal | ±1 |" in made
    assert "| png: grey-16 | equal | refused |" in made
    assert "Not installed there: none." in made
