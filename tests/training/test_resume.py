"""A run that is stopped, killed or prolonged ends as if nothing had happened, or says why it cannot."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from flowerfast.config import Augment, Config, DataConfig
from flowerfast.errors import Stopped, UserError
from flowerfast.loaders import loader as loader_module
from flowerfast.loaders.batch import Batch
from flowerfast.loaders.cache import choice
from flowerfast.packing.pack import pack
from flowerfast.packing.shard_writer import PackSettings
from flowerfast.photos.photos import Photos
from flowerfast.plans.plan import Sampler
from flowerfast.settings import change_config
from flowerfast.training import fit, resuming
from flowerfast.training.fit import Stop
from flowerfast.training.run import TrainResult
from flowerfast.training.run_folder import RunFolder
from flowerfast.training.split_file import read_split
from flowerfast.training.state import TrainState
from tests.training.outcomes import STEPS, assert_same

Train = Callable[..., TrainResult]
Rows = Callable[[Path], list[dict[str, float]]]
StopAfter = Callable[[int], AbstractContextManager[Stop]]
Outcome = Callable[[Path], dict[str, Any]]


def change_last(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what was saved."""
    folder = RunFolder(run)
    state = folder.load_last()
    change(state)
    folder.save_last(state)


# --------------------------------------------------------------------------------------- it goes on exactly


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_killed_or_stopped_in_mid_epoch_is_resumed_bit_by_bit(
    train_tiny: Train, run: Path, outcome: Outcome, signum: signal.Signals
) -> None:
    settings = {"train.batch_size": 2, "train.epochs": 3, "checkpoints.every_seconds": 0, "train.seed": 5}
    undisturbed = train_tiny("undisturbed", settings)
    config = undisturbed.folder / "config.yaml"
    child = subprocess.Popen(
        [sys.executable, "-m", "flowerfast", "train", "--config", config, "--out", run],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for_second_epoch(run, child)
    child.send_signal(signum)
    _, err = child.communicate(timeout=120)
    stopped = "flowerfast: stopped by SIGINT after saving; go on with --resume\n"
    assert (child.returncode, err) == ((-signum, "") if signum == signal.SIGKILL else (128 + signum, stopped))
    standing = RunFolder(run).load_last()["progress"]
    assert (1 <= standing["epoch"] <= 2, 1 <= standing["batch"] <= 15) == (True, True)
    train_tiny(resume=True, settings={"data.workers": 1})
    assert_same(outcome(run), outcome(undisturbed.folder))


def wait_for_second_epoch(run: Path, child: "subprocess.Popen[str]") -> None:
    """Until a batch of the second epoch has been saved."""
    deadline, saves = time.monotonic() + 300, set()
    while len(saves) < 2:
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        if (run / "metrics.jsonl").is_file():  # written at the end of an epoch, after last.pt
            saves.add((run / "checkpoints/last.pt").stat().st_mtime_ns)
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [("step", 2), ("onecycle", 3), ("cosine", STEPS), ("constant", STEPS + 1), ("onecycle", STEPS + 4)],
)
def test_a_stop_anywhere_leaves_no_trace(
    train_tiny: Train, begin: Callable[..., None], run: Path, outcome: Outcome, schedule: str, steps: int
) -> None:
    settings = {"train.schedule": schedule, "train.step_size": 1, "train.label_smoothing": 0.1}
    undisturbed = train_tiny("undisturbed", settings)
    begin(settings, steps)
    standing = RunFolder(run).load_last()["progress"]
    expected = (0, min(steps, STEPS)) if steps < STEPS + 2 else (1, steps - STEPS - 2)
    assert (standing["epoch"], standing["batch"]) == expected
    train_tiny(resume=True, settings={"data.workers": 1})
    assert_same(outcome(run), outcome(undisturbed.folder))


