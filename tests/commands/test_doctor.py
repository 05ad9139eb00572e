"""`flowerfast doctor`: all lines are there whatever is broken, and each backend's pixels are looked at."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowerfast.commands import doctor, parity
from flowerfast.doctor import decoders, disk, gpu, hardware, packages
from flowerfast.doctor.line import Line
from flowerfast.loaders.dali import probe
from flowerfast.loaders.loader import Loader
from flowerfast.plans.plan import Plan

Cli = Callable[..., tuple[int, str, str]]
NAMES = ["python", "packages", "torch", "torchvision", "timm", "driver", "cuda", "dali", "jpeg"]
NAMES += ["compiled loops", "cores", "memory", "/dev/shm", "cache folder"]
FUNCTIONS = [
    *((packages, name) for name in ("python_lines", "package_lines", "loaded_lines")),
    *((gpu, name) for name in ("driver_lines", "cuda_lines", "dali_lines")),
    *((decoders, name) for name in ("jpeg_lines", "loop_lines")),
    *((hardware, name) for name in ("core_lines", "memory_lines", "shm_lines")),
    *((disk, name) for name in ("cache_lines", "photo_lines")),
    (doctor, "_pixel_lines"),
]


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without GPU or DALI, with compiled loops."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(probe, "_installed", lambda: False)
    monkeypatch.setattr(decoders, "load_loops", lambda: 0.1)


def pixels_of(backend: str) -> list[Line]:
    return [*doctor._pixel_lines(backend, "mend it")]


def test_the_compiled_loops_give_the_reference_and_nothing_is_kept_of_the_photos(
    no_gpu: None, own_cache: Path
) -> None:
    (line,) = pixels_of("cpu")
    assert (line.name, line.state) == ("pixels of cpu", "ok")
    assert line.found.startswith("mean 0.000, p99 0, largest 0 ")
    assert [file for file in own_cache.rglob("*") if file.is_file()] == []
    assert pixels_of("dali-cpu") == pixels_of("dali") == []


def test_dali_on_the_cpu_is_within_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nvidia.dali")
    monkeypatch.setattr(decoders, "load_loops", lambda: None)
    (line,) = pixels_of("dali-cpu")
    assert (line.name, line.state) == ("pixels of dali-cpu", "ok")
    (line,) = pixels_of("cpu")
    assert (line.state, line.mend) == ("warn", decoders.COMPILE)


def test_a_backend_whose_pixels_differ_fails(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Loader] = []

    def make(*given: Any, **settings: Any) -> Loader:
        opened.append(Loader(*given, **settings))
        if len(opened) == 1:  # the one that is compared
            execute = opened[0].execute

            def brighter(plan: Plan) -> np.ndarray:
                return np.minimum(execute(plan).astype(np.int16) + 4, 255).astype(np.uint8)

            monkeypatch.setattr(opened[0], "execute", brighter)
        return opened[-1]

    monkeypatch.setattr(parity, "Loader", make)
    (line,) = pixels_of("cpu")
    assert (line.state, line.mend) == ("fail", "mend it")
    assert line.found.startswith("mean 3.") or line.found.startswith("mean 4.")


# --------------------------------------------------------------------------------------------- command line


@pytest.fixture
def fine(monkeypatch: pytest.MonkeyPatch) -> None:
    """All checks find that all is well."""

    def well(*_: object) -> Iterator[Line]:
        yield Line("a thing", "ok", "well \x1b[31m")

    for module, name in FUNCTIONS:
        monkeypatch.setattr(module, name, well)


def test_cli_says_what_is_well_and_exits_with_0(cli: Cli, fine: None, tmp_path: Path) -> None:
    code, out, err = cli("doctor", "--json", "result.json")
    assert (code, err) == (0, "")
    assert out.splitlines() == ["ok    a thing            well \\x1b[31m"] * 17
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["ok"] is True
    assert result["lines"][0] == {"name": "a thing", "state": "ok", "found": "well \x1b[31m", "mend": ""}
    assert result["environment"]["versions"]["python"]


def test_cli_exits_with_1_where_a_line_fails(cli: Cli, fine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "shm_lines", lambda: [Line("b", "warn", "small", "enlarge it")])
    code, out, _ = cli("doctor")
    assert (code, "warn  b                  small\n" in out, "mend: enlarge it" in out) == (0, True, True)
    monkeypatch.setattr(hardware, "shm_lines", lambda: [Line("b", "fail", "gone", "bring it back")])
    code, out, err = cli("doctor", "--json", "-")
    assert (code, err, json.loads(out)["ok"]) == (1, "", False)


def test_cli_goes_on_whatever_breaks(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object) -> Iterator[Line]:
        raise ImportError("libcudart.so.12: cannot open shared object file\nmore")

    for module, name in FUNCTIONS:
        monkeypatch.setattr(module, name, broken)
    code, out, err = cli("doctor", tmp_path, "--json", "-")
    lines = json.loads(out)["lines"]
    assert (code, err, {line["state"] for line in lines}) == (1, "", {"fail"})
    pixels = [f"pixels of {backend}" for backend in ("cpu", "dali-cpu", "dali")]
    assert [line["name"] for line in lines] == [*NAMES, "photos' disk", *pixels]
    assert cli("doctor")[0] == 1
    assert {line["found"] for line in lines} == {
        "ImportError: libcudart.so.12: cannot open shared object file"
    }
    assert all(line["mend"] for line in lines)


def test_cli_says_once_that_pixels_cannot_be_compared(
    cli: Cli, fine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flowerfast.commands.parity", None)
    code, out, _ = cli("doctor", "--json", "-")
    lines = json.loads(out)["lines"]
    assert (code, len(lines), lines[-1]["name"]) == (1, len(NAMES) + 1, "pixels")
    assert lines[-1]["state"] == "fail"


def test_cli_refuses_what_is_no_folder_and_no_place_for_its_result(cli: Cli, fine: None) -> None:
    code, _, err = cli("doctor", "nowhere")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("flowerfast: error: nowhere: no such folder; give ")
    code, _, err = cli("doctor", "--json", ".")
    assert (code, "is a folder; name a file in it" in err) == (2, True)
