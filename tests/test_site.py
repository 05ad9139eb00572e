"""The site: builds without a warning, has every page and public name, and takes nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import flowerfast

ROOT = Path(__file__).parents[1]
FROM_ELSEWHERE = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*"""
    r"""|<link\b(?![^>]*rel="canonical")[^>]*href=["']?(?:https?:)?//[^>]*"""
    r"""|@import[^;]*//[^;]*|url\(["']?(?:https?:)?//[^)]*""",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a page missing in nav, a dead link or a dead anchor would have failed it."""
    pytest.importorskip("material", reason="pip install 'flowerfast[docs]'")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= {
        page.name for page in site.glob("*.html")
    }


def test_every_public_name_is_explained(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    assert [name for name in flowerfast.__all__ if f'id="flowerfast.{name}"' not in page] == []
    assert 'id="flowerfast.Photos.split"' in page  # which it inherits


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    texts = [file for file in site.rglob("*") if file.suffix in (".html", ".css")]
    assert len(texts) > 20
    found = [
        (file.name, match[0][:200])
        for file in texts
        for match in FROM_ELSEWHERE.finditer(file.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_readme_lists_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = readme.partition("\n## Documentation\n")[2].partition("\n## ")[0]
    missing = [p.name for p in (ROOT / "docs").glob("*.md") if f"](docs/{p.name})" not in listed]
    assert missing == []