def test_a_finished_run_is_left_as_it_is(train_tiny: Train, run: Path, outcome: Outcome) -> None:
    summary = train_tiny().summary
    before, metrics = outcome(run), run / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))  # killed just before it
    again = train_tiny(resume=True).summary
    assert_same(outcome(run), before)
    assert again["confusion"] == summary["confusion"]
    assert (again["train_seconds"], again["eval_seconds"]) == (0, 0)


def test_a_prolonged_run_needs_neither_hub_nor_weights_file(
    train_tiny: Train, tmp_path: Path, rows: Rows
) -> None:
    weights = tmp_path / "start.pth"
    torch.save(timm.create_model("test_resnet").state_dict(), weights)
    whole = train_tiny("whole", {"model.weights": str(weights), "train.epochs": 3})
    train_tiny(settings={"model.weights": str(weights)})
    weights.unlink()
    longer = train_tiny(resume=True, settings={"train.epochs": 3})
    assert rows(longer.folder) == rows(whole.folder)
    assert len(rows(longer.folder)) == 3


class Steps:
    """Stands for `train_step`, and notes the samples of each step."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[list[int]] = []
        self._step = fit.train_step
        monkeypatch.setattr(fit, "train_step", self)

    def __call__(self, state: TrainState, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(batch.indices.tolist())
        return self._step(state, batch)


@pytest.mark.parametrize(
    ("first", "second", "steps"),
    [("cpu", "dali-cpu", 2), ("dali-cpu", "cpu", STEPS + 4), ("dali-cpu", "cpu", STEPS),
     pytest.param("cpu", "dali", 2, marks=pytest.mark.gpu),
     pytest.param("dali", "cpu", STEPS + 4, marks=pytest.mark.gpu)],
)  # fmt: skip
def test_another_backend_goes_on_with_the_next_sample(
    train_tiny: Train,
    begin: Callable[..., None],
    photos: Path,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    second: str,
    steps: int,
) -> None:
    pytest.importorskip("nvidia.dali")
    if "dali" in (first, second) and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    watched = Steps(monkeypatch)
    begin({"data.backend": first, "train.device": "auto"}, steps)
    result = train_tiny(resume=True, settings={"data.backend": second})
    assert result.summary["backend"] == second
    train_photos, _ = read_split(run / "split.json", Photos(photos))
    sampler = Sampler(train_photos, 32, 8, augment=Augment(), shuffle=True)
    planned = [plan.indices.tolist() for epoch in range(2) for plan in sampler.plans(epoch)]
    assert watched.seen == planned  # no sample is lost, none comes twice
    assert result.summary["epochs_run"] == 2


def test_the_backend_of_the_beginning_is_kept_where_it_can_be_had(
    train_tiny: Train, begin: Callable[..., None], run: Path
) -> None:
    pytest.importorskip("nvidia.dali")
    begin({"data.backend": "auto"})
    change_last(run, lambda state: state["loader"].update(backend="dali-cpu"))
    assert train_tiny(resume=True).summary["backend"] == "dali-cpu"
    change_last(run, lambda state: state["loader"].update(backend="dali"))  # of another machine
    assert train_tiny(resume=True).summary["backend"] == "cpu"


def test_a_resumed_run_keeps_its_backend_whatever_was_measured_since(
    train_tiny: Train, begin: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nvidia.dali")
    measured = {"backend": "dali-cpu"}

    def choose(data: DataConfig, device: torch.device, photos: Photos | None = None) -> tuple[str, str]:
        chosen = measured["backend"] if data.backend == "auto" else data.backend
        return chosen, "measured"

    monkeypatch.setattr(loader_module, "choose_backend", choose)
    begin({"data.backend": "auto"})
    measured["backend"] = "cpu"
    assert train_tiny(resume=True).summary["backend"] == "dali-cpu"
    assert train_tiny("another").summary["backend"] == "cpu"


def test_a_resumed_run_keeps_its_share_of_the_hardware_decoder(
    train_tiny: Train, begin: Callable[..., None], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin()
    change_last(run, lambda state: state["loader"].update(hw_decoder_load=0.12))
    shares, open_engine = [], loader_module.open_engine

    def opened(backend: str, sampler: Sampler, data: DataConfig, *more: Any) -> Any:
        shares.append(data.hw_decoder_load)
        return open_engine(backend, sampler, data, *more)

    monkeypatch.setattr(loader_module, "open_engine", opened)
    train_tiny(resume=True)
    assert shares == [0.12, 0.12]


@pytest.mark.parametrize(
    ("record", "changed", "found"),
    [
        ({"backend": "dali", "cache": "none"}, None, "dali"),  # of a version that had no kernels of its own
        ({"backend": "dali", "cache": "vram", "gpu_kernels": "dali"}, None, "dali"),
        ({"backend": "dali", "cache": "vram", "gpu_kernels": "triton"}, None, "auto"),
        ({"backend": "dali", "cache": "none"}, "triton", "triton"),
        ({"backend": "cpu", "cache": "none"}, None, "auto"),
    ],
)
def test_who_augmented_on_the_gpu_goes_on_with_it_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, record: dict[str, str], changed: str | None, found: str
) -> None:
    monkeypatch.setattr(resuming, "choose_backend", lambda *_, **__: (record["backend"], ""))
    stored = Config()
    config = change_config(stored, (), {"data.gpu_kernels": changed} if changed else {})
    kept = resuming.as_recorded(config, stored, {"loader": record})
    assert kept.data.gpu_kernels == found


# -------------------------------------------------------------------------------------------- the same pixels

SMALL_CACHE = {"data.cache_side": 32}  # of photos of 56x48: other pixels than without a cache
GB = 10**9


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Function (memory, disk): from now on so many bytes are free."""

    def set_free(memory: int, disk: int) -> None:
        monkeypatch.setattr(choice, "free_memory", lambda: memory)
        monkeypatch.setattr(choice, "free_disk", lambda _: disk)

    return set_free


