"""The child's side of a measurement: `python -m flowerfast.bench.worker`, started by `child.py`.

Lines of JSON. In on standard input: first {"target": "module:function", "options": {...}}, then one
{"seconds": s} per round; the end of the input ends the process. Out on what was standard output: {"ready":
seconds of the warm-up}, {"images", "seconds", "counters"} per round, or {"error": one line, "skipped": bool}
as the last word. Anything that libraries print goes to standard error.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

from flowerfast.bench.rounds import Rounds, Source
from flowerfast.errors import UserError

Send = Callable[[dict[str, Any]], None]
"""Sends one line of JSON to the parent."""


def open_source(target: str, options: dict[str, Any]) -> Source:
    """Source made by a function named `module:function`; it may also return the epochs alone."""
    module, _, name = target.partition(":")
    made = getattr(importlib.import_module(module), name)(**options)
    return made if isinstance(made, Source) else Source(iter(made))


def serve(lines: TextIO, send: Send) -> None:
    """Open, warm up, and run a round whenever asked to."""
    order = json.loads(lines.readline())
    rounds = Rounds(open_source(order["target"], order["options"]))
    send({"ready": rounds.warm_up()})
    for line in lines:
        send(asdict(rounds.run(json.loads(line)["seconds"])))


def answer(serve: Callable[[TextIO, Send], None]) -> None:
    """Serve on this process's standard input and output, say why when that ends early, and end."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    code = 0
    try:
        serve(sys.stdin, send)
    except UserError as error:
        send({"error": str(error), "skipped": True})
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        send({"error": f"{type(error).__name__}: {first}", "skipped": False})
        code = 1
    sys.stderr.flush()
    os._exit(code)  # at once: the parent ends what is left, and teardown of native libraries can hang


if __name__ == "__main__":
    answer(serve)
