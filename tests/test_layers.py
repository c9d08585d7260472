"""The house stands as planned: imports go one way, nothing goes in a circle, files and functions stay short."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _house():
    spec = importlib.util.spec_from_file_location("house", ROOT / "tools" / "house.py")
    house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(house)
    return house


house = _house()
figures = house.figures(ROOT)


@pytest.mark.parametrize(
    "fault",
    [
        "rooms_not_in_the_plan",
        "circles",
        "circles_by_late_imports",
        "arrows_back_up",
        "isinstance_of_a_learner",
        "long_files",
        "long_functions",
    ],
)
def test_there_is_none_of(fault):
    assert not figures[fault]


def test_the_plan_names_no_room_that_is_not_there():
    planned = {room for row in house.ROWS for room in row} - {"__main__"}
    assert planned == set(figures["rooms"])


def test_there_are_about_twenty_rooms_and_at_most_170_files():
    assert len(figures["rooms"]) <= 22
    assert figures["files"] <= 170


def test_few_modules_are_loaded_for_a_classifier():
    assert len(house.way(ROOT, encoder=None)["loaded"]) <= 45


def test_the_picture_of_the_house_is_that_of_the_imports():
    assert house.picture(ROOT) in (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")


STEPS = re.findall(r"`([\w/]+\.py)`(?: `([\w.]+)`)?", (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("file", "name"), [step for step in STEPS if not step[0].startswith(("tests/", "tools/"))])
def test_every_step_of_the_way_of_a_text_is_there(file, name):
    path = ROOT / "nlpmeta" / file if "/" in file else ROOT / "nlpmeta" / "cli" / file
    scope = ast.parse(path.read_text(encoding="utf-8")).body
    for part in name.split(".") if name else ():
        found = [node for node in scope if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part]
        assert found, f"{file} has no {name}"
        scope = found[-1].body


def test_the_ways_of_a_text_have_their_steps():
    assert len(STEPS) > 20
