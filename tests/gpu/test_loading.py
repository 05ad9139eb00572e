"""Batches under way: in the order of the stream, each sample once, nobody harmed by a bad file, no leak."""

import gc
import itertools
import json
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from flowerfast.errors import UserError
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.loader import Loader
from flowerfast.photos.photos import Photos
from tests.gpu.compare import Sums, by_sample, checksums, differing, draw, growth, of_pixels
from tests.gpu.place import Kind, Place, open_photos
from tests.gpu.processes import CODES, LEAVE, SOON, judge, run_to_end

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]
Opened = Callable[..., Loader]
FolderOf = Callable[[str], Path]
Read = list[tuple[torch.Tensor, torch.Tensor]]
_TICKS = 20_000_000  # of the GPU's clock: some 10 ms, longer than a batch takes to make
_PAUSE = 0.01  # seconds, the same on a CPU
_HELD = 3  # batches that the late consumer keeps; more than DALI's queue is deep
_EPOCHS = 2
_KINDS = ["gpu", "cpu", "cache", "copied"]


# ------------------------------------------------------------------------------------------- stream order


def fast(batches: Iterator[Batch]) -> Read:
    """Takes a batch and lets it go, as fast as they come; the host never waits for the GPU."""
    return [(batch.indices, checksums(batch.images)) for batch in batches]


def slow(batches: Iterator[Batch]) -> Read:
    """Reads each batch after a pause, in which the loader fills its queues. On a GPU the device pauses."""
    found: Read = []
    for batch in batches:
        if batch.images.is_cuda:
            torch.cuda._sleep(_TICKS)
        else:
            time.sleep(_PAUSE)
        found.append((batch.indices, checksums(batch.images)))
        del batch
    return found


def late(batches: Iterator[Batch]) -> Read:
    """Keeps batches and reads them only when others have been drawn after them."""
    found: Read = []
    held: deque[Batch] = deque()
    for batch in batches:
        held.append(batch)
        if len(held) > _HELD:
            found += fast(iter([held.popleft()]))
    return found + fast(iter(held))


