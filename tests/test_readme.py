"""The pages say what the results files say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_tables_agree_with_the_results_files() -> None:
    assert (
        subprocess.run([sys.executable, ROOT / "benchmarks/tables.py", "--check"], check=False).returncode
        == 0
    )
