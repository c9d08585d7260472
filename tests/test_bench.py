import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from nlpmeta.bench import Bench
from nlpmeta.bench.contender import (
    Adapted,
    Contender,
    OurMethod,
    contenders,
    installed_peers,
    peer,
    peer_names,
)
from nlpmeta.bench.peers import FullFineTuning, LoraFineTuning
from nlpmeta.bench.plan import BenchTask, Cell, Entry, Job, entries_of
from nlpmeta.bench.store import _KEY, RESULTS_FILE, Store
from nlpmeta.bench.summary import groups_of
from nlpmeta.bench.worker import measure_cell
from nlpmeta.cli import main
from nlpmeta.cli.bench import _tasks
from nlpmeta.errors import DataError, NLPMetaError, UnknownNameError, WorkFailedError
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.metrics import calibration_error
from nlpmeta.metrics.scores import paired_difference, score_episode
from nlpmeta.progress import peak_bytes, start_watching


@pytest.fixture(scope="module")
def topics(tmp_path_factory, pool):
    """The three topics as a CSV file."""
    path = tmp_path_factory.mktemp("data") / "topics.csv"
    rows = zip(pool.texts, pool.names(), strict=True)
    path.write_text("text,label\n" + "".join(f"{text},{name}\n" for text, name in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bench(encoder_folder, topics):
    """Two of our methods, two draws of one text a class of a table."""
    encoder = str(encoder_folder)
    task = BenchTask(data=str(topics), max_query=20)
    entries = entries_of(["prototypical", "logistic"], [], encoder=encoder, max_steps=None)
    return Bench(tasks=(task,), entries=entries, n_shots=(1,), n_draws=2, encoder=encoder)


@pytest.fixture(scope="module")
def done(bench, tmp_path_factory):
    """The run, done once, and what it said."""
    store, said = Store(tmp_path_factory.mktemp("done") / "out"), []
    assert bench.run(store, say=said.append) == 0
    return store, said


@pytest.fixture
def store(done, tmp_path):
    """A copy of the run that a test may change."""
    return Store(Path(shutil.copytree(done[0].folder, tmp_path / "copy")))


class Known(Adapted):
    """Knows one class of each text, with a confidence."""

    def __init__(self, table):
        self.table = table

    def probabilities(self, texts):
        return self.table[: len(texts)]

    def save(self, folder):
        (folder / "kept.bin").write_bytes(b"x" * 1234)


class Slow(Contender):
    table = None

    def prepare(self, seed):
        pass

    def adapt(self, support):
        time.sleep(0.2)
        return Known(self.table)


def a_table(episode, seed=0):
    table = np.random.default_rng(seed).dirichlet(np.ones(episode.n_way), len(episode.query))
    return table


def test_a_cell_holds_what_scikit_learn_and_the_clock_say(sampler):
    from sklearn.metrics import accuracy_score, f1_score

    episode = sampler.episode(0)
    contender = Slow("none", None)
    contender.table = a_table(episode)
    measured = measure_cell(contender, episode, seed=0)
    guess, truth = contender.table.argmax(1), np.array(episode.query.labels)
    assert measured.accuracy == pytest.approx(accuracy_score(truth, guess))
    assert measured.macro_f1 == pytest.approx(f1_score(truth, guess, average="macro"))
    assert measured.calibration_error == pytest.approx(calibration_error(truth, contender.table))
    assert measured.predicted == guess.tolist()
    assert 0.2 <= measured.adapt_seconds < 2
    assert measured.artefact_bytes == 1234
    assert (measured.n_way, measured.n_support, measured.n_query) == (3, 15, 15)


@pytest.mark.parametrize("fault", ["shape", "sum", "negative", "nan"])
def test_what_are_no_probabilities_are_refused(sampler, fault):
    episode = sampler.episode(0)
    contender = Slow("none", None)
    table = a_table(episode)
    wrong = {"shape": table[:, :2], "sum": 2 * table, "negative": table - 0.5, "nan": np.full_like(table, np.nan)}
    contender.table = wrong[fault]
    with pytest.raises(WorkFailedError, match="robabilities"):
        measure_cell(contender, episode, seed=0)


def test_peak_memory_sees_what_was_taken_and_given_back():
    if not start_watching():
        pytest.skip("this system does not let a process reset its peak")
    before = peak_bytes()
    block = np.ones(30_000_000)  # 240 MB
    del block
    assert peak_bytes() - before > 200e6
    start_watching()
    assert peak_bytes() < before + 100e6


def test_our_methods_are_adapted_as_the_classifier_adapts_them(encoder_folder, sampler):
    from nlpmeta import FewShotClassifier

    episode = sampler.episode(1)
    ours = OurMethod(str(encoder_folder), None, method="prototypical")
    ours.prepare(0)
    found = ours.adapt(episode.support).probabilities(episode.query.texts)
    classifier = FewShotClassifier("prototypical", encoder=str(encoder_folder), checkpoint="none")
    classifier.fit(list(episode.support.texts), episode.support.names())
    columns = [classifier.classes_.tolist().index(name) for name in episode.support.label_names]
    np.testing.assert_allclose(found, classifier.predict_proba(list(episode.query.texts))[:, columns], atol=1e-6)


def test_columns_follow_the_support_and_not_the_alphabet(encoder_folder, pool, sampler):
    episode = sampler.episode(1)
    turned = tuple(reversed(pool.label_names))
    support = episode.support.with_classes(turned)
    ours = OurMethod(str(encoder_folder), None, method="prototypical")
    ours.prepare(0)
    one = ours.adapt(episode.support.with_classes(tuple(reversed(turned)))).probabilities(episode.query.texts)
    two = ours.adapt(support).probabilities(episode.query.texts)
    np.testing.assert_allclose(one, two[:, ::-1], atol=1e-6)


@pytest.mark.parametrize("kind", [FullFineTuning, LoraFineTuning])
def test_fine_tuning_learns_its_support_and_starts_afresh(encoder_folder, sampler, kind):
    support = sampler.episode(0).support
    tuned = kind(str(encoder_folder), 60)
    tuned.prepare(0)
    first = tuned.adapt(support).probabilities(support.texts)
    assert (first.argmax(1) == np.array(support.labels)).mean() > 0.9
    tuned.prepare(0)
    again = tuned.adapt(support).probabilities(support.texts)
    np.testing.assert_allclose(first, again, atol=1e-5)


def test_full_fine_tuning_moves_every_weight_and_lora_only_adapters(encoder_folder, sampler):
    support, moved = sampler.episode(0).support, {}
    for kind in (FullFineTuning, LoraFineTuning):
        tuned = kind(str(encoder_folder), 3)
        tuned.prepare(0)
        before = {name: weight.detach().clone() for name, weight in tuned._encoder.backbone.named_parameters()}
        tuned.adapt(support)
        after = dict(tuned._encoder.backbone.named_parameters())
        moved[kind] = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(".lora_" in name for name in moved[LoraFineTuning]) and moved[LoraFineTuning]
    assert any("word_embeddings" in name for name in moved[FullFineTuning])
    assert any("layer.0" in name for name in moved[FullFineTuning])


def test_only_the_number_of_classes_grows_what_lora_keeps(encoder_folder, sampler):
    full, lora = (
        measure_cell(kind(str(encoder_folder), 2), sampler.episode(0), seed=0).artefact_bytes
        for kind in (FullFineTuning, LoraFineTuning)
    )
    weights = sum(file.stat().st_size for file in encoder_folder.glob("*.safetensors"))
    assert lora < full and full > 0.8 * weights


@pytest.mark.slow
def test_a_run_measures_every_cell_in_another_process_and_says_what_was_done(done):
    lines, said = done[0].lines(), done[1]
    assert len(lines) == 4
    assert {(line.key["method"], line.key["draw"]) for line in lines} == {
        (method, draw) for method in ("prototypical", "logistic") for draw in (0, 1)
    }
    assert len(said) == 5 and "logistic" in said[-1]
    by_draw = {draw: {line.measured.support for line in lines if line.key["draw"] == draw} for draw in (0, 1)}
    assert all(len(digests) == 1 for digests in by_draw.values()), "the methods had different support sets"
    assert by_draw[0] != by_draw[1]


def test_what_a_worker_finds_is_what_this_process_finds(bench, store):
    line = next(each for each in store.lines() if each.key["method"] == "logistic" and each.key["draw"] == 1)
    episode = bench.tasks[0].tasks(1, 2).sampler.episode(1)
    contender = OurMethod(bench.encoder, None, method="logistic")
    measured = measure_cell(contender, episode, seed=1)
    assert measured.predicted == line.measured.predicted
    queries = store.query_sets()[line.task]
    assert queries.labels == episode.query.labels and queries.label_names == episode.query.label_names


def test_a_run_that_is_done_does_nothing_more(bench, store):
    before = (store.folder / RESULTS_FILE).read_bytes()
    said = []
    bench.run(store, say=said.append)
    assert said == ["0 of 4 cells to do"]
    assert (store.folder / RESULTS_FILE).read_bytes() == before


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_stood_and_half_a_line_is_cut_off(bench, store):
    path = store.folder / RESULTS_FILE
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:3]) + whole[3][:100])
    assert len(store.lines()) == 3
    said = []
    bench.run(store, say=said.append)
    assert said[0] == "1 of 4 cells to do"
    again = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [each["measured"]["predicted"] for each in again] == [json.loads(x)["measured"]["predicted"] for x in whole]


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_what_was_done(topics, encoder_folder, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "nlpmeta", "bench", "--data", str(topics), "--shots", "1", "--draws", "40"]
    options = ["--methods", "prototypical", "--peers", "none", "--encoder", str(encoder_folder), "--out", str(out)]
    with subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and len(Store(out).lines()) < 2:
            time.sleep(0.05)
        run.kill()
    assert 2 <= len(Store(out).lines()) < 40


