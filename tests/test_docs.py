"""README.md and docs/*.md: every block of code is executed, or at least parsed by what it calls.

A page's blocks are executed from top to bottom, in one folder and one namespace, as a reader would:
`flowerfast` in this process, with tiny photos, networks and epochs under the names that the pages use. What
needs something that is not here says so in the page, by a comment that begins with `needs`; that, and what
other programs do, is parsed: each option, setting, target, script and extra must exist.
"""

import ast
import builtins
import importlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import flowerfast as ff
from flowerfast.bench import suites
from flowerfast.bench.measure import Pace
from flowerfast.commands.usage import SHORT
from flowerfast.config import known_keys
from flowerfast.exporting.onnx_file import onnx_bytes
from flowerfast.exporting.source import Source
from flowerfast.training import run as run_module
from flowerfast.training.architecture import Architecture
from tests.pages import PAGES, ROOT, SHELL, Block, Command, blocks, settings_of
from tests.programs import check

TINY = {
    "train.epochs": "1",
    "train.device": "cpu",
    "data.image_size": "32",
    "data.kernels": "torchvision",
    "model.name": "test_resnet",
    "model.pretrained": "false",
}
"""What the commands that train are told besides, where the page does not say it itself."""
KINDS = {"blue": "daisy", "green": "roses", "red": "tulips"}
NETWORKS = {"convnext_tiny": "test_convnext"}
TAKES = {
    "train": [*TINY],
    "tune": [*TINY],
    "bench": [*TINY],
    "show": ["data.image_size", "data.kernels"],
    "parity": ["data.image_size", "train.device", "model.name"],
    "evaluate": ["train.device", "data.kernels"],
    "predict": ["train.device"],
}
FLOWERS = ("train", "bench", "parity", "show")  # without DATA, of rendered flowers
FEWER = {
    "bench": (("--quick",), ("--suite", "stages")),
    "tune": (("--trials", "1"),),
    "parity": (("--samples", "4"),),
}
READER = "/home/ana"
MAY_FIND = ("doctor", "scan", "bench")  # exit code 1: they found something
Cli = Callable[..., tuple[int, str, str]]
SHELL_BLOCKS = [block for page in PAGES for block in blocks(page, *SHELL)]


@pytest.mark.parametrize("block", SHELL_BLOCKS, ids=lambda block: block.place)
def test_every_command_is_one_that_its_program_takes(block: Block) -> None:
    commands = block.commands()
    assert commands
    for command in commands:
        check(command.words)


def test_the_python_page_names_every_public_name() -> None:
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    itself = ("Prediction", "TrainedModel", "TrainResult")  # what functions give, which api.md has
    assert [name for name in ff.__all__ if name not in page and name not in itself] == []


def test_every_setting_that_a_page_names_is_there() -> None:
    sections = "|".join(dict.fromkeys(key.partition(".")[0] for key in known_keys()))
    named = re.compile(rf"(?:--set |`)((?:{sections})\.[a-z_]+)(?![\w(]|\.)")
    files = (".py", ".json", ".jsonl", ".html", ".yaml", ".onnx", ".safetensors", ".images")
    found = {key for page in PAGES for key in named.findall(page.read_text(encoding="utf-8"))}
    assert "data.on_bad" in found
    assert {key for key in found if not key.endswith(files)} <= {*known_keys()}


def test_error_lines_of_troubleshooting_are_the_programs() -> None:
    page = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `+ ?(.+?) ?`+ \|", page, re.MULTILINE)
    patterns = [*templates()]
    assert len(lines) > 30
    assert [line for line in lines if not any(pattern.fullmatch(line) for pattern in patterns)] == []


