"""LitData, Mosaic Streaming and flowerfast on the same photos from the same bucket on localhost: one JSON.

    python benchmarks/one_bucket.py DATA [--rounds 5] [--latency-ms 20] [--only NAME[,NAME]] [--out FILE]

Each round of each peer, in turns: a process with an empty cache draws two epochs, the first from the bucket,
the second from its cache, keeps its state in the middle of a third, and is killed; one that has that cache
goes on from there, then one with an empty cache. Requests and bytes are counted by the server, `bucket.py`. A
first round is a warm-up. Peers that are not installed are named as such. With the default settings about ten
minutes on two cores.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.loaders import Job, processes
from benchmarks.loaders.processes import Lines
from benchmarks.photos import numbered
from flowerfast.bench.environment import SCHEMA, describe_photos, environment, write_results
from flowerfast.bench.result import middle_and_spread
from flowerfast.bench.usage import memory_bytes
from flowerfast.machine import usable_cores

ROOT = Path(__file__).resolve().parents[1]
PEERS = {
    "litdata_streaming": ("LitData", ("litdata", "obstore", "boto3")),
    "mosaic_streaming": ("Mosaic Streaming", ("mosaicml-streaming", "boto3")),
    "ours": ("flowerfast", ("flowerfast", "fsspec", "s3fs")),
    "ours_blocks": ("flowerfast, data.order=blocks-first", ("flowerfast", "fsspec", "s3fs")),
}
"""Rows by file of benchmarks/loaders, and the packages whose versions are kept."""
BATCH, SIZE, EPOCHS = 64, 224, 2
_LOOK = 0.25
"""Seconds between two looks at the memory."""


@contextmanager
def bucket(folder: Path, latency_ms: float) -> Iterator[str]:
    """URL of a server of this folder; clients find it by the environment."""
    command = [sys.executable, "-m", "benchmarks.bucket", str(folder), "--latency-ms", str(latency_ms)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            secret = {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
            region = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
            os.environ |= {**secret, **region, "AWS_ENDPOINT_URL": url, "S3_ENDPOINT_URL": url}
            os.environ["AWS_ALLOW_HTTP"] = "true"
            yield url
        finally:
            server.kill()


def run(peer: str, job: Job, folder: Path, **orders: Any) -> tuple[Lines, int]:
    """Log of a process that was killed when it was ready, and the most memory seen, in bytes."""
    process, log = processes.start("timed", peer, job, folder, 0, **orders)
    end, most = time.monotonic() + processes.LIMIT, 0
    while time.monotonic() < end and process.poll() is None and not processes.is_over(processes.read(log)):
        most = max(most, memory_bytes(process.pid) or 0)
        time.sleep(_LOOK)
    processes.kill(process)
    lines = processes.read(log)
    if trouble := processes.error([lines]):
        said = (folder / f"said-{job.rank}").read_text(errors="replace").strip().splitlines()
        raise RuntimeError(f"{peer} in {folder}: {trouble}; it said: {said[-1] if said else 'nothing'}")
    return lines, most


def one_round(peer: str, url: str, scratch: Path) -> dict[str, Any]:
    """What a peer takes from an empty cache, from a full one, and to go on in the middle of an epoch."""
    folder = Path(tempfile.mkdtemp(prefix=f"{peer}-", dir=scratch))
    cache, state = folder / "cache", folder / "state"
    remote = f"s3://bucket/{peer.removesuffix('_blocks')}"
    job = Job("", remote, 0, 1, usable_cores(), BATCH, SIZE, str(cache))
    asked = {"counts": f"{url}/counts", "epochs": EPOCHS}
    cache.mkdir()
    lines, memory = run(peer, job, folder, state=str(state), load=None, **asked)
    found: dict[str, Any] = {"first_batch": lines[0]["first"], "memory_bytes": memory}
    for name, line in zip(("cold", "warm"), [line for line in lines if "epoch" in line], strict=True):
        rate = line["images"] / line["seconds"]
        found[name] = {"images_per_sec": rate, **{key: line[key] for key in ("images", "requests", "bytes")}}
    found["cache_bytes"] = sum(file.stat().st_blocks * 512 for file in cache.rglob("*") if file.is_file())
    for name in ("resume_warm", "resume_cold"):
        if name == "resume_cold":
            shutil.rmtree(cache)
            cache.mkdir()
        ((line, *_), _) = run(peer, job, folder, state=None, load=str(state), **asked)
        found[name] = {"seconds": line["first"], "requests": line["requests"], "bytes": line["bytes"]}
    shutil.rmtree(folder)
    return found


def summed(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians of all rounds, and the spread of the speeds."""
    first = rounds[0]
    result: dict[str, Any] = {}
    for name, value in first.items():
        values = [each[name] for each in rounds]
        if isinstance(value, dict):
            result[name] = summed(values)
        else:
            result[name], spread = middle_and_spread(values)
            if name == "images_per_sec":
                result["spread"] = spread
    return result


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All rounds; the first is left out."""
    chosen = [peer for peer in PEERS if not given.only or peer in given.only.split(",")]
    shard = round(given.shard_mb * 1e6)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": "streaming",
        "environment": environment(torch.device("cpu")),
        "settings": {
            "rounds": given.rounds, "latency_ms": given.latency_ms, "shard_bytes": shard,
            "batch_size": BATCH, "image_size": SIZE, "workers": usable_cores(),
        },
        "peers": {peer: _about(peer) for peer in chosen},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="streaming-") as place:
        scratch = Path(place)
        result["data"] = describe_photos(
            numbered(given.data, given.photos, scratch / "photos"), given.data.name
        )
        there = [peer for peer in chosen if "error" not in result["peers"][peer]]
        for peer in there:
            made = scratch / "bucket" / "bucket" / peer.removesuffix("_blocks")
            if not made.exists():
                processes.prepare(peer, scratch / "photos", made, shard)
            files = [file for file in made.rglob("*") if file.is_file()]
            stored = {"objects": len(files), "bytes": sum(file.stat().st_size for file in files)}
            result["peers"][peer]["stored"] = stored
        rounds: dict[str, list[dict[str, Any]]] = {peer: [] for peer in there}
        with bucket(scratch / "bucket", given.latency_ms) as url:
            for number in range(given.rounds + 1):
                for peer in there:
                    found = one_round(peer, url, scratch)
                    print(number, peer, found, flush=True)
                    if number:
                        rounds[peer].append(found)
                        result["peers"][peer] |= {"median": summed(rounds[peer]), "rounds": rounds[peer]}
                if number:
                    write_results(given.out, result)
    return result


def _about(peer: str) -> dict[str, Any]:
    """Name and versions."""
    name, packages = PEERS[peer]
    try:
        return {"name": name, "versions": {package: version(package) for package in packages}}
    except PackageNotFoundError as error:
        return {"name": name, "error": f"not installed: {error.name}"}


def main(arguments: list[str] | None = None) -> int:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of photos")
    parser.add_argument("--photos", type=int, default=2048, help="how many of them at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--latency-ms", type=float, default=20.0, help="that each request waits")
    parser.add_argument("--shard-mb", type=float, default=2.0, help="size of a shard or chunk at most")
    parser.add_argument("--only", help="files of benchmarks/loaders, separated by commas")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "one_bucket.json")
    measure(parser.parse_args(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
