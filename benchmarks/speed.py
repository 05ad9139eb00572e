"""`flowerfast bench` with the paper's recipe beside our loaders: README's table of a GPU is made of this.

    python benchmarks/speed.py DATA [--out benchmarks/results/speed-NAME.json] [--suite loader,model,train]

How it is measured: docs/bench.md. The paper's recipe makes batches of the same size from all photos.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.peers import paper
from flowerfast.bench.child import Variant
from flowerfast.bench.environment import write_results
from flowerfast.bench.show import report
from flowerfast.bench.suites import SUITES, run_bench
from flowerfast.errors import UserError
from flowerfast.loaders.device import pick_device
from flowerfast.machine import usable_cores
from flowerfast.settings import load_config


def main() -> int:
    """Parse, measure, print, write: exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of class folders")
    parser.add_argument("--suite", default=",".join(SUITES), help="any of stages,loader,model,train")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=0, help="threads of our loaders; 0: one per core")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    data, console = str(args.data.resolve()), Console(highlight=False)
    sizes = {"data.image_size": args.image_size, "train.batch_size": args.batch_size}
    try:
        config = load_config(None, (), {"data.path": data, "data.workers": args.workers, **sizes})
        options = {"data": data, "image_size": args.image_size, "batch_size": args.batch_size}
        options |= {"cores": usable_cores(), "device": pick_device("auto").type}
        peer = {paper.NAME: Variant(paper.NAME, paper.TARGET, options)}
        result = run_bench(config, args.suite.split(","), say=console.print, extra=peer)
    except UserError as error:
        print(f"speed.py: error: {error}", file=sys.stderr)
        return 2
    for part in report(result):
        console.print(part, soft_wrap=isinstance(part, str))
    if args.out:
        write_results(args.out, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
