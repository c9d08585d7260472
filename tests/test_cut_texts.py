"""Texts that are longer than the encoder reads are counted and said, wherever a model meets them."""

import json
import threading
import warnings

import numpy as np
import pytest
from conftest import TOPICS
from typer.testing import CliRunner

from nlpmeta import FewShotClassifier, TextEncoder
from nlpmeta.auto.diagnosis import diagnose
from nlpmeta.auto.method import AutoHead
from nlpmeta.cli import app
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.tokenizing import WIDTH, Cut, cut_of, cut_texts
from nlpmeta.errors import DataWarning, NLPMetaError
from nlpmeta.learners.base import learners
from nlpmeta.sharing.gather import gather

LONG = "ball " * 40
FITS = "ball " * 31 + "goal"  # exactly the 32 tokens that the small encoder of the tests reads


def test_a_text_of_exactly_the_limit_is_not_cut_and_one_more_token_is(encoder):
    with cut_texts() as found:
        encoder.encode([FITS, "rice", FITS + " goal", LONG])
    assert found == {FITS + " goal", LONG}


def test_a_text_that_is_left_out_before_it_is_tokenized_counts_too(encoder):
    giant = "ball " * WIDTH
    with cut_texts() as found:
        encoder.tokenize([giant, "rice"])
    assert found == {giant}


def test_white_space_around_a_text_is_no_part_of_it(encoder):
    with cut_texts() as found:
        encoder.tokenize([f"  {FITS}  \n"])
    assert not found


def test_a_tokenizer_in_python_is_asked_again(encoder, monkeypatch):
    fast = encoder.tokenizer

    class Slow:
        is_fast = False

        def __call__(self, texts, **options):
            batch = fast(texts, **options)
            batch._encodings = None
            return batch

    monkeypatch.setattr(encoder, "tokenizer", Slow())
    with cut_texts() as found:
        encoder.tokenize([FITS, LONG])
    assert found == {LONG}


def test_threads_hear_of_their_own_texts_alone(encoder):
    heard, barrier = {}, threading.Barrier(4)

    def work(number):
        own = "ball " * (33 + number)
        barrier.wait()
        with cut_texts() as found:
            for _ in range(20):
                encoder.tokenize([own, "rice"])
        heard[number] = found == {own}

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == dict.fromkeys(range(4), True)


def test_cut_of_counts_rows_and_tokenizes_only_what_can_be_too_long(encoder, monkeypatch):
    asked, tokenize = [], TextEncoder.tokenize
    monkeypatch.setattr(TextEncoder, "tokenize", lambda self, texts: asked.extend(texts) or tokenize(self, texts))
    found = cut_of(encoder, ["rice", LONG, LONG, FITS])
    assert (found.n_cut, found.n_texts, found.max_length, found.most) == (2, 4, 32, 64)
    assert asked == [LONG, FITS]


@pytest.mark.parametrize("method", sorted(name for name in learners if not learners[name].needs_meta_training))
def test_fit_and_predict_warn_with_the_number_of_rows(method, encoder, pool):
    texts, names = [*pool.texts, LONG, LONG], [*pool.names(), "sport", "sport"]
    with pytest.warns(DataWarning, match=r"2 of 50 texts are longer than the 32 tokens .* max_length=64") as caught:
        classifier = FewShotClassifier(method, encoder=encoder).fit(texts, names)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with pytest.warns(DataWarning, match="1 of 2 texts is longer") as caught:
        classifier.predict_proba(["rice", LONG])
    assert len(caught) == 1
    with pytest.warns(DataWarning, match="1 of 1 texts is longer"):
        classifier.partial_fit([LONG + "goal"], ["sport"])


def test_nothing_is_said_of_texts_that_fit(encoder, pool):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FewShotClassifier("ridge", encoder=encoder).fit(pool.texts, pool.names()).predict([FITS])


def test_what_the_encoder_cannot_take_at_once_is_read_in_windows_up_to_a_bound():
    assert "in windows, with max_length=1024" in Cut(3, 4, 512, 512).message("max_length")
    assert "in windows, with --max-length 8192" in Cut(3, 4, 5000, 512).message("--max-length")
    said = Cut(3, 4, 8192, 512).message("max_length")
    assert "No more is read" in said
    assert "max_length" not in said


def test_a_model_reads_as_much_as_it_was_asked_to_and_still_does_when_loaded(encoder_folder, pool, tmp_path):
    tail = "rice " * 40 + "goal"
    made = {}
    for length in (None, 60):
        classifier = FewShotClassifier("ridge", encoder=str(encoder_folder), max_length=length)
        classifier.fit(pool.texts, pool.names()).save_pretrained(tmp_path / str(length))
        made[length] = FewShotClassifier.from_pretrained(tmp_path / str(length))
        if length == 60:
            np.testing.assert_array_equal(made[60].predict_proba([tail]), classifier.predict_proba([tail]))
    assert made[60].learner_.encoder.max_length == 60


@pytest.mark.parametrize("length", [3, 8193, 10**6])
def test_a_length_out_of_range_is_refused(encoder_folder, length, pool):
    with pytest.raises(NLPMetaError, match="4 to 8192"):
        FewShotClassifier("ridge", encoder=str(encoder_folder), max_length=length).fit(pool.texts, pool.names())


