"""The loaders that compare.py sets side by side, one small file for each, and the contract they keep.

A file declares `PEERS`, a tuple of `Peer`, and the function their `target` names:

    epochs(data: str, image_size: int, batch_size: int, cores: int, cache: str, **options)

It returns epochs without end. An epoch is an iterable of (images, labels): every photo under `data` once, in
random order, as square images of `image_size` pixels, made by at most `cores` threads or processes;
`len(labels)` counts the images. `cache` is a folder for files that the peer makes of the photos, once, before
anything is timed. The function runs in a process of its own and imports its package there; a UserError skips
the peer with that reason.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from flowerfast.files import write_text

STEPS = ("decode", "crop", "flip", "rotate", "jitter", "translate", "normalise", "shuffle")
"""What the paper's recipe does to a photo; shuffle: a new random order of all photos each epoch."""
FILES = ("paper", "torchvision_v2", "torchcodec_v2", "dali_cpu", "ffcv_loader", "spdl_pipeline",
         "webdataset_shards", "litdata_chunks", "grain_workers", "decode_only", "ours")  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """A row of the comparison, and which work it does.

    Attributes:
        name: its row; no commas, for --only; "(256)" when it reads small photos.
        target: `module:function`.
        photos: full: as they are; small: the same photos shrunk once to a short side of 256.
        role: paper, peer, ours, or limit (does too little to be a loader).
        packages: modules that must be there.
        leaves_out: those of `STEPS` that it does not do.
        remark: what it does otherwise than the paper's recipe.
        shrinks: it gets the full photos and makes the small ones itself.
        options: further keyword arguments of the target.
    """

    name: str
    target: str
    photos: Literal["full", "small"] = "full"
    role: Literal["paper", "peer", "ours", "limit"] = "peer"
    packages: tuple[str, ...] = ()
    leaves_out: tuple[str, ...] = ()
    remark: str = ""
    shrinks: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def missing(self) -> str | None:
        """The first of its packages that is not installed."""
        return next((name for name in self.packages if not _installed(name)), None)

    def work(self) -> dict[str, Any]:
        """What the results file says of it."""
        facts = asdict(self)
        return {key: facts[key] for key in ("photos", "role", "leaves_out", "remark")}


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def all_peers() -> list[Peer]:
    """Every row, in the order of the table."""
    return [peer for file in FILES for peer in import_module(f"{__name__}.{file}").PEERS]


def made_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """A folder that is filled and then marked as whole; one without the mark is made anew."""
    mark = folder / ".whole"
    if not mark.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        fill(folder)
        write_text(mark, "")
    return folder
