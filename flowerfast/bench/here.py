"""The measuring core without processes of its own: quick, and blind to what memory each variant takes."""

import statistics
import time
from collections.abc import Callable, Sequence

from flowerfast.bench.child import Variant
from flowerfast.bench.measure import Pace, Row, summary
from flowerfast.bench.rounds import Round, Rounds
from flowerfast.bench.worker import open_source
from flowerfast.errors import UserError


def measure_here(
    variants: Sequence[Variant], pace: Pace, say: Callable[[str], None] = lambda _: None
) -> dict[str, Row]:
    """As `measure.measure`, all in this process: rows do not say what memory and other processes took."""
    rows: dict[str, Row] = {}
    opened: dict[str, tuple[Rounds, float]] = {}
    found: dict[str, list[tuple[Round, float]]] = {variant.name: [] for variant in variants}
    try:
        for variant in variants:
            try:
                rounds = Rounds(open_source(variant.target, variant.options))
                opened[variant.name] = rounds, rounds.warm_up()
            except UserError as error:
                rows[variant.name] = {"error": str(error), "skipped": True}
        for number in range(pace.rounds):
            say(f"round {number + 1} of {pace.rounds}")
            for name, (rounds, _) in opened.items():
                _settle()
                cpu, started = time.process_time(), time.perf_counter()
                drawn = rounds.run(pace.seconds)
                busy = (time.process_time() - cpu) / (time.perf_counter() - started)
                found[name].append((drawn, busy))
            if pace.is_hopeless([_rates(each) for each in found.values()]):
                say(f"too noisy: stopped after round {number + 1}")
                break
    finally:
        for rounds, _ in opened.values():
            rounds.close()
    for name, (_, warm_up) in opened.items():
        rows[name] = _row(found[name], warm_up)
    return {variant.name: rows[variant.name] for variant in variants}


def _settle(limit: float = 2.0, pause: float = 0.03) -> None:
    """Wait until queues are full and this process rests, at most `limit` seconds."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        before = time.process_time()
        time.sleep(pause)
        if time.process_time() - before < 0.1 * pause:
            return


def _rates(found: list[tuple[Round, float]]) -> list[float]:
    return [drawn.images / drawn.seconds for drawn, _ in found]


def _row(found: list[tuple[Round, float]], warm_up: float) -> Row:
    drawn = [each for each, _ in found]
    return {
        **summary(_rates(found)),
        "warm_up_seconds": warm_up,
        "cpu_cores": statistics.median(busy for _, busy in found),
        "idle_cores": None,
        "foreign_cores": None,
        "memory_bytes": None,
        "counters": {
            key: statistics.median(each.counters[key] / each.seconds for each in drawn)
            for key in drawn[0].counters
        },
    }
