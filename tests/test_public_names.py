import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nlpmeta


@pytest.mark.parametrize("name", nlpmeta.__all__)
def test_every_public_name_can_be_imported(name):
    assert getattr(nlpmeta, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="No nlpmeta attribute FewShot"):
        _ = nlpmeta.FewShot


def test_importing_the_package_does_not_wait_for_torch():
    heavy = "import sys, nlpmeta; print([m for m in ('torch', 'transformers', 'sklearn', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"


ROOT = Path(__file__).parents[1]
PAGES = [page for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if page.name != "api.md"]


def imports_of_ours(page):
    """What the Python blocks of a page import from the package, as ``module`` and ``name``."""
    for block in re.findall(r"```(?:python|pycon)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        lines = [line.removeprefix(">>> ").removeprefix("... ") for line in block.splitlines()]
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nlpmeta":
                yield from ((node.module, each.name) for each in node.names)
            elif isinstance(node, ast.Import):
                yield from ((each.name, "") for each in node.names if each.name.startswith("nlpmeta."))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_imports_public_names_alone(page):
    wrong = [pair for pair in imports_of_ours(page) if pair[0] != "nlpmeta" or pair[1] not in nlpmeta.__all__]
    assert not wrong


def test_the_pages_import_something():
    assert sum(len(list(imports_of_ours(page))) for page in PAGES) > 30
