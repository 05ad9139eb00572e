"""A configuration file of the test's own."""

from pathlib import Path


def write(folder: Path, text: str | bytes) -> Path:
    """The file mine.yaml with this content."""
    file = folder / "mine.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file
