"""Rows about loaders: they hold here, and each sees what it is there to see."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from benchmarks.acceptance import agreement, completeness, memory, start, streams
from benchmarks.acceptance.checksums import checksums, of_pixels
from benchmarks.acceptance.place import Place
from flowerfast import parity
from flowerfast.loaders.batch import Batch

Sabotage = Callable[..., None]
pytestmark = pytest.mark.filterwarnings("ignore:Palette images with Transparency")


def altered(batch: Batch, row: int = 0) -> Batch:
    """One pixel of one picture differs by one level."""
    images = batch.images.clone()
    images[row, 1, 5, 7] = images[row, 1, 5, 7] ^ 1
    return replace(batch, images=images)


def part(batch: Batch, rows: list[int]) -> Batch:
    return Batch(batch.images[rows], batch.labels[rows], batch.indices[rows])


# ------------------------------------------------------------------------------------------------- checksums


def test_checksums_see_values_and_places():
    images = torch.randint(0, 256, (3, 3, 6, 6), dtype=torch.uint8, generator=torch.manual_seed(0))
    plain = checksums(images)
    assert plain.tolist() == of_pixels(images.permute(0, 2, 3, 1).numpy()).tolist()
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(checksums(last), plain)
    assert (checksums(images.flip(3)) != plain).all()
    assert (checksums(images.flip(1)) != plain).all()


# ---------------------------------------------------------------------------------------- what holds as it is


@pytest.mark.parametrize(
    "check",
    [
        start.window_decode,
        completeness.every_sample,
        completeness.bad_files,
        agreement.cached,
        lambda place: agreement.decoder_load(place, 0.65),
        lambda place: agreement.parity(place, "odd", "gpu"),
        lambda place: memory.flat_memory(place, "cpu"),
        *(lambda place, k=kind: streams.stream_order(place, k) for kind in ("gpu", "cache")),
    ],
)
def test_rows_hold_on_the_cpu_and_say_what_they_did_not_see(place: Place, check):
    found = check(place)
    assert found.holds is True, found
    assert found.unseen


# ------------------------------------------------------------------------------------------ what must be seen


def repeated(epoch: int, number: int, batch: Batch) -> list[Batch]:
    if (epoch, number) != (1, 1):
        return [batch]
    return [part(batch, [0, 0, *range(2, len(batch))])]


def mislabelled(epoch: int, number: int, batch: Batch) -> list[Batch]:
    return [replace(batch, labels=batch.labels ^ (batch.indices == 3).long())]


def shortened(epoch: int, number: int, batch: Batch) -> list[Batch]:
    return [part(batch, list(range(len(batch) - 1)))] if number == 0 else [batch]


def split(epoch: int, number: int, batch: Batch) -> list[Batch]:
    rows = list(range(len(batch)))
    return [part(batch, rows[:2]), part(batch, rows[2:])] if number == 0 else [batch]


@pytest.mark.parametrize("change", [repeated, mislabelled, shortened, split])
@pytest.mark.parametrize("kind", ["gpu", "cache"])
def test_a_sample_out_of_place_is_seen(place: Place, sabotage: Sabotage, change, kind):
    sabotage(change, (kind,))
    assert completeness.every_sample(place).holds is False


def test_a_photo_lost_on_the_way_is_seen(place: Place, sabotage: Sabotage):
    sabotage(shortened)
    found = start.window_decode(place)
    assert (found.holds, found.figure) == (False, 13)


def test_a_black_photo_is_seen(place: Place, sabotage: Sabotage):
    sabotage(lambda epoch, number, batch: [replace(batch, images=batch.images * int(number > 0))])
    found = start.window_decode(place)
    assert found.holds is False
    assert "black" in found.detail


def test_a_pixel_of_the_cache_is_seen(place: Place, sabotage: Sabotage):
    sabotage(lambda epoch, number, batch: [altered(batch) if epoch == 1 else batch], ("cache",))
    found = agreement.cached(place)
    assert (found.holds, found.figure) == (False, 2 * 4)  # epoch 1 is drawn twice, in four batches


def test_a_cache_that_reads_files_again_is_seen(place: Place, monkeypatch: pytest.MonkeyPatch):
    opened = type(place).open
    monkeypatch.setattr(type(place), "open", lambda self, photos, kind, *rest: opened(self, photos, "cpu"))
    found = agreement.cached(place)
    assert (found.holds, found.figure) == (False, 4 * 14)


def test_pixels_that_change_from_run_to_run_are_seen(place: Place, sabotage: Sabotage):
    runs = iter(range(100))
    first = {"run": 0}

    def change(epoch: int, number: int, batch: Batch) -> list[Batch]:
        if number == 0:
            first["run"] = next(runs)
        return [altered(batch) if first["run"] == 3 and number == 2 else batch]

    sabotage(change, ("gpu",))
    found = agreement.decoder_load(place, 0.65)
    assert (found.holds, found.figure) == (False, 1)


def test_pixels_far_from_those_of_the_cpu_are_seen(place: Place, sabotage: Sabotage):
    sabotage(lambda epoch, number, batch: [replace(batch, images=batch.images // 2 * 2 + 1)], ("gpu",))
    found = agreement.decoder_load(place, 1.0)
    assert (found.holds, found.figure) == (False, 0)


def test_parity_beyond_the_bounds_is_seen(place: Place, monkeypatch: pytest.MonkeyPatch):
    real = parity.make_loader

    def make(choice, *rest):
        loader = real(choice, *rest)
        if choice.backend != parity.REFERENCE:
            execute = loader.execute
            monkeypatch.setattr(loader, "execute", lambda plan: execute(plan) // 4 * 4)
        return loader

    monkeypatch.setattr(parity, "make_loader", make)
    found = agreement.parity(place, "small", "cpu")
    assert found.holds is False
    assert found.figure > parity.BOUNDS.mean
    assert all(step in found.detail for step in ("crop+resize", "jitter", "evaluation"))


@pytest.mark.parametrize("kind", ["gpu", "cache"])
def test_memory_that_is_given_to_the_next_batch_is_seen_by_the_late_consumer(
    place: Place, sabotage: Sabotage, kind
):
    shared: dict[int, torch.Tensor] = {}

    def change(epoch: int, number: int, batch: Batch) -> list[Batch]:
        buffer = shared.setdefault(len(batch), torch.empty_like(batch.images))
        buffer.copy_(batch.images)
        return [replace(batch, images=buffer)]

    sabotage(change, (kind,))
    found = streams.stream_order(place, kind)
    assert found.holds is False
    assert "fast 0" in found.detail
    assert "late 0" not in found.detail


def test_pixels_under_load_are_compared_with_the_quiet_run(place: Place, sabotage: Sabotage):
    sabotage(lambda epoch, number, batch: [altered(batch, -1)])
    found = streams.stream_order(place, "cpu")
    assert (found.holds, found.figure) == (False, 3 * 2 * 4)  # consumers, epochs, batches


def test_pictures_that_are_all_alike_prove_nothing(place: Place, monkeypatch: pytest.MonkeyPatch):
    same = torch.zeros(4, dtype=torch.int64)
    monkeypatch.setattr(streams, "of_pixels", lambda pixels: same[: len(pixels)].numpy())
    monkeypatch.setattr(streams, "checksums", lambda images: same[: len(images)])
    found = streams.stream_order(place, "cpu")
    assert (found.holds, found.figure) == (False, 0)


def test_neighbours_of_a_bad_file_that_change_are_seen(place: Place, sabotage: Sabotage):
    sabotage(lambda epoch, number, batch: [altered(batch) if len(batch) < 4 else batch])
    whole, damaged = 14 % 4, 3  # short batches are altered: the last, and in the damaged folder others too
    found = completeness.bad_files(place)
    assert whole != damaged
    assert found.holds is False
    assert found.figure > 0


def test_bad_files_that_come_all_the_same_are_seen(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(completeness, "damage", lambda manifest: ({2}, {3}))
    found = completeness.bad_files(place)
    assert (found.holds, found.figure) == (False, 0)
    for problem in ("was not left out", "is not named", "data.on_bad=fail went on"):
        assert problem in found.detail


def test_growing_memory_is_seen(place: Place, sabotage: Sabotage):
    kept = []

    def change(epoch: int, number: int, batch: Batch) -> list[Batch]:
        kept.append(torch.ones(1 << 18, dtype=torch.uint8))
        return [batch]

    sabotage(change)
    found = memory.flat_memory(place, "gpu")
    assert found.holds is False
    assert found.figure == pytest.approx(8, abs=2)  # MiB: four batches an epoch, eight epochs apart


@pytest.mark.parametrize(
    ("values", "grown"),
    [([9, 9, 5, 5, 5, 5, 5, 5], 0), ([0, 0, 1, 1, 5, 9, 3, 3], 2), ([8, 7, 6, 5, 4, 3, 2, 1], -4)],
)
def test_growth_compares_the_second_quarter_with_the_last(values, grown):
    assert memory.growth(values) == grown
