"""What the machine lets a process use, of a container too."""

import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flowerfast import machine
from flowerfast.errors import UserError

Limit = Callable[..., None]


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Function (group, **files) that sets limits of a control group; this process is in /pod/box.

    In file names `_` stands for the dot. Without a call there is no limit at all.
    """
    root = tmp_path / "cgroup"
    root.mkdir()
    (tmp_path / "own").write_text("12:cpu:/elsewhere\n0::/pod/box\n")
    monkeypatch.setattr(machine, "_CGROUPS", root)
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "own")

    def write(group: str = "pod/box", **files: object) -> None:
        (root / group).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (root / group / name.replace("_", ".")).write_text(f"{content}\n")

    return write


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> int:
    """The cores this process may run on: 8."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("400000 100000", 4), ("250000 100000", 3), ("10000 100000", 1),
     ("9900000 100000", 8), ("50000 50000", 1)],
)  # fmt: skip
def test_cores_are_no_more_than_the_containers_quota(
    limit: Limit, cores: int, quota: str, expected: int
) -> None:
    assert machine.usable_cores() == cores
    limit(cpu_max=quota)
    assert machine.usable_cores() == expected


def test_the_strictest_group_above_counts(limit: Limit, cores: int) -> None:
    limit(cpu_max="max 100000", memory_max="max")
    limit("pod", cpu_max="200000 100000", memory_max=7000)
    limit("pod/other", cpu_max="100000 100000", memory_max=1000)
    limit("", cpu_max="300000 100000", memory_max=9000)
    assert machine.usable_cores() == 2
    assert machine.total_memory() == 7000
    assert machine.free_memory() == 7000


