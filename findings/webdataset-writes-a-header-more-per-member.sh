#!/usr/bin/env bash
# webdataset 1.0.2, TarWriter: the time of a member is time.time() with its fraction, which a plain tar header cannot
# hold. So each member, a label of one byte too, gets a PAX header of two blocks in front of its own: 1,024 bytes.
#
# Seen, of 1,000 samples with a photo of 1,500 bytes and a label of one: 5.1 MB, and 3.1 MB with mtime=0, a time without
# a fraction. The samples are the same.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q webdataset==1.0.2 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PY'
import os
import sys
import tarfile

import webdataset

sizes, headers = {}, {}
for name, options in (("default", {}), ("mtime=0", {"mtime": 0})):
    with webdataset.TarWriter(f"{name}.tar", **options) as writer:
        for number in range(1000):
            writer.write({"__key__": f"{number:06d}", "jpg": b"x" * 1500, "cls": number % 10})
    sizes[name] = os.path.getsize(f"{name}.tar")
    with tarfile.open(f"{name}.tar") as tar:
        headers[name] = sum(bool(member.pax_headers) for member in tar)
    print(f"webdataset {webdataset.__version__}, {name}: {sizes[name]:,} bytes, {headers[name]} PAX headers")
more = sizes["default"] - sizes["mtime=0"]
sys.exit(not (headers == {"default": 2000, "mtime=0": 0} and abs(more - 2000 * 1024) < 20_000))
PY
