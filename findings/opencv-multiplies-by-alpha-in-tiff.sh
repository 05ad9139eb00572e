#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93: of a picture with straight alpha imdecode gives the colours as they are stored where
# it is a PNG or WebP, but multiplied by alpha where it is a TIFF: with IMREAD_COLOR, which drops alpha afterwards, and
# with IMREAD_UNCHANGED too.
#
# Seen, of a plain picture of B 60, G 120, R 240 whose alpha is 128 (in the TIFF as unassociated alpha, ExtraSamples 2):
# PNG and WebP come as 60, 120, 240, the TIFF as 30, 60, 120, either way.
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

picture, said = Image.new("RGBA", (32, 24), (240, 120, 60, 128)), {}
for form, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
    file = io.BytesIO()
    picture.save(file, form, **options)
    if form == "TIFF":
        assert Image.open(io.BytesIO(file.getvalue())).tag_v2[338] == (2,)  # unassociated alpha
    encoded = np.frombuffer(file.getvalue(), np.uint8)
    flags = {"IMREAD_COLOR": cv2.IMREAD_COLOR, "IMREAD_UNCHANGED": cv2.IMREAD_UNCHANGED}
    said[form] = {name: cv2.imdecode(encoded, flag)[12, 16].tolist() for name, flag in flags.items()}
    print(f"OpenCV {cv2.__version__}, {form}: {said[form]}")
straight, multiplied = [60, 120, 240], [30, 60, 120]
same = said["PNG"]["IMREAD_COLOR"] == said["WEBP"]["IMREAD_COLOR"] == straight
less = np.abs(np.subtract(said["TIFF"]["IMREAD_COLOR"], multiplied)).max() <= 1
whole = all(each["IMREAD_UNCHANGED"] == [*each["IMREAD_COLOR"], 128] for each in said.values())
sys.exit(not (same and less and whole))
PY