def test_in_a_namespace_of_its_own_the_group_is_the_root(limit: Limit, cores: int, tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/\n")
    limit("", cpu_max="300000 100000", memory_max=9000)
    assert (machine.usable_cores(), machine.total_memory()) == (3, 9000)


def test_memory_is_what_the_container_has_left(limit: Limit) -> None:
    host, free = machine.total_memory(), machine.free_memory()
    assert host is not None
    assert 0 < free <= host
    limit(memory_max="max", memory_current=10)
    assert machine.total_memory() == host
    limit(memory_max=1000, memory_current=700, memory_stat="anon 500\ninactive_file 150\nactive_file 50")
    assert machine.total_memory() == 1000
    assert machine.free_memory() == 450  # pages of files are given up when memory is short
    limit(memory_current=1200, memory_stat="anon 1200")
    assert machine.free_memory() == 0
    limit(memory_max=1 << 60)
    assert machine.total_memory() == host


def test_without_control_groups_the_host_counts(
    monkeypatch: pytest.MonkeyPatch, cores: int, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "none")
    monkeypatch.setattr(machine, "_OWN_CGROUP", tmp_path / "none")
    assert machine.usable_cores() == cores
    assert machine.free_memory() > 1 << 20
    assert machine.free_disk(tmp_path) > 0


def test_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    assert machine.user_cache_dir() == own_cache
    monkeypatch.delenv("FLOWERFAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert machine.user_cache_dir() == Path("/xdg/flowerfast")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert machine.user_cache_dir() == Path.home() / ".cache/flowerfast"


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user of a container: no home, no cache folder named; temporary files lie in the folder returned."""
    for name in ("FLOWERFAST_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "set, so that it is as before when the test has ended")
    monkeypatch.delenv("HOME")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    pwd = pytest.importorskip("pwd")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    machine._usable_cache.cache_clear()
    return tmp_path / "tmp"


def test_without_a_home_caches_are_kept_among_temporary_files(
    nobody: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = nobody / f"flowerfast-{os.getuid()}"
    assert machine.user_cache_dir() == machine.user_cache_dir() == expected
    assert stat.S_IMODE(expected.stat().st_mode) == 0o700
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (
        f"flowerfast: this user has no home folder: caches are kept in {expected}; set FLOWERFAST_CACHE to a "
        "folder for them"
    )


@pytest.mark.parametrize("name", ["FLOWERFAST_CACHE", "XDG_CACHE_HOME", "HOME"])
@pytest.mark.parametrize("what", ["file", "below a file", "read-only"])
def test_a_cache_folder_that_cannot_be_written_gives_way(
    nobody: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    what: str,
) -> None:
    place = tmp_path / "place"
    if what == "read-only":
        place.mkdir()
        access = os.access
        monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(place) and access(path, mode))
    else:
        place.write_text("")
    monkeypatch.setenv(name, str(place / "deep/er" if what == "below a file" else place))
    assert machine.user_cache_dir() == nobody / f"flowerfast-{os.getuid()}"
    problem = "cannot be written to" if what == "read-only" else "is no folder"
    assert f"flowerfast: {place} {problem}: caches are kept in {nobody}" in caplog.text
    assert not place.is_dir() or not list(place.iterdir())


def test_nothing_is_made_where_the_cache_can_be(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERFAST_CACHE", str(nobody / "not/yet/there"))
    assert machine.user_cache_dir() == nobody / "not/yet/there"
    assert not list(nobody.iterdir())


@pytest.mark.parametrize("trap", ["open", "link", "file", "another's"])
def test_a_temporary_folder_that_others_could_have_filled_is_not_used(
    nobody: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trap: str,
) -> None:
    """Compiled code is loaded from it. /tmp and /var/tmp stand for a machine where they cannot be written."""
    folder = nobody / f"flowerfast-{os.getuid()}"
    if trap == "file":
        folder.write_text("")
    elif trap == "link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        folder.chmod(0o777 if trap == "open" else 0o700)
    if trap == "another's":
        uid = os.getuid()
        folder.rename(nobody / f"flowerfast-{uid + 1}")
        monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    mkdir = Path.mkdir

    def refuse(path: Path, *args: Any, **options: Any) -> None:
        if path.parent in (Path("/tmp"), Path("/var/tmp")):
            raise PermissionError
        mkdir(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    kept = machine.user_cache_dir()
    assert machine.folder_problem(kept) is not None  # a place where nothing can be written
    assert "nothing is kept for the next run; set FLOWERFAST_CACHE" in caplog.text


def test_other_libraries_are_lent_a_home(nobody: Path) -> None:
    machine.lend_home()
    own = nobody / f"flowerfast-{os.getuid()}"
    assert Path.home() == own / "home"
    assert machine.user_cache_dir() == own  # for child processes, too
    assert os.environ["FLOWERFAST_CACHE"] == str(own)
    assert "MPLCONFIGDIR" not in os.environ  # it has the home


def test_a_home_that_cannot_be_written_stays_but_for_matplotlib(
    nobody: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "MPLCONFIGDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("MPLCONFIGDIR")
    machine.lend_home()
    assert "MPLCONFIGDIR" not in os.environ
    (tmp_path / ".config").write_text("in the way")
    machine.lend_home()
    assert Path.home() == tmp_path
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / ".cache/flowerfast/matplotlib")


@pytest.fixture
def sealed(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing but the folder returned can be written, and that is no place for temporary files."""
    access, mkdir = os.access, Path.mkdir
    (nobody / "free").mkdir()
    inside = f"{nobody}/free"

    def make(path: Path, *args: Any, **options: Any) -> None:
        if not str(path).startswith(inside):
            raise PermissionError
        mkdir(path, *args, **options)

    monkeypatch.setattr(os, "access", lambda path, mode: str(path).startswith(inside) and access(path, mode))
    monkeypatch.setattr(Path, "mkdir", make)
    return nobody / "free"


def test_temporary_files_lie_in_the_cache_where_nothing_else_can_be_written(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWERFAST_CACHE", str(sealed))
    machine.lend_home()
    assert os.environ["TMPDIR"] == str(sealed / "tmp")
    assert (sealed / "tmp").is_dir()


def test_without_any_place_one_line_says_so(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> str:
        raise FileNotFoundError

    machine.lend_home()  # temporary files lie in the current folder, then
    assert "HOME" not in os.environ
    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(UserError, match=r"no folder for temporary files can be written, .*; set TMPDIR"):
        machine.lend_home()


def test_versions_name_what_decides_pixels() -> None:
    assert {"python", "flowerfast", "torch", "numpy", "pillow", "simplejpeg"} <= machine.versions().keys()


def test_warnings_are_ignored_once_and_for_good_by_any_number_of_threads() -> None:
    """Of two `catch_warnings` that overlap in threads, one leaves its filter in place for ever."""
    before = warnings.filters[:]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: machine.ignore_warnings(message="of no concern"), range(200)))
    added = [entry for entry in warnings.filters if entry not in before]
    assert 1 <= len(added) <= 8
    machine.ignore_warnings(message="of no concern")
    assert len(warnings.filters) == len(before) + len(added)
    warnings.warn("Of no concern to anybody", UserWarning, stacklevel=1)
    with pytest.raises(UserWarning, match="still an error"):
        warnings.warn("still an error", UserWarning, stacklevel=1)


def test_cores_and_memory_are_divided_among_the_ranks_of_a_machine(
    limit: Limit, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(memory_max=9000)
    for ranks, mine, memory in (("1", 8, 9000), ("3", 2, 3000), ("9", 1, 1000), ("many", 8, 9000)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
        assert (machine.usable_cores(), machine.free_memory()) == (mine, memory)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["/usr/bin/flowerfast", "train", "my photos", "a=b$c"],
            "flowerfast train 'my photos' 'a=b$c'",
        ),
        (["/x/site-packages/flowerfast/__main__.py", "train"], "flowerfast train"),
        (["/x/other/__main__.py", "train"], None),
        (["train.py", "--token", "secret"], None),
        ([], None),
    ],
)
def test_only_a_command_of_ours_is_named(
    arguments: list[str], line: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", arguments)
    assert machine.command_line() == line
