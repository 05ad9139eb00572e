"""The README says what the results files and the command line say."""

import re
import subprocess
import sys
from pathlib import Path

from flowerfast.config import known_keys

ROOT = Path(__file__).resolve().parents[1]


def test_tables_agree_with_the_results_files() -> None:
    assert (
        subprocess.run([sys.executable, ROOT / "benchmarks/tables.py", "--check"], check=False).returncode
        == 0
    )


def test_every_setting_named_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?:--set |`)([a-z]+\.[a-z_]+)(?:=|`)", readme()))
    assert "data.on_bad" in named
    files = (".jsonl", ".json", ".html", ".yaml", ".pt", ".csv")
    assert {name for name in named if not name.endswith(files)} <= set(known_keys())


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")
