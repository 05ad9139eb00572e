"""Where a result comes from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import flowerfast


def test_the_revision_of_another_project_is_not_ours(tmp_path):
    """flowerfast is installed in an environment that lies in somebody's checkout."""
    site = tmp_path / "theirs" / ".venv" / "site-packages"
    package = Path(flowerfast.__file__).parent
    shutil.copytree(package, site / "flowerfast", ignore=shutil.ignore_patterns("__pycache__"))
    git = ("git", "-C", str(tmp_path / "theirs"), "-c", "user.name=a", "-c", "user.email=a@b.c")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    script = (
        "import json, torch, flowerfast; from flowerfast.bench.environment import environment;"
        "print(json.dumps([flowerfast.__file__, environment(torch.device('cpu'))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    file, env = json.loads(done.stdout)
    assert Path(file).is_relative_to(site)
    assert (env["git"], env["git_changed"]) == (None, None)
