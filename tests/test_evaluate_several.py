"""``nlpmeta evaluate`` where a text may have none, one or several labels."""

import json
from dataclasses import replace

import numpy as np
import pytest
from several_texts import TOPIC_NAMES, examples, write_lines
from sklearn.metrics import average_precision_score, f1_score

from nlpmeta import FewShotClassifier, evaluate
from nlpmeta.auto.method import AutoHead
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.episodes import generator
from nlpmeta.episodes.index import MultiLabelKShot, MultiLabelTasks
from nlpmeta.errors import NLPMetaError
from nlpmeta.evaluation.protocols import KSHOT_ALL
from nlpmeta.evaluation.results import read_rows
from nlpmeta.evaluation.runs import DataChoice
from nlpmeta.learners.logistic import one_vs_rest
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.metrics import SEVERAL_METRICS, error_of_bins, several_bins
from nlpmeta.metrics.scores import paired_difference
from nlpmeta.sources.loading import load_source


@pytest.fixture
def tagged(tmp_path):
    """Texts to learn from, with lists of labels."""
    return write_lines(tmp_path / "tagged.jsonl", examples())


@pytest.fixture
def other_file(tmp_path):
    """Other texts of the same topics."""
    return write_lines(tmp_path / "test.jsonl", examples(turn=1))


@pytest.fixture
def rows(run):
    """The rows that ``nlpmeta evaluate --json`` prints."""

    def call(*arguments):
        code, printed, errors = run("evaluate", *arguments, "--json")
        assert code == 0, errors
        return json.loads(printed)["rows"]

    return call


def _read(path):
    return MultiLabelTexts.of(load_source(str(path)).load(several=True))


def test_a_row_holds_what_scikit_learn_says_of_the_very_draws(rows, tagged, other_file, encoder_folder):
    given = ("--data", tagged, "--test-data", other_file, "--shots", 2, "--episodes", 3, "--seed", 4)
    ours, plain = rows("auto,logistic", *given)
    sampler = MultiLabelKShot(_read(tagged), n_shot=2, seed=4, test=_read(other_file))
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    for row, method in ((ours, "auto"), (plain, "logistic")):
        macro, micro, precise, exact = [], [], [], []
        for draw in map(sampler.draw, range(3)):
            truth, texts = draw.query.matrix(), list(draw.query.texts)
            if method == "auto":
                classifier = FewShotClassifier("auto", encoder=str(encoder_folder))
                classifier.fit(list(draw.support.texts), draw.support.names(), classes=TOPIC_NAMES, multilabel=True)
                table, least = classifier.predict_proba(texts), classifier.thresholds_
            else:
                features = encoder.encode(draw.support.texts).double().numpy()
                weight, bias, least = one_vs_rest(features, draw.support.matrix())
                table = 1 / (1 + np.exp(-(encoder.encode(texts).double().numpy() @ weight.T + bias)))
            answers = table >= least
            macro.append(f1_score(truth, answers, average="macro", zero_division=0.0))
            micro.append(f1_score(truth, answers, average="micro"))
            precise.append(average_precision_score(truth, table, average="macro"))
            exact.append((truth == answers).all(1).mean())
        assert row["macro_f1s"] == pytest.approx(macro, abs=1e-5), method
        for name, values in zip(SEVERAL_METRICS, (macro, micro, precise, exact), strict=True):
            assert row[name]["mean"] == pytest.approx(np.mean(values), abs=1e-5), (method, name)
        assert row["accuracy"] == row["exact_match"] and row["accuracies"] == pytest.approx(exact, abs=1e-5)
    assert (ours["n_way"], ours["n_query"], ours["episodes"], ours["several"]) == (3, 26, 3, True)
    assert "difference" not in ours and plain["difference"]["baseline"] == "auto"
    gain = paired_difference(ours["macro_f1s"], plain["macro_f1s"])
    assert plain["difference"]["macro_f1"]["mean"] == pytest.approx(gain.mean, abs=1e-5)
    assert plain["difference"]["macro_f1"]["low"] == pytest.approx(gain.low, abs=1e-4)


