"""Is the GPU path right? Each check is a row in a process of its own: one command, one table, one JSON.

    python benchmarks/gpu_acceptance.py [--rows NAME[,NAME]] [--photos DIR]... [--weights FILE] [--out FILE]

Needs an NVIDIA GPU with DALI, or `--device cpu --quick` to rehearse every row with DALI's CPU operators. The
file, by default benchmarks/results/gpu-acceptance-DEVICE.json, is written after each row; with --rows it
keeps the other rows that it had. Exit code: 0 all rows hold, 1 some do not, 2 wrong arguments.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    # Not at the top: the processes that render flowers import this file, and shall not import torch.
    from benchmarks.acceptance.command import main

    sys.exit(main())
