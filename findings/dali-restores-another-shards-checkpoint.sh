#!/usr/bin/env bash
# NVIDIA DALI 2.4.0 (CPU operators), enable_checkpointing: a checkpoint of a reader with num_shards=2 is taken by
# pipelines with any other num_shards and shard_id, without an error or a warning. What was read per shard before is
# then left out of other shards: samples of the epoch are lost, and others come twice.
#
# Seen, 96 samples, four batches of 4 on each of two shards in the second epoch, checkpoints taken, the other 64 drawn:
# restored into the same two shards all 96 come once; restored into one shard 16 never come and 16 come twice, into
# four shards 16 and 16 (the third and fourth from the checkpoint of the second). With random_shuffle or
# shuffle_after_epoch it is no better.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q nvidia-dali-cuda120==2.4.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" -W error::UserWarning - <<'PY'
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from nvidia.dali import fn, pipeline_def

COUNT, BATCH = 96, 4
names = [f"{number:02d}.bin" for number in range(COUNT)]
for number, name in enumerate(names):
    Path(name).write_bytes(bytes([number]))


def opened(shard, shards, checkpoint=None, **order):
    @pipeline_def(
        batch_size=BATCH, num_threads=1, device_id=None, seed=1, enable_checkpointing=True, checkpoint=checkpoint
    )
    def reader():
        content, label = fn.readers.file(
            files=names, labels=list(range(COUNT)), shard_id=shard, num_shards=shards, **order
        )
        return content, label

    pipeline = reader()
    pipeline.build()
    return pipeline


def drawn(pipeline, batches):
    return Counter(int(i) for _ in range(batches) for i in np.asarray(pipeline.run()[1].as_tensor()).ravel())


found = {}
for what, order in {"in order": {}, "shuffled": {"shuffle_after_epoch": True}}.items():
    for shards in (2, 1, 4):
        before = [opened(shard, 2, **order) for shard in range(2)]
        for pipeline in before:
            drawn(pipeline, COUNT // 2 // BATCH)  # the first epoch
        seen = sum((drawn(pipeline, 4) for pipeline in before), Counter())
        kept = [pipeline.checkpoint() for pipeline in before]
        after = [opened(shard, shards, kept[min(shard, 1)], **order) for shard in range(shards)]
        rest = COUNT - seen.total()
        seen += sum((drawn(pipeline, rest // shards // BATCH) for pipeline in after), Counter())
        found[what, shards] = COUNT - len(seen), sum(times > 1 for times in seen.values())
        lost, twice = found[what, shards]
        print(f"{what}, 2 shards, then {shards}: {lost} samples never came, {twice} came more than once")
same = all(found[what, 2] == (0, 0) for what in ("in order", "shuffled"))
silent = all(min(found[what, shards]) > 0 for what in ("in order", "shuffled") for shards in (1, 4))
sys.exit(0 if same and silent and found["in order", 1] == (16, 16) == found["in order", 4] else 1)
PY
