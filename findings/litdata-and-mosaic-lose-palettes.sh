#!/usr/bin/env bash
# litdata 0.2.76 (optimize) and mosaicml-streaming 0.13.0 (MDSWriter, a column "pil"): of a Pillow image with a palette,
# as GIF and many PNG files are opened, the numbers of the colours are stored, and not the palette.
#
# Seen: of a picture in green and violet both give back an image of the same mode, P, and size, which is black.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q litdata==0.2.76 mosaicml-streaming==0.13.0 torch==2.14.1 torchvision==0.29.1 pillow==13.0.0
cd "$home"
cat > palettes.py <<'PY'
import io
import sys

import litdata
import streaming
from PIL import Image


def picture():
    """A PNG with a palette, as Pillow opens it."""
    image, file = Image.new("P", (2, 2)), io.BytesIO()
    image.putpalette([10, 200, 30, 90, 40, 250])
    image.putdata([0, 1, 1, 0])
    image.save(file, "PNG")
    return Image.open(io.BytesIO(file.getvalue()))


def sample(_):
    return {"picture": picture()}


if __name__ == "__main__":
    litdata.optimize(fn=sample, inputs=[0], output_dir="l", chunk_bytes="1MB", num_workers=1, verbose=False)
    with streaming.MDSWriter(out="m", columns={"picture": "pil"}) as writer:
        writer.write(sample(0))
    found = {
        "put in": picture(),
        "litdata": next(iter(litdata.StreamingDataset("l")))["picture"],
        "mosaic": streaming.StreamingDataset(local="m", batch_size=1)[0]["picture"],
    }
    colours = {name: {image.convert("RGB").getpixel(at) for at in ((0, 0), (1, 0))} for name, image in found.items()}
    for name, image in found.items():
        print(f"{name}: mode {image.mode}, {image.size}, colours {sorted(colours[name])}")
    lost = all(found[name].mode == "P" and max(map(max, colours[name])) < 10 for name in ("litdata", "mosaic"))
    sys.exit(not (lost and colours["put in"] == {(10, 200, 30), (90, 40, 250)}))
PY
"$home/venv/bin/python" palettes.py
