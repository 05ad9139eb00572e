"""The measuring core: variants take turns, round by round, each in a process of its own.

Every variant is started, draws a whole epoch and then waits (two at a time do so: some compile for half a
minute on one core); only then do the rounds begin, one variant at a time. Machines drift (heat, neighbours,
page cache): taking turns lets all variants drift alike. Figures are medians of the rounds.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from flowerfast.bench.child import Child, ChildFailed, Variant
from flowerfast.bench.result import Row, relative_spread, summary
from flowerfast.bench.rounds import Round, Rounds
from flowerfast.bench.usage import cpu_seconds, gpu_use
from flowerfast.bench.worker import open_source
from flowerfast.errors import UserError

_LEAST = 3  # rounds before a spread says anything
Say = Callable[[str], None]
"""Told how it goes, a line at a time."""


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
    """A variant under way, and what has been measured of it so far."""

    def __init__(self, variant: Variant) -> None:
        self.variant, self.name = variant, variant.name
        self.failure: ChildFailed | None = None
        self.warm_up = 0.0
        self.rounds: list[Round] = []
        self.busy: list[float] = []

    @property
    def rates(self) -> list[float]:
        return [each.images / each.seconds for each in self.rounds]

    def row(self) -> Row:
        if self.failure is not None:
            return {"error": str(self.failure), "skipped": self.failure.skipped}
        per_second = [{k: v / each.seconds for k, v in each.counters.items()} for each in self.rounds]
        counters = {key: statistics.median(each[key] for each in per_second) for key in per_second[0]}
        return {**summary(self.rates), "warm_up_seconds": self.warm_up, **self.use(), "counters": counters}

    def use(self) -> Row:
        """What it takes of the machine."""
        unknown = dict.fromkeys(("idle_cores", "foreign_cores", "memory_bytes"))
        return {"cpu_cores": statistics.median(self.busy), **unknown}


class _Apart(_Runner):
    """A variant in a process of its own; `everyone` holds all that are measured together."""

    def __init__(self, variant: Variant, environment: Mapping[str, str], everyone: "list[_Apart]") -> None:
        super().__init__(variant)
        self.child: Child | None = None
        self._environment, self._everyone = environment, everyone
        self._foreign: list[float] = []
        self._idle_cpu = self._idle_seconds = 0.0
        self._gpu_memory: int | None = None
        self._gpu_shares: list[float] = []

    def open(self, pace: Pace) -> None:
        before = gpu_use() if pace.gpu else None
        self.child = Child(self.variant, self._environment)
        self.warm_up = self.child.open(pace.open_limit)
        after = gpu_use() if before else None
        if before and after:
            self._gpu_memory = max(after[0] - before[0], 0)

    def run(self, pace: Pace) -> None:
        assert self.child is not None
        before, started = cpu_seconds(), time.monotonic()
        self.rounds.append(self.child.round(pace.seconds, pace.round_limit))
        after, taken = cpu_seconds(), time.monotonic() - started
        gpu = gpu_use() if pace.gpu else None
        self._gpu_shares += [] if gpu is None else [gpu[1]]
        spent = {session: max(after[session] - before.get(session, 0.0), 0.0) for session in after}
        self.busy.append(spent.pop(self.child.session, 0.0) / taken)
        for other in self._everyone:
            if other.child is not None and other is not self:
                other._idle_cpu += spent.pop(other.child.session, 0.0)
                other._idle_seconds += taken
        self._foreign.append(sum(spent.values()) / taken)
        self.child.look_at_memory()

    def rest(self) -> None:
        if self.child is not None:
            session = self.child.session
            # A tick of the clock is 0.01 s.
            _wait(lambda: cpu_seconds().get(session, 0.0), limit=3.0, pause=0.06, little=0.015)

    def close(self) -> None:
        if self.child is not None:
            self.child.close()
        self.child = None

    def use(self) -> Row:
        known = bool(cpu_seconds())
        return {
            "cpu_cores": statistics.median(self.busy) if known else None,
            "idle_cores": self._idle_cpu / max(self._idle_seconds, 1e-9) if known else None,
            "foreign_cores": statistics.median(self._foreign) if known else None,
            "memory_bytes": self.child.memory if self.child is not None else None,
            "gpu_memory_bytes": self._gpu_memory,
            "gpu_share": statistics.median(self._gpu_shares) if self._gpu_shares else None,
        }


class _Here(_Runner):
    """A variant in this process."""

    _drawing: Rounds | None = None

    def open(self, _: Pace) -> None:
        with _skipped():
            self._drawing = Rounds(open_source(self.variant.target, self.variant.options))
            self.warm_up = self._drawing.warm_up()

    def run(self, pace: Pace) -> None:
        assert self._drawing is not None
        cpu, started = time.process_time(), time.perf_counter()
        with _skipped():
            self.rounds.append(self._drawing.run(pace.seconds))
        self.busy.append((time.process_time() - cpu) / (time.perf_counter() - started))

    def rest(self) -> None:
        _wait(time.process_time, limit=2.0, pause=0.03, little=0.003)

    def close(self) -> None:
        if self._drawing is not None:
            self._drawing.close()
        self._drawing = None


def measure(
    variants: Sequence[Variant],
    pace: Pace,
    say: Say = lambda _: None,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Row]:
    """Measure all variants in turns: a row for each, in their order.

    Args:
        variants: names must differ.
        pace: how much, and time limits.
        say: told how it goes.
        environment: variables to set for the children, beside this process's own.
    """
    everyone: list[_Apart] = []
    everyone += [_Apart(variant, environment or {}, everyone) for variant in variants]
    return _take_turns(everyone, pace, say, pace.openers)


def measure_here(variants: Sequence[Variant], pace: Pace, say: Say = lambda _: None) -> dict[str, Row]:
    """The same, all in this process: quick, and rows do not say what memory and other processes took."""
    return _take_turns([_Here(variant) for variant in variants], pace, say, openers=1)


def _take_turns(runners: Sequence[_Apart | _Here], pace: Pace, say: Say, openers: int) -> dict[str, Row]:
    with ExitStack() as stack:
        for runner in runners:
            stack.callback(runner.close)
        _open_all(runners, pace, say, openers)
        for number in range(pace.rounds):
            say(f"round {number + 1} of {pace.rounds}")
            for runner in runners:
                if runner.failure is None:
                    _or_fail(runner, runner.run, pace, say)
                    runner.rest()
            if pace.is_hopeless(runner.rates for runner in runners if runner.failure is None):
                say(f"too noisy: stopped after round {number + 1}")
                break
        return {runner.name: runner.row() for runner in runners}


def _open_all(runners: Sequence[_Apart | _Here], pace: Pace, say: Say, openers: int) -> None:
    if openers == 1:  # on this very thread
        for runner in runners:
            _open(runner, pace, say)
    else:
        pool = ThreadPoolExecutor(openers)
        try:
            for opened in [pool.submit(_open, runner, pace, say) for runner in runners]:
                opened.result()
        except BaseException:  # Ctrl-C: those under way end with their children, the others never start
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
    for runner in runners:
        runner.rest()


def _open(runner: _Apart | _Here, pace: Pace, say: Say) -> None:
    started = time.monotonic()
    _or_fail(runner, runner.open, pace, say)
    if runner.failure is None:
        say(f"{runner.name}: ready after {time.monotonic() - started:.1f} s")


def _or_fail(runner: _Apart | _Here, work: Callable[[Pace], None], pace: Pace, say: Say) -> None:
    """Open or run; one that fails is ended, and its row says why."""
    try:
        work(pace)
    except ChildFailed as error:
        say(f"{runner.name}: {'skipped' if error.skipped else 'failed'}: {error}")
        runner.failure = error
        runner.close()


@contextmanager
def _skipped() -> Iterator[None]:
    """What says itself that it cannot run is skipped; any other exception ends the whole measurement."""
    try:
        yield
    except UserError as error:
        raise ChildFailed(str(error), skipped=True) from error


def _wait(used: Callable[[], float], limit: float, pause: float, little: float) -> None:
    """Wait until less than `little` CPU time is used in a pause, at most `limit` seconds; `used`: so far."""
    until, before = time.monotonic() + limit, float("-inf")
    while time.monotonic() < until:
        now = used()
        if now - before < little:
            return
        before = now
        time.sleep(pause)
