"""What README and docs show works: see ``documents.py`` for how it is run, ``documents_beside.py`` for when."""

import re
import subprocess
import sys

import pytest
import tables
from documents import ROOT, SHARED, blocks, documents, needs_shared_data, planned
from readme_table import whole, with_table

BLOCKS = [block for path in documents() for block in blocks(path)]


@pytest.mark.slow
@pytest.mark.packaged
@pytest.mark.timeout(900)
@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_what_a_document_shows_works(block, documents_results):
    error = documents_results[block.name]["error"]
    if needs_shared_data(block) and not SHARED.is_dir():
        pytest.skip("needs the public data sets beside the repository")
    assert error is None, error


def test_every_command_of_the_documents_is_one_that_is_run_or_checked():
    unknown = [block.name for block in BLOCKS if block.kind == "command" and planned(block.code) == "unknown"]
    assert not unknown


def test_every_block_of_a_document_has_a_language_that_is_known_here():
    for path in documents():
        fences = re.findall(r"^```(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(fences[::2]) <= {"python", "console", "text", "yaml", "json", "mermaid"}, path
        assert set(fences[1::2]) <= {""}, path


def test_links_between_documents_lead_to_files():
    for path in documents():
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"


def test_links_to_headings_lead_to_headings():
    wrong = []
    for path in documents():
        for target, heading in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", path.read_text(encoding="utf-8")):
            page = path.parent / target if target else path
            if page.suffix == ".md" and heading not in _anchors(page.read_text(encoding="utf-8")):
                wrong.append(f"{path.relative_to(ROOT)}: {target}#{heading}")
    assert not wrong


def _anchors(page):
    """What the headings of a page are linked by, as GitHub and MkDocs make it."""
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", each) for each in re.findall(r"^#+ (.*)$", page, re.MULTILINE)]
    return {re.sub(r"[^\w\- ]", "", each.strip().lower()).replace(" ", "-") for each in plain}


def test_every_page_is_linked_from_the_index_and_the_index_from_the_readme():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for path in documents()[1:]:
        assert path.name == "index.md" or f"({path.relative_to(ROOT / 'docs')})" in index, path
    assert "(docs/index.md)" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_one_page_and_its_table_says_what_the_results_say():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 110
    found = whole()
    assert found.count("\n") <= 9  # a header, a rule and at most eight rows
    assert with_table(readme, found) == readme, "run: python tools/readme_table.py"
    assert with_table(readme, found.replace("| 5 |", "| 6 |")) != readme


@pytest.mark.parametrize("name", tables.TABLES)
def test_the_tables_of_the_pages_say_what_the_results_say(name):
    assert not list(tables.differing([name])), f"run: python tools/tables.py {name}"


def test_a_table_takes_the_place_of_the_one_with_its_heading_and_no_other():
    page = "# A\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n| a | c |\n|---|---|\n| 3 | 4 |\n"
    changed = tables.with_table(page, "| a | c |\n|---|---|\n| 5 | 6 |\n| 7 | 8 |")
    assert changed == page.replace("| 3 | 4 |", "| 5 | 6 |\n| 7 | 8 |")
    for wrong in (page, page + page):
        with pytest.raises(ValueError, match=r"[02] tables begin with: \| a \| (d|c) \|"):
            tables.with_table(wrong, "| a | d |" if wrong == page else "| a | c |")


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="signatures are spelled as Python 3.11 does")
@pytest.mark.parametrize("script", ["make_api.py", "make_cli.py"])
def test_the_reference_is_what_docstrings_and_commands_say(script):
    run = subprocess.run(
        [sys.executable, str(ROOT / "docs" / script), "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_no_server_for_anything(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", "tools/mkdocs.yml", "-d", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr[-2000:]
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(documents()) - 2
    for page in pages:
        loaded = re.findall(r'<(?:script|link|img)[^>]*?(?:src|href)="(https?://[^"]+)"', page.read_text("utf-8"))
        assert not loaded, f"{page.name} loads {loaded}"
