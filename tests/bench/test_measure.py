"""The measuring core: what a round holds, whose turn it is, and what becomes of children that fail."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flowerfast.bench import measure as measuring
from flowerfast.bench import rounds
from flowerfast.bench.child import Child, ChildFailed, Variant
from flowerfast.bench.measure import Pace, measure, measure_here
from flowerfast.bench.result import Row, summary
from flowerfast.bench.rounds import LEAD, Drawn, Rounds, Source
from flowerfast.bench.usage import cpu_seconds, memory_bytes

linux = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
QUICK = Pace(rounds=3, seconds=0, open_limit=60, round_limit=30)

# ----------------------------------------------------------------------------------------- what a round holds


class Clock:
    """Stands for time.perf_counter: each batch takes a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(rounds.time, "perf_counter", lambda: self.now)

    def source(self, *lengths: int, images: int = 2) -> Iterator[Iterator[Drawn]]:
        """Epochs of so many batches, the last length for ever."""
        number = 0
        while True:
            yield self._epoch(lengths[min(number, len(lengths) - 1)], images)
            number += 1

    def _epoch(self, length: int, images: int) -> Iterator[Drawn]:
        for _ in range(length):
            self.now += 1
            yield None, range(images)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.parametrize(("seconds", "epochs"), [(0, 1), (7, 1), (8, 2), (21.5, 4)])
def test_a_round_holds_whole_epochs_and_lasts_long_enough(clock, seconds, epochs):
    timed = Rounds(Source(clock.source(7)))
    timed.warm_up()
    for _ in range(4):  # each begins where the last one ended, in the middle of an epoch
        found = timed.run(seconds)
        assert (found.images, found.seconds) == (14 * epochs, 7 * epochs)


def test_warm_up_is_the_first_epoch_and_the_lead_is_not_timed(clock):
    timed = Rounds(Source(clock.source(5)))
    assert timed.warm_up() == 6  # the epoch has ended when the next one's first batch is there
    found = timed.run(0)
    assert found.seconds == 5
    assert clock.now == 6 + LEAD + 5


def test_an_epoch_shorter_than_the_place_ends_the_round(clock):
    timed = Rounds(Source(clock.source(6, 6, 2)))
    timed.warm_up()
    found = timed.run(3)
    assert found.images == 2 * found.seconds


def test_counters_are_reported_by_their_growth(clock):
    timed = Rounds(Source(clock.source(4), lambda: {"waited": clock.now / 2}))
    timed.warm_up()
    assert timed.run(0).counters == {"waited": 2}


def test_a_source_without_batches_is_an_error(clock):
    with pytest.raises(ValueError, match="no batches"):
        Rounds(Source(clock.source(0))).warm_up()


@pytest.mark.parametrize(
    ("rates", "stops"),
    [
        ([[10, 20, 30]], True),  # spread 0.74 of the median
        ([[10, 20, 30], [20, 20, 20], [20, 20, 20]], False),  # one noisy variant is its own affair
        ([[10, 20, 30], [10, 20, 30], [20, 20, 20]], True),
        ([[10, 30]], False),  # too few rounds to tell
        ([[19, 20, 21, 40]], False),
        ([], False),
    ],
)
def test_measuring_stops_when_most_figures_are_noise(rates, stops):
    assert Pace(stop_at=0.3).is_hopeless(rates) == stops
    assert not Pace().is_hopeless(rates)


def test_a_noisy_run_is_stopped_in_this_process_too(clock, monkeypatch):
    """Rounds of 1, 2, 3, ... seconds an epoch: no two alike."""

    def slower_and_slower():
        for number in itertools.count():
            clock.now += number
            yield clock._epoch(4, 2)

    monkeypatch.setattr(measuring, "open_source", lambda *_: Source(slower_and_slower()))
    said = []
    found = measure_here([Variant("a", "")], Pace(rounds=8, seconds=0, stop_at=0.1), said.append)
    assert len(found["a"]["rounds"]) == 3
    assert said[-1] == "too noisy: stopped after round 3"
    found = measure_here([Variant("a", "")], Pace(rounds=8, seconds=0), said.append)
    assert len(found["a"]["rounds"]) == 8


def test_summary_is_of_medians():
    found = summary([100.0, 104.0, 900.0, 98.0, 102.0])
    assert (found["images_per_sec"], found["low"], found["high"]) == (102, 98, 900)
    assert found["spread"] == pytest.approx(1.4826 * 2)  # deviations 2, 2, 798, 4, 0
    assert found["rounds"] == [100, 104, 900, 98, 102]


# ----------------------------------------------------------------------------------- children and their turns

FAKES = '''
import os, signal, subprocess, sys, time
from flowerfast.errors import UserError

def steady(log, name, images=3):
    """Endless epochs of four batches; notes each one it makes."""
    print("libraries print things")
    while True:
        yield epoch(log, name, images)

def epoch(log, name, images):
    for _ in range(4):
        with open(log, "a") as file:
            file.write(name + "\\n")
        yield None, range(images)

def wavering(pauses):
    """Warms up, then epochs of one batch that take so many seconds each."""
    yield [(None, [0])] * 2
    for pause in pauses * 100:
        yield waver(pause)

def waver(pause):
    time.sleep(pause)
    yield None, [0]

def late(act):
    """Warms up as it should, then acts."""
    yield [(None, [0])] * 2
    yield [(None, [0])]
    act()

def starve():
    return late(lambda: os.kill(os.getpid(), signal.SIGKILL))

def crash():
    return late(lambda: os.kill(os.getpid(), signal.SIGSEGV))

def leave():
    def act():
        print("the last word", file=sys.stderr, flush=True)
        os._exit(3)
    return late(act)

def hang(log):
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(log, "w") as file:
        file.write(f"{os.getpid()} {worker.pid}")
    return late(lambda: time.sleep(600))

def fail():
    raise RuntimeError("broken\\nin two lines")

def refuse():
    raise UserError("not on this machine")

def double(number):
    return {"doubled": 2 * number}
'''


