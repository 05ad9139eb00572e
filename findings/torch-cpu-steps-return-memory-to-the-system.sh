#!/usr/bin/env bash
# torch 2.14.1 on a CPU with glibc's malloc: what large tensors lay in goes back to the system when they are freed, so
# that every forward pass of a network has the system clear the pages of its feature maps anew.
#
# Seen, with glibc 2.36, of a stack of six convolutions on a batch of 32 x 3 x 128 x 128, counted by getrusage after three
# passes: some 200,000 page faults in every further pass. After mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD,
# 2**31 - 1), which keep freed memory in the process, none; the results are the same.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q torch==2.14.1 numpy==2.4.6
cd "$home"
cat >program.py <<'PY'
import ctypes
import resource
import sys

import torch

if sys.argv[1] == "kept":
    mallopt = ctypes.CDLL(None).mallopt
    assert mallopt(-4, 0) and mallopt(-1, 2**31 - 1)  # M_MMAP_MAX, M_TRIM_THRESHOLD
torch.manual_seed(0)
torch.set_num_threads(1)
layers = []
for channels in (3, 16, 16, 16, 16, 16):
    layers += [torch.nn.Conv2d(channels, 16, 3, padding=1), torch.nn.ReLU()]
network, images = torch.nn.Sequential(*layers), torch.rand(32, 3, 128, 128)
faults = []
with torch.inference_mode():
    for _ in range(7):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        total = float(network(images).double().sum())
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sorted(faults[3:])[2], total)
PY
unset GLIBC_TUNABLES "${!MALLOC_@}"
read -r plain one < <("$home/venv/bin/python" program.py plain)
read -r kept other < <("$home/venv/bin/python" program.py kept)
"$home/venv/bin/python" -c 'import platform, torch; print("torch", torch.__version__, *platform.libc_ver())'
echo "page faults of a pass: $plain as it is, $kept with freed memory kept; sums of the results: $one, $other"
[ "$plain" -gt 5000 ] && [ "$kept" -lt $((plain / 20)) ] && [ "$one" = "$other" ]
