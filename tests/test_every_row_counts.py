"""Rows do not disappear: what is left out is counted and said, with its line; the rest is learned from."""

import json

import numpy as np
import pytest

from nlpmeta import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.data import LabeledTexts
from nlpmeta.episodes.accounts import accounts_of, check_apart, paired
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.errors import DataError, DataWarning
from nlpmeta.sources.file import FileSource

BASE = [("ball goal", "sport"), ("goal match", "sport"), ("rice soup", "food"), ("soup bread", "food")]


def write(path, rows):
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), "utf-8")
    return path


@pytest.fixture
def adapt(encoder_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        shared = ("--method", "prototypical", "--encoder", encoder_folder, "--json", "--out", tmp_path / "model")
        code = main([str(a) for a in ("adapt", *arguments, *shared)])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    return call


def test_all_shots_train_on_the_rows_that_fit_trains_on(adapt, encoder_folder, tmp_path):
    rows = [*BASE, ("BALL GOAL", "food"), ("ball goal", "sport"), ("rice 1", "food"), ("rice 2", "sport")]
    code, report, err = adapt("--data", write(tmp_path / "d.csv", rows), "--shots", "all")
    assert code == 0 and report["n_support"] == len(rows)
    assert report["rows"] == [{"file": "d.csv", "what": "repeats", "count": 1, "first_line": 7}]
    assert "d.csv: 1 row (first: line 7) repeat an earlier one" in err and "all are kept" in err
    texts, labels = zip(*rows, strict=True)
    fitted = FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(texts, labels)
    saved = FewShotClassifier.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(saved.predict_proba(texts), fitted.predict_proba(texts), atol=1e-6)


def test_rows_in_the_test_file_are_left_out_of_the_support_and_said(adapt, tmp_path):
    data = write(tmp_path / "d.csv", [*BASE, ("match team", "sport"), ("bread salt", "food")])
    test = write(tmp_path / "t.csv", [("Goal  Match", "sport"), ("bread salt", "food"), ("x", "other"), ("y", "food")])
    code, report, err = adapt("--data", data, "--test-data", test, "--shots", "all")
    assert code == 0 and report["n_support"] == 4
    assert {"file": "d.csv", "what": "in_test", "count": 2, "first_line": 3} in report["rows"]
    assert {"file": "t.csv", "what": "no_support", "count": 1, "first_line": 4} in report["rows"]
    assert "d.csv: 2 rows (first: line 3) are in t.csv too" in err
    assert "t.csv has labels without examples in d.csv: 'other'; d.csv has 'food', 'sport'" in err
    code, _, err = adapt("--data", data, "--test-data", test, "--shots", "3", "--overwrite")
    assert code == 2 and "2 of 6 texts are in the test data too and were not counted" in err


def test_skipped_rows_are_in_the_report_too(adapt, tmp_path):
    data = write(tmp_path / "d.csv", [*BASE, ("", "food"), ("rate", "")])
    code, report, err = adapt("--data", data, "--shots", "all", "--include-support")
    assert code == 0 and report["n_support"] == 4
    assert any("first: line 6" in note and "first: line 7" in note for note in report["notes"])
    assert err.count("first: line 6") == 1
    grown = FewShotClassifier.from_pretrained(tmp_path / "model").add_class("money", ["bank loan"])
    assert "money" in grown.classes_


def test_a_draw_says_what_it_skips_and_what_is_rare(tmp_path):
    rows = [*BASE, ("GOAL match", "sport"), ("ball goal", "food"), ("ball team", "sport"), ("salt", "food"), ("z", "q")]
    pool = FileSource(write(tmp_path / "d.csv", rows)).load()
    sampler = KShotSampler(pool, n_shot=2, seed=0, rare="drop")
    found = {each.what: each.json() for each in accounts_of(sampler, data="d.csv", test_data=None)}
    assert (found["several_labels"]["count"], found["several_labels"]["first_line"]) == (2, 2)
    assert (found["too_few"]["count"], found["too_few"]["first_line"]) == (1, 10)
    episode, kept = sampler.episode(0), 8
    skipped = kept - len(episode.support) - len(episode.query)
    assert found.get("not_scored", {"count": 0})["count"] == skipped


def test_one_file_as_both_is_refused_before_it_is_read(adapt, tmp_path):
    data = write(tmp_path / "d.csv", BASE)
    (tmp_path / "link.csv").symlink_to(data)
    for same in (data, "d.csv", tmp_path / "link.csv"):
        code, _, err = adapt("--data", data, "--test-data", same, "--shots", "1")
        assert code == 2 and "--test-data is the same as --data" in err
    check_apart("starter", str(data))


def texts(**classes):
    return LabeledTexts.from_names(
        [f"{name} {text}" for name, each in classes.items() for text in each.split()],
        [name for name, each in classes.items() for _ in each.split()],
    )


def test_a_copy_of_the_data_and_labels_that_do_not_match_name_both_files():
    pool = texts(a="x y", b="x y")
    with pytest.raises(DataError, match=r"All 4 texts of d.csv are in t.csv too"):
        paired(pool, LabeledTexts.concatenate([pool, texts(a="z")]), data="d.csv", test_data="t.csv")
    with pytest.raises(DataError, match=r"t.csv has no label of d.csv: t.csv has 'c', 'd'; d.csv has 'a', 'b'"):
        paired(pool, texts(c="x", d="x"), data="d.csv", test_data="t.csv")


@pytest.mark.parametrize(
    ("here", "there"),
    [("1", "1.0"), ("1.0", "1"), ("-7", "-7.00"), ("caf\u00e9", "cafe\u0301"), ("a b", "a  b")],
)
def test_labels_that_are_written_otherwise_are_matched_with_a_word(here, there):
    pool = LabeledTexts.from_names(["x", "y"], [here, "other"])
    test, notes = paired(pool, LabeledTexts.from_names(["p", "q"], [there, "other"]), data="d", test_data="t")
    assert set(test.names()) == {here, "other"} and len(notes) == 1 and repr(here) in notes[0]


def test_labels_that_a_file_tells_apart_are_not_matched():
    pool = LabeledTexts.from_names(["x", "y", "z"], ["1", "1.0", "v1"])
    test = LabeledTexts.from_names(["p", "q"], ["1.00", "v1"])
    assert set(paired(pool, test, data="d", test_data="t")[0].names()) == {"1.00", "v1"}
    both = LabeledTexts.from_names(["p", "q"], ["1", "1.0"])
    pool = LabeledTexts.from_names(["x", "y"], ["1", "v1"])
    assert set(paired(pool, both, data="d", test_data="t")[0].names()) == {"1", "1.0"}


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_missing_labels_of_files_are_skipped_with_a_word_and_never_a_class(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    words = [f"text {letter}" for letter in "abcd"]
    parquet.write_table(pa.table({"text": words, "label": [1.0, float("nan"), 2.0, None]}), tmp_path / "d.parquet")
    lines(
        tmp_path / "d.jsonl",
        [{"text": t, "label": y} for t, y in zip(words, [1.0, float("nan"), 2, None], strict=True)],
    )
    write(tmp_path / "d.csv", list(zip(words, ["1", "nan", "2", "<NA>"], strict=True)))
    for name in ("d.parquet", "d.jsonl", "d.csv"):
        with pytest.warns(DataWarning, match="skipped"):
            assert FileSource(tmp_path / name).load().counts() == {"1": 1, "2": 1}


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1, "1"], r"1 \(a number, line 1\) and '1' \(text, line 2\)"),
        ([True, 1], r"True \(a boolean, line 1\) and 1 \(a number, line 2\)"),
        (["a", False], r"'a' \(text, line 1\) and False \(a boolean, line 2\)"),
        ([1, 1.5], "line 2: the label 1.5 is a number with a fraction"),
    ],
)
def test_a_file_has_labels_of_one_kind_as_fit_does(labels, said, tmp_path):
    path = lines(tmp_path / "d.jsonl", [{"text": f"t {y}", "label": y} for y in labels])
    with pytest.raises(DataError, match=said):
        FileSource(path).load()


def test_large_numbers_of_files_keep_every_digit_and_look_alikes_are_one(tmp_path):
    large = lines(tmp_path / "d.jsonl", [{"text": f"t {y}", "label": y} for y in (2**60 + 1, 2**60)])
    assert FileSource(large).load().label_names == (str(2**60), str(2**60 + 1))
    alike = write(tmp_path / "a.csv", [("x", "caf\u00e9"), ("y", "cafe\u0301"), ("z", "a b"), ("w", "a  b")])
    with pytest.warns(DataWarning, match=r"2 labels differ .* \(first: line 3\)"):
        assert FileSource(alike).load().counts() == {"a b": 2, "caf\u00e9": 2}
