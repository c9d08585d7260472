"""What ``nlpmeta adapt`` does, as a function."""

import json

import pytest
import torch
from test_lora import adapted_encoder

from nlpmeta import AdaptRequest, FewShotClassifier, adapt_and_measure, evaluation
from nlpmeta.auto.method import AutoHead
from nlpmeta.cli import main
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.errors import NLPMetaError
from nlpmeta.evaluation.trial import Stopwatch, Task, run_trial
from nlpmeta.learners.maml import MAML


def request(table, encoder_folder, **options):
    return AdaptRequest(data=str(table), encoder=str(encoder_folder), **{"n_shot": 3, "n_draws": 2, **options})


def test_the_command_prints_what_the_function_returns(table, encoder_folder, tmp_path, capsys):
    options = ["--data", str(table), "--shots", "3", "--draws", "2", "--encoder", str(encoder_folder)]
    assert main(["adapt", *options, "--engine", "torch", "--out", str(tmp_path / "model"), "--json", "--quiet"]) == 0
    printed = json.loads(capsys.readouterr().out)
    found = adapt_and_measure(request(table, encoder_folder))
    ours = json.loads(json.dumps(found.json(tmp_path / "model")))
    assert set(printed.pop("seconds")) == set(ours.pop("seconds")) >= {"data", "encode", "baseline", "total"}
    assert printed == ours
    assert set(found.classifier.classes_.tolist()) == {"sport", "food", "money"}


def test_the_function_writes_nothing_and_says_what_the_command_notes(table, encoder_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, lines = sorted(tmp_path.iterdir()), []
    found = adapt_and_measure(request(table, encoder_folder, method="prototypical"), say=lines.append)
    assert sorted(tmp_path.iterdir()) == before
    assert found.task_report is None and found.label_next is None
    assert "look_at_the_support" not in found.material.watch.seconds
    assert any("encoder" in line for line in lines)


def test_the_texts_to_label_next_are_named_and_none_of_the_support_is(table, encoder_folder, tmp_path):
    new = ["ball rice", "bank match", "soup cash", "team salt"]
    (tmp_path / "new.txt").write_text("\n".join(new), encoding="utf-8")
    found = adapt_and_measure(request(table, encoder_folder, method="logistic", suggest=tmp_path / "new.txt"))
    assert found.label_next and set(found.label_next) <= set(new)
    assert found.json()["label_next"] == list(found.label_next)


def test_inner_steps_are_refused_where_none_are_taken(table, encoder_folder):
    with pytest.raises(NLPMetaError, match="ridge takes no gradient steps"):
        adapt_and_measure(request(table, encoder_folder, method="ridge", inner_steps=2))


def test_a_method_that_reads_tokens_embeds_no_table_that_nobody_reads(pool):
    learner = MAML(adapted_encoder(), inner_steps=1).eval()
    table = EmbeddingTable(learner.encoder)
    task = Task.of(KShotSampler(pool, n_shot=2, seed=0), n_draws=1, seed=0)
    trial = run_trial(learner, task, method="maml", table=table, watch=Stopwatch())
    assert table.n_encoded == 0
    assert trial.baseline.scores and trial.cut.n_texts == trial.n_texts + len(task.support)


def test_the_heads_are_judged_once_for_the_model_and_its_report(table, encoder_folder, monkeypatch):
    judged, plain = [], AutoHead.judge
    monkeypatch.setattr(AutoHead, "judge", lambda self, known: judged.append(known.texts) or plain(self, known))
    monkeypatch.setattr(evaluation, "run_trial", lambda *a, **k: [run_trial(*a, **k), judged.clear()][0])
    found = adapt_and_measure(request(table, encoder_folder))
    assert found.task_report is not None
    assert judged == [found.classifier.examples_.texts]


def test_a_model_has_the_forecast_that_its_examples_have_in_any_order(table, encoder_folder):
    found = adapt_and_measure(request(table, encoder_folder))
    assert found.task_report.json() == found.classifier.task_report().json()
    rows = found.classifier.examples_
    turned = FewShotClassifier(encoder=str(encoder_folder)).fit(rows.texts[::-1], rows.labels[::-1])
    assert turned.task_report().json() == found.task_report.json()
    assert set(turned.state_) == set(found.classifier.state_)
    # What the command saves is what fit makes of the same examples in the same order, to the bit.
    fitted = FewShotClassifier(encoder=str(encoder_folder)).fit(rows.texts, rows.labels)
    assert all(torch.equal(fitted.state_[name], each) for name, each in found.classifier.state_.items())


def test_a_model_does_not_depend_on_the_order_of_the_rows(table, encoder_folder):
    header, *rows = table.read_text(encoding="utf-8").splitlines()
    turned = table.with_name("turned.csv")
    turned.write_text("\n".join([header, *rows[::-1]]), encoding="utf-8")
    one, other = (adapt_and_measure(request(path, encoder_folder, n_shot=None)) for path in (table, turned))
    assert one.classifier.examples_.texts == other.classifier.examples_.texts
    assert all(torch.equal(one.classifier.state_[name], each) for name, each in other.classifier.state_.items())
    assert one.task_report.json() == other.task_report.json()
