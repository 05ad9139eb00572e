#!/usr/bin/env bash
# Python's tarfile, and webdataset 1.0.2 on it: where the header of a member does not have the checksum that it says,
# the archive ends without a word. All members behind it are missing, in a loop over the archive, getnames() and
# WebDataset. GNU tar names the damage, goes on with the next header, and exits with 2.
#
# Seen, of 100 samples with one bit changed in a member's name: tarfile lists 100 of 200 members, webdataset gives 50
# samples, GNU tar lists 199.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q webdataset==1.0.2 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PY'
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import webdataset

file = Path("shard.tar")
with tarfile.open(file, "w") as tar:
    for number in range(100):
        for suffix, content in (("jpg", b"a photo"), ("cls", b"1")):
            member = tarfile.TarInfo(f"{number:04d}.{suffix}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
content = bytearray(file.read_bytes())
content[50 * 2048] ^= 0x40  # a letter of the name of member 100
file.write_bytes(content)
with tarfile.open(file) as tar:
    by_tarfile = len(tar.getnames())
by_webdataset = sum(1 for _ in webdataset.WebDataset(str(file), shardshuffle=False))
gnu = subprocess.run(["tar", "tf", file], capture_output=True, text=True, check=False)
by_gnu = gnu.returncode, len(gnu.stdout.split())
print(f"Python {sys.version.split()[0]}: {by_tarfile} members; webdataset {webdataset.__version__}: {by_webdataset} samples")
print(f"GNU tar: {by_gnu[1]} members, exit code {by_gnu[0]}: {gnu.stderr.splitlines()[0]}")
sys.exit((by_tarfile, by_webdataset, by_gnu) != (100, 50, (2, 199)))
PY
