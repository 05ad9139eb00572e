"""The writer thread: one save at a time, in order, to its end; and the copies it is given."""

import threading
import time
from functools import partial
from typing import Any

import pytest
import torch

from flowerfast.training.writer import Writer, snapshot

PATIENCE = 60  # seconds until a test that hangs fails


def test_one_save_at_a_time_in_order() -> None:
    written: list[int] = []
    with Writer() as writer:
        for number in range(5):
            writer.submit([partial(written.append, 2 * number), partial(written.append, 2 * number + 1)])
            assert len(written) >= 2 * number
    assert written == [*range(10)]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("writer")]


def test_an_error_is_raised_at_the_next_wait_and_nothing_more_is_written() -> None:
    written: list[str] = []

    def fail() -> None:
        raise OSError("full")

    def save() -> None:
        with Writer() as writer:
            writer.submit([partial(written.append, "first"), fail, partial(written.append, "second")])
            with pytest.raises(OSError, match="full"):
                writer.submit([partial(written.append, "third")])
            writer.submit([fail])

    with pytest.raises(OSError, match="full"):
        save()
    assert written == ["first"]


def test_whoever_interrupts_twice_waits_for_one_file_alone() -> None:
    begun, interrupted, written = threading.Event(), threading.Event(), list[str]()

    def first() -> None:
        begun.set()
        interrupted.wait(PATIENCE)
        time.sleep(0.2)  # until the block has ended
        written.append("first")

    def work() -> None:
        with Writer() as writer:
            writer.submit([first, partial(written.append, "second")])
            assert begun.wait(PATIENCE)
            interrupted.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert written == ["first"]


def same(found: Any, expected: torch.Tensor) -> bool:
    return torch.equal(found, expected) and found.stride() == expected.stride()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_a_snapshot_is_a_copy_in_host_memory(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    place = torch.device(device)
    image = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state: dict[str, Any] = {
        "a": {0: {"b": image.clone().to(place)}},
        "c": [torch.tensor(3, device=place)],
        "d": 0.5,
        "e": None,
    }
    taken = snapshot(state, place)
    state["a"][0]["b"].zero_()
    state["c"][0].zero_()
    state["a"][0]["b"] = state["d"] = 1
    assert same(taken["a"][0]["b"], image)
    assert (taken["c"][0].item(), taken["d"], taken["e"]) == (3, 0.5, None)
    assert {taken["a"][0]["b"].device.type, taken["c"][0].device.type} == {"cpu"}
