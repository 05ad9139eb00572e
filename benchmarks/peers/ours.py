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
from flowerfast.errors import UserError
from flowerfast.photos.photos import Photos

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
CPU, DALI_CPU = "data.backend=cpu", "data.backend=dali-cpu"
LATER = "decodes in the first epoch only"
PEERS = (
    Peer("flowerfast folder", TARGET, **UINT8, options={"settings": (CPU,)}),
    Peer(
        "flowerfast shards (256)",
        "benchmarks.peers.ours:shards",
        photos="small",
        shrinks=True,
        **UINT8,
        options={"settings": (CPU,)},
    ),
    Peer(
        "flowerfast decoded cache (256)", TARGET, **CACHED, remark=LATER, options={"settings": (CPU, *KEPT)}
    ),
    Peer("flowerfast folder by DALI CPU", TARGET, **UINT8, packages=DALI, options={"settings": (DALI_CPU,)}),
    Peer(
        "flowerfast decoded cache by DALI CPU (256)",
        TARGET,
        **CACHED,
        packages=DALI,
        remark=LATER,
        options={"settings": (DALI_CPU, *KEPT)},
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
        command += ["--max-side", str(SIDE), "--quality", "90"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            raise UserError(f"flowerfast pack: {lines[-1] if lines else f'exit code {done.returncode}'}")
    short, before = (_short_side(Photos(place)) for place in (folder, data))
    if short > SIDE or short < min(SIDE, before):  # not the peers' resolution
        raise UserError(f"flowerfast pack made photos of short side {short}, not {SIDE}")
    return folder


def _short_side(photos: Photos) -> int:
    return int(np.median(np.minimum(*photos.sizes(photos.indices))))