def test_a_person_gets_a_table_of_the_four_figures_and_the_difference_in_macro_f1(run, rows, tagged):
    given = ("auto,logistic", "--data", tagged, "--shots", 2, "--episodes", 3)
    code, printed, _ = run("evaluate", *given)
    assert code == 0
    lines = printed.splitlines()
    assert "kshot-several, 3 episodes, seed 0" in lines[0]
    assert lines[1].split("  ")[0] == "method"
    assert all(name in lines[1] for name in ("macro-F1, %", "micro-F1, %", "mAP, %", "exact match, %"))
    assert lines[1].strip().endswith("macro-F1 over auto") and "accuracy" not in printed and "ECE" not in printed
    gain = rows(*given)[1]["difference"]["macro_f1"]["mean"]
    assert f"{100 * gain:+.1f}" in lines[3] and "±" in lines[2]


def test_labels_with_a_separator_are_measured_as_lists_are(rows, tagged, tmp_path):
    table = tmp_path / "tagged.csv"
    cells = [f"{text},{';'.join(labels)}" for text, labels in examples()]
    table.write_text("\n".join(["text,labels", *cells, ""]), encoding="utf-8")
    given = ("--shots", 2, "--episodes", 2)
    (listed,) = rows("auto", "--data", tagged, *given)
    (parted,) = rows("auto", "--data", table, "--label-separator", ";", *given)
    assert parted["macro_f1s"] == listed["macro_f1s"] and parted["several"]
    assert "--label-separator ';'" in parted["command"]
    (single,) = rows("logistic", "--data", table, *given[:1], 1, *given[2:])  # without it a cell is one label
    assert single["protocol"] == "kshot-all" and single["n_way"] == 6 and "several" not in single


def test_names_alone_are_for_methods_that_read_them(run, rows, tagged, encoder):
    given = ("--data", tagged, "--shots", "0,1", "--episodes", 2)
    found = rows("logistic,auto", *given)
    assert [(row["method"], row["n_shot"], row["episodes"]) for row in found] == [
        ("auto", 0, 1),
        ("logistic", 1, 2),
        ("auto", 1, 2),
    ]
    assert "difference" not in found[0] and found[2]["difference"]["baseline"] == "logistic"
    code, printed, errors = run("evaluate", "logistic,auto", *given)
    assert code == 0 and "With 0 shots logistic cannot be measured" in errors
    assert "macro-F1 over logistic" in printed
    named = FewShotClassifier.from_names(TOPIC_NAMES, multilabel=True, method=AutoHead(encoder), encoder=encoder)
    pool = _read(tagged)
    table = named.predict_proba(list(pool.texts))
    expected = average_precision_score(pool.matrix(), table, average="macro")
    assert found[0]["mean_average_precision"]["mean"] == pytest.approx(expected, abs=1e-5)
    code, _, errors = run("evaluate", "logistic", *given)
    assert code == 2 and "logistic needs examples of each label" in errors and "auto can do" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["prototypical,auto"], "prototypical gives one; these methods can be measured: auto, logistic"),
        (["auto,knn,ridge@default"], "knn, ridge@default give one"),
        (["mann"], "mann gives one"),
        (["auto", "--protocol", "protaugment"], "protaugment (--protocol, --ways) requires one label per text"),
        (["auto", "--protocol", "stream"], "stream (--protocol"),
        (["auto", "--protocol", "clinc-oos"], "clinc-oos (--protocol"),
        (["auto", "--protocol", "mteb-8shot"], "mteb-8shot (--protocol"),
        (["auto", "--ways", "2"], "n-way (--protocol, --ways)"),
        (["auto", "--fold", "0"], "--fold requires one label per text"),
        (["auto", "--plot", "x.png"], "--plot"),
        (["auto", "--label-separator", " "], "takes a sign"),
    ],
)
def test_what_requires_one_label_a_text_is_named_before_any_work(run, tagged, monkeypatch, arguments, said):
    monkeypatch.setattr(TextEncoder, "from_pretrained", None)
    code, printed, errors = run("evaluate", *arguments, "--data", tagged)
    assert (code, printed) == (2, "") and said in errors, errors
    assert sum(line.startswith("Error: ") for line in errors.splitlines()) == 1


