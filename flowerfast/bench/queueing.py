"""Loader and training as queues: from what a photo costs to images/s. docs/what-if.md describes the model.

Photos are the work and cores serve it: a core that makes a photo computes for `parallel` milliseconds and
needs the interpreter's lock for `locked`, one core of a process at a time. That is a closed queueing network
with one queue (the lock) and a delay (everything else), solved by exact mean value analysis. Each GPU has a
process, and so a lock, of its own. What cores share besides costs a fixed fraction at each doubling. Training
is a tandem of two stations, loader and model, with a buffer of a few batches between them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

UNKNOWN = 0.10
"""Loss for each doubling beyond the cores measured that the lower end of an interval allows for: what cores
share (memory bandwidth, clock, two threads on one core) cannot be seen with fewer of them."""


@dataclass(frozen=True)
class Cost:
    """What a photo costs a core, in milliseconds.

    Attributes:
        parallel: outside the interpreter's lock.
        locked: holding it.
        sharing: fraction of the rate lost at each doubling of the cores, beside the wait for the lock.
        spread: standard deviation of the sum, as a fraction of it.
        measured: largest number of cores that was measured.
        origin: what the figures come from.
    """

    parallel: float
    locked: float
    sharing: float
    spread: float
    measured: float
    origin: str

    @property
    def total(self) -> float:
        """Milliseconds of a core per photo when nothing waits."""
        return self.parallel + self.locked


def loader_rates(cost: Cost, cores: int, gpus: int) -> tuple[float, tuple[float, float]]:
    """Images/s of all processes together, and (low, high).

    Low: all cores of a process ask for the lock at once each time (Amdahl's law), and each doubling beyond
    the cores measured loses `UNKNOWN`. High: no core ever meets another at the lock, and beyond the cores
    measured nothing else is shared. Both are widened by two spreads of the measurement.
    """
    each, seen = cores / gpus, min(cores, cost.measured)
    middle = gpus * core_rate(cost, each) * kept(cost.sharing, cores)
    meeting = gpus * _between(lambda n: 1000 * n / (cost.total + (n - 1) * cost.locked), each)
    beyond = kept(UNKNOWN, cores / cost.measured)
    low = min(meeting * kept(cost.sharing, cores) * beyond, middle)
    high = max(gpus * _unqueued(cost, each) * kept(cost.sharing, seen), middle)
    return middle, (low * max(1 - 2 * cost.spread, 0.0), high * (1 + 2 * cost.spread))


def kept(loss: float, times: float) -> float:
    """What is left of a rate when each doubling loses a fraction of it, on so many times the cores."""
    return float((1 - loss) ** max(math.log2(times), 0.0))


def core_rate(cost: Cost, cores: float) -> float:
    """Images/s of one process on so many cores that share nothing but the lock."""
    return _between(lambda n: _mva(cost, n), cores)


def _unqueued(cost: Cost, cores: float) -> float:
    unlimited = 1000 * cores / cost.total
    return min(unlimited, 1000 / cost.locked) if cost.locked else unlimited


def _between(curve: Callable[[int], float], cores: float) -> float:
    """A curve over whole numbers of cores at any number: straight between them, and from zero to one."""
    below = int(cores)
    low = curve(below) if below else 0.0
    return low + (cores - below) * (curve(below + 1) - low) if cores > below else low


def _mva(cost: Cost, cores: int) -> float:
    """Reiser and Lavenberg's recursion: a core that comes to the lock finds the queue of one core fewer."""
    queue, rate = 0.0, 0.0
    for number in range(1, cores + 1):
        response = cost.locked * (1 + queue)
        rate = number / (cost.parallel + response)
        queue = rate * response
    return 1000 * rate


# -------------------------------------------------------------------------------------------------- training


def through(loader: float, model: float, prefetch: int, noise: float) -> float:
    """Images/s of loader and model in a row, with room for `prefetch` batches between them.

    With exponential times the model is an M/M/1/K queue of K = prefetch + 1 batches, one in work: it runs at
    model * (1 - r**K) / (1 - r**(K + 1)) with r = loader / model. For other times K is divided by half of
    `noise`, the sum of both squared coefficients of variation of a batch's time: 2 is exponential; 0 is
    deterministic and gives the smaller rate.
    """
    if min(loader, model) <= 0:
        return 0.0
    if noise <= 0:
        return min(loader, model)
    room, slope = (prefetch + 1) / (noise / 2), math.log(loader / model)
    if abs(slope) * (room + 1) < 1e-6:
        return model * room / (room + 1)
    # With the smaller one's powers, which are at most 1: those of the larger one overflow.
    power = math.exp(-abs(slope))
    return float(min(loader, model) * (1 - power**room) / (1 - power ** (room + 1)))
