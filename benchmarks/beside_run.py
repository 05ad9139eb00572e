"""One program under a clock: when its first step of training is done, how many there are, and when the last.

    python benchmarks/beside_run.py FILE MODULE:FUNCTION|SCRIPT [ARGUMENT ...]

A step is counted when torch has gone back through the network: fastai has optimisers of its own. Written to
FILE as JSON when the program ends, however it does.
"""

import atexit
import importlib
import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch


def main() -> None:
    """Run what is named."""
    file, program, *arguments = sys.argv[1:]
    times: list[float] = []
    began = float(os.environ.get("BESIDE_BEGAN", time.time()))

    def noted() -> None:
        if times:
            first, last = times[0], times[-1]
            told = {"first_step_seconds": first - began, "steps": len(times), "seconds": last - first}
            Path(file).write_text(json.dumps(told), encoding="utf-8")

    import torch

    backward = torch.Tensor.backward

    def timed(*given: Any, **named: Any) -> None:
        backward(*given, **named)
        times.append(time.time())

    patch.object(torch.Tensor, "backward", timed).start()
    atexit.register(noted)
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
        return
    module, function = program.split(":")
    sys.argv[0] = module.partition(".")[0]
    sys.exit(getattr(importlib.import_module(module), function)())


if __name__ == "__main__":
    main()
