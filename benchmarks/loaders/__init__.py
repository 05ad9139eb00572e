"""Loaders that resume.py and one_bucket.py kill and resume: a small file for each, and the contract.

A file has a class `Loader`, and where it reads files of its own a function `prepare(photos, made, shard)`,
which makes them with so many bytes each at most:

    Loader(job: Job)
    epoch(number) -> iterator of (ids, pixels): the batches of this rank, on from where `load` went
    save() -> what a checkpoint keeps of it, after the batch that came last
    load(state, epoch, batch): go on after `batch` batches of `epoch`; state is what `save` gave

Photos are files CLASS/ID.jpg; pixels are uint8, (n, 3, S, S) or (n, S, S, 3).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SEED = 7
Batch = tuple[list[int], Any]


@dataclass(frozen=True)
class Peer:
    """A row of the table.

    Attributes:
        name: its row.
        packages: distributions that it needs, whose versions are kept.
        way: how its documentation says to resume, as it is done here.
        augments: whose random numbers make the pixels: those of the tool, of a user's transform, or none.
        shared: all ranks load the state of rank 0; else each its own, and rank 0's where there was none.
    """

    name: str
    packages: tuple[str, ...]
    way: str
    augments: Literal["tool", "transform", "nobody"]
    shared: bool = False


PEERS = {
    "torch_plain": Peer(
        "torch DataLoader",
        ("torch", "torchvision"),
        "keeps no state: DistributedSampler with `set_epoch`, whose batches already seen are skipped",
        "transform",
    ),
    "torchdata_stateful": Peer(
        "torchdata StatefulDataLoader",
        ("torchdata", "torch", "torchvision"),
        "StatefulDistributedSampler with `set_epoch`; `state_dict()` of each rank is loaded by the same rank",
        "transform",
    ),
    "litdata_streaming": Peer(
        "LitData",
        ("litdata", "torch", "torchvision"),
        "`shuffle=True`, `drop_last=True`, `seed`; `StreamingDataLoader.state_dict()` of each rank is loaded "
        "by the same rank",
        "transform",
    ),
    "mosaic_streaming": Peer(
        "Mosaic Streaming",
        ("mosaicml-streaming", "torch", "torchvision"),
        "`shuffle=True`, `shuffle_seed`, `num_canonical_nodes=1`, `batch_size`; "
        "`clean_stale_shared_memory()` at each start; `StreamingDataLoader.state_dict()` of rank 0 is "
        "loaded by all",
        "transform",
        shared=True,
    ),
    "grain_dataset": Peer(
        "Grain Dataset",
        ("grain", "numpy"),
        "`MapDataset.seed().shuffle().random_map()[rank::ranks].batch().repeat()` with `mp_prefetch`; "
        "`get_state()` of each rank's iterator is set by the same rank",
        "tool",
    ),
    "grain_elastic": Peer(
        "Grain ElasticIterator",
        ("grain", "numpy"),
        "experimental; over `MapDataset.seed().shuffle().random_map().repeat()`; `get_state()` of rank 0 is "
        "set by all",
        "tool",
        shared=True,
    ),
    "dali_pipeline": Peer(
        "DALI CPU operators",
        ("nvidia-dali-cuda120",),
        "`readers.file(shuffle_after_epoch=True)`, `enable_checkpointing=True`, `seed`; "
        "`DALIGenericIterator.checkpoints()` of each rank builds the pipeline of the same rank; workers are "
        "threads",
        "tool",
    ),
    "spdl_pipeline": Peer(
        "SPDL",
        ("spdl", "spdl-io"),
        "keeps no state: DistributedRandomSampler with `shuffle(seed)`, samples already seen are skipped in "
        "it; workers are threads",
        "nobody",
    ),
    "ours": Peer(
        "flowerfast",
        ("flowerfast",),
        "`Loader.state_dict()` of rank 0 is loaded by all; workers are threads",
        "tool",
        shared=True,
    ),
}
"""By file."""


@dataclass(frozen=True)
class Job:
    """What one rank is to do.

    Attributes:
        photos: folder of the photos.
        made: folder that the peer's `prepare` filled, or an s3:// URL with the same in it.
        rank, world: which of how many ranks.
        workers: processes or threads of this rank.
        batch: samples of a batch, of all ranks together.
        size: side of the pixels.
        cache: folder for copies of what lies at a URL.
    """

    photos: str
    made: str
    rank: int
    world: int
    workers: int
    batch: int
    size: int = 64
    cache: str | None = None

    @property
    def own_batch(self) -> int:
        """Samples of a batch of this rank."""
        return self.batch // self.world


def files(photos: str | Path) -> list[Path]:
    """All photos, in the order of their ids."""
    return sorted(Path(photos).glob("*/*.jpg"), key=lambda file: int(file.stem))


def note_decoded(number: int) -> None:
    """Put down that a photo was decoded, by whichever process."""
    if name := os.environ.get("RESUME_DECODED"):
        file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, number.to_bytes(4, "little"))
        os.close(file)


def batches(loader: Any) -> Iterator[Batch]:
    """(ids, pixels) of a loader whose batches are tensors of both."""
    for ids, pixels in loader:
        yield ids.tolist(), pixels.numpy()
