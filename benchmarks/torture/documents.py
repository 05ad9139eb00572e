"""Hostile YAML and JSON through every reader: one line or a value, soon, in bounded memory, nothing run.

A case is a document: a good one with bytes changed, cut or doubled, or made up of what parsers stumble on.
It goes through one reader after the other by its number.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import yaml

from benchmarks.torture.memory import Growth
from benchmarks.torture.trial import Tally, Trial
from flowerfast.bench.compare import read_result
from flowerfast.bench.environment import SCHEMA
from flowerfast.config import Config
from flowerfast.errors import UserError
from flowerfast.packing.shard_writer import read_state
from flowerfast.photos.shard_index import COLUMNS, INDEX, STATE, read_index
from flowerfast.settings import load_config
from flowerfast.training.architecture import find_architecture
from flowerfast.training.run_record import _parse, _read
from flowerfast.training.trained import load_run
from flowerfast.training.weights import labels_of

_SECONDS, _BYTES = 2.0, 1 << 30  # of the process's own time, and memory beyond what it had at the start
_ODD: list[Any] = [
    0, -1, 2**31, 2**63, -(2**63), 2**64 - 1, 10**9, 1e-300, 1e308, True, None, "", "a", "../../etc/passwd",
    "/etc/passwd", "hf-hub:a/b", "local-dir:/", "\x1b[2J", "\udcff", "x" * 5000, [], {}, [[]],
    [0] * 3000, {"a": {}},
]  # fmt: skip
_RAW = [
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b'"\\u0000"', b'"\\ud800"',
    b"\xff", b"\x00", b"'", b'"', b"{", b"}", b"[", b"]", b":", b",", b"- ", b"? ", b"&a ", b"*a", b"<<: *a",
    b"!!python/object/apply:os.abort []", b"!!binary x", b"!!timestamp x", b"!!int ''", b"\n---\n", b"\t",
    b"0x" + b"f" * 4000, b"1:" * 3000, b"\xef\xbb\xbf", b"!!set {a, b}", b"!!omap [a: b]", b"2024-13-45",
]  # fmt: skip


def _mutant(rng: np.random.Generator, good: bytes) -> bytes:
    """The document with a few pieces cut, doubled or replaced."""
    content = good
    for _ in range(rng.integers(1, 4)):
        start = int(rng.integers(len(content) + 1))
        stop = min(len(content), start + int(rng.integers(0, 30)))
        new = (_RAW[rng.integers(len(_RAW))], rng.bytes(3), content[start:stop] * 2, b"")[rng.integers(4)]
        content = content[:start] + new + content[stop:]
    return content


def _changed(rng: np.random.Generator, tree: Any) -> Any:
    """The tree with another value, or none, somewhere."""
    if isinstance(tree, dict | list) and tree and rng.random() < 0.85:
        tree = dict(tree) if isinstance(tree, dict) else list(tree)
        keys = [*tree] if isinstance(tree, dict) else [*range(len(tree))]
        key = keys[rng.integers(len(keys))]
        if rng.random() < 0.1:
            del tree[key]
        else:
            tree[key] = _changed(rng, tree[key])
        return tree
    return _ODD[rng.integers(len(_ODD))]


def _bomb(rng: np.random.Generator) -> bytes:
    """YAML in which each line stands for many times as much as the one before."""
    width, lines = int(rng.integers(2, 12)), int(rng.integers(3, 40))
    text = ["train:", f"  a0: &a0 [{', '.join('x' * width)}]"]
    text += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, lines)]
    return "\n".join(text).encode()


def _json(rng: np.random.Generator, good: Any) -> bytes:
    tree = good if rng.random() < 0.5 else _changed(rng, good)
    content = json.dumps(tree).encode()
    return _mutant(rng, content) if tree is good or rng.random() < 0.2 else content


def _yaml(rng: np.random.Generator) -> bytes:
    good = Config().model_dump(mode="json")
    kind = rng.integers(4)
    if kind == 0:
        return _bomb(rng)
    tree = good if kind == 1 else _changed(rng, good)
    content: bytes = yaml.safe_dump(tree, encoding="utf-8", sort_keys=False)
    return content if kind == 2 else _mutant(rng, content)


class _Readers:
    """Every reader, with a good document of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        best = folder / "good"
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = timm.create_model("test_resnet", num_classes=2)
        about = {"label_names": ["a", "b"], "exif": "apply"}
        timm.models.save_for_hf(network, str(best), model_config=about, safe_serialization=True)
        self.config = json.loads((best / "config.json").read_text())
        (folder / "run").mkdir()
        (folder / "run/model.safetensors").write_bytes((best / "model.safetensors").read_bytes())
        (folder / "other").mkdir()
        self.columns = {name: np.ones(2, kind) for name, kind in COLUMNS.items()}
        self.columns |= {
            "path_ends": np.array([1, 2]),
            "offset": np.array([512, 1024]),
            "shard": np.zeros(2, np.int32),
        }
        self.all: list[Callable[[np.random.Generator], object]] = [
            self.settings, self.override, self.run, self.model, self.labels, self.index, self.summary,
            self.bench, self.state,
        ]  # fmt: skip

    def _write(self, name: str, content: bytes) -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def settings(self, rng: np.random.Generator) -> object:
        return load_config(self._write("mine.yaml", _yaml(rng)))

    def override(self, rng: np.random.Generator) -> object:
        text = _mutant(rng, _bomb(rng)[:2000]).decode("utf-8", "replace")
        return load_config(overrides=[f"{('train.lr', 'augment.crop_scale')[rng.integers(2)]}={text}"])

    def run(self, rng: np.random.Generator) -> object:
        self._write("run/config.json", _json(rng, self.config))
        return load_run(self.folder / "run", "cpu")

    def model(self, rng: np.random.Generator) -> object:
        self._write("other/config.json", _json(rng, self.config))
        return find_architecture(f"local-dir:{self.folder / 'other'}")

    def labels(self, rng: np.random.Generator) -> object:
        self._write("other/config.json", _json(rng, self.config))
        return labels_of(self.folder / "other/model.safetensors")

    def index(self, rng: np.random.Generator) -> object:
        about = {"version": 1, "classes": ["a", "b"], "shards": [["a.tar", 4096]], "settings": {}, "bad": []}
        text = _json(rng, {**about, "suffixes": {"jpg": 2}, "recoded": 0, "fingerprint": "0" * 64})
        with (self.folder / INDEX).open("wb") as stream:
            np.savez(stream, **{"about": np.frombuffer(text, np.uint8), **self.columns})
        if rng.random() < 0.5:
            content = bytearray((self.folder / INDEX).read_bytes())
            content[rng.integers(len(content))] ^= int(rng.integers(1, 256))
            self._write(INDEX, bytes(content))
        return read_index(self.folder)

    def summary(self, rng: np.random.Generator) -> object:
        row = {
            "epoch": 0,
            "train_loss": 1.5,
            "val_acc": 0.5,
            "classes": ["a", "b"],
            "confusion": [[1, 0], [0, 1]],
        }
        file = self._write("summary.json", _json(rng, row))
        return _parse(file, _read(file))

    def bench(self, rng: np.random.Generator) -> object:
        row = {"images_per_sec": 1.0, "spread": 0.1, "rounds": [1.0, 2.0]}
        result = {"kind": "bench", "schema": SCHEMA, "settings": {"current": "cpu"}, "loader": {"cpu": row}}
        return read_result(self._write("bench.json", _json(rng, result)))

    def state(self, rng: np.random.Generator) -> object:
        self._write("flowerfast-pack.json", _json(rng, {"classes": ["a"], "settings": {}, "photos": "0"}))
        return read_state(self.folder / STATE)


