"""compare.py measures what is there and names what is not; page and chart follow the results."""

import json
from pathlib import Path

import pytest

from benchmarks import compare, compare_tables, photos, tables
from benchmarks.compare_chart import is_drawn_from
from benchmarks.peers import STEPS, Peer, all_peers
from flowerfast.bench.measure import measure_here
from flowerfast.photos.photos import Photos


def test_each_row_keeps_the_contract():
    peers = all_peers()
    names = [peer.name for peer in peers]
    assert len({*names}) == len(names)
    assert not any("," in name for name in names)  # --only is a list
    for peer in peers:
        assert {*peer.leaves_out} <= {*STEPS}
        assert ("(256)" in peer.name) == (peer.photos == "small")
    assert {*compare_tables.GOALS, compare_tables.PAPER, compare_tables.LIMIT} <= {*names}


def test_one_run_measures_what_is_there_and_names_what_is_not(photo_folder, tmp_path, monkeypatch, capsys):
    data, out = photo_folder({"a": 5, "b": 5}), tmp_path / "results.json"
    # In this process: torch is imported already.
    monkeypatch.setattr(compare, "measure", lambda variants, pace, say, _: measure_here(variants, pace, say))
    absent = Peer("absent", "nowhere:epochs", packages=("no_such_package.inside",))
    monkeypatch.setattr(compare, "all_peers", lambda: [*all_peers(), absent])
    arguments = ["--only", "paper's recipe,flowerfast folder,absent", "--out", str(out)]
    sizes = ["--image-size", "32", "--batch-size", "4", "--rounds", "1", "--seconds", "0"]
    assert compare.main([str(data), *arguments, *sizes]) == 0
    result = json.loads(out.read_text())
    assert (result["schema"], result["kind"], result["data"]["photos"]) == (2, "compare", 10)
    assert [*result["loader"]] == ["paper's recipe", "flowerfast folder", "absent"]
    assert result["loader"]["absent"]["error"] == "no_such_package.inside is not installed"
    for name in ("paper's recipe", "flowerfast folder"):
        assert result["loader"][name]["images_per_sec"] > 0
    printed = capsys.readouterr().out
    assert "absent: skipped: no_such_package.inside is not installed" in printed


def test_an_unknown_row_is_refused(tmp_path, photo_folder, capsys):
    assert compare.main([str(photo_folder()), "--only", "ffcw"]) == 2
    assert "--only ffcw: no such row; there are: " in capsys.readouterr().err


