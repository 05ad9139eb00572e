"""The child's side of a row: `python -m benchmarks.acceptance.worker`.

One line of JSON in, {"target": "module:function", "options": {"place": ..., ...}}, one line out: the outcome.
"""

import importlib
import json
from dataclasses import asdict
from typing import Any, TextIO

from benchmarks.acceptance.outcome import Outcome
from benchmarks.acceptance.place import Place
from flowerfast.bench.worker import Send, answer


def find_out(target: str, options: dict[str, Any]) -> Outcome:
    """What the row named `module:function` finds at options["place"]."""
    module, _, name = target.partition(":")
    rest = {key: value for key, value in options.items() if key != "place"}
    found: Outcome = getattr(importlib.import_module(module), name)(Place.from_json(options["place"]), **rest)
    return found


def serve(lines: TextIO, send: Send) -> None:
    """Answer one order."""
    order = json.loads(lines.readline())
    send(asdict(find_out(order["target"], order["options"])))


if __name__ == "__main__":
    answer(serve)
