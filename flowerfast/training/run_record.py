"""What a run folder says of a run that has ended: its summary, its epochs, its settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerfast.documents import DocumentError, parse_json
from flowerfast.errors import UserError
from flowerfast.files import read_text
from flowerfast.training.seal import Damaged, check

MOST = 24
"""Runs on one page."""
COMPARED = Path("compare.html")
"""That page, where no other is named."""


@dataclass(frozen=True)
class RunRecord:
    """Files of a run folder, read and parsed, not judged: a value may be missing.

    Attributes:
        path: the folder.
        summary: of summary.json.
        history: rows of metrics.jsonl, one at least.
        config: text of config.yaml.
    """

    path: Path
    summary: dict[str, Any]
    history: list[dict[str, Any]]
    config: str

    @classmethod
    def read(cls, run: Path) -> "RunRecord":
        """Read summary.json and config.yaml, and metrics.jsonl where an earlier version wrote the summary.

        Raises UserError when a file is missing or damaged.
        """
        summary = _parse(run / "summary.json", _read(run / "summary.json"))
        history = summary.get("history")
        if history is None:
            lines = _read(run / "metrics.jsonl").splitlines()
            history = [_parse(run / "metrics.jsonl", line) for line in lines if line.strip()]
        if not history:
            raise UserError(f"{run / 'metrics.jsonl'} has no epoch yet: let the run finish one")
        return cls(run, summary, history, _read(run / "config.yaml"))

    def lacks(self, error: Exception) -> UserError:
        """The failure of a page that a value was missing for."""
        return UserError(
            f"{self.path}: summary.json or metrics.jsonl lacks a value ({error}): "
            "train again with this version"
        )


def check_runs(folders: Sequence[Path]) -> None:
    """Raise UserError for no run, too many, one that is named twice, or a path that is no folder."""
    if not 0 < len(folders) <= MOST:
        raise UserError(f"report: {len(folders)} runs; give 1 to {MOST}")
    for place, folder in enumerate(folders):
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "no such folder"
            raise UserError(f"{folder}: {what}; give the folder of a run that has ended")
        if any(folder.samefile(other) for other in folders[:place]):
            raise UserError(f"{folder}: named twice; name each run once")


def _read(path: Path) -> str:
    """A text file of a run, without the comment that is its checksum."""
    try:
        sealed = check(path)
        text = read_text(path)
    except Damaged:
        raise
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read {path} ({reason}): give the folder of a run that has ended") from error
    return text.partition("\n")[2] if sealed and path.suffix == ".yaml" else text


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        value = parse_json(text.encode("utf-8"), finite=False)
    except DocumentError as error:
        raise UserError(f"{path} is damaged ({error}): train again or restore the file") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is damaged (not a JSON object): train again or restore the file")
    return value
