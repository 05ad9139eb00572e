#!/usr/bin/env bash
# Pillow 12.3.0: Image.save keeps the writer's settings on the image object (encoderinfo), so two threads that
# save ONE image object at two qualities get each other's.
#
# Seen: of 600 files saved by two threads at qualities 30 and 95, some hold the other thread's quantisation
# tables, or saving raises OSError ("encoder error" or "codec configuration error"). With a copy of the image for
# each thread every file is right.
#
# Exits 0 while this is so, 1 when it no longer is.
set -euo pipefail
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
python3 -m venv "$home/venv"
"$home/venv/bin/pip" install -q pillow==12.3.0
"$home/venv/bin/python" - <<'PY'
import io
import sys
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

sys.setswitchinterval(1e-5)
picture = Image.effect_noise((64, 64), 80).convert("RGB")


def tables(encoded):
    with Image.open(io.BytesIO(encoded)) as image:
        return {number: tuple(values) for number, values in image.quantization.items()}


def saved(image, quality):
    out = io.BytesIO()
    try:
        image.save(out, "JPEG", quality=quality)
    except OSError as error:
        return f"raised: {error}"
    return tables(out.getvalue())


right = {quality: saved(picture.copy(), quality) for quality in (30, 95)}


def wrong(choose):
    with ThreadPoolExecutor(2) as pool:
        jobs = [(quality, pool.submit(saved, choose(), quality)) for _ in range(300) for quality in right]
        return sum(job.result() != right[quality] for quality, job in jobs)


shared, copies = wrong(lambda: picture), wrong(picture.copy)
print(f"one image object: {shared} of 600 files wrong; a copy for each: {copies}")
sys.exit(0 if shared > 0 and copies == 0 else 1)
PY
