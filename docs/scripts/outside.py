"""What the site shows from outside docs/: README as its first page, files that pages link to."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
# Pages of the site, and the files of the repository that they are made of.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "guides/android.md": "edge/targets/README.md",
}
# The target of a link or of a picture, behind "](" or "]: ", that is neither a URL nor an anchor.
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)[^)\s#]+|(?<=\]: )(?![a-z]+:|#)[^\s#]+")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files outside docs/."""
    for page, file in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / file).read_text("utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page, which hold in the repository, to where the site has the file.

    A file outside docs/ gets a copy in the site. A link to a file that does not exist is left as it
    is, for MkDocs to complain of.
    """
    uri = page.file.src_uri
    folder = (ROOT / PAGES[uri]).parent if uri in PAGES else (DOCS / uri).parent

    def replaced(link: re.Match[str]) -> str:
        file = (folder / link[0]).resolve()
        if not file.is_file():
            return link[0]
        target = in_site(file)
        if files.get_file_from_path(target) is None:
            files.append(File.generated(config, target, abs_src_path=str(file)))
        return os.path.relpath(target, Path(uri).parent)

    return LINK.sub(replaced, markdown)


def in_site(file: Path) -> str:
    """Return where the site has a file of the repository: its path below docs/, or of its copy."""
    if file.is_relative_to(DOCS):
        return file.relative_to(DOCS).as_posix()
    path = file.relative_to(ROOT).as_posix()
    return next((page for page, source in PAGES.items() if source == path), f"source/{path}")
