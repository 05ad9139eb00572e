#!/usr/bin/env bash
# tensorflow-cpu 2.21.0: tf.io.decode_jpeg and tf.io.decode_image decode by libjpeg-turbo's fast and inexact transform,
# by default and to the bit as with dct_method="INTEGER_FAST". With "INTEGER_ACCURATE" tf.io.decode_jpeg gives Pillow's
# pixels to the bit; tf.io.decode_image has no such argument.
#
# Seen, of a JPEG of quality 90 with 4:2:0: by default 65.8 % of the values differ from Pillow's, by up to 4 levels; with
# INTEGER_ACCURATE none.
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

noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
file = io.BytesIO()
Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
encoded = file.getvalue()
expected = np.array(Image.open(io.BytesIO(encoded)).convert("RGB"), np.int16)
found = {
    "decode_image": tf.io.decode_image(encoded, channels=3),
    "decode_jpeg": tf.io.decode_jpeg(encoded, channels=3),
    **{m: tf.io.decode_jpeg(encoded, channels=3, dct_method=m) for m in ("INTEGER_FAST", "INTEGER_ACCURATE")},
}
apart = {name: np.abs(pixels.numpy() - expected) for name, pixels in found.items()}
for name, each in apart.items():
    print(f"TensorFlow {tf.__version__}, {name}: {(each > 0).mean():.1%} of values differ from Pillow's, by {each.max()}")
same = all(np.array_equal(apart["INTEGER_FAST"], apart[name]) for name in ("decode_image", "decode_jpeg"))
fast = (apart["decode_jpeg"] > 0).mean() > 0.3 and apart["decode_jpeg"].max() > 1
sys.exit(not (same and fast and not apart["INTEGER_ACCURATE"].any()))
PY
