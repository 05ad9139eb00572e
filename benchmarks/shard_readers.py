"""What other programs' readers find in our shards: photos, labels and order, beside our own index.

    python benchmarks/shard_readers.py [--out FILE] [--only NAME[;NAME]]

Packs a few photos, made on the spot, in every way that `flowerfast pack` has, and reads the tar files with
those of the readers that are installed where it runs; the others are named as not installed. LitData and
Mosaic Streaming have formats of their own: their usual writers are fed with what webdataset reads. Under a
minute.
"""

import argparse
import gc
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.bench.environment import environment, write_results
from flowerfast.config import DataConfig
from flowerfast.errors import one_line
from flowerfast.packing.pack import pack, shard_order
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import read_index

RESULTS = Path(__file__).resolve().parent / "results" / "shard_readers.json"
SMALL = PackSettings(shard_bytes=20_480)
PACKED: dict[str, PackSettings] = {
    "plain": SMALL,
    "--max-side": PackSettings(shard_bytes=20_480, max_side=32),
    "--seekable": PackSettings(shard_bytes=20_480, seekable=True),
    "--part": SMALL,
    "JPEG and PNG": SMALL,
}
"""Ways to pack, by what the table calls them."""


class Found(NamedTuple):
    """A sample as a reader gives it: its key, its encoded bytes, and the label as it is given."""

    key: str | None
    photo: bytes | None
    label: Any


Read = Callable[[list[Path], list[str]], Iterator[Found]]
"""(tar files, suffixes of photos in them) to samples."""


class Reader(NamedTuple):
    """What reads, the packages that it needs, and how it is called."""

    read: Read
    packages: tuple[str, ...]
    call: str


def _webdataset(tars: list[Path], suffixes: list[str]) -> Iterator[Found]:
    import webdataset

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves closing its files to the collector
        samples = [*webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False)]
        gc.collect()
    for sample in samples:
        photo = next((sample[suffix] for suffix in suffixes if suffix in sample), None)
        yield Found(sample["__key__"], photo, sample["cls"])