def survive(cases: range, folder: Path) -> Tally:
    """See `DOCUMENTS`."""
    tally, readers = Tally(), _Readers(folder)
    growth = Growth()
    for case in cases:
        read = readers.all[case % len(readers.all)]
        answer = partial(read, np.random.default_rng([13, case]))
        started = time.process_time()
        try:
            answer()
            tally.count("valid")
        except UserError as error:
            tally.count("refused")
            if len(str(error).splitlines()) != 1 or len(str(error)) > 6000:
                tally.fail(case, f"{read.__name__}: {str(error)[:200]!a}")
        except Exception as error:
            tally.fail(case, f"{read.__name__}: {type(error).__name__}: {str(error)[:200]!a}")
        seconds = time.process_time() - started
        tally.count("most milliseconds", round(1000 * seconds))
        if seconds > _SECONDS:
            tally.fail(case, f"{read.__name__}: took {seconds:.1f} s")
        tally.tried += 1
    grown = growth.most()
    tally.count("most MB more", round(grown / 1e6))
    if grown > _BYTES:
        tally.fail(cases.start, f"to {cases.stop}: took {grown / 1e6:,.0f} MB")
    return tally


DOCUMENTS = Trial(
    name="documents",
    promise="YAML and JSON from anywhere are read, or refused in one line, within 2 s and 1 GB.",
    unit="documents",
    run=survive,
    full=10_000,
    quick=108,
    chunk=2_500,
)