@pytest.mark.parametrize(
    ("cache", "at_first", "later"),
    [("ram", (GB, GB), (0, GB)), ("disk", (0, GB), (GB, GB)), ("none", (0, 0), (GB, GB))],
)
def test_a_cache_that_was_chosen_is_kept_however_much_is_free_now(
    train_tiny: Train,
    begin: Callable[..., None],
    stop_after: StopAfter,
    run: Path,
    outcome: Outcome,
    free: Callable[[int, int], None],
    cache: str,
    at_first: tuple[int, int],
    later: tuple[int, int],
) -> None:
    settings = {"data.cache": "auto", **SMALL_CACHE}
    free(*at_first)
    undisturbed = train_tiny("undisturbed", settings)
    begin(settings)
    free(*later)
    assert train_tiny("anew", {**settings, "train.epochs": 1}).summary["cache"] != cache
    with pytest.raises(Stopped):
        train_tiny(resume=True, stop=stop_after(STEPS))
    result = train_tiny(resume=True)
    assert result.summary["cache"] == undisturbed.summary["cache"] == cache
    assert_same(outcome(run), outcome(undisturbed.folder))


@pytest.mark.parametrize(
    ("before", "now"), [("none", "ram"), ("ram", "none"), ("none", "auto"), ("disk", "none")]
)
def test_a_cache_that_would_change_pixels_is_refused(
    train_tiny: Train, begin: Callable[..., None], run: Path, before: str, now: str
) -> None:
    begin({"data.cache": before, **SMALL_CACHE})
    saved = (run / "checkpoints/last.pt").read_bytes()
    with pytest.raises(UserError) as caught:
        train_tiny(resume=True, settings={"data.cache": now})
    assert str(caught.value) == (
        f"data.cache={now if now != 'auto' else 'ram'}: the run began with {before}, and a cache shrinks "
        f"these photos to data.cache_side=32; set data.cache={before}"
    )
    assert (run / "checkpoints/last.pt").read_bytes() == saved


