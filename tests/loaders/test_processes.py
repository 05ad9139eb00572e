"""Runs processes_cases.py in a clean interpreter: forked workers crash in one that has used DALI."""

import subprocess
import sys
from pathlib import Path


def test_worker_processes() -> None:
    cases = Path(__file__).with_name("processes_cases.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)]
    done = subprocess.run(
        command, cwd=cases.parents[2], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
