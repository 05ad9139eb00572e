"""Where the machine code of the compiled loops is kept. Imports no numba, which takes half a second."""

import hashlib
import os
from pathlib import Path

from flowerfast.machine import folder_problem, logger, user_cache_dir

SUFFIX = ".code"


def _sources() -> str:
    """Digest of this package's sources: numba sees a change of one file only where the function itself is."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _folder() -> Path:
    """$NUMBA_CACHE_DIR, else the user's cache folder, if it can be written."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    problem = folder_problem(Path(named)) if named else None
    if problem is not None:
        logger.warning("flowerfast: NUMBA_CACHE_DIR: %s; the cache folder is used instead", problem)
    return Path(named if named and problem is None else user_cache_dir() / "kernels") / _sources()


CODE = _folder()
KEEP = folder_problem(CODE) is None
"""Whether machine code can be kept there."""


def is_compiled() -> bool:
    """Whether an earlier run has left machine code of these sources, perhaps for another kind of CPU."""
    return any(CODE.glob(f"*/chain.run-*{SUFFIX}"))  # numba makes the folders when it is imported
