"""A disk that is full, broken or read-only is no wrong input: exit code 1 and one line, whichever command."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from flowerfast.commands.answers import answers
from flowerfast.commands.output import _TextConsole
from flowerfast.errors import RunFailed, WriteFailed
from flowerfast.training.trained import Prediction

resource = pytest.importorskip("resource")
Cli = Callable[..., tuple[int, str, str]]
RUN = "--model test_resnet --set model.pretrained=false --image-size 32 --device cpu --epochs 1"
FORMATS = ("json", "jsonl", "csv")
COMMANDS = {
    "train": f"train PHOTOS --out new/out {RUN}",
    "train cache": f"train PHOTOS --out run {RUN} --set data.cache=disk --set data.cache_dir=new/out",
    "pack": "pack PHOTOS new/out",
    "pack --json": "pack --verify SHARDS --json new/out",
    "synth": "synth new/out --per-class 1",
    "evaluate": "evaluate RUN PHOTOS --json new/out",
    "predict --json": "predict RUN PHOTOS/red --json new/out",
    "predict --jsonl": "predict RUN PHOTOS/red --jsonl new/out",
    "predict --csv": "predict RUN PHOTOS/red --csv new/out",
    "parity": "parity PHOTOS --samples 2 --json new/out",
    "show": "show PHOTOS --samples 1 --out new/out.png",
    "doctor": "doctor --json new/out",
    "settings": "settings --json new/out",
    "bench --json": "bench --from RESULT --json new/out",
    "bench --plot": "bench --from RESULT --plot new/out.svg",
}


@contextmanager
def full() -> Iterator[None]:
    """Within, no file gets a byte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def command(cli: Cli, trained: Any, tmp_path: Path) -> Callable[[str], list[str]]:
    """Function (name) → arguments of one of COMMANDS, after which nothing but its output is to be written."""
    result = Path(__file__).parents[2] / "benchmarks/results"

    def ready(name: str) -> list[str]:
        text = COMMANDS[name]
        places = {"PHOTOS": trained.photos, "RUN": trained.run, "SHARDS": tmp_path / "shards"}
        if "SHARDS" in text:
            assert cli("pack", trained.photos, tmp_path / "shards")[0] == 0
        if "RESULT" in text:
            places["RESULT"] = next(iter(sorted(result.glob("bench*.json"))))
        return [
            str(places.get(w, w)) if w in places else w.replace("PHOTOS/", f"{trained.photos}/")
            for w in text.split()
        ]

    return ready


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_exits_with_1(
    cli: Cli, command: Callable[[str], list[str]], tmp_path: Path, name: str
) -> None:
    arguments = command(name)
    with full():
        code, _, err = cli(*arguments)
    line = err.splitlines()[-1]
    assert code == 1, err
    assert re.fullmatch(
        r"flowerfast: error: (data\.cache=disk: )?(/.*/)?new/out\S*: cannot be written "
        r"\(File too large.+\); make room, then .+",
        line,
    )
    assert not [*tmp_path.rglob("*.partial")]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("name", COMMANDS)
def test_so_does_one_that_takes_no_folder(
    cli: Cli,
    command: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    code: int,
) -> None:
    arguments, mkdir = command(name), os.mkdir

    def refuse(path: Any, *rest: Any, **more: Any) -> None:
        if Path(path).name == "new":
            raise OSError(code, os.strerror(code), os.fspath(path))
        mkdir(path, *rest, **more)

    monkeypatch.setattr(os, "mkdir", refuse)
    found, _, err = cli(*arguments)
    assert (found, err.count("cannot be written (" + os.strerror(code))) == (1, 1), err


class FullStream:
    """Standard output of which the disk is full."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        """It is a file."""
        return False

    def flush(self) -> None:
        """Refuse."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def write(self, _: str) -> int:
        """Refuse."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(("first", "second"), [*permutations(FORMATS, 2)])
@pytest.mark.parametrize("spoilt", [0, 1])
def test_of_two_outputs_the_one_that_fails_is_named(
    tmp_path: Path, first: str, second: str, spoilt: int
) -> None:
    files = {first: tmp_path / "first", second: tmp_path / "second"}
    files[(first, second)[spoilt]] = Path("/dev/full")
    with pytest.raises(WriteFailed, match=r"^\[Errno 28\] .*'/dev/full'$"), answers({**files}, 1) as tell:
        tell(Prediction("a.jpg", (("rose", 0.5),)))


@pytest.mark.parametrize("form", FORMATS)
def test_neither_is_a_file_where_standard_output_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setattr("sys.stdout", FullStream())
    monkeypatch.setattr("flowerfast.commands.answers.out", _TextConsole())  # it keeps what it cannot print
    line = r"^standard output: cannot be written \(No space left on device\)"
    for files in ({form: tmp_path / "file"}, {form: Path("-")}):
        with pytest.raises(RunFailed, match=line), answers({**files}, 1) as tell:
            tell(Prediction("a.jpg", (("rose", 0.5),)))
