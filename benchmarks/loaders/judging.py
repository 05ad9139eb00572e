"""What became of a sequence of samples: runs are compared batch by batch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.loaders.processes import Lines


@dataclass
class Drawn:
    """What all ranks of a run drew.

    Attributes:
        batches: by (epoch, batch), ids of all ranks, rank by rank.
        pixels: by (epoch, id), CRC-32 of its pixels.
    """

    batches: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    pixels: dict[tuple[int, int], int] = field(default_factory=dict)

    @classmethod
    def of(cls, ranks: Sequence[Lines]) -> "Drawn":
        """From the logs of all ranks."""
        drawn = cls()
        for lines in ranks:
            for line in lines:
                if "ids" in line:
                    place = line["epoch"], line["batch"]
                    drawn.batches.setdefault(place, []).extend(line["ids"])
                    drawn.pixels |= {
                        (line["epoch"], number): crc
                        for number, crc in zip(line["ids"], line["crcs"], strict=True)
                    }
        return drawn

    def ids(self, epoch: int, start: int = 0, end: int | None = None) -> Counter[int]:
        """How often each sample was drawn in batches of an epoch."""
        return Counter(
            number
            for (at, batch), ids in self.batches.items()
            if at == epoch and start <= batch and (end is None or batch < end)
            for number in ids
        )


def judged(whole: Drawn, resumed: Drawn, epoch: int, at: int) -> dict[str, Any]:
    """How a run that was resumed after `at` batches of `epoch` differs from one that was not disturbed.

    `sequence` of the rest of that epoch and `next` of the one after it: same (also within each batch),
    batches (each has the same samples), samples (the same, but in other batches), or other. lost, repeated:
    samples of that epoch that came less, or more often than without the kill. pixels: share of the rest's
    samples, drawn in both, that have the same.
    """
    rest = [place for place in whole.batches if place[0] == epoch and place[1] >= at]
    meant = whole.ids(epoch)
    came = whole.ids(epoch, end=at) + resumed.ids(epoch, start=at)
    both = [key for key in resumed.pixels if key[0] == epoch and key in whole.pixels]
    alike = sum(whole.pixels[key] == resumed.pixels[key] for key in both)
    return {
        "sequence": _alike(whole, resumed, epoch, at),
        "next": _alike(whole, resumed, epoch + 1, 0),
        "batches": len(rest),
        "lost": (meant - came).total(),
        "repeated": (came - meant).total(),
        "pixels": alike / len(both) if both else None,
    }


def _alike(whole: Drawn, other: Drawn, epoch: int, start: int) -> str:
    mine, its = (
        {place: ids for place, ids in drawn.batches.items() if place[0] == epoch and place[1] >= start}
        for drawn in (whole, other)
    )
    if mine == its:
        return "same"
    if _sorted(mine) == _sorted(its):
        return "batches"
    return "samples" if whole.ids(epoch, start) == other.ids(epoch, start) else "other"


def _sorted(batches: dict[tuple[int, int], list[int]]) -> dict[tuple[int, int], list[int]]:
    return {place: sorted(ids) for place, ids in batches.items()}


def done_again(lines: Lines, seen: Counter[int]) -> int:
    """Photos seen before the kill that a resumed rank decoded before any of its first batch."""
    decoded = next((line["decoded"] for line in lines if "decoded" in line), [])
    first = set(next((line["ids"] for line in lines if "ids" in line), []))
    again = 0
    for number in decoded:
        if number in first:
            break
        again += number in seen
    return again
