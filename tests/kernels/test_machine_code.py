"""Machine code is checked before it runs: what is damaged is compiled anew, whatever is in its place."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerfast.kernels import compiling, machine_code


def _double(x: int) -> int:
    return 2 * x


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def swap(file: Path) -> None:
    """For the code of another signature."""
    (other,) = (name for name in file.parent.iterdir() if name != file)
    file.write_bytes(other.read_bytes())


def make_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


HARM: list[Callable[[Path], object]] = [
    flip, shorten, swap, make_pipe, make_folder,
    lambda file: file.write_bytes(b""), lambda file: file.write_bytes(bytes(file.stat().st_size)),
]  # fmt: skip


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where machine code is kept, of two signatures."""
    monkeypatch.setattr(compiling, "CODE", tmp_path / "code")
    machine_code._say_damaged.cache_clear()
    double = compiling.kernel(_double)
    assert (double(4), double(4.5)) == (8, 9)
    return tmp_path / "code"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("harm", HARM)
def test_what_is_damaged_is_compiled_anew_and_nothing_else(
    code: Path, harm: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = list[object](), machine_code.MachineCode.save

    def counted(kept: machine_code.MachineCode, key: object, result: object) -> None:
        saved.append(key)
        save(kept, key, result)

    monkeypatch.setattr(machine_code.MachineCode, "save", counted)
    before = {file: file.read_bytes() for file in code.rglob("*.code")}
    assert len(before) == 2
    for number, file in enumerate(before, 1):
        harm(file)
        again = compiling.kernel(_double)
        assert (again(4), again(4.5)) == (8, 9)
        assert len(saved) == number
        if file.is_dir():
            file.rmdir()
        file.write_bytes(before[file])


def test_the_damage_is_said_once(code: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in code.rglob("*.code"):
        flip(file)
    with caplog.at_level(logging.WARNING, "flowerfast"):
        again = compiling.kernel(_double)
        assert (again(4), again(4.5)) == (8, 9)
    assert caplog.text.count("compiled loops are damaged, and are compiled anew") == 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("harm", [*HARM, Path.unlink])
def test_who_only_loads_is_told_what_is_missing(code: Path, harm: Callable[[Path], object]) -> None:
    with machine_code.only_loading():
        assert compiling.kernel(_double)(4) == 8
    for file in code.rglob("*.code"):
        content = file.read_bytes()
        harm(file)
        again = compiling.kernel(_double)
        with machine_code.only_loading(), pytest.raises(machine_code.Missing):
            (again(4), again(4.5))
        assert (again(4), again(4.5)) == (8, 9)  # compiled
        if file.is_dir():
            file.rmdir()
        file.write_bytes(content)


def test_whole_code_is_used_again(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(machine_code.MachineCode, "save", refuse)
    assert compiling.kernel(_double)(4) == 8


def test_code_for_another_cpu_lies_beside(tmp_path: Path) -> None:
    """A folder that machines share; in processes of their own, for numba reads the name when it begins."""
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from of_a_module import double\n"
        "from flowerfast.kernels.compiling import kernel\n"
        "print(kernel(double)(4))\n"
    )
    (tmp_path / "of_a_module.py").write_text("def double(x):\n    return 2 * x\n")
    counts = []
    for cpu in ("", "generic", ""):
        env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "code")} | (
            {"NUMBA_CPU_NAME": cpu} if cpu else {}
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
        )
        assert (ran.stdout, ran.stderr) == ("8\n", "")
        counts.append(len(list((tmp_path / "code").rglob("*.code"))))
    assert counts == [1, 2, 2]


def test_processes_that_compile_at_once_keep_what_each_has_made(tmp_path: Path) -> None:
    """numba's index of a function knows what the process knew that wrote it last."""
    one, other = (machine_code.MachineCode(tmp_path, "f") for _ in range(2))
    assert (one.load("int"), other.load("float")) == (None, None)
    one.save("int", 1)
    other.save("float", 2)
    other.save("int", 1)
    assert [code.load(key) for code in (one, other) for key in ("int", "float")] == [1, 2, 1, 2]
    one.flush()
    assert other.load("int") is None


def test_loading_imports_nothing_that_only_compiling_needs(tmp_path: Path) -> None:
    """And compiling after it, with what loading has left out, is kept as ever."""
    (tmp_path / "of_a_module.py").write_text("def largest(x):\n    return x.max(), x.cumsum()[-1]\n")
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import numpy as np\n"
        "from of_a_module import largest\n"
        "from flowerfast.kernels.compiling import kernel\n"
        "most = kernel(largest)\n"
        "for kind in sys.argv[2:]:\n"
        "    assert most(np.array([1, 3, 2], kind)) == (3, 6)\n"
        "print('numba.np.arraymath' in sys.modules, most._cache_misses.total())\n"
    )
    said = []
    for kinds in (["i8"], ["i8"], ["i8", "f8"], ["f8", "i8"]):
        ran = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path), *kinds],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "code")},
            capture_output=True,
            text=True,
            check=True,
        )
        said.append(ran.stdout.strip())
    assert said == ["True 1", "False 0", "True 1", "False 0"]
