"""How fast photos are packed, and how large the shards are beside the files: one JSON.

    python benchmarks/packing.py DATA [--rounds N] [--out benchmarks/results/packing-NAME.json]

Photos as they are, and written anew without loss (`--seekable`), of DATA and of some of it enlarged to 12
megapixels; in turns, each into a new folder by `pack`, whose headers are scanned and whose loops are loaded
by then. Shards are as the file system has written them: nobody waits for the disk, beyond what `pack` does.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.photos import enlarged
from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.bench.result import middle_and_spread
from flowerfast.config import DataConfig
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos

ROOT = Path(__file__).resolve().parents[1]
CAMERA_PHOTOS = 64
SETTINGS = {"as they are": PackSettings(), "seekable": PackSettings(seekable=True)}


def measure(data: Path, rounds: int) -> dict[str, Any]:
    """Rows by kind of photos and of packing; the first round is a warm-up."""
    rows = []
    for about, folder in (("as they are", data), ("12 megapixels", enlarged(data, CAMERA_PHOTOS))):
        taken: dict[str, list[tuple[float, float]]] = {kind: [] for kind in SETTINGS}
        for number in range(rounds + 1):
            for kind, settings in SETTINGS.items():
                with tempfile.TemporaryDirectory(prefix="packing-") as scratch:
                    wall, cpu = time.perf_counter(), time.process_time()
                    packed = pack(folder, Path(scratch, "shards"), settings, DataConfig())
                    spent = time.perf_counter() - wall, time.process_time() - cpu
                if number:
                    taken[kind].append(spent)
                if number == rounds:
                    seconds, spread = middle_and_spread([wall for wall, _ in taken[kind]])
                    cpu, _ = middle_and_spread([cpu for _, cpu in taken[kind]])
                    rows.append(
                        {
                            "photos": about,
                            "packed": kind,
                            "count": packed.photos,
                            "written_anew": packed.seekable,
                            "bytes_before": packed.bytes_before,
                            "bytes_after": packed.bytes_after,
                            "photos_per_sec": packed.photos / seconds,
                            "spread": spread,
                            "cpu_ms_per_photo": 1000 * cpu / packed.photos,
                        }
                    )
                    print(rows[-1], flush=True)
    return {
        "schema": SCHEMA,
        "kind": "packing",
        "environment": environment(torch.device("cpu")),
        "data": describe_photos(Photos(data), data.name),
        "rounds": rounds,
        "rows": rows,
    }


def main() -> int:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of photos")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "packing.json")
    args = parser.parse_args()
    write_results(args.out, measure(args.data.resolve(), args.rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
