"""What ranks tell each other, from host to host, by gloo; one that is alone does the plain thing."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from flowerfast.errors import RunFailed, Said, UserError
from flowerfast.ranks.meeting import RankLost, RanksApart, groups, naming, wait_for_first
from flowerfast.ranks.who import current, started

T = TypeVar("T")


def speaks(error: BaseException) -> bool:
    """Whether this rank is to tell people of an error: not of one that all have, and the first tells of.

    Before the ranks have met, all of a machine have the same, but for who does not reach the others.
    """
    here = current()
    if not here.are_many:
        return isinstance(error, RanksApart) or started().local_rank == 0
    return here.is_first or not (isinstance(error, Said) and error.everywhere)


def everywhere(error: Said) -> Said:
    """An error that all ranks raise."""
    error.everywhere = True
    return error


@contextmanager
def all_raise() -> Iterator[None]:
    """Within, what is raised is raised by all ranks, but for a rank that is lost."""
    try:
        yield
    except Said as error:
        error.everywhere = not isinstance(error, RankLost)
        raise


def from_first(make: Callable[[], T], in_step: bool = False) -> T:
    """What the first rank gets of a call, on every rank; so too a UserError, RunFailed or OSError of it.

    The others wait for it, however long it takes. It waits for them too, unless all come from the same step
    (`in_step`): who is not here in a step's time then is lost.
    """
    if (ours := groups()) is None:
        return make()
    import torch.distributed as dist

    box: list[Any] = [None, None]
    if current().is_first:
        try:
            box[0] = make()
        except (UserError, RunFailed, OSError) as met:
            box[1] = met
    with naming():
        if in_step:
            wait_for_first(ours)
        dist.broadcast_object_list(box, src=0, group=ours.steps if in_step else ours.patient)
    if isinstance(error := box[1], Exception):
        raise everywhere(error) if isinstance(error, Said) else error
    result: T = box[0]
    return result


def first_on_node(make: Callable[[], T]) -> T:
    """What each rank gets of a call, the first of each machine before the others: they find what it has kept.

    A UserError or RunFailed of one is raised by all.
    """
    if groups() is None:
        return make()
    result: list[T] = []
    for first in (True, False):
        error = None
        if (current().local_rank == 0) is first:
            try:
                result.append(make())
            except (UserError, RunFailed) as met:
                error = met
        raise_first(gather(error, patient=True))
    return result[0]


def raise_first(errors: Sequence[Said | None]) -> None:
    """Raise the error of the lowest rank that has one, of the errors of all ranks."""
    for rank, error in enumerate(errors):
        if error is not None:
            kind = UserError if isinstance(error, UserError) else RunFailed
            raise everywhere(kind(f"rank {rank}: {error}" if rank else str(error)))


def gather(value: T, patient: bool = False) -> list[T]:
    """What each rank has, by rank, on every rank. `patient`: some may come hours later than others."""
    if (ours := groups()) is None:
        return [value]
    import torch.distributed as dist

    parts: list[Any] = [None] * current().world_size
    with naming():
        dist.all_gather_object(parts, value, group=ours.patient if patient else ours.steps)
    return parts


def exchange(numbers: Sequence[int]) -> list[list[int]]:
    """Equally many whole numbers of each rank, by rank, on every rank: less to send than by `gather`."""
    if (ours := groups()) is None:
        return [[*numbers]]
    import torch
    import torch.distributed as dist

    mine = torch.tensor(numbers, dtype=torch.int64)
    parts = [torch.empty_like(mine) for _ in range(current().world_size)]
    with naming():
        dist.all_gather(parts, mine, group=ours.steps)
    return torch.stack(parts).tolist()
