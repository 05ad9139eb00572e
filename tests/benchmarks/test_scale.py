"""Predictions of many ranks: by hand where that can be done, and beside what two ranks did."""

import json
import statistics
from typing import Any

import pytest

from benchmarks.scale import gradient_bytes
from benchmarks.scale_model import RESNET18, Costs, exchanged, images_per_sec, of_a_core, predicted
from benchmarks.tables import RESULTS

GOAL = 0.15


def result(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize(
    ("costs", "count", "expected"),
    [
        (Costs(loader=100, model=400, batch=10), 8, 800),  # loaders are the wall
        (Costs(loader=1000, model=400, batch=10), 8, 3200),
        (Costs(loader=1000, model=400, batch=10, exchange=0.025), 8, 1600),  # a step is twice as long
        (Costs(loader=1000, model=400, batch=20, exchange=0.025), 8, 6400 / 3),  # and less so if it is longer
        (Costs(loader=1000, model=400, batch=10, exchange=0.025), 1, 400),  # alone nothing is added up
    ],
)
def test_the_slower_of_loading_and_training_counts(costs: Costs, count: int, expected: float) -> None:
    assert images_per_sec(costs, count) == pytest.approx(expected)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 64])
def test_a_ring_sends_what_it_adds_and_what_it_hands_on(count: int) -> None:
    """Followed piece by piece: each rank sends a piece to the next until all have the sum of all."""
    size = 64 * 9 * count
    pieces = [[{rank} for _ in range(count)] for rank in range(count)]
    sent = 0
    for turn in range(2 * (count - 1)):
        moves = [(rank, (rank - turn) % count) for rank in range(count)]
        given = [set(pieces[rank][piece]) for rank, piece in moves]
        for (rank, piece), content in zip(moves, given, strict=True):
            pieces[(rank + 1) % count][piece] |= content
        sent += size // count
    assert all(piece == set(range(count)) for rank in pieces for piece in rank)
    assert sent == exchanged(size, count)


def test_one_core_tells_what_two_ranks_load_and_train() -> None:
    one = of_a_core(result("bench-cpu-2cores.json"))
    two = result("ranks-cpu-2cores.json")["loaders"]["median"]["2 ranks x 1 core"]
    assert abs(2 * one / two - 1) <= GOAL
    for file in RESULTS.glob("scale-*.json"):
        found = result(file.name)
        costs = Costs(float("inf"), found["median"]["training, 1"], found["batch"], found["exchange_seconds"])
        assert images_per_sec(costs, 2) == pytest.approx(found["predicted"]["training"])
        assert all(abs(statistics.median(errors)) <= GOAL for errors in found["errors"].values())


def test_the_table_grows_with_the_ranks() -> None:
    speed, bench = result("speed-nvidia-h100-224px.json"), result("bench-cpu-2cores.json")
    head, _, *rows = predicted(speed, bench).splitlines()
    cells = [[float(cell.replace(",", "")) for cell in row.strip("|").split("|")] for row in rows]
    assert gradient_bytes("resnet18") == RESNET18
    assert head.count("|") == rows[0].count("|")
    assert [row[0] for row in cells] == [8, 64]
    for row in cells:
        assert row[1] == pytest.approx(row[0] * 10_367.3, rel=1e-4)
        assert row[5] <= row[4] <= row[3] <= min(row[1], row[2])
