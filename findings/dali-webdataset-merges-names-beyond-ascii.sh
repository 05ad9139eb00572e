#!/usr/bin/env bash
# nvidia-dali-cuda120 2.4.0, fn.readers.webdataset: of a member whose name takes a PAX header the reader looks at the
# short name in front alone, in which Python's tarfile, the writer under webdataset, has put ? for letters that are not
# ASCII. Neighbours whose keys differ in such letters alone become one sample; the others' photos are never read.
#
# Seen, of a valid tar with the samples rosä, rosö, rosü and rose, .jpg and .cls each: two samples, rosä's and rose's.
# A warning of several components is written, nothing is raised. Python's tarfile and webdataset find four, and so does
# DALI where the same names are written in GNU's format.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q nvidia-dali-cuda120==2.4.0 webdataset==1.0.2 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PY'
import io
import sys
import tarfile

import numpy as np
import webdataset
from nvidia.dali import Pipeline, fn

KEYS = ["rosä", "rosö", "rosü", "rose"]


def write(name, form):
    with tarfile.open(name, "w", format=form) as tar:
        for number, key in enumerate(KEYS):
            for suffix, content in (("jpg", b"a photo"), ("cls", b"%d" % number)):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def labels_by_dali(name):
    pipe = Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipe:
        photo, label = fn.readers.webdataset(paths=[name], ext=["jpg", "cls"], name="reader")
        pipe.set_outputs(photo, label)
    pipe.build()
    return [bytes(np.array(pipe.run()[1].at(0))).decode() for _ in range(pipe.epoch_size("reader"))]


found = {}
for name, form in (("pax.tar", tarfile.PAX_FORMAT), ("gnu.tar", tarfile.GNU_FORMAT)):
    write(name, form)
    samples = webdataset.WebDataset(name, shardshuffle=False)
    found[name] = [sample["cls"].decode() for sample in samples], labels_by_dali(name)
    print(f"{name}: labels by webdataset {found[name][0]}, by DALI {found[name][1]}")
everyone = ["0", "1", "2", "3"]
sys.exit(found != {"pax.tar": (everyone, ["0", "3"]), "gnu.tar": (everyone, everyone)})
PY