@pytest.mark.parametrize(
    ("before", "now", "side"), [("none", "ram", 48), ("ram", "none", 48), ("ram", "disk", 32)]
)
def test_a_cache_that_gives_the_same_pixels_may_come_and_go(
    train_tiny: Train,
    begin: Callable[..., None],
    run: Path,
    outcome: Outcome,
    before: str,
    now: str,
    side: int,
) -> None:
    settings = {"data.cache": before, "data.cache_side": side}
    undisturbed = train_tiny("undisturbed", settings)
    begin(settings)
    assert train_tiny(resume=True, settings={"data.cache": now}).summary["cache"] == now
    assert_same(outcome(run), outcome(undisturbed.folder))


def test_photos_of_other_sizes_are_refused_and_packed_ones_of_the_same_are_not(
    train_tiny: Train, begin: Callable[..., None], photos: Path, tmp_path: Path, run: Path, outcome: Outcome
) -> None:
    undisturbed = train_tiny("undisturbed")
    begin()
    pack(photos, tmp_path / "small", PackSettings(max_side=40), DataConfig())
    with pytest.raises(
        UserError, match=r"small: photos have other sizes in pixels than when the run"
    ) as caught:
        train_tiny(resume=True, settings={"data.path": str(tmp_path / "small")})
    assert "\n" not in str(caught.value)
    pack(photos, tmp_path / "whole", PackSettings(), DataConfig())
    train_tiny(resume=True, settings={"data.path": str(tmp_path / "whole")})
    assert_same(outcome(run), outcome(undisturbed.folder))


def test_a_save_of_an_earlier_version_has_no_record_and_is_resumed(
    train_tiny: Train, begin: Callable[..., None], run: Path, outcome: Outcome
) -> None:
    undisturbed = train_tiny("undisturbed")
    begin()
    change_last(run, lambda state: state.pop("loader"))
    train_tiny(resume=True)
    assert_same(outcome(run), outcome(undisturbed.folder))


@pytest.mark.parametrize("other", [{"train.seed": 9}, {"train.lr": 0.01}])
def test_the_save_of_another_run_is_refused(
    train_tiny: Train, begin: Callable[..., None], run: Path, other: dict[str, Any]
) -> None:
    begin()
    theirs = train_tiny("other", other).folder / "checkpoints/last.pt"
    (run / "checkpoints/last.pt").write_bytes(theirs.read_bytes())
    with pytest.raises(UserError, match=r"last\.pt: of another run; bring back the one of this run"):
        train_tiny(resume=True)


# ------------------------------------------------------------------------------------ before the first save


@pytest.mark.parametrize("how", ["resumed", "begun again"])
def test_a_run_that_died_before_its_first_save_starts_from_the_beginning(
    train_tiny: Train, run: Path, outcome: Outcome, how: str
) -> None:
    undisturbed = train_tiny("undisturbed", {"train.seed": 3})

    def die(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "save_last", die)
        patch.setattr(RunFolder, "discarded_on_failure", lambda _: nullcontext())  # of a kill nobody knows
        with pytest.raises(OSError, match="Input/output error"):
            train_tiny(settings={"train.seed": 3})
    (run / "checkpoints/last.pt.partial").write_bytes(b"half")
    assert {entry.name for entry in run.iterdir()} == {"config.yaml", "split.json", "checkpoints"}
    if how == "resumed":
        train_tiny(resume=True, settings={"data.workers": 1})
        assert "seed: 3" in (run / "config.yaml").read_text()
    else:
        train_tiny(settings={"train.seed": 3})
    assert_same(outcome(run), outcome(undisturbed.folder))
    with pytest.raises(UserError, match="run: exists already; continue it with --resume"):
        train_tiny()


# ------------------------------------------------------------------------------------------ it cannot go on


