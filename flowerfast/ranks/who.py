"""Who a process is among those that train together, by what has started it or as torch.distributed has it."""

import os
import re
import sys
from dataclasses import dataclass

from flowerfast.errors import UserError

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_SLURM = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")


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


def current() -> Ranks:
    """Who this process is in torch.distributed where that runs, however it was begun; else alone."""
    dist = sys.modules.get("torch.distributed")
    if dist is None or not dist.is_available() or not dist.is_initialized():
        return ALONE
    here = started()
    return Ranks(dist.get_rank(), dist.get_world_size(), here.local_rank, here.local_size)


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
    return restarts() not in ("", "0")


def restarts() -> str:
    """How often torchrun has started this process again, as it says so."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
