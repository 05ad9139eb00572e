#!/usr/bin/env bash
# SPDL 0.8.0, DistributedRandomSampler: with the same seed the ranks together draw the same order whatever their
# number, if it divides the number of samples. If it does not, the samples that are left over are dropped before the
# draw, and a draw of fewer samples is another permutation altogether. Who resumes on another number of ranks by
# leaving out as many samples as were seen then sees some twice and others not at all.
#
# Seen, seed 0, ranks interleaved: of 1000 samples 1, 2 and 4 ranks begin 437 762 923 508, 3 ranks 232 355 820 888; of
# 1001 each of 1, 2 and 3 ranks has an order of its own. With ddp_drop_last_distributed_round=False all are the same.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q spdl==0.8.0 numpy==2.4.6
"$home/venv/bin/python" - <<'PY'
import sys
from itertools import zip_longest

from spdl.source import DistributedRandomSampler


def order(samples, ranks, drop):
    """What all ranks draw together, each in its turn."""
    parts = [
        DistributedRandomSampler(
            samples, rank=rank, world_size=ranks, seed=0, ddp_drop_last_distributed_round=drop
        )
        for rank in range(ranks)
    ]
    return [int(index) for turn in zip_longest(*parts) for index in turn if index is not None]


found = {}
for drop in (True, False):
    for samples in (1000, 1001):
        orders = {ranks: order(samples, ranks, drop) for ranks in (1, 2, 3, 4)}
        found[drop, samples] = [orders[ranks] == orders[1][: len(orders[ranks])] for ranks in orders]
        starts = {ranks: each[:4] for ranks, each in orders.items()}
        print(f"{samples} samples, drop {drop}: {starts}; as on one rank: {found[drop, samples]}")
half = order(1000, 4, True)[:500], order(1000, 3, True)[500:]
twice = len({*half[0]} & {*half[1]})
print(f"half an epoch of 1000 on 4 ranks, the rest on 3: {twice} samples come twice")
expected = {(True, 1000): [True, True, False, True], (True, 1001): [True, False, False, False]}
expected |= {(False, samples): [True] * 4 for samples in (1000, 1001)}
sys.exit(0 if found == expected and twice > 100 else 1)
PY
