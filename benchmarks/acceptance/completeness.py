"""Every sample once, and only those that can be decoded."""

import shutil
from pathlib import Path

import numpy as np

from benchmarks.acceptance.agreement import draw, labels_of
from benchmarks.acceptance.checksums import differing
from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import KINDS, Kind, Place, Task
from flowerfast.data.manifest import Manifest, load_manifest
from flowerfast.errors import UserError
from flowerfast.loaders import Loader
from flowerfast.loaders.sampling import Sampler

_EPOCHS = 2
# Which photos of a batch the hardware decoder takes may go by their place in it, which a missing one changes:
# all or none, so that pixels can be compared exactly.
_DECODES: tuple[tuple[Kind, dict[str, float]], ...] = (
    ("gpu", {"hw_decoder_load": 0.0}),
    ("gpu", {"hw_decoder_load": 1.0}),
    ("cpu", {}),
    ("cache", {}),
)
_HEADER = 700  # bytes of a JPEG that surely hold more than its header's first half


def every_sample(place: Place) -> Outcome:
    """With batch sizes that divide nothing, each epoch holds each sample once, in order, with its label."""
    manifest, wrong = place.manifest("small"), 0
    count = len(manifest)
    sizes = sorted({7, place.sizes.batch_size + 1, count - 1, count + 3})
    for kind in KINDS:
        for size in sizes:
            wrong += _wrong(place, manifest, kind, size)
    detail = f"{count} photos in batches of {', '.join(map(str, sizes))}; {', '.join(KINDS)}"
    return Outcome(wrong == 0, wrong, "0 samples out of place", detail, place.unseen("gpu"))


def _wrong(place: Place, manifest: Manifest, kind: Kind, size: int) -> int:
    loader = place.open(manifest, kind, Task(batch_size=size))
    sampler = Sampler(manifest, np.arange(len(manifest)), place.recipe(size))
    wrong = 0
    for epoch in range(_EPOCHS):
        planned = np.concatenate([plan.indices for plan in sampler.plans(epoch)])
        batches = labels_of(loader, epoch)
        found = np.concatenate([indices for indices, _ in batches])
        labels = np.concatenate([labels for _, labels in batches])
        same = min(len(found), len(planned))
        wrong += int((found[:same] != planned[:same]).sum()) + abs(len(found) - len(planned))
        wrong += int((labels != manifest.label[found]).sum())
        wrong += sum(len(indices) != size for indices, _ in batches[:-1])
    loader.close()
    return wrong


def bad_files(place: Place) -> Outcome:
    """Damaged photos cost themselves and nobody else, and stop the run when told to."""
    folder = Path(place.scratch) / "damaged"
    problems, lost = [], 0
    for kind, data in _DECODES:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(place.sets["small"], folder)
        manifest = load_manifest(folder)
        expected = _draw(place.open(manifest, kind, Task(data=data)))
        hopeless, doubtful = damage(manifest)
        loader = place.open(manifest, kind, Task(data=data))
        found = _draw(loader)
        came = hopeless & found[0].keys() | hopeless & found[1].keys()
        problems += [f"{kind}: {manifest.path(index)} was not left out" for index in sorted(came)]
        problems += [f"{kind}: {manifest.path(i)} is not named" for i in sorted(hopeless - loader.bad.keys())]
        problems += _goes_on(place, manifest, kind)
        for mine, theirs in zip(found, expected, strict=True):
            lost += differing(*(_without(each, hopeless | doubtful) for each in (mine, theirs)))
    shutil.rmtree(folder, ignore_errors=True)
    detail = "; ".join(problems) or f"{', '.join(KINDS)}: each left out and named, or the run stopped"
    holds = lost == 0 and not problems
    return Outcome(holds, lost, "0 other pictures changed or lost", detail, place.unseen("gpu"))


def _draw(loader: Loader) -> list[dict[int, int]]:
    found = [draw(loader, epoch) for epoch in range(_EPOCHS)]
    loader.close()
    return found


def _without(sums: dict[int, int], left_out: set[int]) -> dict[int, int]:
    return {index: value for index, value in sums.items() if index not in left_out}


def damage(manifest: Manifest) -> tuple[set[int], set[int]]:
    """Spoil photos of a folder after its scan: indices of those no one can decode, and of doubtful ones.

    Of the doubtful the header and the end are well and the middle is not: decoders may give up or go on.
    """
    step = max(len(manifest) // 7, 1)
    gone, cut, text, empty, stray, zeros = (manifest.root / manifest.path(step * i) for i in range(6))
    gone.unlink()
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    text.write_text("no photo", encoding="utf-8")
    empty.write_bytes(b"")
    whole = stray.read_bytes()
    stray.write_bytes(whole[: len(whole) // 2] + whole[-12:])
    whole = zeros.read_bytes()
    zeros.write_bytes(whole[:_HEADER] + bytes(len(whole) - _HEADER - 2) + whole[-2:])
    return {step * i for i in range(4)}, {step * i for i in range(4, 6)}


def _goes_on(place: Place, manifest: Manifest, kind: Kind) -> list[str]:
    """What is wrong with data.on_bad=fail on the damaged folder: nothing, when it stops with a reason."""
    loader = place.open(manifest, kind, Task(on_bad="fail"))
    try:
        for _ in loader.epoch(0):
            pass
    except UserError:
        return []
    finally:
        loader.close()
    return [f"{kind}: data.on_bad=fail went on"]
