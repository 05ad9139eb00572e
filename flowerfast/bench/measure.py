"""The measuring core: variants take turns, round by round, each in a process of its own.

Every variant is started, draws a whole epoch and then waits (two at a time do so: some compile for half a
minute on one core); only then do the rounds begin, one variant at a time. Machines drift (heat, neighbours,
page cache): taking turns lets all variants drift alike. Figures are medians of the rounds.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from flowerfast.bench.child import Child, ChildFailed, Variant
from flowerfast.bench.usage import cpu_seconds, gpu_use

_LEAST = 3  # rounds before a spread says anything
Row = dict[str, Any]
"""Figures of a variant as they stand in the results file.

images_per_sec, low, high: median, lowest and highest round; spread: median absolute deviation times 1.4826,
the standard deviation of a normal distribution with that; rounds: all of them; warm_up_seconds: its first
epoch, while another variant may have been starting. cpu_cores: median of the cores kept busy in a round;
idle_cores: cores it kept busy while others were measured; foreign_cores: median of the cores that processes
outside the measurement kept busy in its rounds; memory_bytes: most memory seen that no file backs, workers
included (these four are null where /proc does not say). gpu_memory_bytes: how much more of the GPU's memory
was taken once it had warmed up; gpu_share: median share of the time in which the GPU worked (null without
one). counters: medians, per second of a round. A variant without figures has `error` instead, one line, and
`skipped`: true when it said itself that it cannot run.
"""


@dataclass(frozen=True)
class Pace:
    """How much is measured.

    Attributes:
        rounds: rounds of each variant.
        seconds: least length of a round.
        open_limit: seconds for starting, preparing files and the warm-up epoch; then the child is ended.
        round_limit: seconds for a round's answer.
        openers: variants that start at the same time; with `gpu` one, to tell their memory apart.
        gpu: ask NVML for the GPU's memory and use.
        stop_at: from the third round on, no more are measured once the typical spread (the median over the
            variants) is this share of the figure or more; None: all rounds are measured, however noisy.
    """

    rounds: int = 5
    seconds: float = 2.0
    open_limit: float = 600.0
    round_limit: float = 120.0
    openers: int = 2
    gpu: bool = False
    stop_at: float | None = None

    def is_hopeless(self, rates: Iterable[Sequence[float]]) -> bool:
        """Whether to stop, by each variant's rounds so far in images/s."""
        spreads = [relative_spread(summary(each)) for each in rates if len(each) >= _LEAST]
        return self.stop_at is not None and bool(spreads) and statistics.median(spreads) >= self.stop_at


class _Runner:
    """A variant under way: its child, and what has been found so far."""

    def __init__(self, variant: Variant, environment: Mapping[str, str]) -> None:
        self.name = variant.name
        self.child: Child | None = None
        self._new = lambda: Child(variant, environment)
        self.warm_up = 0.0
        self.rates: list[float] = []
        self.busy: list[float] = []
        self.foreign: list[float] = []
        self.counters: list[dict[str, float]] = []
        self.gpu_memory: int | None = None
        self.gpu_shares: list[float] = []
        self.idle_cpu = self.idle_seconds = 0.0
        self.failure: ChildFailed | None = None

    def start(self) -> Child:
        self.child = self._new()
        return self.child

    def close(self) -> None:
        if self.child is not None:
            self.child.close()
        self.child = None

    def fail(self, error: ChildFailed) -> None:
        self.failure = error
        self.close()

    def row(self, memory: int | None, known: bool) -> Row:
        if self.failure is not None:
            return {"error": str(self.failure), "skipped": self.failure.skipped}
        keys = self.counters[0] if self.counters else {}
        idle = self.idle_cpu / self.idle_seconds if self.idle_seconds else 0.0
        return {
            **summary(self.rates),
            "warm_up_seconds": self.warm_up,
            "cpu_cores": statistics.median(self.busy) if known else None,
            "idle_cores": idle if known else None,
            "foreign_cores": statistics.median(self.foreign) if known else None,
            "memory_bytes": memory,
            "gpu_memory_bytes": self.gpu_memory,
            "gpu_share": statistics.median(self.gpu_shares) if self.gpu_shares else None,
            "counters": {key: statistics.median(c[key] for c in self.counters) for key in keys},
        }


