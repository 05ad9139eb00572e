"""What a run calls of the user's own, for trackers of experiments above all."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flowerfast.arguments import of_kind
from flowerfast.errors import RunFailed, UserError, one_line
from flowerfast.files import to_json

_WANTED = "an object of a class that is derived from ff.Callback"


@dataclass(frozen=True)
class RunFacts:
    """A run that is about to train.

    Attributes:
        folder: the run folder.
        config: the whole resolved configuration as in config.yaml, plain values by section and name.
        classes: names of the classes, in the order of the logits.
        train_samples, val_samples, test_samples: photos of each half; of test/, 0 where there is none.
        history: of a resumed run, the metrics of the epochs before, as `on_epoch` was told them. The last of
            them may never have been told: a kill can come in between.
    """

    folder: Path
    config: dict[str, dict[str, Any]]
    classes: tuple[str, ...]
    train_samples: int
    val_samples: int
    test_samples: int
    history: list[dict[str, Any]]


@runtime_checkable
class Callback(Protocol):  # whose functions return, for type checkers take empty ones for abstract
    """Derive from it, and write those of the three functions that are needed.

    Of several ranks the first alone calls them, and the others wait. An exception ends the run with
    RunFailed, after all that was trained is saved.
    """

    def on_start(self, run: RunFacts) -> None:
        """A run is about to train, or to go on."""
        return

    def on_epoch(self, metrics: dict[str, Any]) -> None:
        """An epoch is over and saved: its line of metrics.jsonl."""
        return

    def on_end(self, summary: dict[str, Any]) -> None:
        """The run is complete, report and all: the content of summary.json."""
        return


class Callbacks:
    """The callbacks of a run, in their order. Each is given values of its own.

    Args:
        given: as `train` takes them. Raises UserError for what is none.
    """

    def __init__(self, given: Sequence[Callback] = ()) -> None:
        of_kind("callbacks", given, Sequence, "a list")
        for place, each in enumerate(given):
            name = f"callbacks[{place}]"
            of_kind(name, each, Callback, _WANTED)
            if isinstance(each, type):
                raise UserError(f"{name}: the class {each.__name__} itself; give {each.__name__}()")
        self._each = tuple(given)

    def start(self, facts: RunFacts) -> None:
        """Call `on_start` of all. Raises RunFailed."""
        self._call(
            "on_start",
            lambda: replace(facts, config=_plain(facts.config), history=_plain(facts.history)),
            "mend that, then run the same again",
        )

    def epoch(self, metrics: dict[str, Any], folder: Path) -> None:
        """Call `on_epoch` of all. Raises RunFailed."""
        then = f"mend that, then go on with {_resuming(folder)}"
        self._call("on_epoch", lambda: _plain(metrics), then)

    def end(self, summary: dict[str, Any], folder: Path) -> None:
        """Call `on_end` of all. Raises RunFailed."""
        then = f"the run is complete; once that is mended, {_resuming(folder)} calls it again"
        self._call("on_end", lambda: _plain(summary), then)

    def _call(self, function: str, value: Callable[[], Any], then: str) -> None:
        for place, each in enumerate(self._each):
            try:
                getattr(each, function)(value())
            except Exception as error:
                raise RunFailed(
                    f"callbacks[{place}] ({type(each).__name__}).{function}: {type(error).__name__}: "
                    f"{one_line(error)}; {then}"
                ) from error


def _plain(value: Any) -> Any:
    """A copy, as JSON has it: None for numbers that are none."""
    return json.loads(to_json(value))


def _resuming(folder: Path) -> str:
    return f"resume=True, out={str(folder)!r}"
