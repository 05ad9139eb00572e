"""webdataset: the files in tar shards, read in order by DataLoader workers, torchvision's transforms."""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from benchmarks.peers import Peer, made_once
from benchmarks.peers.paper import recipe

BUFFER = 1000
PEERS = (
    Peer(
        "webdataset + torchvision",
        "benchmarks.peers.webdataset_shards:epochs",
        packages=("webdataset",),
        remark=f"shuffled within a buffer of {BUFFER:,} per worker",
    ),
)


def epochs(data: str, image_size: int, batch_size: int, cores: int, cache: str) -> Iterator[Any]:
    """Batches of float32 (n, 3, S, S)."""
    import webdataset as wds

    shards = sorted(map(str, written(data, Path(cache), cores).glob("*.tar")))
    samples = (
        wds.WebDataset(shards, shardshuffle=len(shards))
        .shuffle(BUFFER)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(recipe(image_size), int)
        .batched(batch_size)
    )
    return repeat(wds.WebLoader(samples, batch_size=None, num_workers=cores, persistent_workers=True))


def written(data: str, cache: Path, cores: int) -> Path:
    """Folder of shards, a whole number of them per worker, made on first use."""
    import webdataset as wds

    def fill(folder: Path) -> None:
        writers = [wds.TarWriter(str(folder / f"{i:03d}.tar")) for i in range(2 * cores)]
        for i, (path, label) in enumerate(ImageFolder(data).samples):
            # Keys without the file's own dots: what follows the first one is the type of the entry.
            writers[i % len(writers)].write(
                {"__key__": f"{i:08d}", "jpg": Path(path).read_bytes(), "cls": str(label).encode()}
            )
        for writer in writers:
            writer.close()

    return made_once(cache / f"webdataset-{cores}", fill)
