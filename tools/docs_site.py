"""What the documentation site changes in a page: links to files that are not pages lead to the repository."""

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPOSITORY = "https://github.com/nlpmeta/nlpmeta/blob/main"
LINK = re.compile(r"\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, *, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """The page with links out of ``docs/`` made absolute; called by MkDocs for each page."""
    return LINK.sub(lambda match: f"]({outside(match[1], page.file.src_uri) or match[1]})", markdown)


def outside(target: str, page: str) -> str | None:
    """The web address of ``target``, as the page ``page`` of ``docs/`` names it; ``None`` if it lies in ``docs/``."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path.startswith("docs/") else f"{REPOSITORY}/{path}"