def _dali(tars: list[Path], suffixes: list[str]) -> Iterator[Found]:
    from nvidia.dali import Pipeline, fn

    pipe = Pipeline(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    with pipe:
        photo, label = fn.readers.webdataset(
            paths=[str(tar) for tar in tars], ext=[";".join(suffixes), "cls"], name="reader"
        )
        pipe.set_outputs(photo, label, fn.get_property(photo, key="source_info"))
    pipe.build()
    for _ in range(pipe.epoch_size("reader")):
        photo, label, source = (bytes(np.array(made.at(0))) for made in pipe.run())
        yield Found(source.decode().rpartition(":")[2].partition(".")[0] or None, photo or None, label)


def _hugging_face(tars: list[Path], suffixes: list[str]) -> Iterator[Found]:
    import datasets

    files = {"train": [str(tar) for tar in tars]}
    dataset = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
    for suffix in suffixes:
        if suffix in (dataset.features or {}):
            dataset = dataset.cast_column(suffix, datasets.Image(decode=False))
    for sample in dataset:
        photo = next((sample[suffix]["bytes"] for suffix in suffixes if sample.get(suffix)), None)
        yield Found(sample["__key__"], photo, sample["cls"])


def _litdata(tars: list[Path], suffixes: list[str]) -> Iterator[Found]:
    import litdata

    with tempfile.TemporaryDirectory() as out:
        made = [found._asdict() for found in _webdataset(tars, suffixes)]
        litdata.optimize(
            fn=dict, inputs=made, output_dir=out, chunk_bytes="1MB", num_workers=1, verbose=False
        )
        for sample in litdata.StreamingDataset(out):
            yield Found(**sample)


def _mosaic(tars: list[Path], suffixes: list[str]) -> Iterator[Found]:
    import streaming

    columns = {"key": "str", "photo": "bytes", "label": "bytes"}
    with tempfile.TemporaryDirectory() as out:
        with streaming.MDSWriter(out=out, columns=columns) as writer:
            for found in _webdataset(tars, suffixes):
                writer.write(found._asdict())
        for sample in streaming.StreamingDataset(local=out, batch_size=1):
            yield Found(**sample)


READERS = {
    "webdataset": Reader(_webdataset, ("webdataset",), "WebDataset(tars)"),
    "DALI": Reader(_dali, ("nvidia-dali-cuda120",), "fn.readers.webdataset"),
    "Hugging Face datasets": Reader(_hugging_face, ("datasets",), 'load_dataset("webdataset")'),
    "LitData": Reader(_litdata, ("litdata", "webdataset"), "optimize(fn, samples), StreamingDataset"),
    "Mosaic Streaming": Reader(_mosaic, ("mosaicml-streaming", "webdataset"), "MDSWriter, StreamingDataset"),
}


def make_photos(folder: Path, png: bool) -> Path:
    """Three classes of eight photos; with `png` some of them, none among those that lie first, are PNG."""
    late = {int(row) for row in shard_order(np.zeros(24, np.uint8))[12::3]}
    for row in range(24):
        name, suffix = ("daisy", "rose", "tulip")[row // 8], ".png" if png and row in late else ".jpg"
        pixels = np.random.default_rng(row).integers(0, 256, (6, 8, 3), np.uint8)
        file = folder / name / f"{row % 8}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((96, 64), Image.Resampling.BICUBIC).save(file)
    return folder


def packed(folder: Path, way: str) -> list[Path]:
    """Tar files of photos packed into `folder`/shards in one of the ways of PACKED, by name."""
    photos, out = make_photos(folder / "photos", way == "JPEG and PNG"), folder / "shards"
    for part in [(1, 2), (2, 2)] if way == "--part" else [None]:
        pack(photos, out, PACKED[way], DataConfig(workers=1), part=part)
    return sorted(out.rglob("*.tar"))


def compared(reader: Reader, folder: Path, tars: list[Path]) -> dict[str, Any]:
    """What a reader finds in the shards of a folder, beside what our own index says of them."""
    photos = Photos(folder)
    shards = photos.table.shards
    assert shards is not None
    order = np.lexsort((shards.offset, shards.shard)).tolist()
    expected = {f"{row:09d}": (photos.read_one(row).tobytes(), int(photos.labels[row])) for row in order}
    suffixes = [*read_index(folder).suffixes]
    try:
        found = [*reader.read(tars, suffixes)]
    except Exception as error:  # whatever a reader raises is its answer
        return {"error": f"{type(error).__name__}: {one_line(error)}"[:160]}
    ours = [expected.get(str(sample.key), (b"", -1)) for sample in found]
    return {
        "samples": len(order),
        "found": len({sample.key for sample in found} & {*expected}),
        "photos": sum(sample.photo == photo for sample, (photo, _) in zip(found, ours, strict=True)),
        "none": sum(sample.photo is None for sample in found),
        "labels": sum(int(sample.label) == label for sample, (_, label) in zip(found, ours, strict=True)),
        "label_type": "/".join(sorted({type(sample.label).__name__ for sample in found})),
        "in_order": [sample.key for sample in found] == [*expected],
    }


def main(arguments: list[str] | None = None) -> int:
    """Writes the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--only", help="readers, separated by ;")
    given = parser.parse_args(arguments)
    only = given.only.split(";") if given.only else [*READERS]
    readers: dict[str, Any] = {}
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is fetched
    with tempfile.TemporaryDirectory() as made:
        os.environ["HF_HOME"] = f"{made}/hf"
        shards = {way: packed(Path(made, way), way) for way in PACKED}
        for name in [name for name in READERS if name in only]:
            print(name, flush=True)
            reader = READERS[name]
            try:
                versions = {package: version(package) for package in reader.packages}
            except PackageNotFoundError as error:
                readers[name] = {"missing": f"{error.name} is not installed"}
                continue
            ways = {way: compared(reader, Path(made, way, "shards"), tars) for way, tars in shards.items()}
            readers[name] = {"call": reader.call, "versions": versions, "ways": ways}
    head = {"kind": "shard_readers", "environment": environment(torch.device("cpu"))}
    write_results(given.out, {**head, "readers": readers})
    return 0


if __name__ == "__main__":
    sys.exit(main())
