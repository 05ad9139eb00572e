"""Host batches to the training device, one batch ahead of the consumer."""

from collections.abc import Iterator

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
    return Batch(batch.images.to(device), batch.labels.to(device), batch.indices)


def _copied(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)
    ready: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = Batch(
                batch.images.to(device, non_blocking=True),
                batch.labels.pin_memory().to(device, non_blocking=True),
                batch.indices,
            )
        if ready is not None:
            yield _hand_over(*ready, device)
        ready = copied, stream.record_event()
    if ready is not None:
        yield _hand_over(*ready, device)


def _hand_over(batch: Batch, copied: torch.cuda.Event, device: torch.device) -> Batch:
    """Let the current stream wait for the copy, and keep the memory until that stream is done with it."""
    current = torch.cuda.current_stream(device)
    current.wait_event(copied)
    batch.images.record_stream(current)
    batch.labels.record_stream(current)
    return batch
