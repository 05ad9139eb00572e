"""The command that lists settings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flowerfast.commands.find import check_outputs
from flowerfast.commands.options import JsonFile
from flowerfast.commands.output import print_settings, write_json
from flowerfast.errors import UserError
from flowerfast.nearest import did_you_mean, nearest_keys


def settings(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD]...", help="Only settings with one of these in key or meaning."),
    ] = None,
    json_: JsonFile = None,
) -> None:
    """List every setting with its default and meaning, for --set and config files."""
    from flowerfast.config import describe_settings, known_keys

    check_outputs({"json": json_})
    rows = [row for row in describe_settings() if not words or _speaks_of(row, words)]
    if not rows:
        near = nearest_keys(words[0], [*known_keys()]) if words else []
        hint = did_you_mean(near) if near else "; `flowerfast settings` lists all"
        raise UserError(f"settings {' '.join(words or [])}: no setting speaks of that{hint}")
    if json_ != Path("-"):
        print_settings(rows)
    write_json(json_, [{"key": key, "default": default, "meaning": about} for key, default, about in rows])


def _speaks_of(row: tuple[str, Any, str], words: list[str]) -> bool:
    text = f"{row[0]} {row[2]}".casefold()
    return any(word.casefold() in text for word in words)
