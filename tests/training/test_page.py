"""What pages of runs share."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from flowerfast.training.page import duration, percent
from flowerfast.training.report import write_report
from tests.training.reports import make_run


def test_browsers_are_told_the_hash_of_the_one_script(tmp_path: Path) -> None:
    """So that no other would run, could a name bring one along."""
    source = write_report(make_run(tmp_path / "run")).read_text(encoding="utf-8")
    (script,) = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', source)
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    )
    assert source.count('class="sortable"') == 1


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (59.96, "1 min 00 s"), (247, "4 min 07 s"), (7620, "2 h 07 min")],
)
def test_durations_are_read_at_a_glance(seconds: float, shown: str) -> None:
    assert duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_a_share_that_is_none_is_a_dash() -> None:
    assert [percent(value) for value in (0.125, None, float("nan"))] == ["12.5%", "–", "–"]
