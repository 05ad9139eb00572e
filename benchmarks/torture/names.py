"""Names that command terminals, break out of pages or are no UTF-8: of classes, files, runs and settings.

A case is a name. Forty at a time become class folders with photos that bear them too; a run is trained on
them, asked and packed, and whatever is printed or left for people holds no control character.
"""

import contextlib
import csv
import io
import json
import os
import sys
import traceback
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.torture.small import TINY, options
from benchmarks.torture.trial import Tally, Trial
from flowerfast.commands import output
from flowerfast.commands.cli import run as run_command
from flowerfast.errors import _TURNING
from flowerfast.photos.layout import nfc

_PIECES = [
    *(bytes([code]) for code in (*range(1, 32), 127)),
    *(chr(code).encode() for code in (*range(0x80, 0xA0), 0xAD, 0x2028, 0x2029, 0x200B, 0x200F, 0xFEFF)),
    *(mark.encode() for mark in sorted(_TURNING)),
    *(b"\xff", b"\xc3", b"\xed\xb0\x80", b"\xf5\x80\x80\x80"),
    *(b"\x1b[2J", b"\x1b]0;x\x07", b"\x1b[31m", b"\x1bP", b"\x9b2J", b"\r\n", b"\x1b[A", b"\x08\x08"),
    *(b"[/x]", b"[bold]", b"[link=a]", b":rose:", b"{0}", b"{{ 7*7 }}", b"%s", b"%(a)s", b"$x$", b"$\\frac$"),
    *(b"<script>", b"&lt;", b"\"'>", b"]]>", b"=cmd|' /C'!A0", b"@x", b"+1", b"-x", b"#", b": ", b"- ", b"~"),
    *(b"null", b"*", b"?", b"\\", b"a", b"rose", b" ", "é".encode(), "雛菊".encode(), "\U0001f337".encode()),
]
_TOGETHER = 40


def name(case: int) -> bytes:
    """A file name of up to 100 bytes; not hidden, for such files are left alone."""
    rng = np.random.default_rng([17, case])
    text = b"".join(_PIECES[k] for k in rng.integers(len(_PIECES), size=rng.integers(1, 8)))
    text = text.replace(b"/", b"")[:100]
    return (b"n" if not text or text.startswith((b".", b"~", b"_", b"@")) else b"") + text


def _is_valid(text: str) -> bool:
    """Whether a name is UTF-8."""
    return text == text.encode(errors="replace").decode()


def odd(text: str, keep: str = "\n") -> str:
    """The first character that would command a terminal, or nothing."""
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return next(
        (ascii(c) for c in text if c not in keep and (c in _TURNING or unicodedata.category(c) in kinds)), ""
    )


@contextlib.contextmanager
def _printed() -> Iterator[list[str]]:
    """What is printed within, on streams as the command has them."""
    said: list[str] = []
    kept = sys.stdout, sys.stderr
    taken = io.BytesIO(), io.BytesIO()
    codes = "ascii", "utf-8"
    streams = [io.TextIOWrapper(t, encoding=code, newline="") for t, code in zip(taken, codes, strict=True)]
    sys.stdout, sys.stderr = streams
    try:
        output.print_text_alone()
        yield said
    finally:
        sys.stdout, sys.stderr = kept
        for stream, bytes_ in zip(streams, taken, strict=True):
            stream.flush()
            said.append(bytes_.getvalue().decode())


class _World:
    """Some names in a folder of their own."""

    def __init__(self, cases: tuple[int, ...], folder: Path, tally: Tally) -> None:
        self.cases, self.folder, self.tally = cases, folder, tally
        self.photos = folder / "photos"
        self.names: dict[str, int] = {}
        for case in cases:
            text = os.fsdecode(name(case))
            if nfc(text) not in map(nfc, self.names) and text not in (".", ".."):
                self.names[text] = case
        rng = np.random.default_rng(cases[0])
        for text in self.names:
            (self.photos / text).mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 255, (24, 24, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(self.photos / text / f"{number}{text[:60]}.jpg", "JPEG")

    def fail(self, what: str) -> None:
        self.tally.fail(self.cases[0], f"with {len(self.cases) - 1} more names: {what}")

    def run(self, codes: tuple[int, ...], *arguments: str) -> str:
        """What a command prints; checked."""
        kept, sys.argv = sys.argv, ["flowerfast", *arguments]
        code, said = -1, []
        try:
            with _printed() as said:
                code = run_command()
        except Exception:
            self.fail(f"{arguments[0]}: {traceback.format_exc().splitlines()[-1]!a}")
            return ""
        finally:
            sys.argv = kept
        text = "".join(said)
        if code not in codes:
            self.fail(f"{arguments[0]}: exit code {code}: {text[-300:]!a}")
        if odd(text):
            self.fail(f"{arguments[0]}: prints {odd(text)}")
        if code == 2 and text.count("\n") != 1:
            self.fail(f"{arguments[0]}: refuses in {text.count(chr(10))} lines")
        self.tally.count("commands")
        return text

    def file(self, file: Path) -> str:
        """The text of a file; checked."""
        try:
            text = file.read_bytes().decode()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"{file.name}: {error!a}")
            return ""
        if odd(text):
            self.fail(f"{file.name}: holds {odd(text)}")
        return text