def test_rows_stand_beside_those_of_one_label_and_replace_their_like(run, tagged, table, tmp_path):
    out = tmp_path / "all.json"
    for data in (tagged, table, tagged):
        given = ("evaluate", "auto,logistic", "--data", data, "--shots", 2, "--episodes", 2, "--out", out, "--quiet")
        assert run(*given)[0] == 0
    stored = read_rows(out)
    assert sorted((row["protocol"], row["method"]) for row in stored) == [
        ("kshot-all", "auto"),
        ("kshot-all", "logistic"),
        ("kshot-several", "auto"),
        ("kshot-several", "logistic"),
    ]
    for row in stored:  # what readers of one-label rows take from a row
        assert all(0 <= row[name]["mean"] <= 1 for name in ("accuracy", "macro_f1", "calibration_error"))
        assert row["command"].startswith("nlpmeta evaluate auto,logistic") and row["encoder"]["digest"]


def test_at_most_so_many_texts_are_scored_the_same_of_a_test_file_in_every_draw():
    rows = examples()
    pool = MultiLabelTexts(
        tuple(text for text, _ in rows),
        tuple(tuple(TOPIC_NAMES.index(label) for label in labels) for _, labels in rows),
        tuple(TOPIC_NAMES),
    )
    test = pool.select(range(0, len(pool), 2))
    sizes = {"n_shot": 1, "n_draws": 4, "seed": 0}
    cut = MultiLabelTasks.of(pool, test, max_query=5, **sizes)
    assert {draw.query.texts for draw in cut.draws} == {cut.draws[0].query.texts} and cut.n_episodes == 4
    assert len(cut.draws[0].query) == 5 and set(cut.draws[0].query.texts) <= set(test.texts)
    whole = MultiLabelTasks.of(pool, test, max_query=None, **sizes)
    assert [draw.support for draw in cut.draws] == [draw.support for draw in whole.draws]
    rest = MultiLabelTasks.of(pool, None, max_query=5, **sizes)
    everything = MultiLabelTasks.of(pool, None, max_query=None, **sizes)
    for index, (draw, every) in enumerate(zip(rest.draws, everything.draws, strict=True)):
        picked = generator(0, index, stream=1).choice(len(every.query), 5, replace=False)  # as KShotSampler picks
        assert draw.query == every.query.select(sorted(picked.tolist()))
    for draw in (*cut.draws, *rest.draws):
        assert not {*draw.support.texts} & {*draw.query.texts} and len(draw.query) == 5
        assert (draw.support.matrix().sum(0) >= 1).all()


def test_labels_that_only_the_test_data_or_too_few_texts_have_are_said(run, tagged, tmp_path):
    test = write_lines(tmp_path / "test.jsonl", [*examples(turn=1), ("rain snow", ["weather"])])
    given = ("evaluate", "auto", "--data", tagged, "--test-data", test, "--episodes", 2)
    code, printed, errors = run(*given, "--shots", 30, "--json")
    assert code == 0 and "Labels without examples are not scored: weather." in errors, errors
    assert "Labels with fewer than 30 texts give all: food, money, sport." in errors
    assert json.loads(printed)["rows"][0]["n_way"] == 3
    other = write_lines(tmp_path / "other.jsonl", [("rain", ["weather"]), ("snow", ["cold", "weather"])])
    code, _, errors = run("evaluate", "auto", "--data", tagged, "--test-data", other)
    assert code == 2 and "has no label of" in errors and "weather" in errors
    code, _, errors = run("evaluate", "auto", "--data", tagged, "--test-data", tagged)
    assert code == 2 and "--test-data is the same as --data" in errors


def test_descriptions_of_labels_are_read(run, rows, tagged, tmp_path):
    said = tmp_path / "said.csv"
    said.write_text("label,text\nfood,ball goal match team\nsport,rice soup bread\n", encoding="utf-8")
    given = ("auto,logistic", "--data", tagged, "--shots", 1, "--episodes", 2)
    plain, told = rows(*given), rows(*given, "--descriptions", said)
    assert plain[0]["mean_average_precision"] != told[0]["mean_average_precision"]
    assert plain[1]["macro_f1s"] == told[1]["macro_f1s"] and str(said) in told[0]["descriptions"]
    said.write_text("label,text\nfod,what one eats\n", encoding="utf-8")
    code, _, errors = run("evaluate", *given, "--descriptions", said)
    assert code == 2 and "fod" in errors


