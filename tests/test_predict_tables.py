"""What ``nlpmeta predict`` writes lines up with what it was given."""

import csv
import io
import json
import os
import sys
import threading

import pytest
from pyarrow import Table, parquet

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.sources.file import arriving

TEXTS = ["ball goal", "rice soup", "bank loan", "team match", "bread salt"]
LABELS = ["sport", "food", "money", "sport", "food"]


@pytest.fixture(scope="module")
def model(tmp_path_factory, encoder_folder, pool):
    folder = tmp_path_factory.mktemp("models") / "model"
    FewShotClassifier("ridge", encoder=str(encoder_folder)).fit(list(pool.texts), pool.names()).save_pretrained(folder)
    return folder


@pytest.fixture
def predict(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main(["predict", str(model), *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def a_table(tmp_path, name="t.csv", **columns):
    columns = {"ID": ["01", "2", "3", "4", "5"], "text": TEXTS, "date": ["d1", "", "d,3", "d4", "d5"]} | columns
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    if name.endswith(".parquet"):
        parquet.write_table(Table.from_pylist(rows), tmp_path / name)
    elif name.endswith(".csv"):
        with (tmp_path / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
    else:
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def read_csv(path, delimiter=","):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def test_a_line_comes_out_for_each_line_also_for_empty_ones(predict, tmp_path):
    (tmp_path / "t.txt").write_text("\nball goal\n   \n\nrice soup\n\n")
    code, out, err = predict("--file", "t.txt")
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()] == ["", "sport", "", "", "food", ""]
    assert "4 texts are empty and got no label (the first: line 1)" in err
    assert objects(predict("--json", "", "ball goal")[1])[0] == {"text": "", "label": None, "probability": None}
    piped = predict("--json", stdin=b"rice soup\r\n\r\nball team")[1]
    assert [row["label"] for row in objects(piped)] == ["food", None, "sport"]


@pytest.mark.parametrize("source", ["t.csv", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize("target", ["o.csv", "o.tsv", "o.jsonl", "o.parquet"])
def test_a_table_in_is_the_same_table_out_with_label_and_probability(predict, tmp_path, source, target):
    rows = a_table(tmp_path, source)
    assert predict("--file", source, "--out", target)[0] == 0
    path = tmp_path / target
    if target == "o.parquet":
        found = parquet.read_table(path).to_pylist()
    elif target == "o.jsonl":
        found = objects(path.read_text())
    else:
        found = read_csv(path, "\t" if target == "o.tsv" else ",")
    assert [{name: row[name] for name in rows[0]} for row in found] == rows
    assert list(found[0]) == ["ID", "text", "date", "label", "probability"]
    assert [row["label"] for row in found] == LABELS
    assert all(1 / 3 < float(row["probability"]) <= 1 for row in found)


def test_columns_of_every_type_go_from_parquet_to_parquet(predict, tmp_path):
    from datetime import date, datetime
    from decimal import Decimal

    columns = {"text": TEXTS, "n": [1, None, 3, 4, 5], "day": [date(2024, 1, day) for day in range(1, 6)]}
    columns |= {"at": [datetime(2024, 1, 1, hour) for hour in range(5)], "price": [Decimal("1.50")] * 5}
    columns |= {"tags": [["a"], [], None, ["b", "c"], ["d"]]}
    before = Table.from_pydict(columns)
    parquet.write_table(before, tmp_path / "t.parquet")
    assert predict("--file", "t.parquet", "--out", "o.parquet")[0] == 0
    assert parquet.read_table(tmp_path / "o.parquet").drop_columns(["label", "probability"]).equals(before)
    assert predict("--file", "t.parquet", "--out", "o.jsonl")[0] == 0
    assert objects((tmp_path / "o.jsonl").read_text())[0]["day"] == "2024-01-01"


def test_only_the_columns_that_are_named_are_kept(predict, tmp_path):
    a_table(tmp_path)
    predict("--file", "t.csv", "--out", "o.csv", "--keep", "id, DATE")
    assert list(read_csv(tmp_path / "o.csv")[0]) == ["ID", "date", "label", "probability"]
    first = predict("--file", "t.csv", "--keep", "date,ID")[1].splitlines()[2]
    assert first.split("\t")[0] == "money"
    assert first.split("\t")[2:] == ["bank loan", "d,3", "3"]
    assert list(objects(predict("--file", "t.csv", "--keep", "ID", "--json")[1])[0]) == [
        "text",
        "ID",
        "label",
        "probability",
    ]
    code, out, err = predict("--file", "t.csv", "--keep", "idd")
    assert (code, out) == (2, "")
    assert "no column 'idd' to keep; it has ID, text, date" in err
    assert predict("--keep", "ID", "ball")[0] == 2


def test_a_label_that_is_there_already_is_not_written_over(predict, tmp_path):
    rows = a_table(tmp_path, Label=["a", "b", "c", "d", "e"])
    predict("--file", "t.csv", "--out", "o.csv")
    found = read_csv(tmp_path / "o.csv")
    assert [row["Label"] for row in found] == [row["Label"] for row in rows]
    assert [row["predicted_label"] for row in found] == LABELS
    assert "probability" not in found[0]
    assert predict("--file", "o.csv", "--out", "p.csv", "--keep", "ID")[0] == 0
    code, _, err = predict("--file", "o.csv", "--out", "q.csv")
    assert code == 2
    assert "has the columns predicted_label, predicted_probability already. Name the columns to keep with --keep" in err
    assert not (tmp_path / "q.csv").exists()


def test_the_most_probable_labels_come_with_their_probabilities(predict, tmp_path):
    row = objects(predict("--json", "--top", 9, "ball goal")[1])[0]
    assert [each["label"] for each in row["top"]][0] == row["label"] == "sport"
    assert len(row["top"]) == 3
    probabilities = [each["probability"] for each in row["top"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-4)
    cells = predict("--top", 2, "ball goal")[1].rstrip("\n").split("\t")
    assert (cells[0], cells[2] in ("food", "money"), cells[4]) == ("sport", True, "ball goal")
    a_table(tmp_path)
    predict("--file", "t.csv", "--out", "o.csv", "--top", 2)
    assert list(read_csv(tmp_path / "o.csv")[0])[3:] == ["label", "probability", "label_2", "probability_2"]
    assert predict("--top", 2, "--abstain", 0.9, "ball")[0] == 2


def test_texts_without_a_table_make_a_table_where_the_ending_asks_for_one(predict, tmp_path):
    assert predict("--out", "o.csv", "ball goal", "rice soup")[0] == 0
    assert [(row["text"], row["label"]) for row in read_csv(tmp_path / "o.csv")] == [
        ("ball goal", "sport"),
        ("rice soup", "food"),
    ]
    predict("--out", "o.tsv", "ball goal", "rice soup")
    assert len((tmp_path / "o.tsv").read_text().splitlines()) == 2
    for name in ("o.xlsx", "o.json", "o.csv.gz", "o.zip"):
        assert predict("--out", name, "ball goal")[0] == 2
        assert not (tmp_path / name).exists()


def test_without_a_header_in_there_is_none_out(predict, tmp_path):
    (tmp_path / "t.csv").write_text("7;ball goal\n\n8;\n9;rice soup\n")
    assert predict("--file", "t.csv", "--no-header", "--text-column", 2, "--out", "o.csv")[0] == 0
    found = list(csv.reader((tmp_path / "o.csv").read_text().splitlines()))
    assert [(row[0], row[2]) for row in found] == [("7", "sport"), ("8", ""), ("9", "food")]


@pytest.mark.parametrize("header", ["Text", "query", " sms ", "UTT", "body", "input"])
def test_predict_knows_the_columns_that_adapt_knows(predict, tmp_path, header):
    (tmp_path / "t.csv").write_text(f"n;{header}\n1;ball goal\n")
    assert predict("--file", "t.csv")[1].startswith("sport\t")


def test_a_json_array_and_other_encodings_are_texts_too(predict, tmp_path):
    (tmp_path / "t.json").write_text('[\n {"text": "ball goal"},\n {"text": "rice soup"}\n]')
    (tmp_path / "t.txt").write_bytes("ball goal\nrice soup\n".encode("utf-16"))
    for name in ("t.json", "t.txt"):
        assert [line.split("\t")[0] for line in predict("--file", name)[1].splitlines()] == ["sport", "food"]
    assert predict("--encoding", "cp1252", stdin="ball café\n".encode("cp1252"))[1].endswith("\tball café\n")
    code, _, err = predict(stdin="ball\nball café\n".encode("cp1252"))
    assert code == 2
    assert "standard input, line 2: byte 0xe9 is not UTF-8" in err


def test_a_stream_is_answered_as_it_comes_and_in_batches_where_more_is_there():
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        check_a_stream(arriving(stream, "pipe"), writer)


def check_a_stream(lines, writer):
    os.write(writer, "caf\u00e9\nhalf".encode()[:-2])
    assert [(each.text, each.line) for each in next(lines)] == [("café", 1)]
    os.write(writer, b"lf\n\nmore\n")
    assert [(each.text, each.line) for each in next(lines)] == [("half", 2), ("", 3), ("more", 4)]
    os.write(writer, "é".encode()[:1])
    threading.Timer(0.05, lambda: (os.write(writer, "é".encode()[1:]), os.close(writer))).start()
    assert [(each.text, each.line) for each in next(lines)] == [("é", 5)]
    assert next(lines, None) is None
