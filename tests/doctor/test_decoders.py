"""JPEG libraries and compiled loops."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import features

from flowerfast import kernels
from flowerfast.doctor.decoders import COMPILE, jpeg_lines, loop_lines
from flowerfast.doctor.line import guarded
from flowerfast.kernels import place


def test_the_jpeg_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "version_feature", lambda _: "3.1.2")
    assert [(line.name, line.state) for line in jpeg_lines()] == [
        ("libjpeg-turbo", "ok"),
        ("simplejpeg", "ok"),
    ]
    monkeypatch.setattr(features, "version_feature", lambda _: None)
    line = next(iter(jpeg_lines()))
    assert (line.state, line.mend) == ("warn", "pip install --force-reinstall pillow")


def test_a_decoder_that_gives_other_pixels_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda _: np.zeros((16, 16, 3), np.uint8))
    lines = guarded("jpeg", "reinstall", jpeg_lines)
    assert (lines[-1].state, "levels off" in lines[-1].found) == ("fail", True)


def test_loops_that_are_not_compiled_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "is_compiled", lambda: False)
    (line,) = loop_lines()
    assert (line.state, line.mend) == ("warn", COMPILE)


def test_loops_of_another_machine_are_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from flowerfast.kernels import ahead, machine_code

    def missing() -> None:
        raise machine_code.Missing("run")

    monkeypatch.setattr(ahead, "prepare", missing)
    (line,) = loop_lines()
    assert (line.state, "not compiled for this machine" in line.found) == ("warn", True)
    monkeypatch.setattr(ahead, "prepare", lambda: None)
    (line,) = loop_lines()
    assert (line.state, str(place.CODE) in line.found) == ("ok", True)


def test_loops_that_cannot_be_kept_and_numba_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "KEEP", False)
    (line,) = loop_lines()
    assert (line.state, "FLOWERFAST_CACHE" in line.mend) == ("warn", True)
    monkeypatch.setattr(kernels, "numba_problem", lambda: "numba is not installed; pip install numba")
    (line,) = loop_lines()
    assert (line.state, line.mend) == ("warn", "pip install numba")
