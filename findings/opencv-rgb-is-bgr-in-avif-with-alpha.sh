#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: cv2.IMREAD_COLOR_RGB asks imdecode for RGB. Of an AVIF with alpha it gives BGR
# all the same, without a word: red comes as blue.
#
# Seen, of a plain picture of R 200, G 40, B 10, read with IMREAD_COLOR_RGB: as PNG, as WebP and as AVIF without alpha R
# comes as 200 and B as 10 or 11. As AVIF with an alpha of 200 everywhere R comes as 11 and B as 200. (Where alpha is
# 255 everywhere the encoder leaves it out, and the colours are right.)
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q opencv-python-headless==5.0.0.93 pillow==13.0.0 numpy==2.4.6
cd "$home"
"$home/venv/bin/python" - <<'PY'
import io
import sys

import cv2
import numpy as np
from PIL import Image

COLOUR = (200, 40, 10)


def red_and_blue(form: str, mode: str) -> tuple[int, int]:
    picture, file = Image.new(mode, (32, 24), (*COLOUR, 200)[: len(mode)]), io.BytesIO()
    picture.save(file, form, **({"quality": 100} if form == "AVIF" else {"lossless": True} if form == "WEBP" else {}))
    found = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_COLOR_RGB)
    return int(found[12, 16, 0]), int(found[12, 16, 2])


print(f"OpenCV {cv2.__version__}, IMREAD_COLOR_RGB, of R {COLOUR[0]} and B {COLOUR[2]}:")
seen = {}
for form in ("PNG", "WEBP", "AVIF"):
    for mode in ("RGB", "RGBA"):
        seen[form, mode] = red, blue = red_and_blue(form, mode)
        print(f"  {form} {mode:4}: R {red}, B {blue}")
swapped = {which for which, (red, blue) in seen.items() if blue > red}
sys.exit(swapped != {("AVIF", "RGBA")})
PY
