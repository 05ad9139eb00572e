"""A process that leaves an epoch in the middle: `python -m benchmarks.acceptance.leaver PLACE KIND ENDING`.

It draws two batches, says so on standard output, and then ends without closing the loader: by the end of the
program, by an exception, or by the SIGINT that its parent sends while it draws on.
"""

import itertools
import json
import signal
import sys
from typing import cast, get_args

from benchmarks.acceptance.place import Kind, Place

READY = "drawn"


def leave(place: Place, kind: Kind, ending: str) -> None:
    """Draw, and end as told."""
    loader = place.open("small", kind)
    batches = itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())
    next(batches)
    next(batches)
    sys.stdout.write(READY + "\n")
    sys.stdout.flush()
    if ending == "exception":
        raise RuntimeError("left in mid-epoch")
    if ending == "ctrl-c":
        for batch in batches:
            del batch


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with it ignored
    assert sys.argv[2] in get_args(Kind)
    leave(Place.from_json(json.loads(sys.argv[1])), cast(Kind, sys.argv[2]), sys.argv[3])
