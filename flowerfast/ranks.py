"""Processes that train one model together: who is who, and what they tell each other.

torchrun starts them. All of it is torch.distributed's: rendezvous, collectives, and the store by which a lost
rank is named. A process alone is rank 0 of 1, and each function does the plain thing then. What is said here
goes from host to host, by gloo; gradients go as the device likes it (`device_group`).
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, TypeVar

from flowerfast.errors import RunFailed, Said, UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

STEP_SECONDS = 20.0
"""Seconds without a word after which a rank has ended or hangs: every step has one, of all ranks. One that
waits for photos says so each second."""
NAMING_SECONDS = 30.0
"""Seconds that the others then wait for each other, to learn who is missing: more than `STEP_SECONDS`, for
some learn of it so much later."""
_PATIENCE = timedelta(days=1)  # while the first rank scans, fetches, compiles or writes
_WORD_SECONDS = 10.0  # after which it is said that others are waited for
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
_NETWORK = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|timed? ?out|monitoredBarrier", re.IGNORECASE
)


class RankLost(RunFailed):
    """A rank has ended or hangs: the others cannot go on, and each says so."""


class RanksApart(UserError):
    """This rank does not reach the others, which may not know of it."""


@dataclass(frozen=True)
class Ranks:
    """Who this process is among those that train together.

    Attributes:
        rank, world_size: which one, and how many there are on all machines.
        local_rank, local_size: the same on this machine.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    @property
    def are_many(self) -> bool:
        """Whether there are others."""
        return self.world_size > 1


ALONE = Ranks()


@dataclass
class _Groups:
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


_groups: _Groups | None = None


def started() -> Ranks:
    """Who this process is by its environment, as torchrun or srun has made it, or other launchers do.

    srun's counts where MASTER_ADDR is set too: it also starts processes that have nothing to do with each
    other.
    """
    named = os.environ.get
    if not named("MASTER_ADDR"):
        return ALONE
    names = _TORCHRUN if named("RANK") else _SLURM
    found = [re.match(r"\d+", named(name, "")) for name in names]
    rank, world, local, size = (
        int(match[0]) if match else default for match, default in zip(found, (0, 1, 0, 1), strict=True)
    )
    if names is _SLURM:
        size = _tasks_here(named(_SLURM[3], ""), named("SLURM_NODEID", ""))
    return Ranks(rank, world, local, size)


def _tasks_here(tasks: str, node: str) -> int:
    """Tasks of a node by SLURM's list, as 2(x3),1; the most of any where it does not say which node it is."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks)
    counts = [int(count) for count, times in found for _ in range(int(times or 1))]
    here = counts[int(node) :][:1] if node.isdecimal() else []
    return max(here or counts, default=1)


def check_alone(what: str) -> None:
    """Raise UserError where this process is one of several: each would do `what` that one is to do."""
    for here in (current(), started()):
        if here.are_many:
            raise UserError(
                f"{what}: one process does it, and this is rank {here.rank} of {here.world_size}; start it "
                "without torchrun"
            )


def is_restarted() -> bool:
    """Whether torchrun has started this process again, after a rank had failed (`--max-restarts`)."""
    return _restarts() not in ("", "0")


def _restarts() -> str:
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def current() -> Ranks:
    """Who this process is in torch.distributed where that runs, however it was begun; else alone."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return ALONE
    here = started()
    return Ranks(dist.get_rank(), dist.get_world_size(), here.local_rank, here.local_size)


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


def _meet(here: Ranks, own: bool, say: Callable[[str], None]) -> _Groups:
    """The groups, once all are there. Signals are heeded meanwhile: torch waits where Python is not asked."""
    met: Future[_Groups] = Future()

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


def _groups_of(here: Ranks, own: bool) -> _Groups:
    import torch.distributed as dist

    if own:
        from torch.distributed.rendezvous import rendezvous

        patience = timedelta(minutes=10)
        try:
            store, _, _ = next(rendezvous("env://", here.rank, here.world_size, timeout=patience))
            # After a restart torchrun's store may still hold where the ranks of before were to be reached.
            store = dist.PrefixStore(f"flowerfast-{_restarts()}", store)
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
    return _Groups(patient, steps, {"cpu": steps}, own)


