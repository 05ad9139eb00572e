"""README.md and docs/*.md as tests see them: blocks of code, and the commands in those of a shell."""

import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHELL = ("bash", "console", "sh", "shell")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_NEEDS = re.compile(r"#\s*needs (.*)")


class Command(NamedTuple):
    """One command: its words, what it needs that tests have not, or None, and what the page has it print."""

    words: list[str]
    needs: str | None
    said: list[str]


class Block(NamedTuple):
    """A fenced block of a page, at its line."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def needs(self) -> str | None:
        """What the whole block needs: said by a comment in its first line."""
        first = _NEEDS.match(self.text)
        return first[1] if first else None

    def commands(self) -> list[Command]:
        """Commands of a shell block; in a console block those after `$ `.

        A comment that begins with `needs` says for its command, or on a line of its own for all that follow
        in the block, why a test only parses them.
        """
        found, needs, said = list[Command](), None, list[str]()
        for line in self.text.replace("\\\n", " ").splitlines():
            if self.language == "console":
                if not line.startswith("$ "):
                    said.append(line)
                    continue
                line, said = line[2:], []
            comment = _NEEDS.search(line)
            words = shlex.split(line, comments=True)
            for part in " ".join(map(shlex.quote, words)).split(" '&&' "):
                if given := shlex.split(part.partition(" '>' ")[0]):
                    found.append(Command(given, comment[1] if comment else needs, said))
            if comment and not words:
                needs = comment[1]
        return found


def blocks(page: Path, *languages: str) -> list[Block]:
    """Blocks of a page, in order; of any language where none is named."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in _BLOCK.finditer(text)
        if not languages or match[1] in languages
    ]


def settings_of(words: Sequence[str], short: dict[str, str]) -> dict[str, str]:
    """Settings that a command line gives, by key: those of --set and of the `short` options."""
    given = {}
    for option, value in pairwise(words):
        if option == "--set":
            key, _, value = value.partition("=")
            given[key] = value
        elif option in short:
            given[short[option]] = value
    return given
