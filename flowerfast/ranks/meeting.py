"""How they meet and part, and who is missing when one does not answer.

All of it is torch.distributed's: rendezvous, groups, and the store by which a lost rank is named.
"""

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from traceback import clear_frames
from typing import TYPE_CHECKING, Any

from flowerfast.errors import RunFailed, Said, UserError
from flowerfast.ranks.who import Ranks, current, restarts, started

if TYPE_CHECKING:
    import torch

STEP_SECONDS = 20.0
"""Seconds without a word after which a rank has ended or hangs: every step has one, of all ranks. One that
waits for photos says so each second."""
NAMING_SECONDS = 30.0
"""Seconds that the others then wait for each other, to learn who is missing: more than `STEP_SECONDS`, for
some learn of it so much later."""
_PATIENCE = timedelta(days=1)  # while the first rank scans, fetches, compiles or writes
_WORD_SECONDS = 10.0  # after which it is said that others are waited for
_NETWORK = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|timed? ?out|monitoredBarrier", re.IGNORECASE
)


class RankLost(RunFailed):
    """A rank has ended or hangs: the others cannot go on, and each says so."""


class RanksApart(UserError):
    """This rank does not reach the others, which may not know of it."""


@dataclass
class Groups:
    """All ranks, twice: a group has one length of patience.

    Attributes:
        patient: for what one rank does alone.
        steps: for what all do at once.
        device: of gradients, by kind of device.
        own: torch.distributed was begun here, and is to be ended here.
    """

    patient: Any
    steps: Any
    device: dict[str, Any]
    own: bool


_groups: Groups | None = None


def groups() -> Groups | None:
    """Those of this process; None: it is alone."""
    return _groups


def join(say: Callable[[str], None] = lambda _: None) -> Ranks:
    """Begin to work together with the others that were started with this process; may be called again.

    Where torch.distributed runs already, with it. `say` is told when others are waited for. Raises UserError
    when they cannot be reached.
    """
    global _groups
    import torch
    import torch.distributed as dist

    if _groups is not None or not (dist.is_available() and (dist.is_initialized() or started().are_many)):
        return current()
    own, here = not dist.is_initialized(), started()
    if own and here.rank >= here.world_size:
        raise RanksApart(
            f"rank {here.rank} of {here.world_size}: ranks are counted from 0; see RANK and WORLD_SIZE, or "
            "start by torchrun"
        )
    if torch.cuda.is_available() and here.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(here.local_rank)
    _groups = _meet(here, own, say)
    return current()


def _meet(here: Ranks, own: bool, say: Callable[[str], None]) -> Groups:
    """The groups, once all are there. Signals are heeded meanwhile: torch waits where Python is not asked."""
    from concurrent.futures import Future, wait  # only here: whoever is alone need not wait for its import

    met: Future[Groups] = Future()

    def work() -> None:
        try:
            met.set_result(_groups_of(here, own))
        except BaseException as error:
            met.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    if wait([met], _WORD_SECONDS).not_done:
        say(f"waiting for the other ranks of {here.world_size} at {_where()}")
    return met.result()


def _where() -> str:
    return f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"


def _groups_of(here: Ranks, own: bool) -> Groups:
    import torch.distributed as dist

    if own:
        from torch.distributed.rendezvous import rendezvous

        patience = timedelta(minutes=10)
        try:
            store, _, _ = next(rendezvous("env://", here.rank, here.world_size, timeout=patience))
            # After a restart torchrun's store may still hold where the ranks of before were to be reached.
            store = dist.PrefixStore(f"flowerfast-{restarts()}", store)
            dist.init_process_group(
                "gloo", store=store, timeout=patience, rank=here.rank, world_size=here.world_size
            )
        except (RuntimeError, ValueError) as error:  # nobody answers, a port that is taken or none
            raise RanksApart(
                f"rank {here.rank} of {here.world_size}: the others are not to be reached by {_where()} "
                f"({str(error).splitlines()[0][:200]}); see MASTER_ADDR and MASTER_PORT, or start by torchrun"
            ) from error
    step = timedelta(seconds=STEP_SECONDS)
    patient, steps = (dist.new_group(backend="gloo", timeout=each) for each in (_PATIENCE, step))
    return Groups(patient, steps, {"cpu": steps}, own)