def elsewhere(batches: Iterator[Batch]) -> Read:
    """The slow consumer in a stream that is not the default one."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found = slow(batches)
    stream.synchronize()  # whoever reads the sums is in the default one again
    return found


def quiet(loader: Loader, epoch: int) -> Sums:
    """Each batch by itself with nothing else under way, its pixels copied to the host at once."""
    found: Sums = {}
    for plan in loader.plan_sampler.plans(epoch):
        found |= dict(zip(plan.indices.tolist(), of_pixels(loader.execute(plan)).tolist(), strict=True))
    return found


@pytest.mark.parametrize("kind", _KINDS, indirect=True)
def test_no_consumer_sees_other_pixels_than_at_rest(place: Place, opened: Opened, kind: Kind):
    """A picture that differs was overwritten too early, or read before it was ready."""
    loader, passes = opened("small", kind), range(place.sizes.passes)
    expected = [quiet(loader, epoch) for epoch in passes]
    pictures, distinct = sum(map(len, expected)), len({one for sums in expected for one in sums.values()})
    assert distinct >= pictures // 2, f"only {distinct} of {pictures} pictures are distinct, too few to tell"
    wrong = {}
    for consume in (fast, slow, late, elsewhere) if place.cuda else (fast, slow, late):
        drawn = [by_sample(consume(loader.epoch(epoch))) for epoch in passes]
        wrong[consume.__name__] = sum(map(differing, drawn, expected))
    assert not any(wrong.values()), f"of {pictures} pictures differ, by consumer: {wrong}"


# ------------------------------------------------------------------------------------------ every sample


def test_every_sample_comes_once_in_order_with_its_label(place: Place, opened: Opened, kind: Kind):
    """In batch sizes that divide nothing, as planned."""
    count = place.sizes.pictures
    for size in sorted({7, place.sizes.batch_size + 1, count - 1, count + 3}):
        loader = opened("small", kind, size)
        for epoch in range(_EPOCHS):
            planned = [plan.indices.tolist() for plan in loader.plan_sampler.plans(epoch)]
            batches = [(batch.indices, batch.labels.cpu()) for batch in loader.epoch(epoch)]
            assert [indices.tolist() for indices, _ in batches] == planned, f"batches of {size}"
            assert sorted(itertools.chain(*planned)) == list(range(count))
            for indices, labels in batches:
                assert labels.tolist() == loader.photos.table.label[indices.numpy()].tolist()
        loader.close()


def damage(photos: Photos) -> tuple[set[int], set[int]]:
    """Spoil photos of a folder after its scan: indices of those no one can decode, and of doubtful ones.

    Of the doubtful the header and the end are well and the middle is not: decoders may give up or go on.
    """
    step, header = max(len(photos) // 7, 1), 700  # bytes that surely hold more than its first half
    gone, cut, text, empty, stray, zeros = (photos.root / photos.path(step * i) for i in range(6))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    text.write_text("no photo", encoding="utf-8")
    empty.write_bytes(b"")
    whole = stray.read_bytes()
    stray.write_bytes(whole[: len(whole) // 2] + whole[-12:])
    whole = zeros.read_bytes()
    zeros.write_bytes(whole[:header] + bytes(len(whole) - header - 2) + whole[-2:])
    return {step * i for i in range(4)}, {step * i for i in range(4, 6)}


# Which photos of a batch the hardware decoder takes may go by their place in it, which a missing one changes:
# all or none, so that pixels can be compared exactly.
@pytest.mark.parametrize(("kind", "load"), [("gpu", 0.0), ("gpu", 1.0), ("cpu", 0.65), ("cache", 0.65)])
def test_bad_files_cost_themselves_and_nobody_else(
    opened: Opened, folder_of: FolderOf, tmp_path: Path, kind: Kind, load: float
):
    shutil.copytree(folder_of("small"), tmp_path / "photos")
    photos, strict = open_photos(tmp_path / "photos"), open_photos(tmp_path / "photos", on_bad="fail")
    whole = opened(photos, kind, hw_decoder_load=load)
    expected = [draw(whole.epoch(epoch)) for epoch in range(_EPOCHS)]
    hopeless, doubtful = damage(photos)
    loader = opened(photos, kind, hw_decoder_load=load)
    found = [draw(loader.epoch(epoch)) for epoch in range(_EPOCHS)]
    came = [photos.path(index) for index in hopeless if any(index in sums for sums in found)]
    assert not came, "damaged, but not left out"
    assert hopeless <= photos.bad_indices, "left out, but not named"
    for mine, theirs in zip(found, expected, strict=True):
        others = theirs.keys() - hopeless - doubtful
        wrong = differing(*({index: sums.get(index, -1) for index in others} for sums in (mine, theirs)))
        assert wrong == 0, f"{wrong} of {len(others)} other pictures changed or lost"
    with pytest.raises(UserError):
        list(opened(strict, kind).epoch(0))


# -------------------------------------------------------------------------------------------------- memory


def held(place: Place) -> dict[str, float]:
    """MiB that this process alone asked for (heap, buffers), and all that is taken of the GPU."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    # Some kernels give only the whole resident memory, with pages of libraries.
    host = lines["RssAnon"] if "RssAnon" in lines else lines["VmRSS"]
    found = {"host": int(host.split()[0]) / 1024}
    if place.cuda:
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        found["device"] = (total - free) / (1 << 20)
    return found


@pytest.mark.parametrize("kind", _KINDS, indirect=True)
def test_memory_stays_flat(place: Place, opened: Opened, kind: Kind):
    """Between the second quarter of the epochs and the last it grows by no more than some lost batches."""
    gc.collect()  # of earlier tests
    loader, taken = opened("small", kind), []
    for epoch in range(place.sizes.memory_epochs):
        for batch in loader.epoch(epoch):
            del batch
        taken.append(held(place))
    grown = {name: round(growth([each[name] for each in taken]), 1) for name in taken[0]}
    assert max(grown.values()) <= place.sizes.growth_mib, f"MiB in {len(taken)} epochs: {grown}"


# ------------------------------------------------------------------------------------------- end of process


def test_processes_end_cleanly_in_mid_epoch(place: Place, folder_of: FolderOf, kind: Kind):
    """Early break, exception and Ctrl-C with the loader left open: exit code, silence, and soon."""
    if kind == "cpu" and not place.cuda:
        pytest.skip("one process is enough for a rehearsal: starting them takes longest of all")
    endings = [*CODES] if place.cuda else ["ctrl-c"]
    settings = json.dumps(place.settings(kind))
    command = [sys.executable, "-c", LEAVE, str(folder_of("small")), settings]

    def end(ending: str) -> str:
        interrupt = ending == "ctrl-c"
        return judge(ending, run_to_end([*command, ending], SOON, wait=True, interrupt=interrupt))

    with ThreadPoolExecutor(len(endings)) as pool:
        problems = dict(zip(endings, pool.map(end, endings), strict=True))
    assert not any(problems.values()), problems
