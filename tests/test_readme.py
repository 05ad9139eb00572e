"""The README says what the results files and the command line say."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from flowerfast.config import known_keys, load_config

ROOT = Path(__file__).resolve().parents[1]


def test_tables_agree_with_the_results_files() -> None:
    assert (
        subprocess.run([sys.executable, ROOT / "benchmarks/tables.py", "--check"], check=False).returncode
        == 0
    )


def test_every_setting_named_in_the_readme_exists() -> None:
    named = set(re.findall(r"(?:--set |`)([a-z]+\.[a-z_]+)(?:=|`)", readme())) - {"config.yaml", "split.json"}
    assert "data.on_bad" in named
    assert {name for name in named if not name.endswith((".jsonl", ".json", ".html"))} <= set(known_keys())


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_paper_config_is_the_reference_recipe() -> None:
    paper = load_config("paper")
    assert (paper.train.lr, paper.train.momentum, paper.train.batch_size) == (0.001, 0.9, 32)
    assert (paper.train.schedule, paper.train.step_size, paper.train.gamma, paper.train.epochs) == (
        "step",
        7,
        0.1,
        15,
    )
    assert (paper.augment.rotate, paper.augment.translate, paper.data.val_fraction) == (15, 0.1, 0.2)
    assert yaml.safe_load(paper.to_yaml())["model"]["name"] == "resnet18"
