"""Arrays in .npz files, with what describes them; read only if they are whole."""

import json
import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from flowerfast.documents import MOST_JSON, parse_json
from flowerfast.errors import one_line
from flowerfast.files import open_regular, replacing

NPZ_ERRORS = (
    *(OSError, LookupError, ValueError, TypeError, EOFError, RuntimeError, AttributeError, ArithmeticError),
    *(MemoryError, struct.error, zlib.error, zipfile.BadZipFile, zipfile.LargeZipFile),
)
"""What is raised for a damaged .npz file."""


def save_arrays(
    file: Path, about: dict[str, Any], arrays: dict[str, np.ndarray], shared: bool = False
) -> None:
    """Write arrays and what describes them (JSON) as .npz; same content, same bytes. Raises OSError.

    `shared` is that of `replacing`.
    """
    # ASCII: JSON escapes what is no valid UTF-8 in file names, and gives it back.
    text = np.frombuffer(json.dumps(about).encode("ascii"), np.uint8)
    content: dict[str, Any] = {"about": text, **arrays}
    with replacing(file, durable=True, shared=shared) as fresh, fresh.open("wb") as out:
        np.savez(out, **content)


def load_arrays(file: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `save_arrays` wrote. Raises one of NPZ_ERRORS when the file is missing or damaged."""
    arrays = read_npz(file)
    about = arrays.pop("about").tobytes()  # names each photo that was left out: as large as it must be
    return parse_json(about, most=max(MOST_JSON, len(about))), arrays


def read_npz(file: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz file. Raises one of NPZ_ERRORS when it is missing or damaged."""
    try:
        with os.fdopen(open_regular(file), "rb") as content, zipfile.ZipFile(content) as members:
            # Stored as they are: of a compressed one nobody knows what it takes.
            if any(member.compress_type for member in members.infolist()):
                raise ValueError("compressed")
            damaged = members.testzip()  # numpy compares no checksum where an array ends before its member
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            content.seek(0)
            with np.load(content, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
    except (MemoryError, OverflowError, tokenize.TokenError, SyntaxError, struct.error) as error:
        # What numpy and zipfile make of headers that are none.
        raise ValueError(f"damaged ({one_line(error)})") from error