def leave(error: BaseException | None = None) -> None:
    """Part from the others, once all are about to: a process that ends takes the others with it.

    After an `error` that is not everybody's nobody is waited for: the others learn of it when this one ends.
    """
    global _groups
    if _groups is None:
        return
    import torch.distributed as dist

    groups, _groups = _groups, None
    if error is not None and not (isinstance(error, Said) and error.everywhere):
        return
    with suppress(RuntimeError):  # who has ended is no more to be waited for
        dist.barrier(group=groups.patient)
        if groups.own:
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


def from_first(make: Callable[[], T]) -> T:
    """What the first rank gets of a call, on every rank; so too a UserError, RunFailed or OSError of it.

    The others wait for it, however long it takes.
    """
    if _groups is None:
        return make()
    import torch.distributed as dist

    box: list[Any] = [None, None]
    if current().is_first:
        try:
            box[0] = make()
        except (UserError, RunFailed, OSError) as met:
            box[1] = met
    with naming():
        dist.broadcast_object_list(box, src=0, group=_groups.patient)
    if isinstance(error := box[1], Exception):
        raise everywhere(error) if isinstance(error, Said) else error
    result: T = box[0]
    return result


def first_on_node(make: Callable[[], T]) -> T:
    """What each rank gets of a call, the first of each machine before the others: they find what it has kept.

    A UserError or RunFailed of one is raised by all.
    """
    if _groups is None:
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
    if _groups is None:
        return [value]
    import torch.distributed as dist

    parts: list[Any] = [None] * current().world_size
    with naming():
        dist.all_gather_object(parts, value, group=_groups.patient if patient else _groups.steps)
    return parts


def exchange(numbers: Sequence[int]) -> list[list[int]]:
    """Equally many whole numbers of each rank, by rank, on every rank: less to send than by `gather`."""
    if _groups is None:
        return [[*numbers]]
    import torch
    import torch.distributed as dist

    mine = torch.tensor(numbers, dtype=torch.int64)
    parts = [torch.empty_like(mine) for _ in range(current().world_size)]
    with naming():
        dist.all_gather(parts, mine, group=_groups.steps)
    return torch.stack(parts).tolist()


def device_group(device: "torch.device") -> Any:
    """The group for tensors on a device: gloo's for the CPU, NCCL's for a GPU. All ranks ask for it."""
    assert _groups is not None
    if device.type not in _groups.device:
        import torch.distributed as dist

        _groups.device[device.type] = dist.new_group(backend="nccl", timeout=timedelta(minutes=10))
    return _groups.device[device.type]


def check_device(device: "torch.device") -> None:
    """Raise UserError unless each rank of this machine has a device of its own, or all compute on the CPU."""
    here = current()
    if not here.are_many or device.type == "cpu":
        return
    if device.type != "cuda":
        raise UserError(f"train.device={device.type}: no device for several ranks; use train.device=cpu")
    import torch

    if here.local_size > torch.cuda.device_count():
        raise UserError(
            f"{here.local_size} ranks on this machine and {torch.cuda.device_count()} GPUs: start as many "
            "ranks as GPUs (torchrun --nproc-per-node), or use train.device=cpu"
        )


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


def _missing(groups: _Groups) -> str:
    """Which ranks do not answer any more: a line. All that do have written so to torch's store."""
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _get_default_store

    if groups.patient is not None:
        patient, groups.patient = groups.patient, None
        dist.destroy_process_group(patient)
        del patient  # closed with the last name of it: who waits there for this rank comes here too
    here, until = current(), time.monotonic() + NAMING_SECONDS
    missing, keeper = [*range(here.world_size)], [0]  # of the store, unless torchrun keeps it

    def ask() -> None:
        nonlocal missing
        try:
            store = dist.PrefixStore("flowerfast", _get_default_store())
            store.set(f"{here.rank}", "here")
            while missing and time.monotonic() < until:
                missing = [rank for rank in missing if not store.check([f"{rank}"])]
                time.sleep(0.05)
        except RuntimeError:
            missing = keeper

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(NAMING_SECONDS + 1)
    if asking.is_alive():  # where the network is cut, torch waits for an answer without end
        missing = keeper
    what = f"rank {', '.join(map(str, missing))} has ended or hangs" if missing else "all ranks answer again"
    waited = f"the others waited for {STEP_SECONDS:g} s at most"
    return f"{what}: {waited}; see what it has said, then go on with --resume"