def test_other_settings_are_other_cells(bench, tmp_path):
    job = bench.jobs()[0]
    key = job.key(Cell(1, 0))
    for other in (
        replace(job, task=replace(job.task, seed=1)),
        replace(job, task=replace(job.task, max_query=7)),
        replace(job, entry=replace(job.entry, max_steps=9)),
        replace(job, entry=replace(job.entry, digest="another")),
        replace(job, encoder_digest="0" * 64),
    ):
        assert other.key(Cell(1, 0)) != key
    moved = replace(job, task=replace(job.task, data_dir="elsewhere"))
    assert moved.key(Cell(1, 0)) == key
    assert Job.parse(json.loads(json.dumps(job.json()))) == job


def test_two_runs_do_not_write_to_one_folder(bench, tmp_path):
    store = Store(tmp_path / "out")
    with store.only_writer(), pytest.raises(NLPMetaError, match="Another benchmark"):
        bench.run(Store(tmp_path / "out"), say=lambda _: None)


@pytest.mark.slow
def test_a_cell_that_fails_is_said_and_the_others_are_done(bench, tmp_path):
    broken = Entry(name="no-such-method", contender="nlpmeta")
    whole = replace(bench, entries=(broken, bench.entries[1]), n_draws=1)
    said = []
    assert whole.run(Store(tmp_path / "out"), say=said.append) == 1
    assert "failed" in said[1] and "no-such-method" in said[1]
    assert [line.key["method"] for line in Store(tmp_path / "out").lines()] == ["logistic"]


