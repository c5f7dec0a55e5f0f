"""What mkdocs is told beyond mkdocs.yml: pages beside their code, API pages, links to files.

The specifications, results and READMEs keep their places in the repository and become pages under
their own paths. A link that is right in the repository is right on the site: it leads to the page
of that file; a file that is no page is shown as its path; one that does not exist is a warning,
with which `scripts/docs` fails.
"""

from __future__ import annotations

import logging
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts import api_reference  # noqa: E402

BESIDE_CODE = (
    "planformat/SPEC.md",
    "boards/link/PROTOCOL.md",
    "benchmarks/RESULTS.md",
    "examples/README.md",
    "examples/serving/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
)
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]\n]+)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
_FENCE = re.compile(r"^ *```")
_log = logging.getLogger("mkdocs.hooks.docs_pages")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that lie beside their code, and those made of docstrings."""
    for path in BESIDE_CODE:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    for path, text in api_reference.pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: Any) -> str:
    """Turn links between files of the repository into links between pages."""
    if page.file.src_uri in api_reference.PAGES:
        return markdown
    lines = markdown.split("\n")
    in_code = False
    for number, line in enumerate(lines):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code:
            lines[number] = _LINK.sub(lambda link: _on_site(link, page.file.src_uri, files), line)
    return "\n".join(lines)


def _on_site(link: re.Match[str], page: str, files: Files) -> str:
    """One link of a page as the site has it."""
    target = link["target"]
    if not target or "://" in target or target.startswith("mailto:"):
        return link[0]
    here = posixpath.dirname(page if page in BESIDE_CODE else f"docs/{page}")
    in_repository = posixpath.normpath(posixpath.join(here, target))
    uri = in_repository.removeprefix("docs/")
    if files.get_file_from_path(uri) is not None:
        relative = posixpath.relpath(uri, posixpath.dirname(page) or ".")
        return f"[{link['text']}]({relative}{link['anchor'] or ''})"
    if in_repository.startswith("..") or not (ROOT / in_repository).exists():
        _log.warning("%s: link to '%s': the repository has no such file", page, target)
    text = link["text"]
    return text if "`" in text or in_repository in text else f"{text} (`{in_repository}`)"
