"""What commands print: one printer of tables, one of facts, one writer of JSON."""

import json
from dataclasses import dataclass
from datetime import date

import pytest

from nlpmeta.cli import main
from nlpmeta.cli.console import json_line, out_facts, out_table
from nlpmeta.training.recipe_files import about, shipped_recipes


@pytest.fixture
def drawn(capsys, monkeypatch):
    """Draws at a width of the terminal, by default where there is none, and returns the lines."""

    def call(draw, *arguments, columns=None):
        monkeypatch.delenv("COLUMNS", raising=False)
        if columns is not None:
            monkeypatch.setenv("COLUMNS", str(columns))
        draw(*arguments)
        return capsys.readouterr().out.rstrip("\n").split("\n")

    return call


def test_text_stands_left_and_numbers_right(drawn):
    lines = drawn(out_table, ("name", "texts", "accuracy, %"), [("a", "5", "97.0 ± 1.2"), ("long", "1,000", "?")])
    assert lines == ["name  texts  accuracy, %", "a         5   97.0 ± 1.2", "long  1,000            ?"]


@pytest.mark.parametrize(("columns", "widest"), [(None, 80), (60, 60), (200, 200)])
def test_text_wraps_at_the_width_of_the_terminal_or_at_eighty(drawn, columns, widest):
    words = " ".join(f"word{i}" for i in range(60))
    lines = drawn(out_table, ("key", "meaning"), [("steps", words)], columns=columns)
    assert widest - 10 < max(map(len, lines)) <= widest
    assert " ".join(line[5:].strip() for line in lines[1:]) == words


def test_numbers_are_never_cut_however_narrow_the_terminal(drawn):
    numbers = [f"{i}.5 ± 1.25" for i in range(10, 20)]
    lines = drawn(out_table, tuple("method" for _ in range(11)), [("prototypical", *numbers)], columns=40)
    assert all(number in lines[-1] for number in numbers)


def test_facts_hang_beside_their_names_and_empty_ones_are_left_out(drawn):
    lines = drawn(out_facts, {"task": "intents", "notes": "", "labels": ", ".join(f"label{i}" for i in range(20))})
    assert lines[0] == "task    intents"
    assert all(line.startswith("        ") for line in lines[2:]) and max(map(len, lines)) <= 80


def test_data_cannot_drive_the_terminal_from_a_table_or_from_json(drawn):
    for draw in (lambda: out_table(("a",), [("\x1b[31mred",)]), lambda: out_facts({"a": "\x1b[31mred"})):
        assert "\x1b" not in "\n".join(drawn(draw))
    assert "\x1b" not in json_line("\x1b[31mred")


def test_json_takes_dataclasses_and_says_what_it_has_no_form_for_as_text():
    @dataclass
    class Row:
        day: date
        share: float
        names: tuple[str, ...]

    assert json.loads(json_line([Row(date(2026, 11, 28), float("nan"), ("a", "b"))])) == [
        {"day": "2026-11-28", "share": None, "names": ["a", "b"]}
    ]


def test_every_recipe_says_a_whole_sentence_of_itself(drawn):
    for path in shipped_recipes().values():
        assert about(path).endswith(".") and "\n" not in about(path)
    listed = " ".join(" ".join(drawn(main, ["recipes", "list"])).split())
    assert about(shipped_recipes()["mann"]) in listed
