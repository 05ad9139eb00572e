"""A small search over settings by successive halving: many short runs, fewer longer ones, one winner.

Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS
2016. What a trial tries follows from the seed and its number, and each is a run in a folder of its own, so
that a search that was stopped goes on where it was.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from flowerfast.arguments import of_kind, path, place, progress_bars, whole
from flowerfast.config import Config
from flowerfast.documents import conform
from flowerfast.errors import RunFailed, UserError
from flowerfast.files import to_json, write_text
from flowerfast.locks import only_writer
from flowerfast.machine import Progress, ProgressBars, no_bars
from flowerfast.photos.photos import Photos
from flowerfast.photos.shard_index import INDEX
from flowerfast.places import in_full, is_table, url_of
from flowerfast.ranks.who import check_alone
from flowerfast.settings import PRESET_SECTION, change_config, start_config
from flowerfast.training.progress import Silent, Stop, Totals
from flowerfast.training.run import train
from flowerfast.training.seal import Damaged, read_sealed, write_sealed
from flowerfast.training.trials import AUTO, Say, draw_trials

FACTOR = 3
"""The best of so many trials goes on to the next round, where a trial has so many times the epochs."""


class _Row(TypedDict):
    """A trial that has ended."""

    round: int
    trial: int
    epochs: int
    settings: dict[str, Any]
    accuracy: Annotated[float, Field(ge=0, le=1)] | None
    error: str | None
    seconds: Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class TuneResult:
    """A finished search.

    Attributes:
        folder: of its runs.
        config: file of the configuration that did best.
        trials: rows of trials.json: round, trial, settings, epochs, accuracy (None: it failed), seconds.
        best: the row of the winner.
    """

    folder: Path
    config: Path
    trials: list[dict[str, Any]]
    best: dict[str, Any]


def tune(
    data: Path | str | None = None,
    *,
    out: Path | str,
    config: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    trials: int = 9,
    weights: Path | str | None = None,
    minutes: float | None = None,
    say: Say = lambda _: None,
    stop: Callable[[], AbstractContextManager[Stop]] | None = None,
    bars: ProgressBars = no_bars,
) -> TuneResult:
    """Search for learning rate, weight decay, augmentation and resolution, and write the best as a config.

    Trial 0 is the configuration as it is; the others change `lr` by up to ten times either way, and draw the
    rest. The first round gives each trial few epochs, the last one the winner `train.epochs` of them. What
    is compared is the best validation accuracy: of the winner it is optimistic, for it was chosen by it.

    Args:
        data, config, settings: as of `train`. model.name=auto: trials take the models at hand in turn.
        out: folder of the search; one of the same search that was stopped goes on.
        trials: runs of the first round.
        weights: folder of weights files NAME.safetensors or NAME.TAG.safetensors of timm models NAME, for
            model.name=auto; None: the weights that the hub's client has kept.
        minutes: begin no trial after so long; the best of the last round that is complete has won.
        say: is told a line per trial.
        stop, bars: as of `train`; `stop` is called for each trial.

    Raises UserError, Stopped and RunFailed as `train` does; RunFailed when all trials fail.
    """
    check_alone("tune")
    of_kind("settings", settings, Mapping | None, "a mapping from dotted keys to values")
    trials, folder = whole("trials", trials, 1, 10_000), path("out", out)
    given = {**({} if data is None else {"data.path": in_full(place("data", data))}), **(settings or {})}
    base = start_config(config, given)
    if weights is not None and base.model.name != AUTO:
        raise UserError(
            f"--weights {weights}: of models to choose from, which model.name={base.model.name} is not; set "
            "model.name=auto, or give the file as model.weights"
        )
    _refuse_several(base, progress_bars(bars))
    drawn = draw_trials(base, trials, weights, say)
    with only_writer(folder, "choose another --out"):
        search = _Search(folder, base, drawn)
        try:
            return search.run(minutes, say, stop or (lambda: nullcontext(lambda: None)), progress_bars(bars))
        except (UserError, RunFailed):
            search.leave_nothing()
            raise


def _refuse_several(base: Config, bars: ProgressBars) -> None:
    """Raise UserError where photos have several labels: the search compares accuracies."""
    data = base.data.path
    if data is None or not (is_table(data) or url_of(data) is not None or (Path(data) / INDEX).is_file()):
        return  # class folders
    with bars("reading headers") as bar:
        photos = Photos.open(data, base.data, bar)
    if photos.multilabel:
        raise UserError(
            f"tune: {photos.source} has several labels a photo, and the search compares accuracies of one; "
            "compare runs of train by report instead"
        )


class _Search:
    """Trials of one configuration in a folder, and what is known of them."""

    def __init__(self, folder: Path, base: Config, drawn: list[dict[str, Any]]) -> None:
        self._folder, self._base, self._drawn = folder, base, drawn
        self._file, self._best = folder / "trials.json", folder / "best.yaml"
        self._about = {"config": base.model_dump(mode="json"), "trials": drawn}
        self._rows = self._known()
        self._write()  # so that a search whose first trial is stopped is known as one

    def leave_nothing(self) -> None:
        """Take the file of trials away where none has begun: the next search may have other settings."""
        if not self._rows and not [*self._folder.glob("round-*/*")]:
            for made in self._folder.glob("round-*"):
                made.rmdir()
            self._file.unlink(missing_ok=True)

    def run(
        self,
        minutes: float | None,
        say: Say,
        stop: Callable[[], AbstractContextManager[Stop]],
        bars: ProgressBars,
    ) -> TuneResult:
        """All rounds, or as many as there is time for."""
        end = math.inf if minutes is None else time.monotonic() + 60 * minutes
        left, epochs = list(range(len(self._drawn))), self._base.train.epochs
        rounds = max(1, math.ceil(round(math.log(len(left), FACTOR), 9)) + 1)
        best: dict[str, Any] | None = None
        for number in range(rounds):
            length = max(1, round(epochs / FACTOR ** (rounds - 1 - number)))
            for trial in left:
                if self._row(number, trial) is None and time.monotonic() >= end:
                    say(f"no time is left: round {number + 1} of {rounds} is not complete")
                    return self._result(best)
                row = self._row(number, trial) or self._try(number, trial, length, stop, bars)
                if row["error"] is None:  # best/ has the weights; not before the row is known
                    shutil.rmtree(self._run(number, trial) / "checkpoints", ignore_errors=True)
                say(f"round {number + 1} of {rounds}, {describe(row)}")
            ranked = sorted(left, key=partial(self._accuracy, number), reverse=True)
            if self._accuracy(number, ranked[0]) < 0:
                break
            best = self._row(number, ranked[0])
            left = ranked[: max(1, len(left) // FACTOR)]
        return self._result(best)

    def _try(
        self,
        number: int,
        trial: int,
        epochs: int,
        stop: Callable[[], AbstractContextManager[Stop]],
        bars: ProgressBars,
    ) -> dict[str, Any]:
        """Train one trial, or go on with it."""
        out = self._run(number, trial)
        settings = {**self._drawn[trial], "train.epochs": epochs}
        resume = (out / "config.yaml").is_file()
        row: dict[str, Any] = {"round": number, "trial": trial, "epochs": epochs, "settings": settings}
        started = time.monotonic()
        with bars(f"trial {trial}") as bar:
            try:
                given: dict[str, Any] = {"resume": True} if resume else {"settings": self._settings(settings)}
                result = train(out=out, **given, reporter=_Bar(bar, epochs), stop=stop())
            except RunFailed as error:
                if isinstance(error.__cause__, OSError):  # a disk, which fails whatever the settings
                    raise
                row |= {"accuracy": None, "error": str(error)}
            else:
                row |= {"accuracy": result.summary["best_val_acc"], "error": None}
        self._rows.append({**row, "seconds": time.monotonic() - started})
        self._write()
        return self._rows[-1]

    def _run(self, number: int, trial: int) -> Path:
        """Folder of a trial's run."""
        return self._folder / f"round-{number + 1}" / f"trial-{trial:03}"

    def _write(self) -> None:
        write_sealed(self._file, to_json({**self._about, "rows": self._rows}, indent=1) + "\n")

    def _settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of a run, by dotted key."""
        tree = self._base.model_dump(mode="json")
        if PRESET_SECTION in changes:
            del tree[PRESET_SECTION]
        flat = {f"{section}.{key}": value for section, keys in tree.items() for key, value in keys.items()}
        return {**flat, "checkpoints.keep": 1, **changes}

    def _row(self, number: int, trial: int) -> dict[str, Any] | None:
        """What is known of a trial in a round."""
        return next((row for row in self._rows if (row["round"], row["trial"]) == (number, trial)), None)

    def _accuracy(self, number: int, trial: int) -> float:
        """Of a trial in a round; below all when it failed."""
        row = self._row(number, trial)
        return -1.0 if row is None or row["accuracy"] is None else float(row["accuracy"])

    def _known(self) -> list[dict[str, Any]]:
        """Trials that an earlier start has finished. Raises UserError for those of another search."""
        if not self._file.is_file():
            if any(file.name != f"{self._file.name}.partial" for file in self._folder.iterdir()):
                raise UserError(f"{self._folder}: holds something else than a search; choose another --out")
            return []
        try:
            stored = read_sealed(self._file)
            about = {key: stored.get(key) for key in self._about}
            rows: list[Any] = conform(list[_Row], stored.get("rows"))
        except (Damaged, OSError, ValueError) as error:
            raise UserError(f"{self._file}: damaged; bring it back, or choose another --out") from error
        drawn = dict(enumerate(self._drawn))
        asked = [{**drawn.get(row["trial"], {}), "train.epochs": row["epochs"]} for row in rows]
        if about != self._about or asked != [row["settings"] for row in rows]:
            raise UserError(f"{self._folder}: a search of other settings; choose another --out")
        return rows

    def _result(self, best: dict[str, Any] | None) -> TuneResult:
        """Write the winner's configuration."""
        if best is None:
            why = next((f": {row['error']}" for row in self._rows if row["error"]), "")
            raise RunFailed(f"{self._folder}: no trial of the first round came to an end{why}")
        tried = {key: value for key, value in best["settings"].items() if key != "train.epochs"}
        config = change_config(self._base, (), tried)
        write_text(self._best, config.to_yaml(), durable=True)
        return TuneResult(self._folder, self._best, self._rows, best)


class _Bar(Silent):
    """Shows how far a trial is: epochs, and batches of the one under way."""

    def __init__(self, show: Progress | None, epochs: int) -> None:
        self._show, self._epochs, self._place = show, epochs, (0, 0, 1)

    def start_epoch(self, epoch: int, batches: int, done: int) -> None:
        """An epoch begins."""
        self._place = epoch, done, batches

    def step(self, samples: int, read: Totals) -> None:
        """A step is queued."""
        epoch, done, batches = self._place
        self._place = epoch, done + 1, batches
        if self._show is not None:
            self._show(epoch * batches + done + 1, self._epochs * batches)


def describe(row: Mapping[str, Any]) -> str:
    """A trial in one line."""
    settings = ", ".join(f"{key} {value}" for key, value in row["settings"].items() if key != "train.epochs")
    came = f"{row['accuracy']:.1%}" if row["accuracy"] is not None else f"failed: {row['error']}"
    return f"trial {row['trial']} ({settings or 'as configured'}), {row['epochs']} epochs: {came}"
