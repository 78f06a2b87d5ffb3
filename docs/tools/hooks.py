"""What MkDocs is told beyond mkdocs.yml: further pages, links, drawings, no requests to others.

Pages are written for reading in the repository; links are turned into those of the site here.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

from api_page import api_page  # noqa: E402
from cli_page import cli_page  # noqa: E402

ELSEWHERE = {
    "README.md": "index.md",
    "benchmarks/RESULTS.md": "benchmarks.md",
    "workflows/README.md": "workflows.md",
    "CHANGELOG.md": "changes.md",
}
"""Pages that live beside what they are about."""
GENERATED = {"cli.md": cli_page, "api.md": api_page}
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)]*)?\))")
DRAWING = re.compile(r'<img alt="([^"]*)" src="(?:\.\./)*pictures/([\w-]+)\.svg"\s*/?>')
REQUEST = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?(https?:)?//"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|preload|preconnect|icon))[^>]*\bhref=["']?(https?:)?//"""
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for source, name in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text()))
    for name, make in GENERATED.items():
        files.append(File.generated(config, name, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between places of the repository into links between pages of the site."""
    names = {name: source for source, name in ELSEWHERE.items()}
    source = names.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def on_site(found: re.Match[str]) -> str:
        target = found[2]
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        return found[1] + _site_link(place, page, config, files) + found[3]

    return LINK.sub(on_site, markdown)


def _site_link(place: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """From a page to a file of the repository: to its page, or to a copy of the file."""
    if place in ELSEWHERE:
        name = ELSEWHERE[place]
    elif place.startswith("docs/"):
        name = place.removeprefix("docs/")
    elif (ROOT / place).is_file():
        name = f"files/{place}"
        if files.get_file_from_path(name) is None:
            copied = File.generated(config, name, content=(ROOT / place).read_text())
            files.append(copied)
    else:
        raise PluginError(f"{page.file.src_uri} links to {place}, which is not there")
    return posixpath.relpath(name, posixpath.dirname(page.file.src_uri) or ".")


def on_page_content(html: str, **_: Any) -> str:
    """Put drawings into the page, so that they are dark when it is."""

    def drawn(found: re.Match[str]) -> str:
        svg = (ROOT / "docs" / "pictures" / f"{found[2]}.svg").read_text()
        return svg[svg.index("<svg") :]

    return DRAWING.sub(drawn, html)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse pages that would ask other servers for anything."""
    for file in sorted(Path(config.site_dir).rglob("*.html")):
        if found := REQUEST.search(file.read_text()):
            raise PluginError(f"{file.name} asks another server: {found[0]}")