def _train(world: _World) -> Path:
    run = world.folder / "runs[" / "bold]" / "[" / "x]" / next(filter(_is_valid, world.names))
    given = {**TINY, "train.epochs": 1, "train.batch_size": 16, "data.kernels": "torchvision"}
    world.run((0,), "train", str(world.photos), f"--out={run}", *options(given))
    for part in (
        "report.html",
        "metrics.jsonl",
        "summary.json",
        "config.yaml",
        "split.json",
        "best/config.json",
    ):
        text = world.file(run / part)
        if part == "summary.json" and set(json.loads(text or '{"classes": []}')["classes"]) != {*world.names}:
            world.fail("summary.json: the names of the classes are others")
        if part == "report.html" and text.count("<script") > 1:  # its own sorts a table
            world.fail("report.html: a name became a tag")
    return run


def _ask(world: _World, run: Path) -> None:
    world.run((0,), "evaluate", str(run), str(world.photos), "--set", "data.kernels=torchvision")
    world.run((0,), "predict", str(run), str(world.photos))
    table, lines = world.folder / "a.csv", world.folder / "a.jsonl"
    world.run((0,), "predict", str(run), str(world.photos), "--csv", str(table), "--jsonl", str(lines))
    with table.open(encoding="utf-8", newline="") as stream:
        names = {cell for row in csv.reader(stream) for cell in row}
    told = {row["name"] for line in world.file(lines).splitlines() for row in json.loads(line)["top"]}
    if (
        not told <= {*world.names}
        or not {t.encode("utf-8", "backslashreplace").decode() for t in told} <= names
    ):
        world.fail("predict: files for scripts have other names")


def _pack(world: _World) -> None:
    shards = str(world.folder / next(reversed(world.names)))
    world.run((0,), "pack", str(world.photos), shards)
    world.run((0,), "pack", shards, "--verify")


def _refuse(world: _World) -> None:
    """Each name where a command looks for something else."""
    for text in world.names:
        if not _is_valid(text):  # weights could not be read from there
            world.run((2,), "train", str(world.photos), f"--out={world.folder / text}")
    model = f"--model=x{next(iter(world.names))}"  # one: it is compared with all that timm has
    world.run((2,), "train", str(world.photos), model)
    for text in world.names:
        config = world.folder / "mine.yaml"
        config.write_text(json.dumps({"data": {"path": text, "cache": text}, text: 1}), encoding="utf-8")
        world.run((0, 2), "settings", "--", text)
        world.run((2,), "train", f"--set=data.cache={text}")
        world.run((2,), "train", f"--config={config}")
        world.run((2,), "predict", str(world.folder / text), "--", f"{text}.none")
        world.run((2,), "evaluate", "--", str(world.folder / f"none{text}"), str(world.photos))


def survive(cases: range, folder: Path) -> Tally:
    """See `NAMES`."""
    tally = Tally()
    for start in range(cases.start, cases.stop, _TOGETHER):
        group = tuple(range(start, min(start + _TOGETHER, cases.stop)))
        world = _World(group, folder / str(group[0]), tally)
        run = _train(world)
        _ask(world, run)
        _pack(world)
        _refuse(world)
        tally.tried += len(group)
    return tally


NAMES = Trial(
    name="names",
    promise="Whatever classes, files and runs are called, nothing commands a terminal, a page or a log.",
    unit="names",
    run=survive,
    full=2000,
    quick=20,
    chunk=5 * _TOGETHER,
)
