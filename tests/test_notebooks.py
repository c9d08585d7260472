"""The notebooks of the documentation run offline and print what is stored in them."""

import json
import os
import re
import subprocess
import sys

import pytest
from documents import ROOT

import nlpmeta

FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells_of(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_of(path):
    return ["".join(cell["source"]) for cell in cells_of(path) if cell["cell_type"] == "code"]


def printed(path):
    """What each code cell shows, as one string."""
    cells = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    return [
        "".join("".join(each.get("text") or each["data"]["text/plain"]) for each in cell["outputs"]) for cell in cells
    ]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_in_the_format_of_jupyter_with_the_outputs_of_one_run_from_top_to_bottom(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    assert sum(bool(each) for each in printed(path)) > len(code) / 2
    assert "/home" not in path.read_text("utf-8") and "/tmp/" not in path.read_text("utf-8")  # noqa: S108


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_imports_public_names_alone_and_links_to_pages_that_are_there(path):
    for names in re.findall(r"^from nlpmeta import (.+)$", "\n".join(code_of(path)), re.MULTILINE):
        assert set(names.split(", ")) <= set(nlpmeta.__all__)
    assert not re.search(r"(from|import) nlpmeta\.", "\n".join(code_of(path)))
    words = "".join("".join(cell["source"]) for cell in cells_of(path) if cell["cell_type"] == "markdown")
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", words):
        assert (FOLDER / target).is_file(), target


@pytest.mark.slow
@pytest.mark.packaged
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_offline_and_shows_what_is_stored_in_it(path, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(ROOT / "docs" / "make_notebooks.py"), str(path), "--out", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-3000:]
    for stored, found in zip(printed(path), printed(tmp_path / path.name), strict=True):
        # Labels and words agree; figures may move a little with the library that multiplies matrices.
        assert bool(stored) == bool(found)
        for one, other in zip(figures(stored), figures(found), strict=False):
            assert abs(one - other) <= 5, f"stored {stored!r}, found {found!r}"


def figures(text):
    return [float(each) for each in re.findall(r"(\d+\.\d) ?%", text)]


def test_a_cell_shows_what_it_prints_the_value_of_its_last_line_and_what_a_command_prints(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from make_notebooks import outputs_of

    space = {}
    shown = outputs_of("a = 2\nprint('one')\na + 1", space, 1)
    assert [each["output_type"] for each in shown] == ["stream", "execute_result"]
    assert shown[0]["text"] == ["one\n"] and shown[1]["data"]["text/plain"] == ["3"]
    assert outputs_of("!echo two", space, 2)[0]["text"] == ["two\n"]
    with pytest.raises(RuntimeError, match="ended with 3"):
        outputs_of("!exit 3", space, 3)
