"""``nlpmeta bench`` where a text may have none, one or several labels."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from several_texts import TOPIC_NAMES, examples, write_lines
from sklearn.metrics import average_precision_score, f1_score

from nlpmeta import FewShotClassifier
from nlpmeta.bench.contender import Adapted, Contender, OurMethod, installed_peers
from nlpmeta.bench.peers import wanted_steps
from nlpmeta.bench.plan import BenchTask, Cell, Entry, Job, takers_of
from nlpmeta.bench.report import make_report
from nlpmeta.bench.store import QuerySet, Store, numbers_of
from nlpmeta.bench.summary import groups_of, markdown
from nlpmeta.bench.worker import measure_cell
from nlpmeta.cli import main
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import NLPMetaError, WorkFailedError
from nlpmeta.metrics import calibration_error
from nlpmeta.storage.tensors import read_tensors


@pytest.fixture(scope="module")
def tagged(tmp_path_factory):
    return write_lines(tmp_path_factory.mktemp("data") / "tagged.jsonl", examples())


@pytest.fixture
def draw(tagged):
    """A support of two texts a label, scored on the rest."""
    return BenchTask(data=str(tagged)).tasks(2, 1).draws[0]


class Known(Adapted):
    """Says what it was given."""

    def __init__(self, table):
        self.table = table

    def probabilities(self, texts):
        return self.table

    def least(self):
        return np.array([0.5, 0.2, 0.9])

    def save(self, folder):
        (folder / "kept.bin").write_bytes(b"x" * 12)


class Told(Contender):
    table = None

    def prepare(self, seed):
        pass

    def adapt(self, support):
        raise AssertionError

    def adapt_several(self, support):
        assert isinstance(support, MultiLabelTexts)
        return Known(self.table)


def test_a_cell_holds_what_scikit_learn_says(draw):
    table = np.random.default_rng(0).random((len(draw.query), 3))
    contender = Told("none", None)
    contender.table = table
    found = measure_cell(contender, draw, seed=0)
    truth, given = draw.query.matrix(), table >= [0.5, 0.2, 0.9]
    assert found.accuracy == pytest.approx((truth == given).all(1).mean())
    assert found.macro_f1 == pytest.approx(f1_score(truth, given, average="macro"))
    assert found.facts["several"] is True
    assert found.facts["micro_f1"] == pytest.approx(f1_score(truth, given, average="micro"))
    assert found.facts["mean_average_precision"] == pytest.approx(average_precision_score(truth, table))
    pairs = np.stack([1 - table.ravel(), table.ravel()], axis=1)
    assert found.calibration_error == pytest.approx(calibration_error(truth.ravel().astype(int), pairs))
    digits = [[int(digit) for digit in f"{number:03b}"[::-1]] for number in found.predicted]
    assert (np.array(digits, bool) == given).all()
    assert (found.n_way, found.n_support, found.n_query) == (3, len(draw.support), len(draw.query))
    assert found.support == draw.support.digest() != draw.query.digest() and found.artefact_bytes == 12
    query = QuerySet.of(draw)
    assert query.several and list(query.labels) == numbers_of(truth) and query.json()["several"] is True


@pytest.mark.parametrize("fault", ["shape", "negative", "beyond", "nan"])
def test_what_are_no_probabilities_are_refused(draw, fault):
    table = np.full((len(draw.query), 3), 0.5)
    wrong = {"shape": table[:, :2], "negative": table - 0.6, "beyond": table * 3, "nan": table * math.nan}
    contender = Told("none", None)
    contender.table = wrong[fault]
    with pytest.raises(WorkFailedError, match="robabilities"):
        measure_cell(contender, draw, seed=0)


def test_our_methods_are_those_of_the_classifier_and_of_the_baseline(draw, encoder_folder):
    auto = OurMethod(str(encoder_folder), None, method="auto")
    auto.prepare(0)
    model = auto.adapt_several(draw.support)
    same = FewShotClassifier("auto", encoder=str(encoder_folder))
    same.fit(list(draw.support.texts), draw.support.names(), classes=TOPIC_NAMES)
    np.testing.assert_allclose(model.probabilities(draw.query.texts), same.predict_proba(list(draw.query.texts)))
    np.testing.assert_allclose(model.least(), same.thresholds_)


def test_the_baseline_keeps_its_weights(draw, encoder_folder, tmp_path):
    plain = OurMethod(str(encoder_folder), None, method="logistic")
    plain.prepare(0)
    model = plain.adapt_several(draw.support)
    model.save(tmp_path)
    kept = read_tensors(tmp_path / "head.safetensors")
    features = TextEncoder.from_pretrained(str(encoder_folder)).encode(draw.query.texts)
    odds = features @ kept["weight"].T + kept["bias"]
    np.testing.assert_allclose(model.probabilities(draw.query.texts), odds.sigmoid().numpy(), atol=1e-5)
    np.testing.assert_allclose(model.least(), kept["least"].numpy(), atol=1e-6)


def _bench(tagged, encoder_folder, out, *options):
    given = ["bench", "--data", tagged, "--out", out, "--encoder", encoder_folder, "--peers", "none", *options]
    return main([str(each) for each in given])


def test_cells_are_the_draws_of_evaluate_and_the_report_is_made(tagged, encoder_folder, tmp_path, capsys, run):
    out, sizes = tmp_path / "out", ("--shots", "2", "--methods", "auto,logistic", "--draws", "2", "--max-query", "9")
    assert _bench(tagged, encoder_folder, out, *sizes) == 0
    printed = capsys.readouterr().out
    assert "Several labels per text: accuracy is exact match" in printed
    assert _bench(tagged, encoder_folder, out, *sizes, "--json") == 0
    captured = capsys.readouterr()
    assert "0 of 4 cells to do" in captured.err
    rows = json.loads(captured.out)["rows"]
    code, evaluated, errors = run(
        "evaluate", "auto,logistic", "--data", tagged, "--shots", 2, "--episodes", 2, "--max-query", 9, "--json"
    )
    assert code == 0, errors
    for row, same in zip(rows, json.loads(evaluated)["rows"], strict=True):
        assert row["method"] == same["method"] and row["several"] and row["draws"] == 2
        for name in ("accuracy", "macro_f1", "micro_f1", "mean_average_precision"):
            assert row[name]["mean"] == pytest.approx(same[name]["mean"], abs=1e-6), name
        assert row["calibration_error"] == pytest.approx(same["calibration_error"]["mean"], abs=1e-4)
    assert all(query.several for query in Store(out).query_sets().values()) and not Store(out).maps()
    assert "accuracy is exact match" in markdown(groups_of(Store(out).lines()))
    page = make_report(out).read_text(encoding="utf-8")
    assert "Several labels per text: accuracy is exact match" in page and "Confusion matrix" not in page


def test_names_alone_are_one_cell(tagged, encoder_folder):
    task = BenchTask(data=str(tagged), max_query=7)
    (named,) = task.tasks(0, 3).draws
    assert len(named.support) == 0 and len(named.query) == 7
    contender = OurMethod(str(encoder_folder), None, method="auto")
    found = measure_cell(contender, named, seed=0)
    same = FewShotClassifier.from_names(TOPIC_NAMES, multilabel=True, encoder=str(encoder_folder))
    expected = average_precision_score(named.query.matrix(), same.predict_proba(list(named.query.texts)))
    assert found.n_support == 0 and found.facts["mean_average_precision"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--methods", "prototypical,auto"], "prototypical gives one; these methods can be measured: auto, logistic"),
        (["--peers", "lora,fine-tuning"], "lora, fine-tuning give one; these peers give several: setfit"),
        (["--scaling"], "--scaling requires one label per text"),
        (["--shots", "0,1"], "logistic needs examples of each class"),
        (["--label-separator", " "], "takes a sign"),
    ],
)
def test_what_requires_one_label_a_text_is_named_before_the_work(
    options, said, tagged, encoder_folder, tmp_path, capsys
):
    assert _bench(tagged, encoder_folder, tmp_path / "out", *options) == 2
    errors = capsys.readouterr().err
    assert said in errors and sum(line.startswith("Error: ") for line in errors.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_peers_that_nobody_named_are_left_out_where_they_give_one_label(tagged, table):
    entries = (Entry(name="auto", contender="nlpmeta"), Entry(name="lora", contender="lora"))
    several, single = BenchTask(data=str(tagged)), BenchTask(data=str(table))
    assert takers_of([single], entries, named=True) == entries
    assert takers_of([single, several], entries, named=False) == entries[:1]
    with pytest.raises(NLPMetaError, match="lora gives one"):
        takers_of([single, several], entries, named=True)
    with pytest.raises(NLPMetaError, match="requires one label per text"):
        Told.__bases__[0].adapt_several(Told("none", None), several.tasks(1, 1).draws[0].support)


def test_a_separator_is_part_of_what_a_cell_is(tagged, tmp_path):
    path = tmp_path / "tagged.csv"
    cells = [f"{text},{'|'.join(labels)}" for text, labels in examples()]
    path.write_text("\n".join(["text,labels", *cells, ""]), encoding="utf-8")
    task = BenchTask(data=str(path), label_separator="|")
    assert task.tasks(2, 2).draws == BenchTask(data=str(tagged)).tasks(2, 2).draws
    job = Job(task=task, entry=Entry(name="a", contender="b"), encoder="e", encoder_digest="0")
    assert job.key(Cell(1, 0))["data"] == f"{path}, label_separator '|'"
    assert Job.parse(json.loads(json.dumps(job.json()))) == job
    assert task.choice().source.several and not replace(task, label_separator=None).choice().source.several


def test_the_steps_of_setfit_are_counted_by_pairs_that_share_a_label():
    texts = MultiLabelTexts(tuple("abcd"), ((0,), (0, 1), (1,), ()), ("x", "y"))
    # alike: each of the first three with itself, a-b, b-c: 5 of 10 pairs
    assert wanted_steps(texts) == math.ceil(2 * 5 / 16)
    many = MultiLabelTexts(tuple(map(str, range(20))), ((0,),) * 10 + ((),) * 10, ("x", "y"))
    assert wanted_steps(many) == math.ceil(2 * (210 - 55) / 16)


@pytest.mark.skipif("setfit" not in installed_peers(), reason="needs the extra bench")
@pytest.mark.filterwarnings("ignore")
def test_setfit_gives_several_labels_and_takes_the_steps_that_were_counted(encoder_folder, draw):
    from nlpmeta.bench.peers import SetFit

    contender = SetFit(str(encoder_folder), None)
    contender.prepare(0)
    model = contender.adapt_several(draw.support)
    steps = wanted_steps(draw.support)
    assert model.facts() == {"steps": steps, "wanted_steps": steps}
    table = model.probabilities(draw.query.texts)
    assert table.shape == (len(draw.query), 3) and model.least() == 0.5
    assert (np.asarray(model.model.predict([f"query: {t}" for t in draw.query.texts])).shape) == table.shape
    assert measure_cell(SetFit(str(encoder_folder), 2), draw, seed=0).facts["steps"] == 2
