"""Pieces of the pages that are made of results files."""

from collections.abc import Iterable, Sequence
from typing import Any

_RULES = {">": "--:", "^": ":-:"}


def table(columns: str, rows: Iterable[Sequence[str]]) -> str:
    """A table. `columns` are headers, separated by |; > before one sets its column right, ^ in the middle."""
    headers = columns.split("|")
    rules = "|".join(_RULES.get(header[:1], "---") for header in headers)
    lines = [[header.lstrip(">^") for header in headers], *rows]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, f"|{rules}|", *body])


def machine(env: dict[str, Any]) -> str:
    """Its processor or GPU, and its cores."""
    gpu = env.get("device", "CPU")
    named = env.get("cpu") or gpu if gpu.startswith("CPU") else gpu
    return ", ".join([*([named] if named != "CPU" else []), f"{env['cores']} cores"])


def photos(data: dict[str, Any]) -> str:
    """How many and how large, without an end."""
    return f"{data['photos']:,} photos of {data['mean_pixels'] / 1e6:.2f} megapixels"


def made(name: str, env: dict[str, Any], up: str = "") -> str:
    """When the results of a file were made, with a link to it; `up` leads from the page to the repository."""
    return f"{env['date']} ([{name}]({up}benchmarks/results/{name}))"