def leave(error: BaseException | None = None) -> None:
    """Part from the others, once all are about to: a process that ends takes the others with it.

    After an `error` that is not everybody's nobody is waited for: the others learn of it when this one ends.
    """
    global _groups
    if _groups is None:
        return
    import torch.distributed as dist

    left, _groups = _groups, None
    if error is not None and not (isinstance(error, Said) and error.everywhere):
        return
    try:
        wait_for_first(left)
        dist.barrier(group=left.steps)
    except RuntimeError:  # of another: who misses it asks for this one too, and the first keeps the store
        _missing(left)
        return
    if left.own:
        with suppress(RuntimeError):
            dist.destroy_process_group()


@contextmanager
def joined() -> Iterator[Ranks]:
    """Within, work together with the others; who has joined before stays so afterwards."""
    before = _groups
    error: BaseException | None = None
    try:
        yield join()
    except BaseException as met:
        error = met
        raise
    finally:
        if before is None:
            leave(error)


def wait_for_first(groups: Groups) -> None:
    """Wait until the first rank is here too, however long that takes; it waits a step's time for the others.

    Raises what torch does, see `naming`.
    """
    import torch
    import torch.distributed as dist

    here, word = current(), torch.zeros(1)
    if not here.is_first:
        dist.recv(word, 0, group=groups.patient)
        return
    sent = [dist.isend(word, rank, group=groups.patient) for rank in range(1, here.world_size)]
    for each in sent:
        if each is not None:
            each.wait(timedelta(seconds=STEP_SECONDS))


def device_group(device: "torch.device") -> Any:
    """The group for tensors on a device: gloo's for the CPU, NCCL's for a GPU. All ranks ask for it."""
    assert _groups is not None
    if device.type not in _groups.device:
        import torch.distributed as dist

        _groups.device[device.type] = dist.new_group(backend="nccl", timeout=timedelta(minutes=10))
    return _groups.device[device.type]


@contextmanager
def naming() -> Iterator[None]:
    """Within, what torch says of a rank that has ended or hangs is RankLost, which names it."""
    try:
        yield
    except RuntimeError as error:
        if _groups is None or isinstance(error, Said) or not _NETWORK.search(str(error)):
            raise
        clear_frames(error.__traceback__)  # which hold groups
        raise RankLost(_missing(_groups)) from error


def _missing(groups: Groups) -> str:
    """Which ranks do not answer any more: a line. All that do have written so to torch's store."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _get_default_store

    if groups.patient is not None:
        patient, groups.patient = groups.patient, None
        dist.destroy_process_group(patient)
        del patient  # closed with the last name of it: who waits there for this rank comes here too
    here = current()
    until = time.monotonic() + NAMING_SECONDS + (1 if here.is_first else 0)  # which keeps the store
    missing, answered = [*range(here.world_size)], False

    def ask() -> None:
        nonlocal missing, answered
        with suppress(RuntimeError):  # the store has ended
            store = dist.PrefixStore("flowerfast", _get_default_store())
            store.set(f"{here.rank}", "here")
            while missing and time.monotonic() < until:
                missing = [rank for rank in missing if not store.check([f"{rank}"])]
                time.sleep(0.05)
            answered = True

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(NAMING_SECONDS + 2)  # where the network is cut, torch waits for an answer without end
    if not answered and 0 in missing:
        missing = [0]  # which has not been heard of, and keeps the store unless torchrun does
    what = f"rank {', '.join(map(str, missing))} has ended or hangs" if missing else "all ranks answer again"
    waited = f"the others waited for {STEP_SECONDS:g} s at most"
    return f"{what}: {waited}; see what it has said, then go on with --resume"
