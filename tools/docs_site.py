"""What the documentation site changes: notebooks are pages, links to files that are not lead to the repository."""

import json
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

REPOSITORY = "https://github.com/nlpmeta/nlpmeta/blob/main"
LINK = re.compile(r"\]\((\.\./[^)\s]+)\)")
NOTEBOOK = re.compile(r"\]\(([^):\s]+)\.ipynb\)")


def on_files(files: "Files", *, config: "MkDocsConfig") -> "Files":
    """The files with a page for each notebook; called by MkDocs. The notebook itself stays, to be downloaded."""
    from mkdocs.structure.files import File

    for notebook in [each for each in files if each.src_uri.endswith(".ipynb")]:
        page = notebook.src_uri.removesuffix(".ipynb") + ".md"
        files.append(File.generated(config, page, content=page_of(Path(notebook.abs_src_path or ""))))
    return files


def page_of(notebook: Path) -> str:
    """A notebook as Markdown: its words, its code, and what the code showed."""
    parts: list[str] = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        language, code = ("console", f"$ {source[1:]}") if source.startswith("!") else ("python", source)
        parts.append(f"```{language}\n{code}\n```")
        shown = "".join("".join(each.get("text") or each["data"]["text/plain"]) for each in cell["outputs"])
        if shown:
            parts.append(f"```text\n{shown.rstrip()}\n```")
    parts.insert(1, f'<a href="{notebook.name}" download>Download this notebook</a>')
    return "\n\n".join(parts) + "\n"


def on_page_markdown(markdown: str, *, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """The page with links out of ``docs/`` made absolute; called by MkDocs for each page."""
    inside = NOTEBOOK.sub(r"](\1.md)", markdown)
    return LINK.sub(lambda match: f"]({outside(match[1], page.file.src_uri) or match[1]})", inside)


def outside(target: str, page: str) -> str | None:
    """The web address of ``target``, as the page ``page`` of ``docs/`` names it; ``None`` if it lies in ``docs/``."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path.startswith("docs/") else f"{REPOSITORY}/{path}"