def summary(rates: Sequence[float]) -> Row:
    """Median, lowest, highest, robust spread and list of the rounds, in images/s."""
    middle = statistics.median(rates)
    return {
        "images_per_sec": middle,
        "low": min(rates),
        "high": max(rates),
        "spread": 1.4826 * statistics.median(abs(rate - middle) for rate in rates),
        "rounds": list(rates),
    }


def relative_spread(row: Row) -> float:
    """A row's spread as a share of its figure."""
    return float(row["spread"] / row["images_per_sec"])


def measure(
    variants: Sequence[Variant],
    pace: Pace,
    say: Callable[[str], None] = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Row]:
    """Measure all variants in turns: a row for each, in their order.

    Args:
        variants: names must differ.
        pace: how much, and time limits.
        say: told how it goes, a line at a time.
        environment: variables to set for the children, beside this process's own.
    """
    with ExitStack() as stack:
        runners = [_Runner(variant, environment or {}) for variant in variants]
        for runner in runners:
            stack.callback(runner.close)
        _open_all(runners, pace, say)
        for number in range(pace.rounds):
            say(f"round {number + 1} of {pace.rounds}")
            for runner in runners:
                if runner.child is not None:
                    _round(runner, runners, pace, say)
            if pace.is_hopeless(runner.rates for runner in runners if runner.child is not None):
                say(f"too noisy: stopped after round {number + 1}")
                break
        known = bool(cpu_seconds())
        return {r.name: r.row(r.child.memory if r.child else None, known) for r in runners}


def _open_all(runners: list[_Runner], pace: Pace, say: Callable[[str], None]) -> None:
    pool = ThreadPoolExecutor(pace.openers)
    try:
        for opened in [pool.submit(_open, runner, pace, say) for runner in runners]:
            opened.result()
    except BaseException:  # Ctrl-C: those under way end with their children, the others never start
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()
    for runner in runners:
        if runner.child is not None:
            _settle(runner.child)


def _open(runner: _Runner, pace: Pace, say: Callable[[str], None]) -> None:
    before = gpu_use() if pace.gpu else None
    child, started = runner.start(), time.monotonic()
    try:
        runner.warm_up = child.open(pace.open_limit)
        after = gpu_use() if before else None
        if before and after:
            runner.gpu_memory = max(after[0] - before[0], 0)
        say(f"{runner.name}: ready after {time.monotonic() - started:.1f} s")
    except ChildFailed as error:
        say(f"{runner.name}: {'skipped' if error.skipped else 'failed'}: {error}")
        runner.fail(error)


def _round(runner: _Runner, all_runners: list[_Runner], pace: Pace, say: Callable[[str], None]) -> None:
    assert runner.child is not None
    before, started = cpu_seconds(), time.monotonic()
    try:
        found = runner.child.round(pace.seconds, pace.round_limit)
    except ChildFailed as error:
        say(f"{runner.name}: failed: {error}")
        runner.fail(error)
        return
    after, taken = cpu_seconds(), time.monotonic() - started
    used_gpu = gpu_use() if pace.gpu else None
    if used_gpu is not None:
        runner.gpu_shares.append(used_gpu[1])
    runner.rates.append(found.images / found.seconds)
    runner.counters.append({key: value / found.seconds for key, value in found.counters.items()})
    spent = {session: max(after[session] - before.get(session, 0.0), 0.0) for session in after}
    for other in all_runners:
        if other.child is None:
            continue
        used = spent.pop(other.child.session, 0.0)
        if other is runner:
            runner.busy.append(used / taken)
        else:
            other.idle_cpu += used
            other.idle_seconds += taken
    runner.foreign.append(sum(spent.values()) / taken)
    runner.child.look_at_memory()
    _settle(runner.child)


def _settle(child: Child, limit: float = 3.0, pause: float = 0.06) -> None:
    """Wait until the child has filled its queues and rests, at most `limit` seconds."""
    until, used = time.monotonic() + limit, -1.0
    while time.monotonic() < until:
        now = cpu_seconds().get(child.session, 0.0)
        if now - used < 0.015:  # a tick of the clock is 0.01 s
            return
        used = now
        time.sleep(pause)
