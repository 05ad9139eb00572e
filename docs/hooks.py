"""Hook of MkDocs: README.md and its neighbours become pages, and links that leave docs/ hold in the site too.

All pages are written for GitHub, where they lie beside the files that they name. What lies outside docs/ and
is named is copied into the site under its own path.
"""

import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
"""Pages that lie beside docs/, and their names in the site."""
_FENCED = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside docs/, and every file that a page names there."""
    pages = [ROOT / name for name in PAGES]
    pages += [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    for name, page in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for page in pages:
        for part in _FENCED.split(page.read_text(encoding="utf-8"))[::2]:
            for link in _LINK.findall(part):
                name = _in_site(page, link)
                if name not in PAGES.values() and files.get_file_from_path(name) is None:
                    files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page, its links led to where their targets lie in the site."""
    source = Path(page.file.abs_src_path or "")
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda link: _in_site(source, link[1]), part) for part in parts[::2]]
    return "".join(parts)


def _in_site(page: Path, link: str) -> str:
    """Path in the site of what a page names. Raises PluginError where there is no such file."""
    file = (page.parent / unquote(link)).resolve()
    if not file.is_file() or not file.is_relative_to(ROOT):
        raise PluginError(f"{page.relative_to(ROOT)}: {link}: no such file in the repository; name a file")
    name = file.relative_to(ROOT).as_posix()
    return PAGES.get(name, name.removeprefix("docs/"))
