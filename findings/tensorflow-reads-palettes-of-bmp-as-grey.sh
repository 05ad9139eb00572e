#!/usr/bin/env bash
# tensorflow-cpu 2.21.0: of a BMP with a palette, the usual one of 8 bits, tf.io.decode_image and tf.io.decode_bmp give
# the numbers of the colours as levels of grey, also where three channels are asked for. Of a PNG with a palette they
# give its colours.
#
# Seen, of a picture in two colours, green and violet: [0, 0, 0] and [1, 1, 1] of the BMP, the two colours of the PNG.
# Pillow gives the colours of both.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q tensorflow-cpu==2.21.0 pillow==13.0.0
TF_CPP_MIN_LOG_LEVEL=2 "$home/venv/bin/python" - <<'PY'
import io
import sys

import numpy as np
import tensorflow as tf
from PIL import Image

picture, colours, said = Image.new("P", (2, 1)), [[10, 200, 30], [90, 40, 250]], {}
picture.putpalette(sum(colours, []) + [0] * 762)
picture.putdata([0, 1])
for form in ("PNG", "BMP"):
    file = io.BytesIO()
    picture.save(file, form)
    by_pillow = np.array(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))[0].tolist()
    by_tensorflow = tf.io.decode_image(file.getvalue(), channels=3).numpy()[0].tolist()
    said[form] = by_pillow, by_tensorflow
    print(f"{form}: Pillow {by_pillow}, TensorFlow {tf.__version__} {by_tensorflow}")
sys.exit(said != {"PNG": (colours, colours), "BMP": (colours, [[0, 0, 0], [1, 1, 1]])})
PY
