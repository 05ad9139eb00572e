#!/usr/bin/env bash
# Hugging Face datasets 5.2.0, builder "webdataset": the fields of a tar file's samples are taken from its first
# five. A sample that has its picture under another suffix later on is yielded with None for it, without a word.
#
# Seen, of a tar with six samples KEY.jpg + KEY.cls and then three KEY.png + KEY.cls: nine samples, the last three
# with jpg=None and no field png. With the PNG files first, all JPEG come as None instead.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q datasets==5.2.0 pillow==12.3.0
cd "$home"
HF_HOME="$home/hf" HF_HUB_OFFLINE=1 "$home/venv/bin/python" - <<'PY'
import io
import sys
import tarfile

from datasets import load_dataset
from PIL import Image


def write(name, suffixes):
    with tarfile.open(name, "w") as tar:
        for number, suffix in enumerate(suffixes):
            picture = io.BytesIO()
            Image.new("RGB", (8, 8), (10 * number, 0, 0)).save(picture, {"jpg": "JPEG", "png": "PNG"}[suffix])
            for ending, content in ((suffix, picture.getvalue()), ("cls", str(number).encode())):
                member = tarfile.TarInfo(f"{number:04d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def read(first, then):
    """(fields of the samples, numbers of those without a picture)."""
    write(f"{first}.tar", [first] * 6 + [then] * 3)
    rows = [*load_dataset("webdataset", data_files={"train": f"{first}.tar"}, split="train", streaming=True)]
    fields = {name for row in rows for name in row if not name.startswith("__")}
    return len(rows), sorted(fields), [row["cls"] for row in rows if row.get(first) is None]


found = {first: read(first, then) for first, then in (("jpg", "png"), ("png", "jpg"))}
for first, (count, fields, without) in found.items():
    print(f"{first} first: {count} samples with the fields {fields}; without a picture: {without}")
sys.exit(0 if all(f == (9, ["cls", k], [6, 7, 8]) for k, f in found.items()) else 1)
PY