def test_what_would_alter_the_past_is_refused(train_tiny: Train, begin: Callable[..., None]) -> None:
    begin()
    for key, value in (("train.lr", 0.5), ("train.batch_size", 2), ("data.hw_decoder_load", 0.5)):
        with pytest.raises(UserError, match=rf"^{key}={value}: the run began with") as caught:
            train_tiny(resume=True, settings={key: value})
        assert "\n" not in str(caught.value)


def test_a_folder_that_changed_is_refused(
    train_tiny: Train, begin: Callable[..., None], photos: Path
) -> None:
    begin()
    (photos / "red/new.jpg").write_bytes((photos / "red/00.jpg").read_bytes())
    with pytest.raises(UserError, match=r"red/new\.jpg is new since the run began"):
        train_tiny(resume=True)


def test_a_resumed_run_is_named_by_its_folder_alone(train_tiny: Train, run: Path) -> None:
    with pytest.raises(UserError, match=r"^--resume: name the run to go on with, --out RUN$"):
        train_tiny(None, resume=True)
    with pytest.raises(UserError, match=r"run: no run to resume there \(config\.yaml is missing\)"):
        train_tiny(resume=True)
    with pytest.raises(UserError, match=r"^--config paper: a resumed run keeps its own config\.yaml"):
        train_tiny(resume=True, config="paper")
    assert not run.exists()


def spoilt(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Saves that torch can read and that are none of this run."""
    trainer, other = state["trainer"], timm.create_model("test_convnext", num_classes=3).state_dict()
    without = [{k: v for k, v in state.items() if k != key} for key in ("trainer", "totals", "progress")]
    return [
        *without,
        *({**state, "trainer": {k: v for k, v in trainer.items() if k != key}} for key in trainer),
        *({**state, "trainer": {**trainer, key: 3}} for key in ("network", "optimizer", "scheduler", "rng")),
        {**state, "trainer": {**trainer, "network": other}},
        {**state, "trainer": None},
        {**state, "progress": None},
        {**state, "progress": {**state["progress"], "unknown": 1}},
        {**state, "totals": {"sums": torch.zeros(7), "samples": 0}},
        {**state, "version": 2},
    ]


def test_a_save_that_does_not_fit_is_refused_in_one_line(
    train_tiny: Train, begin: Callable[..., None], run: Path
) -> None:
    begin()
    folder = RunFolder(run)
    folder.previous.unlink()  # else it would stand in
    for state in spoilt(folder.load_last()):
        torch.save(state, folder.last)
        before = folder.last.read_bytes()
        with pytest.raises(UserError) as caught:
            train_tiny(resume=True)
        assert str(caught.value).startswith(f"{folder.last}: ")
        assert str(caught.value).endswith("; start a new run")
        assert "\n" not in str(caught.value)
        assert folder.last.read_bytes() == before


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_of_an_earlier_version_goes_on_with_photos_as_they_are_stored(
    train_tiny: Train, turned: tuple[Path, Path], stop_after: StopAfter, rows: Rows, earlier: bool
) -> None:
    settings = {"train.epochs": 1, "data.exif": "ignore" if earlier else "apply"}
    whole = train_tiny("whole", settings, turned[0])
    with pytest.raises(Stopped):
        train_tiny("run", settings, turned[0], stop=stop_after(3))
    config = whole.folder.parent / "run/config.yaml"
    lines = config.read_text(encoding="utf-8").splitlines(keepends=True)
    if earlier:
        config.write_text(
            "".join(line for line in lines if "exif" not in line and "sha256" not in line), encoding="utf-8"
        )
    with pytest.raises(UserError, match=r"data\.exif='.*': the run began with '.*' and must keep that"):
        train_tiny("run", {"data.exif": "apply" if earlier else "ignore"}, resume=True)
    resumed = train_tiny("run", resume=True)
    assert rows(resumed.folder) == rows(whole.folder)
    assert resumed.summary["notes"] == whole.summary["notes"]
    assert RunFolder(resumed.folder).open().data.exif == settings["data.exif"]
