"""flowerfast's own loaders."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Peer
from flowerfast.bench.rounds import Source
from flowerfast.bench.sources import loader
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.errors import UserError

SIDE = 256
TARGET = "benchmarks.peers.ours:epochs"
UINT8: dict[str, Any] = {"role": "ours", "leaves_out": ("normalise",)}
CACHED: dict[str, Any] = {
    "role": "ours",
    "leaves_out": ("decode", "normalise"),
    "photos": "small",
    "shrinks": True,
}
DALI = ("nvidia.dali",)
# A cached row reads the photos as they are and shrinks them itself, in the warm-up epoch.
KEPT = ("data.cache=ram", f"data.cache_side={SIDE}")
PEERS = (
    Peer("flowerfast folder", TARGET, **UINT8, options={"settings": ("data.backend=torchvision",)}),
    Peer(
        "flowerfast shards (256)",
        "benchmarks.peers.ours:shards",
        photos="small",
        shrinks=True,
        **UINT8,
        options={"settings": ("data.backend=torchvision",)},
    ),
    Peer(
        "flowerfast decoded cache (256)",
        TARGET,
        **CACHED,
        remark="decodes in the first epoch only",
        options={"settings": ("data.backend=torchvision", *KEPT)},
    ),
    Peer(
        "flowerfast folder by DALI CPU",
        TARGET,
        **UINT8,
        packages=DALI,
        options={"settings": ("data.backend=dali-cpu",)},
    ),
    Peer(
        "flowerfast decoded cache by DALI CPU (256)",
        TARGET,
        **CACHED,
        packages=DALI,
        remark="decodes in the first epoch only",
        options={"settings": ("data.backend=dali-cpu", *KEPT)},
    ),
)


def epochs(
    data: str, image_size: int, batch_size: int, cores: int, cache: str, settings: Sequence[str]
) -> Source:
    """Batches of uint8 (n, 3, S, S)."""
    sizes = (f"data.image_size={image_size}", f"train.batch_size={batch_size}", f"data.workers={cores}")
    return loader(data, (*sizes, *settings))


def shards(
    data: str, image_size: int, batch_size: int, cores: int, cache: str, settings: Sequence[str]
) -> Source:
    """The same from shards that `flowerfast pack` has made of the photos."""
    return epochs(str(packed(data, Path(cache))), image_size, batch_size, cores, cache, settings)


def packed(data: str, cache: Path) -> Path:
    """Folder of shards, made on first use. Raises UserError when this version cannot pack."""
    folder = cache / f"shards-{SIDE}"
    if not folder.is_dir():
        command = [sys.executable, "-m", "flowerfast", "pack", data, str(folder)]
        done = subprocess.run(
            [*command, "--max-side", str(SIDE), "--quality", "90"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            said = [line.strip("│ ") for line in done.stderr.splitlines() if line.strip("│ ╭╮╰╯─")]
            raise UserError(f"flowerfast pack: {said[-1] if said else f'exit code {done.returncode}'}")
    manifest = load_manifest(folder)
    short = _short_side(manifest)
    if short > SIDE or short < min(SIDE, _short_side(load_manifest(Path(data)))):  # not the peers' resolution
        raise UserError(f"flowerfast pack made photos of short side {short}, not {SIDE}")
    return folder


def _short_side(manifest: Manifest) -> int:
    return int(np.median(np.minimum(manifest.width, manifest.height)))
