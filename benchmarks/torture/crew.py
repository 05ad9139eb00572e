"""Ranks of one run as processes on this machine, forked from one that has imported everything.

They meet as those of torchrun do, by the same variables; importing torch for each would take longer than
their work.
"""

import os
import pickle
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

_SERVER = get_context("forkserver")
_KILLS = "benchmarks.torture.kills"  # which has a server of its own, and there is one per process
_SERVER.set_forkserver_preload(
    [*([_KILLS] if _KILLS in sys.modules else []), "flowerfast.training.run", __name__]
)


@dataclass(frozen=True)
class Crew:
    """Ranks at work.

    Attributes:
        folder: where they leave what they say and what their work gives.
        processes: by rank.
    """

    folder: Path
    processes: list[ForkServerProcess]

    def said(self, rank: int) -> str:
        """What a rank has printed."""
        log = self.folder / f"{rank}.log"
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def results(self, seconds: float = 120.0) -> list[Any]:
        """What the work of each rank gave, None where it gave nothing; who takes longer is ended."""
        until = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(until - time.monotonic(), 0))
            if process.exitcode is None:
                process.kill()
                process.join()
        files = [self.folder / f"{rank}.result" for rank in range(len(self.processes))]
        return [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]


def start(count: int, folder: Path, work: Callable[..., Any], *given: Any, **named: Any) -> Crew:
    """Have so many ranks do a piece of work, a function of a module; it begins in `folder`."""
    own = Path(tempfile.mkdtemp(prefix="crew-", dir=folder))
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        _SERVER.Process(target=_rank, args=(rank, count, port, own, partial(work, *given, **named)))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    return Crew(own, processes)


def _rank(rank: int, count: int, port: int, folder: Path, work: Callable[[], Any]) -> None:
    os.chdir(folder.parent)
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "FLOWERFAST_CACHE": str(folder.parent / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    torch.set_num_threads(1)
    stream = os.open(folder / f"{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    result = work()
    fresh = folder / f"{rank}.fresh"
    fresh.write_bytes(pickle.dumps(result))
    fresh.rename(folder / f"{rank}.result")
