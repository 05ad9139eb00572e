"""growth.py leaves what tables.py makes its table of; the pages say what the results say."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import growth, tables
from flowerfast.bench.child import Child
from flowerfast.bench.worker import call

linux = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")


@pytest.fixture
def run(tmp_path, monkeypatch) -> Any:
    """Function (benchmark, *arguments) → its results; what its children would do is done in this process."""

    class Inside(Child):
        def __init__(self, variant: Any, environment: Any) -> None:
            self._variant = variant

        def call(self, limit: float) -> Any:
            return call(self._variant.target, self._variant.options)

        def close(self) -> None:
            pass

    def run_here(benchmark: Any, *arguments: object) -> dict[str, Any]:
        out = tmp_path / f"{benchmark.__name__.rpartition('.')[2]}-x.json"
        monkeypatch.setattr(benchmark, "Child", Inside)
        monkeypatch.setattr("sys.argv", [benchmark.__file__, *map(str, arguments), "--out", str(out)])
        benchmark.main()
        result: dict[str, Any] = json.loads(out.read_text())
        return result

    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return run_here


@linux
def test_what_many_photos_cost(run, tmp_path):
    result = run(growth, "--sizes", 320, "--folder", tmp_path)
    (size,) = result["sizes"]
    assert (size["photos"], size["workers"]["batches"]) == (320, 10)
    assert 30 < size["bytes_per_sample"] < 100
    assert len(size["workers"]["memory"]) == 5
    assert [file.name for file in tmp_path.iterdir()] == ["growth-x.json"]
    assert "| 320 | " in tables.PAGES["docs/cpu.md"]["growth"]()


def test_the_pages_say_what_the_results_say():
    assert tables.stale() == []
