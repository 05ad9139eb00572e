"""Two builds of flowerfast side by side, on your photos: one run, one JSON.

    python benchmarks/versus.py OLD DATA [--rounds N] [--out benchmarks/results/versus-NAME.json]

OLD is a checkout of an earlier build, or a revision of this repository, which is checked out meanwhile. Both
builds run with the packages of this environment, so that only their code differs, and take turns: loaders
each in a process of its own that stays (images/s, CPU time per photo, memory), then whole commands (seconds
and CPU seconds from start to end, or to the first training step). Figures are medians; ratios are new to old.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.photos import enlarged, progressive
from benchmarks.versus_commands import HIDE_GPU, commands, run
from flowerfast.bench.child import Variant
from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.bench.measure import Pace, measure
from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("data.image_size=224", "train.batch_size=32", "data.cache=none")
CAMERA_PHOTOS = 64
"""Photos enlarged to 12 megapixels."""
FEW = 40
"""Photos of the commands, whose time is then that of starting up, saving and ending."""
MANY = 1000
"""Photos at least that predict and evaluate get at once, the same ones more than once if need be."""
BUILDS = ("old", "new")


@contextmanager
def checkout(old: str) -> Iterator[Path]:
    """Folder of a build: what is given if it is one, else a worktree of the revision for as long."""
    if Path(old, "flowerfast", "__init__.py").is_file():
        yield Path(old).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="versus-") as folder:
        git = ["git", "-C", str(ROOT), "worktree"]
        added = subprocess.run(
            [*git, "add", "--detach", f"{folder}/old", old], capture_output=True, text=True
        )
        if added.returncode:
            raise UserError(f"{old}: neither a checkout of flowerfast nor a revision of this one")
        try:
            yield Path(folder, "old")
        finally:
            subprocess.run([*git, "remove", "--force", f"{folder}/old"], capture_output=True, check=False)


def measured(builds: dict[str, tuple[Path, Path]], rounds: int) -> dict[str, dict[str, Any]]:
    """Rows by build, (its checkout, what its loader reads): images/s, CPU milliseconds per photo, memory.

    Each has run once before, for a process that compiles takes more memory than one that loads.
    """
    variants = [
        Variant(build, "flowerfast.bench.sources:loader", {"data": str(path), "settings": SETTINGS}, root)
        for build, (root, path) in builds.items()
    ]
    measure(variants, Pace(rounds=1), lambda _: None, HIDE_GPU)
    rows = measure(variants, Pace(rounds=rounds), print, HIDE_GPU)
    for build, row in rows.items():
        if "error" in row:
            raise UserError(f"{build}: {row['error']}")
        row["cpu_ms_per_photo"] = 1000 * row["cpu_cores"] / row["images_per_sec"]
    return rows


def loaders(roots: dict[str, Path], data: dict[str, tuple[Path, Path]], rounds: int) -> dict[str, Any]:
    """Rows by kind of data; of each build what `measured` gives, and the ratios.

    `data` says what the old and the new build read.
    """
    rows = {}
    for kind, paths in data.items():
        builds = {build: (roots[build], path) for build, path in zip(BUILDS, paths, strict=True)}
        both = measured(builds, rounds)
        keys = ("images_per_sec", "cpu_ms_per_photo", "memory_bytes")
        rows[kind] = {**both, "ratio": {key: both["new"][key] / both["old"][key] for key in keys}}
        print(kind, rows[kind]["ratio"], flush=True)
    return rows


def some(photos: Photos, folder: Path) -> Path:
    """A folder of links to a few of the photos, evenly spread."""
    return linked(photos, photos.indices[:: max(1, len(photos) // FEW)], folder)


def many(photos: Photos, folder: Path) -> Path:
    """A folder of links to all photos, under several names each until they are `MANY`."""
    return linked(photos, np.tile(photos.indices, -(-MANY // len(photos))), folder)


def linked(photos: Photos, indices: np.ndarray, folder: Path) -> Path:
    """A folder of links to photos, by their class."""
    paths = photos.table.paths()
    for number, index in enumerate(indices.tolist()):
        source = photos.root / paths[index]
        link = folder / source.parent.name / f"{number}-{source.name}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source.resolve())
    return folder


def versus(old: str, data: Path, rounds: int) -> dict[str, Any]:
    """The whole measurement."""
    started = time.perf_counter()
    with checkout(old) as root, tempfile.TemporaryDirectory(prefix="versus-") as scratch:
        roots = dict(zip(BUILDS, (root, ROOT), strict=True))
        photos = Photos(str(data))
        shards, seekable, large = (Path(scratch, name) for name in ("shards", "seekable", "large"))
        one_by_one, of_cameras = progressive(data), enlarged(data, CAMERA_PHOTOS)
        run(ROOT, ("pack", str(data), str(shards)))
        run(ROOT, ("pack", str(data), str(seekable), "--seekable"))
        run(ROOT, ("pack", str(of_cameras), str(large), "--seekable"))
        kinds = {
            "folder": (data, data),
            "shards": (shards, shards),
            "folder of progressive photos": (one_by_one, one_by_one),
            "seekable shards, old: the folder": (data, seekable),
            "12 megapixels in seekable shards, old: the folder": (of_cameras, large),
        }
        revision = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True
        )
        return {
            "schema": SCHEMA,
            "kind": "versus",
            "old": revision.stdout.strip(),
            "settings": SETTINGS,
            "data": describe_photos(photos, data.name),
            "environment": environment(torch.device("cpu")),
            "loader": loaders(roots, kinds, rounds),
            "command": commands(
                roots,
                some(photos, Path(scratch, "few")),
                many(photos, Path(scratch, "many")),
                max(3, rounds // 2),
                Path(scratch),
            ),
            "seconds": time.perf_counter() - started,
        }


def main() -> int:
    """Exit code 2: something cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("old", help="checkout of the earlier build, or a revision of this repository")
    parser.add_argument("data", type=Path, help="folder of photos")
    parser.add_argument("--rounds", type=int, default=9, help="of each loader, in turns")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "versus.json")
    given = parser.parse_args()
    return kept(given.out, lambda: versus(given.old, given.data, given.rounds))


def kept(out: Path, measurement: Callable[[], dict[str, Any]]) -> int:
    """Measure and write down; exit code 2 where something cannot be measured."""
    try:
        result = measurement()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    write_results(out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