@pytest.fixture
def fakes(tmp_path, monkeypatch) -> Callable[..., Variant]:
    """Function (function, **options) → variant of that name, in a module that children can import."""
    (tmp_path / "fake_variants.py").write_text(FAKES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda function, **options: Variant(function, f"fake_variants:{function}", options)


def steady(name: str, log: Path) -> Variant:
    """A variant that does as it should."""
    return Variant(name, "fake_variants:steady", {"log": str(log), "name": name})


def test_variants_take_turns_and_only_one_works_at_a_time(fakes, tmp_path):
    log = tmp_path / "log"
    names = ("a", "b", "c")
    found = measure([steady(name, log) for name in names], QUICK)
    drawn = log.read_text().split()
    warm_up, in_rounds = drawn[: 5 * len(names)], drawn[5 * len(names) :]  # an epoch of 4, and one batch
    assert sorted(warm_up) == sorted([*names] * 5)
    blocks = [name for name, before in _with_previous(in_rounds) if name != before]
    assert blocks == [*names] * QUICK.rounds
    assert [*found] == [*names]
    for row in found.values():
        assert len(row["rounds"]) == QUICK.rounds
        assert row["images_per_sec"] == sorted(row["rounds"])[1]


def _with_previous(words: list[str]) -> Iterator[tuple[str, str | None]]:
    return zip(words, [None, *words], strict=False)


@pytest.mark.parametrize(
    ("function", "error", "skipped"),
    [
        ("crash", "killed by SIGSEGV", False),
        ("starve", "killed by SIGKILL, perhaps for want of memory", False),
        ("leave", "ended with exit code 3: the last word", False),
        ("fail", "RuntimeError: broken", False),
        ("refuse", "not on this machine", True),
        ("nothing", "AttributeError: module 'fake_variants' has no attribute 'nothing'", False),
    ],
)
def test_a_child_that_fails_becomes_a_row(fakes, tmp_path, function, error, skipped):
    said: list[str] = []
    found = measure([fakes(function), steady("good", tmp_path / "log")], QUICK, said.append)
    assert found[function] == {"error": error, "skipped": skipped}
    assert len(found["good"]["rounds"]) == QUICK.rounds
    assert any(function in line and error in line for line in said)


def test_a_child_that_hangs_is_cut_off_with_its_workers(fakes, tmp_path):
    log = tmp_path / "pids"
    found = measure([fakes("hang", log=str(log))], Pace(1, 0, open_limit=60, round_limit=0.3))
    assert found["hang"]["error"].startswith("no answer within 0.3 s")
    until = time.monotonic() + 10
    while any(map(_alive, map(int, log.read_text().split()))):
        assert time.monotonic() < until, "it or its worker still runs"
        time.sleep(0.02)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")  # ended, but not waited for by anyone, is dead too
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_child_that_never_starts_is_cut_off(fakes, tmp_path):
    found = measure([fakes("hang", log=str(tmp_path / "pids"))], Pace(1, 0, open_limit=0.01))
    assert "no answer within 0.01 s" in found["hang"]["error"]


def test_a_function_is_called_in_a_process_of_its_own(fakes):
    with Child(fakes("double", number=21), {}) as child:
        assert child.call(60) == {"doubled": 42}


@pytest.mark.parametrize(("function", "error"), [("refuse", "not on this machine"), ("fail", "broken")])
def test_a_function_that_fails_says_why(fakes, function, error):
    with Child(fakes(function), {}) as child, pytest.raises(ChildFailed, match=error) as caught:
        child.call(60)
    assert caught.value.skipped == (function == "refuse")


# --------------------------------------------------------------------------------------------- CPU and memory


def test_a_noisy_run_is_stopped(fakes):
    variant, said = fakes("wavering", pauses=[0.01, 0.01, 0.01, 0.01, 0.04, 0.12, 0.36]), []
    pace = Pace(rounds=8, seconds=0, stop_at=0.5, open_limit=60, round_limit=30)
    (row,) = measure([variant], pace, said.append).values()
    assert 3 <= len(row["rounds"]) < 8
    assert said[-1].startswith("too noisy: stopped after round")


@linux
def test_use_of_a_session_is_counted(fakes, tmp_path):
    row: Row = measure([steady("a", tmp_path / "log")], QUICK)["a"]
    assert row["memory_bytes"] > 1e6
    assert 0 <= row["cpu_cores"] <= (os.cpu_count() or 1) + 0.5
    assert row["idle_cores"] == 0
    assert row["foreign_cores"] >= 0


@linux
def test_memory_is_that_of_the_session():
    child = subprocess.Popen(
        [sys.executable, "-c", "x = b'1' * (64 << 20); print(1, flush=True); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 64 << 20 <= (memory_bytes(child.pid) or 0) < 128 << 20
        assert cpu_seconds()[child.pid] >= 0
        child.kill()