def templates() -> Iterator[re.Pattern[str]]:
    """What the texts of the package's code can become, where they say enough to be told apart."""
    for file in (ROOT / "flowerfast").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            fixed = [str(part.value) if isinstance(part, ast.Constant) else None for part in parts]
            if sum(len(text or "") for text in fixed) > 12:
                yield re.compile("".join(".*" if text is None else re.escape(text) for text in fixed))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.filterwarnings(
    "ignore"
)  # lightning, accelerate and others have much to say, none of it about us
def test_every_block_of_a_page_runs_in_order(
    page: Path, reader: Path, cli: Cli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(reader)  # `cli` has gone to an empty folder
    names: dict[str, Any] = {"__name__": "page", "ff": ff, "timm": timm, "torch": torch, "F": F}
    for block in blocks(page):
        if block.language in SHELL:
            for command in block.commands():
                if command.needs is None:
                    run(block, command, cli)
        elif block.language == "python":
            if block.needs is not None or "sys.argv" in block.text:
                check_names(block, names)
            else:
                names |= given(block, names, reader)
                exec(compile(block.text, block.place, "exec"), names)
    said = capsys.readouterr().out
    assert [text for text in SAID.get(page.name, ()) if text not in said] == []


SAID = {
    "python.md": ("torch.Size", "because", "batches are left", "photos right", "top-1", "no such folder"),
}
"""What the Python blocks of a page print, among other things."""


def run(block: Block, command: Command, cli: Cli) -> None:
    """Execute a command of a page, made small; what the page has it print, it prints, but for numbers."""
    program, *words = command.words
    if Path(program).name != "flowerfast":
        return
    name, *rest = (re.sub("^~(?=/)", str(Path.cwd()), word) for word in words)
    code, out, err = cli(name, *small(name, rest))
    may = (0, 1) if name in MAY_FIND else (0,)
    assert code in may, f"{block.place}: {' '.join(words)}: exit code {code}: {err or out}"
    printed = {shape(line) for line in (out + err).splitlines()}
    assert [line for line in command.said if line.strip(" …") and shape(line) not in printed] == [], out + err


def shape(line: str) -> str:
    """A line of output without what differs from machine to machine: numbers, widths, the reader's home."""
    line = re.sub(r"([━─])\1+", r"\1", line.replace(str(Path.cwd()), READER))
    line = re.sub("|".join(KINDS.values()), "KIND", line)
    return re.sub(r"[-\d.,]+", "#", " ".join(line.split()))


def small(name: str, words: list[str]) -> list[str]:
    """The words of a command, its network and photos tiny, its epochs few."""
    given = settings_of(words, SHORT)
    words = [NETWORKS.get(word, word) for word in words]
    new = not {"--from", "--resume"} & {*words}
    if new and name in FLOWERS and not any(map(os.path.exists, words)):
        words.insert(0, "flowers")  # which are rendered in a minute, but for this
    keys = [key for key in TAKES.get(name, ()) if key not in given]
    if name == "train" and ("--resume" in words or "--from" in words):
        keys = ["train.epochs"] if "--from" in words else []
    if new or name == "train":
        words += [word for option in FEWER.get(name, ()) if option[0] not in words for word in option]
        words += [word for key in keys for word in ("--set", f"{key}={TINY[key]}")]
    return words


def check_names(block: Block, names: dict[str, Any]) -> None:
    """Compile a block, and look up every name in it, those imported from flowerfast too."""
    tree = ast.parse(block.text, block.place)
    known = {*names, *dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("flowerfast"):
            module = importlib.import_module(str(node.module))
            assert [each.name for each in node.names if not hasattr(module, each.name)] == [], block.place
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(each.asname or each.name).partition(".")[0] for each in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used - known == set(), block.place


def given(block: Block, names: dict[str, Any], reader: Path) -> dict[str, Any]:
    """A loader and a model for a block that speaks of them where its page has made none."""
    wanted = {name for name in ("loader", "model") if re.search(rf"\b{name}\b", block.text)} - {*names}
    made: dict[str, Any] = {}
    if "loader" in wanted:
        photos = ff.Photos(reader / "photos")
        made["loader"] = ff.Loader(photos, size=32, batch_size=4, augment=ff.Augment(mixup=0.2))
    if "model" in wanted:
        made["model"] = ff.with_normalisation(timm.create_model("test_resnet", num_classes=3))
    return made


@pytest.fixture(scope="session")
def reader_folder(paint: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a reader of the pages has: photos, weights, a run; read only."""
    root = tmp_path_factory.mktemp("reader")
    for folder in ("photos/train", "photos/test", "other-photos", "flowers"):
        for kind in [*paint(root / folder).iterdir()]:
            kind.rename(kind.with_name(KINDS[kind.name]))
    for folder in ("holiday", "new"):
        shutil.copytree(root / "flowers/tulips", root / folder)
    for file in [*(root / "new").iterdir()]:
        file.rename(file.with_name(f"{int(file.stem)}.jpg"))
    named = [file.relative_to(root) for file in sorted((root / "flowers").glob("*/*"))]
    rows = "".join(f"{file},{file.parent.name},{file.parent.name}\n" for file in named)
    (root / "labels.csv").write_text(f"path,label,species\n{rows}")
    flags = {"1,0,1": "daisy tulips", "0,1,0": "roses", "0,0,0": "", "0,0,1": "tulips"}
    several = [*zip(named, [*flags] * len(named), strict=False)]
    (root / "tags.csv").write_text("path,tags\n" + "".join(f"{file},{flags[has]}\n" for file, has in several))
    rows = "".join(f"{file},{has}\n" for file, has in several)
    (root / "flags.csv").write_text(f"path,daisy,roses,tulips\n{rows}")
    (root / "benchmarks").symlink_to(ROOT / "benchmarks")
    (root / "weights").mkdir()
    save_file(timm.create_model("test_resnet").state_dict(), root / "weights/test_resnet.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLOWERFAST_CACHE", str(root / "cache"))
        patch.setattr(run_module, "draw", lambda *_: None)
        run_module.train(root / "photos", out=root / "runs/photos-001", settings=TINY)
    return root


@pytest.fixture(scope="session")
def made() -> dict[bytes, bytes]:
    """ONNX files that have been made, by the weights in them."""
    return {}


@pytest.fixture
def reader(
    reader_folder: Path, made: dict[bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A reader's home and working folder, in which networks are tiny and rounds short."""
    home = tmp_path / "reader"
    shutil.copytree(reader_folder, home, symlinks=True)
    make = timm.create_model

    def tiny(name: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        local = name.startswith("local-dir")
        return make(name if local or name.startswith("test_") else "test_resnet", pretrained=local, **options)

    def once(source: Source) -> bytes:
        weights = (source.best / "model.safetensors").read_bytes()
        if weights not in made:
            made[weights] = onnx_bytes(source)  # of which torch takes seconds
        return made[weights]

    monkeypatch.setattr("flowerfast.exporting.export.onnx_bytes", once)
    monkeypatch.setattr(timm, "create_model", tiny)
    monkeypatch.setattr(Architecture, "create_pretrained", Architecture.create)  # any weights will do here
    monkeypatch.setattr(run_module, "draw", lambda *_: None)
    for module in ("pixels.executor", "pixels.finish_batch", "training.squares", "photos.reading"):
        monkeypatch.setattr(f"flowerfast.{module}.loops_usable", lambda: False)  # to compile takes a minute
    for pace in ("QUICK", "FULL"):
        monkeypatch.setattr(suites, pace, Pace(rounds=5, seconds=0.03))
    return home
