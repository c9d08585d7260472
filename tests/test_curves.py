"""The script of the learning curves: what it draws, that it goes on where it stopped, and its picture."""

import json

import curves
import pytest
import torch

from nlpmeta.auto.method import AutoHead
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.learners.logistic import LogisticHead


@pytest.fixture
def contenders(encoder, encoder_folder):
    table = EmbeddingTable(encoder)
    learners = {"auto": (AutoHead(encoder).eval(), table), "logistic": (LogisticHead(encoder).eval(), table)}
    return curves.Contenders(learners, lora_steps=1, encoder=str(encoder_folder))


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
    with torch.no_grad():
        curves.measure(contenders, {"banking77": material}, ("1",), ("lora",), rows, out)
    assert rows[-1]["steps"] == 1 and 0 <= rows[-1]["accuracy"] <= 1
    assert set(curves.means(rows)["banking77", "auto"]) == {"0", "1"}
    curves.draw(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    curves.show(rows)
    assert "BANKING77" in capsys.readouterr().out
