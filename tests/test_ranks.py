"""Who a process is among those that train together."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import flowerfast as ff
from flowerfast.errors import RunFailed, UserError
from flowerfast.ranks import meeting
from flowerfast.ranks.meeting import RankLost, join, joined
from flowerfast.ranks.telling import (
    all_raise,
    exchange,
    first_on_node,
    from_first,
    gather,
    raise_first,
    speaks,
)
from flowerfast.ranks.who import ALONE, Ranks, current, started

Cli = Callable[..., tuple[int, str, str]]
_PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
_TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
_SLURM = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, ALONE),
        ({**_PLACE, **_TORCHRUN}, Ranks(5, 8, 1, 4)),
        ({**_PLACE, "RANK": "1", "WORLD_SIZE": "2"}, Ranks(1, 2, 0, 1)),
        ({**_PLACE, **_SLURM}, Ranks(3, 4, 1, 2)),
        ({**_PLACE, **_SLURM, "SLURM_STEP_TASKS_PER_NODE": "1,3", "SLURM_NODEID": "1"}, Ranks(3, 4, 1, 3)),
        ({**_PLACE, **_SLURM, "SLURM_STEP_TASKS_PER_NODE": "1,3", "SLURM_NODEID": "0"}, Ranks(3, 4, 1, 1)),
        (
            {**_PLACE, **_SLURM, "SLURM_STEP_TASKS_PER_NODE": "3(x2),1", "SLURM_NODEID": "2"},
            Ranks(3, 4, 1, 1),
        ),
        ({**_PLACE, **_SLURM, "SLURM_STEP_TASKS_PER_NODE": "1,3"}, Ranks(3, 4, 1, 3)),
        (_SLURM, ALONE),  # srun also starts what is to stay apart
        (_TORCHRUN, ALONE),
    ],
)
def test_ranks_are_known_by_their_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: Ranks
) -> None:
    for name in (*_PLACE, *_TORCHRUN, *_SLURM, "SLURM_NODEID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert started() == expected
    assert current() == ALONE


def test_a_process_alone_does_the_plain_thing() -> None:
    with joined() as here:
        assert here == ALONE
        assert from_first(lambda: 1) == first_on_node(lambda: 1) == 1
        assert (gather("x"), exchange([1, 2])) == (["x"], [[1, 2]])


def test_the_error_of_the_lowest_rank_is_that_of_all() -> None:
    raise_first([None, None])
    with pytest.raises(RunFailed, match=r"^rank 1: disk$") as met:
        raise_first([None, RunFailed("disk"), UserError("x")])
    assert met.value.everywhere
    assert not UserError("x").everywhere


def test_all_raise_what_is_raised_but_for_a_lost_rank() -> None:
    for error, told in ((UserError("x"), True), (RankLost("rank 1"), False)):
        with pytest.raises(type(error)) as met, all_raise():
            raise error
        assert met.value.everywhere is told
        assert speaks(met.value)


def test_others_that_are_not_there_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**_PLACE, **_TORCHRUN, "MASTER_PORT": "no port"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^rank 5 of 8: the others .* by 127\.0\.0\.1:no") as met:
        join()
    assert speaks(met.value)  # nobody else may know
    assert not speaks(UserError("x"))


def test_a_rank_beyond_all_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**_PLACE, **_TORCHRUN, "RANK": "8"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^rank 8 of 8: ranks are counted from 0; see RANK"):
        join()


def test_what_one_process_does_is_refused_to_several(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun's; tasks of srun are each alone, and each says what is wrong with its own."""
    for name, value in {**_PLACE, **_TORCHRUN, "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for command in (["evaluate", "run", "photos"], ["tune", "photos"], ["pack", "photos", "shards"]):
        code, _, said = cli(*command)
        assert (code, said.count("\n")) == (2, 1)
        assert f"flowerfast {command[0]}: one process does it, and this is rank 5 of 8; start it wi" in said
    with pytest.raises(UserError, match=r"^tune: one process does it"):
        ff.tune("photos", out="tuned")
    for name in _TORCHRUN:
        monkeypatch.delenv(name)
    for name, value in _SLURM.items():
        monkeypatch.setenv(name, value)
    code, _, said = cli("pack", "nowhere", "shards", "--part", "2/2")
    assert (code, "nowhere: no such folder" in said) == (2, True)


_ALONE = """
from flowerfast.commands.cli import main
from flowerfast.ranks import meeting
meeting._WORD_SECONDS = 0.2
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ranks meet by gloo")
@pytest.mark.parametrize("rank", ["0", "1"])
def test_who_waits_for_others_says_so_and_heeds_signals(tmp_path: Path, rank: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "WORLD_SIZE": "2"}
    with subprocess.Popen(
        [sys.executable, "-c", _ALONE, "train", tmp_path],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **place},
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == (
            f"flowerfast: waiting for the other ranks of 2 at 127.0.0.1:{port}\n"
        )
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
        assert process.stderr.read() == "flowerfast: stopped by SIGTERM\n"


_STRUCK = """
import os, signal, time
from flowerfast.ranks.meeting import joined
from flowerfast.ranks.telling import gather
from flowerfast.ranks.who import is_restarted
with joined() as here:
    print(gather(here.rank), flush=True)
    if not is_restarted():
        if here.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ranks meet by gloo")
def test_ranks_that_torchrun_starts_again_meet_again(tmp_path: Path) -> None:
    program = tmp_path / "struck.py"
    program.write_text(_STRUCK)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, "--max-restarts", "1", program], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[0, 1]") == 4


def test_a_store_that_ends_while_it_is_asked_names_its_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch.distributed as dist
    from torch.distributed import distributed_c10d

    class Gone:
        def set(self, key: str, value: str) -> None:
            """Still in the socket's buffer."""

        def check(self, keys: list[str]) -> bool:
            raise RuntimeError("Connection reset by peer")

    monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: None)
    monkeypatch.setattr(dist, "PrefixStore", lambda prefix, store: Gone())
    monkeypatch.setattr(meeting, "current", lambda: Ranks(1, 4, 1, 4))
    groups = SimpleNamespace(patient=None)
    assert meeting._missing(cast(Any, groups)).startswith("rank 0 has ended or hangs: ")


def test_a_store_that_never_answers_names_its_keeper(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of another machine does once the network to it is cut."""
    import torch.distributed as dist
    from torch.distributed import distributed_c10d

    answered = threading.Event()

    class Silent:
        def set(self, key: str, value: str) -> None:
            """Still in the socket's buffer."""

        def check(self, keys: list[str]) -> bool:
            return answered.wait()

    monkeypatch.setattr(distributed_c10d, "_get_default_store", lambda: None)
    monkeypatch.setattr(dist, "PrefixStore", lambda prefix, store: Silent())
    monkeypatch.setattr(meeting, "current", lambda: Ranks(1, 4, 1, 4))
    monkeypatch.setattr(meeting, "NAMING_SECONDS", 0.1)
    groups = SimpleNamespace(patient=None)
    try:
        assert meeting._missing(cast(Any, groups)).startswith("rank 0 has ended or hangs: ")
    finally:
        answered.set()
