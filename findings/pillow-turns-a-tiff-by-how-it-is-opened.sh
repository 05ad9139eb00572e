#!/usr/bin/env bash
# Pillow 13.0.0: whether loading a TIFF applies its orientation tag depends on how the file is opened.
#
# Seen, of a picture stored as 4 x 3 pixels with orientation 6, without compression, in mode L, P, CMYK, RGBA or
# I;16: opened by its name it says 3 x 4, and after load() it is 4 x 3, the pixels as stored; opened from a
# stream of the same bytes it is 3 x 4 before and after, turned upright. In mode RGB, or compressed by LZW, both
# ways give the turned picture. Image.size read before load() is wrong in the first case.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q pillow==13.0.0
cd "$home"
"$home/venv/bin/python" - <<'PY'
import io
import sys
from pathlib import Path

from PIL import Image

EXPECTED = {(mode, None): ((3, 4), (4, 3), (3, 4)) for mode in ("L", "P", "CMYK", "RGBA", "I;16")}
EXPECTED |= {("RGB", None): ((3, 4),) * 3} | {(mode, "tiff_lzw"): ((3, 4),) * 3 for mode in ("L", "RGB")}


def sizes(mode, compression):
    """(size when opened by name, when loaded, when loaded from a stream)."""
    picture = Image.frombytes("L", (4, 3), bytes(range(12)))
    picture = picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the top of the scene lies to the right
    picture.save("x.tif", exif=exif, **({"compression": compression} if compression else {}))
    with Image.open("x.tif") as named, Image.open(io.BytesIO(Path("x.tif").read_bytes())) as streamed:
        before = named.size
        named.load()
        streamed.load()
        return before, named.size, streamed.size


found = {key: sizes(*key) for key in EXPECTED}
for (mode, compression), (opened, loaded, streamed) in found.items():
    print(f"{mode}, {compression or 'no compression'}: by name {opened}, loaded {loaded}; from a stream {streamed}")
sys.exit(0 if found == EXPECTED else 1)
PY
