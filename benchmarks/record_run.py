"""Keep a training run's result: python benchmarks/record_run.py RUN benchmarks/results/train-NAME.json

Takes summary.json, metrics.jsonl and config.yaml; leaves out whose machine it was and where the files lie.
"""

import json
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowerfast.bench.environment import write_results


def main(run: Path, out: Path) -> None:
    """Write one JSON file about a run folder."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    for section, key in (("data", "path"), ("model", "weights")):
        if config[section][key]:
            config[section][key] = Path(config[section][key]).name
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    write_results(out, {"schema": 1, "summary": summary, "metrics": history, "config": config})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
