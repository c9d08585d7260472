"""The script of the learning curves: what it draws, that it goes on where it stopped, and its picture."""

import json

import curves
import curves_shown
import pytest
import torch
import typer
from test_lora import adapted_encoder

from nlpmeta.auto.method import AutoHead
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.learners.logistic import LogisticHead


@pytest.fixture
def contenders(encoder, encoder_folder):
    table = EmbeddingTable(encoder)
    learners = {"auto": (AutoHead(encoder).eval(), table), "logistic": (LogisticHead(encoder).eval(), table)}
    return curves.Contenders(
        learners, encoder=str(encoder_folder), most_seconds=0, least_steps={"lora": 2, "fine-tuning": 3}
    )


@pytest.fixture
def material(pool):
    return pool, pool.select(range(0, len(pool), 4))


def test_a_larger_support_holds_the_smaller_ones_and_none_of_what_is_scored(material):
    drawn = {n: list(curves.episodes(*material, n)) for n in ("0", "1", "2", "50", "all")}
    assert [len(each) for each in drawn.values()] == [1, 3, 3, 1, 1]
    assert len(drawn["0"][0].support) == 0 and set(drawn["1"][0].support.counts().values()) == {1}
    scored = set(material[1].texts)
    for draw in range(3):
        assert set(drawn["1"][draw].support.texts) < set(drawn["2"][draw].support.texts)
    for each in drawn.values():
        assert all(set(one.query.texts) == scored and not scored & set(one.support.texts) for one in each)


def test_a_run_goes_on_where_it_stopped_and_draws_what_there_is(contenders, material, tmp_path, capsys):
    out, shots, methods = tmp_path / "curves.json", ("0", "1"), ("auto", "logistic", "lora")
    sets, rows = {"banking77": material}, []
    with torch.no_grad():
        curves.measure(contenders, sets, shots[:1], methods, rows, out)
        assert [row["method"] for row in rows] == ["auto"]
        curves.measure(contenders, sets, shots, methods[:2], rows, out)
    assert json.loads(out.read_text())["rows"] == rows and len(rows) == 1 + 2 * 3
    capsys.readouterr()
    curves.measure(contenders, sets, shots, methods[:2], rows, out)
    assert not capsys.readouterr().out
    assert set(curves_shown.means(rows)["banking77", "auto"]) == {"0", "1"}
    curves_shown.draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_peers_train_as_many_times_as_long_as_auto_and_at_least_so_many_steps(contenders, material, tmp_path):
    out, sets, rows = tmp_path / "curves.json", {"banking77": material}, []
    with pytest.raises(typer.BadParameter, match="run it first"):
        curves.measure(contenders, sets, ("1",), ("lora",), rows, out, draws=1)
    with torch.no_grad():
        curves.measure(contenders, sets, ("1",), ("auto", "lora", "fine-tuning"), rows, out, draws=1)
    assert rows[1]["steps"] >= 2 and rows[2]["steps"] >= 3 and all(0 <= row["accuracy"] <= 1 for row in rows)
    contenders.most_seconds, contenders.step_seconds = 1.0, dict.fromkeys(contenders.step_seconds, 0.125)
    taken = []
    for ours in (0.0625, 0.5, 2.0):  # ten times as long as auto; the most; as long as auto
        rows[0]["seconds"], rows[1:] = ours, []
        with torch.no_grad():
            curves.measure(contenders, sets, ("1",), ("lora",), rows, out)
        taken.append([row["steps"] for row in rows[1:]])
    assert taken == [[5], [8], [16]]  # and of three draws the first alone


def test_the_lead_is_that_on_the_draws_of_both_and_the_worst_set_is_named():
    def row(name, method, draw, accuracy):
        return {"set": name, "shots": "5", "draw": draw, "method": method, "accuracy": accuracy}

    rows = [row("a", "auto", 0, 0.9), row("a", "auto", 1, 0.1), row("b", "auto", 0, 0.5)]
    rows += [row("a", "setfit", 0, 0.6), row("b", "setfit", 0, 0.6), row("c", "setfit", 0, 0.6)]
    found = curves_shown.leads(rows)["setfit", "5"]
    assert found == pytest.approx({"a": 30, "b": -10})
    assert [(r["set"], r["draw"], r["method"]) for r in curves_shown.shared(rows) if r["set"] == "a"] == [
        ("a", 0, "auto"), ("a", 0, "setfit"),
    ]  # fmt: skip
    assert "| SetFit |  |  | +10.0 (-10.0) |" in curves_shown.lead_table(rows)


def test_the_best_of_a_cell_is_bold_unless_all_are_equal_and_what_was_not_measured_is_left_out():
    found = {
        ("banking77", "auto"): {"1": 70.04, "5": 80.0, "10": 90.0},
        ("banking77", "logistic"): {"1": 70.01, "5": 81.0},
        ("sms-spam", "logistic"): {"5": 50.0},
    }
    assert curves_shown.beside(found, ("auto", "logistic"), "both", ("0", "1", "5", "10")).splitlines() == [
        "| both | 0 | 1 | 5 | 10 |",
        "|---|---|---|---|---|",
        "| SMS spam, 2 classes |  |  | 50.0 |  |",
        "| BANKING77, 77 intents |  | 70.0 / 70.0 | 80.0 / **81.0** | 90.0 |",
    ]


def test_a_longer_budget_is_measured_only_where_it_is_used(material, tmp_path, monkeypatch):
    auto = AutoHead(adapted_encoder()).eval()
    table = EmbeddingTable(auto.encoder)
    learners = {name: (auto.within(seconds), table) for name, seconds in curves.BUDGETS.items()}
    contenders, rows = curves.Contenders(learners), []

    def measured(*shots):
        with torch.no_grad():
            curves.measure(contenders, {"banking77": material}, shots, tuple(learners), rows, tmp_path / "curves.json")
        return [(row["shots"], row["method"], row["steps"]) for row in rows]

    assert measured("2", "all") == [("2", "budget", 0), ("all", "budget", 23)]  # of two texts none can be held out
    monkeypatch.setitem(curves.BUDGETS, "budget5", 1e-9)
    assert measured("all")[2:] == [("all", "budget5", 0)]


def test_the_table_of_budgets_has_what_was_measured_and_the_best_of_each_row_bold():
    def row(method, accuracy, draw=0):
        facts = {"set": "banking77", "shots": "20", "draw": draw, "seconds": 61.7}
        return facts | {"method": method, "accuracy": accuracy}

    rows = [row("auto", 0.8), row("budget", 0.825), row("setfit", 0.8251), row("budget", 0.1, draw=1)]
    head, _, line = curves_shown.budgets(rows).splitlines()
    assert head.count("|") == line.count("|") == 8
    assert line == "| BANKING77, 77 intents | 20 | 80.0 (62) | **82.5** (62) |  |  | **82.5** (62) |"
    assert len(curves_shown.budgets([row("auto", 0.8)]).splitlines()) == 2