def test_a_folder_without_photos_is_refused(tmp_path, capsys):
    assert compare.main([str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_photos_are_shrunk_once_for_all_peers(photo_folder):
    data = photo_folder({"daisy": 2, "rose": 1}, sizes=[(400, 300), (100, 90)])
    small = Photos(photos.shrunk(data))
    width, height = small.sizes(small.indices)
    assert [*zip(width.tolist(), height.tolist(), strict=True)] == [(341, 256), (100, 90), (341, 256)]
    assert small.classes == ("daisy", "rose")
    first = next(small.root.rglob("*.jpg"))
    first.write_bytes(b"kept")
    assert photos.shrunk(data) == small.root
    assert first.read_bytes() == b"kept"  # not made again


def test_photos_of_several_folders_become_one_of_the_size_that_the_web_has(photo_folder, tmp_path, capsys):
    wide = photo_folder({"daisy": 2, "rose": 2}, sizes=[(90, 60)], name="wide")
    high = photo_folder({"daisy": 1, "tulip": 3}, sizes=[(300, 800)], name="high")
    out = tmp_path / "web"
    assert photos.main([str(out), str(wide), str(high), "--each", "3"]) == 0
    made = Photos(out)
    assert (made.classes, len(made)) == (("daisy", "rose", "tulip"), 6)
    assert {*zip(*(side.tolist() for side in made.sizes(made.indices)), strict=True)} == {
        (500, 400),
        (400, 500),
    }
    assert photos.main([str(out), str(wide)]) == 2
    assert photos.main([str(tmp_path / "new"), str(tmp_path / "none")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert not (tmp_path / "new").exists()


def test_photos_that_were_left_half_shrunk_are_shrunk_anew(photo_folder, monkeypatch):
    data = photo_folder({"daisy": 2, "rose": 1}, sizes=[(400, 300)])
    with monkeypatch.context() as broken:
        broken.setattr(photos.Image.Image, "save", _full)
        with pytest.raises(OSError, match="full"):
            photos.shrunk(data)
    assert len(Photos(photos.shrunk(data))) == 3


def _full(*_: object, **__: object) -> None:
    raise OSError("the disk is full")


# ------------------------------------------------------------------------------------------ page and chart


def row(rate: float, role: str = "peer", photos: str = "full", **more: object) -> dict[str, object]:
    figures = {"images_per_sec": rate, "low": rate - 1, "high": rate + 1, "spread": 0.5}
    facts = {"role": role, "photos": photos, "leaves_out": [], "remark": ""}
    return {
        **figures,
        **facts,
        "cpu_cores": 2.0,
        "idle_cores": 0.0,
        "foreign_cores": 0.1,
        "memory_bytes": 5e8,
        **more,
    }


ROWS = {
    "paper's recipe": row(100, "paper"),
    "slow": row(150, leaves_out=["rotate"], remark="round pixels", idle_cores=0.04),
    "fast": row(200),
    "fast (256)": row(250, photos="small"),
    "decode only": row(1000, "limit"),
    "flowerfast folder": row(310, "ours"),
    "flowerfast shards (256)": row(510, "ours", "small"),
    "broken": {**row(0), "error": "killed by SIGSEGV", "skipped": False},
}
RESULT = {
    "schema": 2,
    "kind": "compare",
    "environment": {
        "cpu": "Some CPU",
        "device": "CPU",
        "cores": 2,
        "date": "2026-01-02",
        "versions": {"torch": "9"},
    },
    "data": {"photos": 408, "mean_pixels": 3.2e5, "mean_bytes": 4.4e4},
    "small": {"photos": 408, "mean_pixels": 8e4, "mean_bytes": 2.5e4},
    "settings": {"image_size": 224, "batch_size": 32, "rounds": 5, "seconds": 2.0},
    "loader": ROWS,
}


def test_ours_are_set_against_the_best_peer_of_the_same_resolution():
    page = compare_tables.section("compare-x.json", RESULT)
    assert "| flowerfast folder | 3.10 | 3 | fast | 1.55 | 1.3 |" in page
    assert "| flowerfast shards (256) | 5.10 | 5 | fast (256) | 2.04 | 1.3 |" in page
    assert "| fast | full size | 200 | 0 | 2.00 | 32.0 | 4.4 |" in page
    assert "reaches 31% of the speed of decoding alone" in page
    assert "none kept more than 0.040 cores busy (the most: slow)" in page
    assert "- broken: failed: killed by SIGSEGV" in page
    assert "| slow | ✓ | ✓ | ✓ | – | ✓ | ✓ | ✓ | ✓ | round pixels |" in page


def test_scaled_decode_is_set_against_whole_decode():
    named = compare_tables.SCALED.format
    rows = {"paper's recipe": row(10, "paper"), named("off"): row(20, "ours"), named("auto"): row(50, "ours")}
    page = compare_tables.section("compare-x.json", {**RESULT, "kind": "compare-scaled", "loader": rows})
    assert "`data.decode_scale=auto` is 2.50 times as fast as `off`" in page


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A checkout with one results file, whose pages hold no tables yet."""
    (tmp_path / "docs").mkdir()
    for page, names in tables.PAGES.items():
        empty = "".join(f"<!-- table: {name} -->\n<!-- end table -->\n" for name in names)
        (tmp_path / page).write_text(f"before\n{empty}after\n")
    (tmp_path / "compare-x.json").write_text(json.dumps(RESULT))
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    return tmp_path


def run_tables(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["tables.py", *arguments])
    return tables.main()


def test_check_fails_until_page_and_chart_follow_the_results(site, monkeypatch):
    page, chart, results = site / "docs/compare.md", site / "docs/compare-x.svg", site / "compare-x.json"
    assert run_tables(monkeypatch, "--check") == 1
    assert run_tables(monkeypatch) == 0
    assert run_tables(monkeypatch, "--check") == 0
    drawn = chart.read_bytes()
    assert len(drawn) < 100_000
    assert is_drawn_from(chart, RESULT)
    chart.unlink()
    assert run_tables(monkeypatch, "--check") == 1
    assert run_tables(monkeypatch) == 0
    assert chart.read_bytes() == drawn  # the same results, the same bytes
    page.write_text(page.read_text().replace("| 310 |", "| 320 |"))
    assert run_tables(monkeypatch, "--check") == 1
    assert run_tables(monkeypatch) == 0
    changed = json.loads(results.read_text())
    changed["loader"]["fast"]["high"] = 999
    results.write_text(json.dumps(changed))
    assert not is_drawn_from(chart, changed)
    assert run_tables(monkeypatch, "--check") == 1
