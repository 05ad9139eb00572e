"""Compiled loops come to be there without a wait; the compiler is a small program that stands in for it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast.kernels import place, ready
from flowerfast.kernels.place import is_compiled
from flowerfast.kernels.ready import COMPILING, MEANWHILE, SLOWER, Loops

DONE = "from pathlib import Path; import sys; Path(sys.argv[1]).touch()"
BROKEN = "import sys; print('careful', file=sys.stderr); sys.exit('no space')"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where nothing is compiled yet."""
    monkeypatch.setattr(place, "CODE", tmp_path / "code")
    monkeypatch.setattr(place, "is_compiled", is_compiled)
    monkeypatch.setattr(place, "KEEP", True)
    return tmp_path / "code"


@pytest.fixture
def loops(tmp_path: Path) -> Callable[..., Loops]:
    """Function (program) → loops that are there when the program has left a file, `tmp_path / "made"`."""

    def make(program: str) -> Loops:
        made = tmp_path / "made"
        return Loops(made.exists, [sys.executable, "-c", program, str(made)])

    return make


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_a_child_compiles_and_what_it_made_is_loaded_after_the_first_step(
    loops: Callable[..., Loops], tmp_path: Path
) -> None:
    found = loops(DONE)
    found.begin()
    found.begin()  # once
    assert found.notes == [MEANWHILE]
    until((tmp_path / "made").exists)
    assert not found.usable
    found.go_on()
    until(lambda: found.usable)
    assert found.notes == [MEANWHILE]


def test_what_is_there_needs_no_child(loops: Callable[..., Loops], tmp_path: Path, folder: Path) -> None:
    (folder / "kernels_0").mkdir(parents=True)
    (folder / "kernels_0" / "chain.run-1.code").touch()
    (tmp_path / "made").touch()
    found = loops("no program")
    found.begin()
    found.go_on()
    until(lambda: found.usable)
    assert found.notes == []


def test_what_is_damaged_or_of_another_cpu_is_compiled_by_a_child(
    loops: Callable[..., Loops], folder: Path
) -> None:
    (folder / "kernels_0").mkdir(parents=True)
    (folder / "kernels_0" / "chain.run-1.code").touch()
    found = loops(DONE)
    found.begin()
    assert found.notes == []
    found.go_on()
    until(lambda: found.usable)
    assert found.notes == [MEANWHILE]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (BROKEN, "the loops were not compiled (no space)"),
        ("raise SystemExit(3)", "the loops were not compiled (3)"),
        ("", "compiled loops are not kept in {folder}"),
    ],
)
def test_without_the_compiler_all_goes_on_plain_with_a_note(
    loops: Callable[..., Loops], folder: Path, program: str, why: str
) -> None:
    found = loops(program)
    found.begin()
    found.go_on()
    until(lambda: len(found.notes) == 2)
    assert found.notes == [MEANWHILE, f"{SLOWER}: {why.format(folder=folder)}"]
    assert not found.usable


def test_no_python_to_start_ends_no_run(tmp_path: Path) -> None:
    found = Loops(lambda: False, [str(tmp_path / "none")])
    found.begin()
    until(lambda: len(found.notes) == 2)
    assert not found.usable
    assert found.notes[-1] == f"{SLOWER}: {tmp_path / 'none'}: No such file or directory"


@pytest.mark.parametrize("program", [DONE, BROKEN])
def test_who_demands_them_waits_and_compiles_what_is_missing(
    loops: Callable[..., Loops], tmp_path: Path, program: str
) -> None:
    found = loops(program)
    found.begin()
    found.demand()
    assert found.usable
    assert (tmp_path / "made").exists() == (program == DONE)


def test_without_numba_there_is_no_child(
    loops: Callable[..., Loops], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ready, "find_spec", lambda _: None)
    monkeypatch.setattr(ready, "numba_problem", lambda: "numba is not installed")
    found = loops("no program")
    found.begin()
    found.begin()
    found.demand()
    assert found.notes == [f"{SLOWER}: numba is not installed"]


def test_where_nothing_can_be_kept_they_are_compiled_at_the_call(
    loops: Callable[..., Loops], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "KEEP", False)
    found = loops("no program")
    found.begin()
    assert (found.usable, found.notes) == (True, [COMPILING])


ORPHAN = """
import sys
from pathlib import Path
place = Path(sys.argv[1])
(place / "began").touch()
sys.stdin.read()
(place / "ended").touch()
"""
PARENT = """
import sys, time
from flowerfast.kernels.ready import Loops
Loops(lambda: False, [sys.executable, "-c", sys.argv[2], sys.argv[1]]).begin()
time.sleep(600)
"""


def test_a_killed_parent_leaves_no_child(tmp_path: Path) -> None:
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), ORPHAN], env=env) as parent:
        until((tmp_path / "began").exists)
        parent.kill()
    until((tmp_path / "ended").exists)
