"""Batches under load: does a slow, fast, late or foreign consumer see the pixels of the quiet run?"""

import time
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.acceptance.checksums import by_sample, checksums, differing, of_pixels
from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Kind, Place
from flowerfast.data.plan import Plan
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.sampling import Sampler
from flowerfast.parity import Executor

Sums = list[tuple[torch.Tensor, torch.Tensor]]
Consumer = Callable[[Iterator[Batch]], Sums]
_TICKS = 20_000_000  # of the GPU's clock: some 10 ms, longer than a batch takes to make
_PAUSE = 0.01  # seconds, the same on a CPU
_HELD = 3  # batches that the late consumer keeps; more than DALI's queue is deep


def stream_order(place: Place, kind: Kind) -> Outcome:
    """Checksums of whole epochs under each consumer, compared with plans executed one by one at rest."""
    manifest = place.manifest("small")
    loader, sampler = place.open(manifest, kind), Sampler(manifest, np.arange(len(manifest)), place.recipe())
    expected = [quiet(loader, sampler, epoch) for epoch in range(place.sizes.passes)]
    consumers: dict[str, Consumer] = {"fast": fast, "slow": slow, "late": late}
    if place.cuda:
        consumers["on another stream"] = elsewhere
    wrong = {}
    for name, consume in consumers.items():
        drawn = [by_sample(consume(loader.epoch(epoch))) for epoch in range(place.sizes.passes)]
        pairs = zip(drawn, expected, strict=True)
        wrong[name] = sum(differing(found, wanted) for found, wanted in pairs)
    loader.close()
    pictures = sum(len(each) for each in expected)
    distinct = len({one for each in expected for one in each.values()})
    detail = ", ".join(f"{name} {count}" for name, count in wrong.items())
    if distinct < pictures // 2:
        detail += f"; only {distinct} of {pictures} pictures are distinct, too few to tell"
    holds = not any(wrong.values()) and distinct >= pictures // 2
    total = sum(wrong.values())
    return Outcome(
        holds, total, "0 pictures differ from the quiet run", f"{detail} of {pictures}", place.unseen(kind)
    )


def quiet(loader: Executor, sampler: Sampler, epoch: int) -> dict[int, int]:
    """Each batch by itself with nothing else under way, its pixels copied to the host at once."""
    found: dict[int, int] = {}
    for plan in sampler.plans(epoch):
        assert isinstance(plan, Plan)
        sums = of_pixels(loader.execute(plan)).tolist()
        found |= dict(zip(plan.indices.tolist(), sums, strict=True))
    return found


def fast(batches: Iterator[Batch]) -> Sums:
    """Takes a batch and lets it go, as fast as they come; the host never waits for the GPU."""
    return _read([(batch.indices, checksums(batch.images)) for batch in batches])


def slow(batches: Iterator[Batch]) -> Sums:
    """Reads each batch after a pause, in which the loader fills its queues. On a GPU the device pauses."""
    found = []
    for batch in batches:
        if batch.images.is_cuda:
            torch.cuda._sleep(_TICKS)
        else:
            time.sleep(_PAUSE)
        found.append((batch.indices, checksums(batch.images)))
        del batch
    return _read(found)


def late(batches: Iterator[Batch]) -> Sums:
    """Keeps batches and reads them only when others have been drawn after them."""
    found: Sums = []
    held: deque[Batch] = deque()
    for batch in batches:
        held.append(batch)
        if len(held) > _HELD:
            _take(held, found)
    while held:
        _take(held, found)
    return _read(found)


def elsewhere(batches: Iterator[Batch]) -> Sums:
    """The slow consumer in a stream that is not the default one."""
    with torch.cuda.stream(torch.cuda.Stream()):
        return slow(batches)


def _take(held: "deque[Batch]", found: Sums) -> None:
    batch = held.popleft()
    found.append((batch.indices, checksums(batch.images)))


def _read(found: Sums) -> Sums:
    return [(indices, sums.cpu()) for indices, sums in found]
