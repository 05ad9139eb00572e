"""The same pixels: as the reference, at every share of the hardware decoder, and from the cache."""

import shutil
from pathlib import Path

import numpy as np
import torch

from benchmarks.acceptance.checksums import by_sample, checksums, differing
from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Kind, Place, Task
from flowerfast.config import Config
from flowerfast.data.manifest import load_manifest
from flowerfast.loaders import Loader
from flowerfast.parity import BOUNDS, Histogram, compare_backends

_REPEATS = 4
_ODD_EPOCHS = 8  # random plans per odd file, of which there are few


def parity(place: Place, photos: str, kind: Kind) -> Outcome:
    """Step by step and whole, executor under test against the plain torchvision operations."""
    config = Config.model_validate(
        {
            "data": {
                "path": place.sets[photos],
                "backend": place.backend,
                "image_size": place.sizes.image_size,
                **place.data(kind).model_dump(include={"decoder"}),
            },
            "train": {"device": place.device, "batch_size": place.sizes.batch_size},
        }
    )
    epochs = _ODD_EPOCHS if photos == "odd" else 1
    found = compare_backends(config, place.sizes.parity_samples, epochs)
    steps = "; ".join(f"{s.step} {s.mean:.3f}/{s.p99:g}" for s in found.steps)
    whole = next(step for step in found.steps if step.step == BOUNDS.steps[0])
    bound = f"mean ≤ {BOUNDS.mean:g}, p99 ≤ {BOUNDS.p99:g} ({', '.join(BOUNDS.steps)})"
    detail = f"{found.photos} photos, mean/p99: {steps}"
    holds = found.ok and not found.bad
    if found.bad:
        detail = f"{len(found.bad)} bad: {found.bad[0].path}: {found.bad[0].error}; {detail}"
    return Outcome(holds, round(whole.mean, 4), bound, detail, place.unseen(kind))


def decoder_load(place: Place, load: float) -> Outcome:
    """Repeated epochs at one share of the hardware decoder give the same pixels, and those of decoder=cpu.

    The first equality is exact: any photo that differs between two runs counts. The second is parity's.
    """
    sums: list[dict[int, int]] = []
    for _ in range(_REPEATS // 2):
        loader = place.open("camera", "gpu", Task(data={"hw_decoder_load": load}))
        sums += [draw(loader, 0), draw(loader, 0)]
        loader.close()
    wrong = max(differing(each, sums[0]) for each in sums[1:])
    apart = _apart(place, load)
    close = BOUNDS.hold(apart.mean(), apart.percentile(99))
    detail = (
        f"{_REPEATS} runs of {len(sums[0])} photos; from decoder=cpu: mean {apart.mean():.3f}, "
        f"p99 {apart.percentile(99):g}, bounds {BOUNDS.mean:g} and {BOUNDS.p99:g}"
    )
    return Outcome(wrong == 0 and close, wrong, "0 photos differ between runs", detail, place.unseen("gpu"))


def _apart(place: Place, load: float) -> Histogram:
    tested = place.open("camera", "gpu", Task(data={"hw_decoder_load": load}))
    plain = place.open("camera", "cpu")
    histogram = Histogram()
    for found, expected in zip(tested.epoch(1), plain.epoch(1), strict=True):
        assert torch.equal(found.indices, expected.indices)
        histogram.add(found.images.cpu().numpy(), expected.images.cpu().numpy())
    tested.close()
    plain.close()
    return histogram


def cached(place: Place) -> Outcome:
    """Epochs from the decoded cache give the pixels of those without, with the photos' files gone."""
    folder = Path(place.scratch) / "cached"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place.sets["small"], folder)
    manifest = load_manifest(folder)
    plain, kept = place.open(manifest, "cpu"), place.open(manifest, "cache")
    expected = {epoch: draw(plain, epoch) for epoch in range(3)}
    plain.close()
    wrong = differing(draw(kept, 0), expected[0])
    shutil.rmtree(folder)  # from here on all must come from the cache
    wrong += sum(differing(draw(kept, epoch), expected[epoch]) for epoch in (1, 2, 1, 0))
    notes = kept.notes
    kept.close()
    apart = len({sum(sums.values()) for sums in expected.values()})
    detail = "; ".join([f"5 epochs of {len(manifest)} photos, 4 with their files deleted", *notes])
    holds = wrong == 0 and apart == len(expected)
    return Outcome(holds, wrong, "0 pictures differ", detail, place.unseen("cache"))


def draw(loader: Loader, epoch: int) -> dict[int, int]:
    """Checksums of an epoch's pictures by sample, one batch at a time."""
    return by_sample((batch.indices, checksums(batch.images).cpu()) for batch in loader.epoch(epoch))


def labels_of(loader: Loader, epoch: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(indices, labels) of an epoch's batches, in order."""
    return [(batch.indices.numpy(), batch.labels.cpu().numpy()) for batch in loader.epoch(epoch)]
