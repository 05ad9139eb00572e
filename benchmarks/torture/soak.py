"""A long run: memory, descriptors and threads must not grow with the epochs.

A case is an epoch of a real training run with a tiny network, its validation and its saves. Two files of a
hundred are bad: one that the scan refuses, one that fails when it is decoded.
"""

import os
import threading
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.torture.small import TINY, paint
from benchmarks.torture.trial import MOST, Tally, Trial
from flowerfast.bench.usage import memory_bytes
from flowerfast.training.progress import Silent
from flowerfast.training.run import train

BACKENDS = ("cpu", "dali-cpu")
EPOCHS = 1000
"""Of each backend."""
WARM = 0.2
"""Share of the epochs in which memory may still grow: pools and buffers are filled."""
LIMIT = 1.0
"""MB that 100 epochs may add after that, by the slope of all of them."""
LEAST = 300
"""Epochs from which on a slope says something: below, only descriptors and threads are judged."""


@dataclass
class Watch(Silent):
    """What the process has after each epoch: memory in MB, descriptors, threads."""

    rows: list[tuple[float, int, int]] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)

    def end_epoch(self, row: dict[str, Any], best: bool) -> None:
        """Look."""
        memory = (memory_bytes(os.getsid(0)) or 0) / 1e6
        self.rows.append((memory, len(os.listdir("/proc/self/fd")), threading.active_count()))

    def note(self, text: str) -> None:
        """Keep the names of files that were left out."""
        if text.startswith("skipped: "):
            self.skipped.add(text.split(": ")[1])


def photo_folder(root: Path) -> Path:
    """A hundred files in two classes, of which two are bad."""
    paint(root, 49, (64, 48))
    whole = (root / "blue/0.jpg").read_bytes()
    (root / "blue/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "red/text.jpg").write_text("no photo")
    return root


def soak(cases: range, folder: Path) -> Tally:
    """Epochs on the backend that the first case belongs to."""
    backend, watch, tally = BACKENDS[cases.start // EPOCHS], Watch(), Tally()
    settings = {**TINY, "data.backend": backend, "data.workers": 2, "data.cache": "none"}
    settings |= {"train.epochs": len(cases), "train.batch_size": 16, "train.lr": 0.01}
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        result = train(photo_folder(folder / "photos"), out=folder / "run", settings=settings, reporter=watch)
    tally.tried = result.summary["epochs_run"]
    if watch.skipped != {"blue/cut.jpg", "red/text.jpg"}:
        tally.fail(cases.start, f"left out {sorted(watch.skipped)}")
    memory, descriptors, threads = np.array(watch.rows[int(len(watch.rows) * WARM) :]).T
    for name, values in (("descriptors", descriptors), ("threads", threads)):
        tally.count(f"{MOST}{name}, {backend}", float(values.max()))
        if np.median(values[-5:]) > np.median(values[:5]):
            tally.fail(cases.start, f"{name}: {values[0]:.0f} -> {values[-1]:.0f}")
    if len(memory) >= LEAST:
        growth = 100 * float(np.polyfit(np.arange(len(memory)), memory, 1)[0])
        tally.count(f"MB per 100 epochs, {backend}", round(growth, 3))
        tally.count(f"{MOST}MB, {backend}", round(float(memory.max()), 1))
        if growth > LIMIT:
            tally.fail(cases.start, f"{growth:.2f} MB per 100 epochs")
    return tally


SOAK = Trial(
    name="soak",
    promise=f"Memory grows by no more than {LIMIT:g} MB in 100 epochs after a fifth of them, descriptors and "
    "threads not at all, with two bad files of a hundred.",
    unit="epochs of training, validation and saving",
    run=soak,
    full=EPOCHS * len(BACKENDS),
    quick=20,
    chunk=EPOCHS,
    seconds=1800.0,
)