def random_task(n_words):
    """Words drawn alike for all classes."""
    words = [word for topic in TOPICS.values() for word in topic.split()]
    rng = np.random.default_rng(3)
    return LabeledTexts.from_names(
        [" ".join(rng.choice(words, n_words)) for _ in range(90)], ["sport", "food", "money"] * 30
    )


def test_a_task_whose_texts_lose_their_end_is_not_said_to_have_random_labels(encoder):
    (of_long,) = diagnose(AutoHead(encoder), random_task(50)).warnings
    (of_short,) = diagnose(AutoHead(encoder), random_task(12)).warnings
    assert "90 of 90 examples are longer than the 32 tokens" in of_long
    assert "labels look random" not in of_long
    assert "labels look random" in of_short


@pytest.fixture
def long_table(tmp_path, pool):
    path = tmp_path / "long.csv"
    rows = [
        f"{'rice ' * 40 if i % 2 else ''}{text},{name}"
        for i, (text, name) in enumerate(zip(pool.texts, pool.names(), strict=True))
    ]
    path.write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def adapt(table, out, encoder, *more):
    command = [
        "adapt",
        "--data",
        str(table),
        "--shots",
        "4",
        "--draws",
        "2",
        "--method",
        "ridge",
        "--encoder",
        str(encoder),
    ]
    return CliRunner().invoke(app, [*command, "--out", str(out), *more])


def test_adapt_says_it_reports_it_and_the_card_has_it(long_table, encoder_folder, tmp_path):
    done = adapt(long_table, tmp_path / "m", encoder_folder, "--max-length", "32")
    assert done.exit_code == 0, done.output
    assert "24 of 48 texts are longer than the 32 tokens" in done.output
    assert "--max-length 64" in done.output
    report = json.loads((tmp_path / "m" / "report.json").read_text())
    assert report["cut"] == {"texts": 24, "of": 48, "max_length": 32}
    assert any("24 of 48 texts were longer than the 32 tokens" in line for line in gather(tmp_path / "m").mismatch)


def test_adapt_reads_more_if_it_is_told_to_and_predict_then_does(long_table, encoder_folder, tmp_path):
    done = adapt(long_table, tmp_path / "m", encoder_folder, "--max-length", "60")
    assert done.exit_code == 0, done.output
    assert "longer than" not in done.output
    assert json.loads((tmp_path / "m" / "report.json").read_text())["cut"]["texts"] == 0
    said = CliRunner().invoke(app, ["predict", str(tmp_path / "m"), "rice " * 50])
    assert "longer than" not in said.output
    said = CliRunner().invoke(app, ["predict", str(tmp_path / "m"), "rice " * 70, "soup"])
    assert "1 of 2 texts is longer than the 60 tokens" in said.stderr
    assert "longer than" not in said.stdout
    said = CliRunner().invoke(app, ["predict", str(tmp_path / "m"), "--quiet", "rice " * 70])
    assert "longer than" not in said.output


def evaluated(capsys, encoder_folder, *options):
    from nlpmeta.cli import main

    arguments = ["evaluate", "--encoder", str(encoder_folder), "--shots", "2,4", "--episodes", "1", *options]
    assert main(arguments) == 0
    return capsys.readouterr()


def test_evaluate_says_once_how_many_texts_are_truncated_and_each_row_has_it(
    long_table, encoder_folder, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("NLPMETA_EMBEDDINGS", str(tmp_path))
    run = ["logistic,prototypical", "--data", str(long_table), "--max-length", "32"]
    said = evaluated(capsys, encoder_folder, *run)
    assert said.err.count("longer than") == 1, "one encoder, two methods, two sizes"
    assert "Note: 24 of 48 texts are longer than the 32 tokens" in said.err and "--max-length 64" in said.err
    assert "longer than" not in evaluated(capsys, encoder_folder, *run, "--quiet").err
    rows = json.loads(evaluated(capsys, encoder_folder, *run, "--json").out)["rows"]
    assert [row["cut"] for row in rows] == [{"texts": 24, "of": 48, "max_length": 32}] * 4
    more = evaluated(capsys, encoder_folder, *run[:3], "--max-length", "64", "--json")
    assert "longer than" not in more.err and not any("cut" in row for row in json.loads(more.out)["rows"])


def test_pool_test_folds_and_out_of_scope_texts_are_counted_each_once():
    from nlpmeta.evaluation.protocols import Material

    pool = LabeledTexts.from_names(["a", "b"], ["x", "y"])
    test, fold = pool.select([0]), LabeledTexts.from_names(["c", "b"], ["x", "y"])
    assert Material(pool=pool, test=test, folds=(fold,), out_of_scope=("d", "a")).texts() == ["a", "b", "c", "d"]


def test_methods_are_named_where_their_encoders_read_differently(encoder_folder):
    from nlpmeta.evaluation.measure import cuts_of, cuts_said

    short, other = (TextEncoder.from_pretrained(str(encoder_folder), max_length=length) for length in (8, 32))
    methods = {"a": learners["knn"](short), "b": learners["ridge"](short), "c": learners["knn"](other)}
    cuts = cuts_of(methods, ["rice", "ball " * 20, LONG])
    first, second = cuts_said(cuts, "sw")
    assert first.startswith("Note: sw: a, b: 2 of 3 texts are longer than the 8 tokens")
    assert second.startswith("Note: sw: c: 1 of 3 texts is longer than the 32 tokens")
    assert cuts_said(cuts_of(methods, ["rice"]), None) == []
