#!/usr/bin/env bash
# litdata 0.2.76 (optimize) and mosaicml-streaming 0.13.0 (MDSWriter, a column "jpeg"): a JPEG that Pillow has opened is
# stored as it is where it was opened from a path. Opened from memory, as from a tar or a bucket, it is encoded anew
# without a word, at Pillow's default quality of 75 whatever it had.
#
# Seen, of one JPEG of quality 95: opened from a path both give its pixels back. Opened from memory, 82 % of the values
# that they give back are other ones, by up to 16 of 255; encoded bytes given as bytes come back as they were.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q litdata==0.2.76 mosaicml-streaming==0.13.0 torch==2.14.1 torchvision==0.29.1 pillow==13.0.0
cd "$home"
cat > again.py <<'PY'
import io
import sys
from pathlib import Path

import litdata
import numpy as np
import streaming
from PIL import Image

FILE = Path("photo.jpg")


def opened(how):
    """The photo as a loader's function gives it."""
    if how == "bytes":
        return FILE.read_bytes()
    return Image.open(FILE if how == "path" else io.BytesIO(FILE.read_bytes()))


def sample(how):
    return {"photo": opened(how)}


def pixels(photo):
    if isinstance(photo, bytes | memoryview):
        photo = Image.open(io.BytesIO(bytes(photo)))
    if isinstance(photo, Image.Image):
        return np.array(photo.convert("RGB"), np.int16)
    return photo.permute(1, 2, 0).numpy().astype(np.int16)


def by_litdata(how):
    litdata.optimize(
        fn=sample, inputs=[how], output_dir=f"litdata-{how}", chunk_bytes="1MB", num_workers=1, verbose=False
    )
    return next(iter(litdata.StreamingDataset(f"litdata-{how}")))["photo"]


def by_mosaic(how):
    column = {"photo": "bytes" if how == "bytes" else "jpeg"}
    with streaming.MDSWriter(out=f"mosaic-{how}", columns=column) as writer:
        writer.write(sample(how))
    return streaming.StreamingDataset(local=f"mosaic-{how}", batch_size=1)[0]["photo"]


if __name__ == "__main__":
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC)
    picture.save(FILE, quality=95, subsampling=0)
    expected, as_before = pixels(opened("path")), True
    for name, store in (("litdata", by_litdata), ("mosaic", by_mosaic)):
        for how in ("path", "memory", "bytes"):
            apart = np.abs(pixels(store(how)) - expected)
            print(f"{name}, opened from {how}: {(apart > 0).mean():.0%} of values differ, by {apart.max()} at most")
            as_before &= apart.max() > 8 if how == "memory" else apart.max() == 0
    sys.exit(not as_before)
PY
"$home/venv/bin/python" again.py