def test_each_language_gets_its_rows_and_learners_are_measured_from_python(rows, encoder, tmp_path):
    lines = [
        json.dumps({"text": f"{text} {lang}", "labels": labels, "lang": lang})
        for lang in ("sw", "en")
        for text, labels in examples()
    ]
    both = tmp_path / "both.jsonl"
    both.write_text("\n".join(lines), encoding="utf-8")
    given = ("auto", "--data", both, "--shots", 1, "--episodes", 2)
    assert [row["lang"] for row in rows(*given, "--lang", "all")] == ["en", "sw"]
    (row,) = rows(*given, "--lang", "Swahili", "--max-query", 4)
    assert (row["lang"], row["n_query"]) == ("sw", 4)
    (same,) = evaluate({"mine": AutoHead(encoder)}, str(both), lang="sw", n_shots=[1], n_episodes=2, max_query=4)
    assert same.summary.macro_f1s == pytest.approx(row["macro_f1s"], abs=1e-5)
    few = replace(KSHOT_ALL, n_shots=(1,), n_episodes=2, max_query=4)
    (again,) = evaluate({"mine": AutoHead(encoder)}, str(both), lang="sw", protocol=few)
    assert again.summary.macro_f1s == same.summary.macro_f1s
    own = type("Own", (PrototypicalNetwork,), {})(encoder)  # of no name
    with pytest.raises(NLPMetaError, match="own gives one"):
        evaluate({"own": own}, str(both))
    assert DataChoice(data=str(both)).several("sw").pool.label_names == tuple(TOPIC_NAMES)


def test_a_model_that_gives_several_labels_is_adapted_anew(run, rows, tagged, tmp_path):
    model = tmp_path / "model"
    made = run("adapt", "--data", tagged, "--shots", 2, "--draws", 1, "--checkpoint", "none", "--out", model, "-q")
    assert made[0] == 0, made[2]
    given = ("--data", tagged, "--shots", "0,2", "--episodes", 2)
    found = rows(f"auto,{model}", *given)
    assert [row["n_shot"] for row in found] == [0, 0, 2, 2]
    assert found[2]["macro_f1s"] == pytest.approx(found[3]["macro_f1s"], abs=1e-5)
    single = tmp_path / "single"
    table = tmp_path / "one.csv"
    table.write_text("text,label\nball,sport\nrice,food\ngoal,sport\nsoup,food\n", encoding="utf-8")
    options = ("--method", "ridge", "--checkpoint", "none", "--out", single, "-q")
    assert run("adapt", "--data", table, "--shots", "all", *options)[0] == 0
    code, _, errors = run("evaluate", str(single), *given)
    assert code == 2 and f"{single} gives one" in errors


def test_the_calibration_error_is_that_of_all_pairs_of_text_and_label():
    rng = np.random.default_rng(0)
    marks, table = rng.random((40, 3)) < 0.3, rng.random((40, 3))
    confidence, right = np.maximum(table, 1 - table).ravel(), ((table > 0.5) == marks).ravel()
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert float(error_of_bins(several_bins(marks, table))) == pytest.approx(expected)


@pytest.mark.shared_data
def test_the_test_split_of_a_corpus_is_scored(rows, shared_data):
    given = ("--data", "brighter", "--lang", "hau", "--data-dir", shared_data, "--shots", 1, "--max-query", 20)
    first, second = rows("auto,logistic", *given, "--episodes", 2)
    assert (first["n_way"], first["n_query"], first["lang"], second["episodes"]) == (6, 20, "hau", 2)
    source = load_source("brighter", data_dir=shared_data)
    test = MultiLabelTexts.of(source.load("hau", "test", several=True))
    choice = DataChoice(data="brighter", data_dir=shared_data)
    assert choice.several("hau").test.texts == test.texts
    assert choice.several("eng").test is None, "there are no test texts of that language, so the rest is scored"
