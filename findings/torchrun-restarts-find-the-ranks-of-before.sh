#!/usr/bin/env bash
# torchrun of torch 2.14.1 with --standalone and --max-restarts starts all ranks again after one has ended, but ranks
# of gloo may not meet any more: the store outlives them, and holds under the same keys where the ranks of before were
# listening. A rank that comes before another at a restart so calls where nobody listens, and init_process_group fails.
#
# Seen: two ranks, of which rank 1 ends at first as if it were killed (after sys.exit all goes well), and rank 0 comes
# some seconds after rank 1 at the second start. That ends with "Gloo connectFullMesh failed", and torchrun with exit
# code 1. With a store whose keys begin with TORCHELASTIC_RESTART_COUNT the same program ends well at its second start.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q torch==2.14.1 numpy==2.4.6
cd "$home"
cat >program.py <<'PY'
import os
import sys
import time

import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
if attempt == "1" and os.environ["RANK"] == "0":
    time.sleep(8)
if sys.argv[1] == "apart":
    store, rank, size = next(rendezvous("env://"))
    dist.init_process_group("gloo", store=dist.PrefixStore(attempt, store), rank=rank, world_size=size)
else:
    dist.init_process_group("gloo")
if attempt == "0" and dist.get_rank() == 1:
    os._exit(3)  # as if it were killed
dist.barrier()
if attempt == "1":
    open(f"met-{sys.argv[1]}-{dist.get_rank()}", "w").close()
PY
for store in shared apart; do
  code=0
  "$home/venv/bin/torchrun" --standalone --nproc-per-node 2 --max-restarts 1 program.py "$store" 2>"$store.log" || code=$?
  met=$(find . -name "met-$store-*" | wc -l)
  echo "store $store: exit code $code, $met of 2 ranks have met at the second start"
  echo "$code $met" >"$store.seen"
done
grep -q "connectFullMesh failed" shared.log
[ "$(cat shared.seen)" = "1 0" ] && [ "$(cat apart.seen)" = "0 2" ]
