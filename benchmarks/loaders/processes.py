"""Processes of ranks: started as torchrun does, killed with their workers."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.loaders import Job
from flowerfast.bench.usage import sessions

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 240
"""Seconds that a run may take; one that hangs has this as its answer."""
Lines = list[dict[str, Any]]


def prepare(peer: str, photos: Path, made: Path, shard: int) -> None:
    """Let a peer make what it reads, in a process of its own."""
    made.mkdir(parents=True)
    call = f"peer.prepare(Path({str(photos)!r}), Path({str(made)!r}), {shard})"
    code = f"from pathlib import Path\nfrom benchmarks.loaders import {peer} as peer\n"
    code += f"hasattr(peer, 'prepare') and {call}"
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=LIMIT,
    )  # fmt: skip


def start(
    module: str, peer: str, job: Job, folder: Path, port: int, **orders: Any
) -> tuple[subprocess.Popen[bytes], Path]:
    """A rank that does what a module of this package does with its orders, and its log."""
    log = folder / f"log-{job.rank}"
    log.unlink(missing_ok=True)  # of a run before
    file = folder / f"orders-{job.rank}.json"
    file.write_text(json.dumps({"peer": peer, "job": asdict(job), "log": str(log), **orders}))
    environ = {
        **os.environ, "PYTHONPATH": str(ROOT), "RANK": str(job.rank), "LOCAL_RANK": str(job.rank),
        "WORLD_SIZE": str(job.world), "LOCAL_WORLD_SIZE": str(job.world), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1",
        "RESUME_DECODED": str(folder / f"decoded-{job.rank}"),
    }  # fmt: skip
    with open(folder / f"said-{job.rank}", "wb") as said:
        command = [sys.executable, "-m", f"benchmarks.loaders.{module}", str(file)]
        process = subprocess.Popen(
            command, env=environ, cwd=ROOT, stdout=said, stderr=said, start_new_session=True
        )
    return process, log


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL for a rank and its workers."""
    for pid in sessions().get(process.pid, []):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def read(log: Path) -> Lines:
    """Whole lines of a log."""
    try:
        text = log.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def is_over(lines: Lines) -> bool:
    """Whether a rank has come to its end or waits for it."""
    return any("ready" in line or "end" in line for line in lines)


def error(ranks: list[Lines]) -> str | None:
    """What kept a run from its end, if anything did."""
    errors = [line["error"] for lines in ranks for line in lines if "error" in line]
    if errors:
        return str(errors[0])
    return None if all(map(is_over, ranks)) else f"no end within {LIMIT} s"


def free_port() -> int:
    """A port for the ranks to meet at."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
