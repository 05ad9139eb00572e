"""resume.py: what a kill did to a sequence is told from the logs of ranks, and becomes a table."""

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import resume_tables
from benchmarks.loaders import PEERS, Job, files, note_decoded, processes, rank
from benchmarks.loaders.judging import Drawn, done_again, judged
from flowerfast.bench.usage import sessions

WORLD, BATCH = 2, 4


def logs(order: list[int], epoch: int, start: int = 0, world: int = WORLD, salt: int = 0) -> list[Any]:
    """What the ranks say that draw `order` in batches; pixels follow from id, epoch and salt."""
    ranks: list[Any] = [[] for _ in range(world)]
    own = BATCH // world
    for at in range(0, len(order), own):
        turn, rank = divmod(at // own, world)
        ids = order[at : at + own]
        crcs = [1000 * epoch + number + salt for number in ids]
        ranks[rank].append({"epoch": epoch, "batch": start + turn, "ids": ids, "crcs": crcs})
    return ranks


def both(*parts: list[Any]) -> Drawn:
    """Of the logs of several epochs."""
    return Drawn.of([lines for part in parts for lines in part])


WHOLE = both(logs([*range(16)], 1), logs([*range(15, -1, -1)], 2))


@pytest.mark.parametrize(
    ("rest", "next_", "world", "expected"),
    [
        ([*range(8, 16)], [*range(15, -1, -1)], 2, ("same", "same", 0, 0, 1.0)),
        ([*range(8, 16)], [*range(15, -1, -1)], 1, ("same", "same", 0, 0, 1.0)),
        ([9, 8, 11, 10, 15, 14, 13, 12], [*range(15, -1, -1)], 2, ("batches", "same", 0, 0, 1.0)),
        ([15, 8, 9, 10, 11, 12, 13, 14], [*range(16)], 2, ("samples", "samples", 0, 0, 1.0)),
        ([8, 9, 10, 11], [*range(15, -1, -1)], 2, ("other", "same", 4, 0, 1.0)),
        ([4, 5, 6, 7, *range(8, 16)], [*range(15, -1, -1)], 2, ("other", "same", 0, 4, 1.0)),
    ],
)
def test_a_sequence_is_judged_batch_by_batch(
    rest: list[int], next_: list[int], world: int, expected: tuple[Any, ...]
) -> None:
    resumed = both(logs(rest, 1, 2, world), logs(next_, 2, 0, world))
    found = judged(WHOLE, resumed, 1, 2)
    assert tuple(found[key] for key in ("sequence", "next", "lost", "repeated", "pixels")) == expected


def test_pixels_are_compared_by_sample_and_epoch() -> None:
    resumed = both(logs([8, 9, 10, 11], 1, 2), logs([12, 13, 14, 15], 1, 3, salt=5))
    assert judged(WHOLE, resumed, 1, 2)["pixels"] == 0.5


def test_work_done_again_is_what_was_decoded_before_the_first_batch() -> None:
    seen = WHOLE.ids(1, end=2)
    said: list[dict[str, Any]] = [{"seconds": 1.0, "decoded": [0, 1, 2, 8, 9, 3]}, {"ids": [9, 8]}]
    assert done_again(said, seen) == 3
    said[0]["decoded"] = [9, 8, 0]
    assert done_again(said, seen) == 0


class Counting:
    """A loader of the numbers 0..15, whose state is where it stands."""

    def __init__(self, job: Job) -> None:
        self.job, self.at = job, 0

    def epoch(self, number: int) -> Iterator[Any]:
        while self.at < 16 // self.job.batch:
            first = self.at * self.job.batch + self.job.rank * self.job.own_batch
            self.at += 1
            ids = [*range(first, first + self.job.own_batch)]
            note_decoded(ids[0])
            yield ids, np.full((len(ids), 2, 2, 3), number, np.uint8)
        self.at = 0

    def save(self) -> Any:
        return self.at

    def load(self, state: Any, epoch: int, batch: int) -> None:
        self.at = state


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Function (orders) → what a rank with a counting loader says."""
    monkeypatch.setenv("RESUME_DECODED", str(tmp_path / "decoded"))
    monkeypatch.setattr(rank, "_seed", lambda _: None)
    monkeypatch.setattr(rank.time, "sleep", lambda _: None)

    def draw(**orders: Any) -> list[dict[str, Any]]:
        (tmp_path / "decoded").unlink(missing_ok=True)
        said: list[dict[str, Any]] = []
        job = Job("", "", 1, 2, 1, 4)
        full = {"epochs": 3, "epoch": 1, "at": 2, "state": None, "load": None, **orders}
        peer = type("peer", (), {"Loader": Counting})
        try:
            rank._draw(peer, job, full, lambda **facts: said.append(facts))
        except TimeoutError:
            said.append({"killed": True})
        return said

    return draw


def test_a_rank_saves_goes_on_and_waits_for_its_end(drawn: Any, tmp_path: Path) -> None:
    whole = Drawn.of([drawn()])
    said = drawn(state=str(tmp_path / "state"))
    assert said[-1] == {"killed": True}
    assert said[-2] == {"ready": True}
    assert max((line["epoch"], line["batch"]) for line in said if "ids" in line) == (1, 1 + rank.BEYOND)
    assert pickle.loads((tmp_path / "state").read_bytes()) == {"epoch": 1, "batch": 2, "state": 2}
    resumed = drawn(load=str(tmp_path / "state"))
    assert resumed[0]["decoded"] == [10]
    found = judged(whole, Drawn.of([resumed]), 1, 2)
    assert (found["sequence"], found["next"], found["lost"], found["pixels"]) == ("same", "same", 0, 1.0)


def test_a_rank_is_killed_with_its_workers_and_half_a_line_is_none(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = f"import time; open({str(log)!r}, 'w').write('{{\"ready\": true}}\\n{{\"ids\"'); time.sleep(60)"
    command = f"sleep 60 & exec {sys.executable} -c {json.dumps(code)}"
    process = subprocess.Popen(["bash", "-c", command], start_new_session=True)
    while not processes.read(log):
        time.sleep(0.02)
    assert processes.read(log) == [{"ready": True}]
    assert len(sessions()[process.pid]) >= 2
    processes.kill(process)
    deadline = time.monotonic() + 10
    while sessions().get(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)  # the worker is reaped by init
    assert process.returncode == -9
    assert process.pid not in sessions()


def test_what_kept_a_run_from_its_end() -> None:
    assert processes.error([[{"end": True}], [{"ready": True}]]) is None
    assert (
        processes.error([[{"end": True}], [{"error": "ValueError: no"}, {"end": True}]]) == "ValueError: no"
    )
    assert processes.error([[{"end": True}], []]) == f"no end within {processes.LIMIT} s"


def test_ids_are_numbers_in_order(tmp_path: Path) -> None:
    for number in (0, 1, 10, 9):
        (tmp_path / f"class-{number % 2}").mkdir(exist_ok=True)
        (tmp_path / f"class-{number % 2}" / f"{number:06d}.jpg").touch()
    assert [int(file.stem) for file in files(tmp_path)] == [0, 1, 9, 10]


def test_every_loader_has_its_file() -> None:
    folder = Path(processes.__file__).parent
    assert all((folder / f"{name}.py").is_file() for name in PEERS)


def test_cells_say_the_worst() -> None:
    good = {"sequence": "batches", "next": "batches", "lost": 0, "repeated": 0, "pixels": 1.0}
    assert resume_tables.cell(good, "tool") == "same batches, same pixels"
    assert resume_tables.cell({**good, "pixels": 0.5}, "transform") == "same batches, other pixels"
    assert (
        resume_tables.cell({**good, "next": "samples"}, "nobody")
        == "same batches, next epoch in another order"
    )
    bad = {**good, "sequence": "other", "lost": 32, "pixels": 0.0}
    assert resume_tables.cell(bad, "transform") == "other, **32 lost**, other pixels"
    assert resume_tables.cell({"error": "ValueError: no"}, "tool") == "**ValueError**"