def test_a_cell_that_takes_too_long_is_stopped(bench, tmp_path):
    said = []
    one = replace(bench, entries=bench.entries[:1], n_draws=1, limit=0.01)
    assert one.run(Store(tmp_path / "out"), say=said.append) == 1
    assert "stopped after" in said[1]


def test_a_file_that_holds_no_results_is_left_as_it_is(tmp_path):
    (tmp_path / RESULTS_FILE).write_text('{"something": "else"}\n')
    with pytest.raises(DataError, match="not a file of benchmark results"):
        Store(tmp_path).lines()


def test_differences_are_paired_by_draw(store):
    first, second = groups_of(store.lines())
    expected = paired_difference(first.values("accuracy"), second.values("accuracy"))
    assert second.gain_over(first) == expected
    missing = replace(second, lines={1: second.lines[1]})
    gain = missing.gain_over(first)
    assert gain.mean == pytest.approx(second.values("accuracy")[1] - first.values("accuracy")[1])


def test_peers_that_are_unknown_or_not_installed_are_said_before_the_work(monkeypatch):
    with pytest.raises(UnknownNameError, match="setfit"):
        peer("setfti")
    monkeypatch.setattr(contenders["setfit"], "package", "no_such_package_here")
    with pytest.raises(NLPMetaError, match=r"pip install 'nlpmeta\[bench\]'"):
        entries_of([], ["setfit"], encoder="x", max_steps=None)
    assert "setfit" not in installed_peers()
    assert set(peer_names()) == {"adaptive-classifier", "fine-tuning", "lora", "setfit"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--methods", "prototypcial"], "prototypical"),
        (["--methods", "none", "--peers", "none"], "Name methods or peers"),
        (["--methods", "logistic,logistic", "--peers", "none"], "once"),
        (["--shots", "-1"], "--shots"),
        (["--shots", "0"], "logistic needs examples of each class"),
        (["--shots", "0,1", "--methods", "auto,knn", "--peers", "lora"], "knn, lora need examples of each class"),
        (["--data", "no-such-set"], "no-such-set"),
        (["--methods", "auto@nowhere"], "nowhere"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(options, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["bench", "--peers", "none", "--out", str(out), *options]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_the_command_prints_a_table_or_json(bench, store, capsys):
    arguments = ["bench", "--data", bench.tasks[0].data, "--shots", "1", "--draws", "2", "--max-query", "20"]
    arguments += ["--methods", "prototypical,logistic", "--peers", "none", "--encoder", bench.encoder]
    arguments += ["--out", str(store.folder)]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert "prototypical" in captured.out and "0 of 4 cells" in captured.err
    assert main([*arguments, "--json", "--quiet"]) == 0
    captured = capsys.readouterr()
    rows = json.loads(captured.out)["rows"]
    assert [row["draws"] for row in rows] == [2, 2] and rows[0]["artefact_bytes"] > 0 and not captured.err


def test_names_alone_are_one_cell_that_our_methods_adapt_to(bench, encoder, encoder_folder):
    (job, _) = replace(bench, n_shots=(0, 1)).jobs()
    assert job.cells == (Cell(0, 0), Cell(1, 0), Cell(1, 1))
    tasks = job.task.tasks(0, 1)
    episode = tasks.sampler.episode(0)
    assert len(episode.support) == 0 and len(episode.query) == 20
    contender = OurMethod(str(encoder_folder), None, method="prototypical")
    found = measure_cell(contender, episode, seed=0)
    learner = PrototypicalNetwork(encoder, metric="cosine").eval()
    assert (found.n_support, found.accuracy) == (0, score_episode(learner, episode).accuracy)


def test_a_table_is_read_as_the_options_say_and_the_results_name_them(encoder_folder, pool, tmp_path, capsys):
    path, out = tmp_path / "plain.txt.csv", tmp_path / "out"
    rows = zip(pool.texts, pool.names(), strict=True)
    path.write_text("".join(f"{i}~{text} é~{name}\n" for i, (text, name) in enumerate(rows)), encoding="cp1252")
    arguments = ["bench", "--data", str(path), "--shots", "1", "--draws", "1", "--max-query", "6", "--out", str(out)]
    arguments += ["--methods", "prototypical", "--peers", "none", "--encoder", str(encoder_folder), "--json", "-q"]
    reading = ["--delimiter", "~", "--no-header", "--text-column", "2", "--label-column", "3", "--encoding", "cp1252"]
    assert main([*arguments, *reading]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    said = "text_column '2', label_column '3', delimiter '~', encoding 'cp1252', no header"
    assert row["data"] == f"{path}, {said}" and row["draws"] == 1
    assert [query.label_names for query in Store(out).query_sets().values()] == [pool.label_names]
    assert main([*arguments, *reading]) == 0
    assert len(Store(out).lines()) == 1, "the same table read alike is done already"
    assert main([*arguments, "--delimiter", "too long"]) == 2
    assert "--delimiter takes one character" in capsys.readouterr().err


def test_what_was_not_said_of_a_table_leaves_the_key_of_a_cell_as_it_was():
    job = Job(task=BenchTask(data="mine.csv"), entry=Entry(name="a", contender="b"), encoder="e", encoder_digest="0")
    key = job.key(Cell(1, 0))
    assert key["data"] == "mine.csv" and set(key) == set(_KEY)
    told = replace(job, task=replace(job.task, delimiter="\t", header=False))
    assert told.key(Cell(1, 0)) == {**key, "data": "mine.csv, delimiter '\\t', no header"}
    assert Job.parse(json.loads(json.dumps(told.json()))) == told


def test_how_a_table_is_read_is_no_matter_of_a_corpus_beside_it(topics):
    semicolons = topics.with_name("semicolons.csv")
    semicolons.write_text(topics.read_text().replace(",", ";"))
    like = BenchTask(data="", delimiter=";")
    mine, corpus = _tasks(f"{semicolons},starter:sw", None, like)
    assert (mine.delimiter, corpus.delimiter, corpus.lang) == (";", None, "sw")
    with pytest.raises(DataError, match="go with files"):
        _tasks("starter:sw", None, like)


@pytest.mark.skipif("setfit" not in installed_peers(), reason="needs the extra bench")
@pytest.mark.filterwarnings("ignore")
def test_setfit_takes_the_steps_that_were_counted(encoder_folder, sampler):
    from nlpmeta.bench.peers import SetFit, wanted_steps

    episode = sampler.episode(0)
    contender = SetFit(str(encoder_folder), None)
    contender.prepare(0)
    model = contender.adapt(episode.support)
    assert model.facts() == {"steps": wanted_steps(episode.support), "wanted_steps": wanted_steps(episode.support)}
    contender = SetFit(str(encoder_folder), 2)
    measured = measure_cell(contender, episode, seed=0)
    assert measured.facts["steps"] == 2


@pytest.mark.skipif("setfit" not in installed_peers(), reason="needs the extra bench")
@pytest.mark.filterwarnings("ignore")
def test_setfit_has_our_encoder_before_it_trains(encoder_folder, encoder, sampler):
    from nlpmeta.bench.peers import SetFit

    episode = sampler.episode(0)
    contender = SetFit(str(encoder_folder), 1)
    contender.prepare(0)
    theirs = contender._model.model_body.encode(list(episode.query.texts))
    ours = encoder.encode(episode.query.texts).numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


@pytest.mark.skipif("adaptive-classifier" not in installed_peers(), reason="needs the extra bench")
@pytest.mark.filterwarnings("ignore")
def test_adaptive_classifier_has_our_encoder_and_its_own_answers(encoder_folder, encoder, sampler):
    from nlpmeta.bench.peers import AdaptiveClassifier

    episode = sampler.episode(0)
    contender = AdaptiveClassifier(str(encoder_folder), None)
    contender.prepare(0)
    theirs = torch.stack(contender._model._get_embeddings(list(episode.query.texts)))
    np.testing.assert_allclose(theirs.numpy(), encoder.encode(episode.query.texts).numpy(), atol=1e-5)
    model = contender.adapt(episode.support)
    table = model.probabilities(episode.query.texts)
    answers = [model.model.predict(text)[0][0] for text in episode.query.texts]
    assert answers == [episode.query.label_names[i] for i in table.argmax(1)]
