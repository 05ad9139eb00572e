"""The child's side of a measurement: `python -m flowerfast.bench.worker`, started by `child.py`.

Lines of JSON. In on standard input: first {"target": "module:function", "options": {...}}, then one
{"seconds": s} per round; the end of the input ends the process. Out on what was standard output: {"ready":
seconds of the warm-up}, {"images", "seconds", "counters"} per round, or {"error": one line, "skipped": bool}
as the last word. Where the order says "once", the function is called and {"value": what it returns} is all
that comes. Anything that libraries print goes to standard error.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from flowerfast.bench.rounds import Rounds, Source
from flowerfast.errors import UserError


def open_source(target: str, options: dict[str, Any]) -> Source:
    """Source made by a function named `module:function`; it may also return the epochs alone."""
    made = call(target, options)
    return made if isinstance(made, Source) else Source(iter(made))


def call(target: str, options: dict[str, Any]) -> Any:
    """What a function named `module:function` returns."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)(**options)


def _serve(send: Callable[[dict[str, Any]], None]) -> None:
    """Open, warm up, and run a round whenever asked to."""
    order = json.loads(sys.stdin.readline())
    if order.get("once"):
        send({"value": call(order["target"], order["options"])})
        return
    rounds = Rounds(open_source(order["target"], order["options"]))
    send({"ready": rounds.warm_up()})
    for line in sys.stdin:
        send(asdict(rounds.run(json.loads(line)["seconds"])))


def _main() -> None:
    """Serve the parent, say why when that ends early, and end."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    code = 0
    try:
        _serve(send)
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
    _main()
