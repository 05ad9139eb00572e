"""What all pages of runs share: how values are shown, and a script that no other can take the place of."""

import base64
import hashlib
import math
from typing import Any

import jinja2

from flowerfast.errors import printable

MAX_NAME = 32
"""Characters of a class name on an axis; a table has the whole name."""
_SCRIPT = "sort.js"


def render(template: str, **values: Any) -> str:
    """A page. It holds one script, whose hash it names to the browser: any other is not run.

    Raises jinja2.UndefinedError, or what comes of values that are not as the template has them.
    """
    loader = jinja2.PackageLoader("flowerfast.training")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,  # class names, paths and settings are the user's
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, duration=duration, thousands="{:,}".format, short=short)
    script = loader.get_source(environment, _SCRIPT)[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(values, script=script, script_hash=digest)


def short(name: str) -> str:
    """Make a class name fit an axis: one line, only what can be encoded, at most MAX_NAME characters."""
    line = printable(" ".join(name.split()))
    return line if len(line) <= MAX_NAME else line[: MAX_NAME - 1] + "…"


def percent(value: float | None) -> str:
    """A share of 1, "–" where there is none."""
    return f"{value:.1%}" if value is not None and math.isfinite(value) else "–"


def duration(seconds: float) -> str:
    """Show seconds as "12.3 s", "4 min 05 s" or "2 h 07 min", with a space at which no line breaks."""
    if seconds < 59.95:
        return f"{seconds:.1f}\N{NO-BREAK SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d}\N{NO-BREAK SPACE}s"
    return f"{minutes // 60} h {minutes % 60:02d}\N{NO-BREAK SPACE}min"


def _visible(value: Any) -> Any:
    """What stands on the page: control characters as escapes, for whoever prints its source."""
    return printable(value, keep="\n") if isinstance(value, str) and not hasattr(value, "__html__") else value
