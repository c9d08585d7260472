"""The figures of ``tools/house.py``, on a house that was built wrongly on purpose and on ours."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / "tools" / "house.py"
SPEC = importlib.util.spec_from_file_location("house", PATH)
house = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(house)

MODULES = {
    "__init__.py": "",
    "errors.py": "from nlpmeta.cli import app\n",
    "learners/__init__.py": "",
    "learners/base.py": "class Learner: ...\n",
    "learners/own.py": "from nlpmeta.learners.base import Learner\nclass Own(Learner): ...\nclass Finer(Own): ...\n",
    "learners/one.py": "from nlpmeta.learners import two\n",
    "learners/two.py": "from nlpmeta.learners.one import x\n",
    "encoder/__init__.py": "",
    "encoder/up.py": "def f():\n    import nlpmeta.encoder.down\n",
    "encoder/down.py": "import nlpmeta.encoder.up\n",
    "cli/__init__.py": "",
    "cli/app.py": (
        "from nlpmeta.learners.base import Learner\n"
        "def f(x):\n    return isinstance(x, Finer | int) or isinstance(x, Learner)\n"
        + "    # more\n" * 70
        + "    x = 1\n"
    ),
    "elsewhere.py": "",
}


@pytest.fixture
def built(tmp_path):
    for name, text in MODULES.items():
        path = tmp_path / "nlpmeta" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return house.figures(tmp_path)


def test_size_and_rooms_are_counted(built):
    assert built["files"] == len(MODULES)
    assert built["lines"] == sum(text.count("\n") for text in MODULES.values())
    assert built["rooms"] == ["cli", "elsewhere", "encoder", "errors", "learners"]
    assert built["rooms_not_in_the_plan"] == ["elsewhere"]


def test_circles_inside_a_room_are_found(built):
    assert built["circles"] == [["learners.one", "learners.two"]]
    assert built["circles_by_late_imports"] == [["encoder.down", "encoder.up"], ["learners.one", "learners.two"]]


def test_an_arrow_back_up_a_concrete_learner_and_a_long_function_are_found(built):
    assert built["arrows_back_up"] == ["errors -> cli.app"]
    assert built["isinstance_of_a_learner"] == ["cli.app:3 Finer"]
    assert built["long_functions"] == {"cli.app.f": 73}
    assert built["long_files"] == {}


@pytest.mark.slow
def test_the_way_of_a_text_through_this_house_is_counted(encoder_folder):
    found = house.figures(PATH.parent.parent) | house.way(PATH.parent.parent, str(encoder_folder))
    assert "classifier/classifier.py" in found["fit"]["files"]
    assert "classifier/answering.py" in found["predict"]["files"]
    assert len(found["predict"]["files"]) < len(found["fit"]["files"]) < found["files"]
    assert found["predict"]["functions"] <= found["predict"]["calls"]
    assert "nlpmeta.classifier.classifier" in found["loaded"]
    assert any(line.startswith("a warm fit") for line in house.lines(found))
