"""What other people's decoders make of every kind of picture file, beside Pillow: docs/decoders.md.

    python benchmarks/decoders.py [--out FILE] [--only NAME[,NAME]]

Takes those decoders that are installed where it runs; the others are named as not installed. A kind that
needs an encoder that is not there is left out, and named. Each decoder works in a process of its own: one
that crashes is started again with the next file.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, features

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.decoder_calls import DECODERS, versions
from flowerfast.bench.environment import environment, write_results
from tests.zoo.kinds import Kind, Missing, all_kinds, content, picture

RESULTS = Path(__file__).resolve().parent / "results" / "decoders.json"


def write_files(folder: Path) -> tuple[list[Kind], dict[str, str]]:
    """The kinds that could be written, and why others could not."""
    written, missing = [], {}
    for kind in all_kinds():
        try:
            (folder / kind.file).write_bytes(content(kind.name))
            written.append(kind)
        except Missing as reason:
            missing[kind.name] = str(reason)
    return written, missing


def answers(decoder: str, files: list[Path], out: Path) -> Iterator[dict[str, Any]]:
    """What came of each file, in order."""
    left = [*files]
    while left:
        command = [sys.executable, "-m", "benchmarks.decoder_calls", decoder, str(out)]
        with (
            suppress(BrokenPipeError),  # what a child that crashed has not read
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                cwd=Path(__file__).resolve().parents[1],
            ) as child,
        ):  # fmt: skip
            while left:
                answer = _asked(child, left.pop(0))
                yield answer
                if answer["end"] == "crashed":
                    break


def _asked(child: subprocess.Popen[str], file: Path) -> dict[str, Any]:
    """What came of one file."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(f"{file}\n")
        child.stdin.flush()
        line = child.stdout.readline()
    except BrokenPipeError:
        line = ""
    if line:
        answer: dict[str, Any] = json.loads(line)
        return answer
    return {"end": "crashed", "error": f"exit code {child.wait()}"}


def references(file: Path, kind: Kind) -> dict[str, np.ndarray]:
    """Pillow's pixels upright and, of what is stored turned, as they are stored; none if it refuses it."""
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
            stored = image.convert("RGB")
    except (OSError, SyntaxError):
        return {}
    if kind.name.startswith("tiff"):  # turned by Pillow when it decodes
        stored = upright.transpose(Image.Transpose.ROTATE_90)
    found = {"upright": upright, **({"stored": stored} if is_turned(kind) else {})}
    return {name: np.asarray(pixels, np.int16) for name, pixels in found.items()}


def is_turned(kind: Kind) -> bool:
    """Whether its file is stored turned, and says so."""
    return "orientation" in kind.name and not kind.name.endswith("-1")


def judged(found: np.ndarray, expected: dict[str, np.ndarray]) -> dict[str, Any]:
    """How far pixels are from the reference, in levels of 255, and whether they were turned."""
    result: dict[str, Any] = {}
    if found.ndim == 4:
        result["frames"], found = len(found), found[0]
    if found.dtype != np.uint8:
        return {**result, "dtype": str(found.dtype)}
    if not expected:
        expected = {"picture": np.asarray(picture(), np.int16)}
        result["beside"] = "the picture that was stored, for Pillow refuses the file"
    best: dict[str, Any] = {}
    for name, pixels in expected.items():
        if pixels.shape != found.shape:
            continue
        apart = np.abs(found.astype(np.int16) - pixels)
        one = {"most": int(apart.max()), "mean": round(float(apart.mean()), 3)}
        one["differ"] = round(float((apart > 0).mean()), 4)
        if not best or one["mean"] < best["mean"]:
            best = {**one, **({"turned": name == "upright"} if len(expected) == 2 else {})}
    return {**result, **(best or {"shape": [*found.shape]})}


def measure(decoder: str, kinds: list[Kind], folder: Path, out: Path) -> dict[str, Any]:
    """What a decoder makes of every kind."""
    try:
        found: dict[str, Any] = {"versions": versions(decoder)}
    except PackageNotFoundError:
        return {"missing": "not installed"}
    if decoder == "Pillow":
        found["versions"]["libjpeg-turbo"] = str(features.version("libjpeg_turbo"))
    # First a plain photo: DALI's stands beside every other file in a batch.
    kinds = sorted(kinds, key=lambda kind: kind.name != "jpeg-baseline")
    found["kinds"] = {}
    for kind, answer in zip(kinds, answers(decoder, [folder / k.file for k in kinds], out), strict=True):
        if answer["end"] == "pixels":
            answer |= judged(np.load(out / f"{kind.file}.npy"), references(folder / kind.file, kind))
        else:
            answer["error"] = re.sub(r" at 0x[0-9a-f]+", "", answer["error"].splitlines()[0])[:120]
        found["kinds"][kind.name] = answer
    return found


def main(arguments: list[str] | None = None) -> int:
    """Writes the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--only", help="decoders, separated by commas")
    given = parser.parse_args(arguments)
    chosen = [name for name in DECODERS if not given.only or name in given.only.split(",")]
    with tempfile.TemporaryDirectory() as made:
        folder, out = Path(made) / "files", Path(made) / "pixels"
        folder.mkdir()
        out.mkdir()
        kinds, missing = write_files(folder)
        decoders = {}
        for name in chosen:
            print(name, flush=True)
            decoders[name] = measure(name, kinds, folder, out)
    about = {kind.name: {"shows": kind.shows, "about": kind.about} for kind in kinds}
    env = environment(torch.device("cpu"))
    result = {"kind": "decoders", "environment": env, "kinds": about, "left_out": missing}
    write_results(given.out, {**result, "decoders": decoders})
    return 0


if __name__ == "__main__":
    sys.exit(main())
