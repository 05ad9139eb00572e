"""Host batches to the training device, one batch ahead of the consumer.

Why every consumer reads the right pixels, and no step waits for a copy on the host:

- The host makes a batch complete before it queues the copy, which runs on a stream of its own.
- The copy's source is pinned memory of torch's caching host allocator (ATen/core/CachingHostAllocator.h). The
  copy notes its stream with the source's block (`record_event`). When the batch is dropped an event is
  recorded there (`free`), and the block is given out again once a later `allocate` finds, by asking and never
  by waiting, that the event has passed (`process_events`). So a batch may be dropped once its copy is queued.
- The copy's destination is allocated on the copying stream. torch's device allocator gives such a block to
  that stream alone, and not before the streams noted by `record_stream` have passed the point at which its
  tensor was dropped.
- The consumer's stream waits, on the device, for the copy's event before anything that is queued after it.

A ring of pinned buffers of our own would do the same with more code: once there are as many blocks of a size
as are ever under way, the allocator finds a free one behind a lock and pins nothing any more. It rounds sizes
up to a power of two, and that is all that a ring would spare; but who draws from a ring may keep no batch.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import torch

from flowerfast.loaders.batch import Batch


def copy_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on `device`; on a CPU the iterator itself.

    For CUDA the copy of the next batch runs on a stream of its own while the caller works on this one; the
    caller's stream waits for it on the device, never the host.
    """
    if device.type == "cuda":
        return _copied(batches, device)
    return batches if device.type == "cpu" else (_moved(batch, device) for batch in batches)


def _moved(batch: Batch, device: torch.device) -> Batch:
    return replace(batch, images=batch.images.to(device), labels=batch.labels.to(device))


def _copied(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    stream = _copying_stream(device)
    ready: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = replace(
                batch,
                images=batch.images.to(device, non_blocking=True),
                labels=batch.labels.pin_memory().to(device, non_blocking=True),
            )
        if ready is not None:
            yield _hand_over(*ready, device)
        ready = copied, stream.record_event()
    if ready is not None:
        yield _hand_over(*ready, device)


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all epochs and loaders: memory that one stream has allocated would serve no other."""
    return torch.cuda.Stream(device)


def _hand_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """Let the current stream wait for the copy, and keep the memory until that stream is done with it."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    batch.images.record_stream(current)
    batch.labels.record_stream(current)
    return batch
