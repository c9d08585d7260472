import json

import pytest

from nlpmeta.errors import DataError, DataWarning
from nlpmeta.sources.file import FileSource


def table(tmp_path, name, content, encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


ROWS = [("hello, you", "greet", "en"), ('say "bye"', "leave", "en"), ("habari\nyako", "greet", "sw")]


def as_csv(rows, delimiter):
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] for row in rows]
    return "\n".join(delimiter.join(cells) for cells in [["text", "label", "lang"], *quoted]) + "\n"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_the_same_rows_come_out_of_every_format(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    if suffix == ".parquet":
        from pyarrow import Table, parquet

        parquet.write_table(
            Table.from_pylist([dict(zip(("text", "label", "lang"), r, strict=True)) for r in ROWS]), path
        )
    elif suffix == ".jsonl":
        lines = [json.dumps(dict(zip(("text", "label", "lang"), row, strict=True))) for row in ROWS]
        path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    else:
        path.write_text(as_csv(ROWS, "," if suffix == ".csv" else "\t"), encoding="utf-8")
    data = FileSource(path).load()
    assert list(zip(data.texts, data.names(), data.langs, strict=True)) == ROWS
    assert FileSource(path).load("Swahili").texts == ("habari\nyako",)


def test_a_byte_order_mark_and_usual_column_names_are_understood(tmp_path):
    path = table(tmp_path, "a.csv", "Utterance,Intent\nhi,x\nyo,y\n", "utf-8-sig")
    assert FileSource(path).load().names() == ["x", "y"]


def test_number_labels_become_names_without_a_decimal_point(tmp_path):
    path = table(
        tmp_path, "a.jsonl", '{"text": "a", "label": 2}\n{"text": "b", "label": 0.0}\n{"text":"c","label":-1}\n'
    )
    assert FileSource(path).load().names() == ["2", "0", "-1"]
    path = table(tmp_path, "b.jsonl", '{"text": "a", "label": true}\n{"text": "b", "label": false}\n')
    assert FileSource(path).load().names() == ["True", "False"]


def test_ids_are_taken_as_those_of_sentences_only_where_none_comes_twice_in_a_language(tmp_path):
    header = "id,lang,text,label\n"
    parallel = FileSource(table(tmp_path, "a.csv", header + "1,en,hi,x\n2,en,yo,y\n1,sw,habari,x\n")).load()
    assert parallel.ids == ("1", "2", "1")
    per_class = FileSource(table(tmp_path, "b.csv", header + "1,en,hi,x\n2,en,yo,x\n1,en,bye,y\n")).load()
    assert per_class.ids is None
    assert per_class.texts == ("hi", "yo", "bye")
    rated = "id,user,text,label\n1,ann,hi,x\n1,bob,hi,y\n2,ann,bye,y\n"
    assert FileSource(table(tmp_path, "c.csv", rated)).load().ids == ("1", "1", "2")
    twice = "id,user,text,label\n1,ann,hi,x\n1,ann,yo,y\n2,bob,bye,y\n"
    assert FileSource(table(tmp_path, "d.csv", twice)).load().ids is None


def test_a_missing_column_lists_what_was_found(tmp_path):
    path = table(tmp_path, "a.csv", "words,kind\nhi,x\n")
    with pytest.raises(
        DataError, match="no column that is obviously the text; it has words, kind. Name one with --text-column"
    ):
        FileSource(path)
    with pytest.raises(DataError, match="no column 'topic'; it has words, kind"):
        FileSource(path, text_column="words", label_column="topic")
    assert FileSource(path, text_column="words", label_column="kind").load().texts == ("hi",)


def test_unusable_rows_are_skipped_counted_and_located(tmp_path):
    rows = [
        {"text": text, "label": label} for text, label in [("a", "x"), (" ", "x"), (3, "x"), ("", "y"), ("b", None)]
    ]
    path = table(tmp_path, "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n")
    said = r"2 rows with an empty text \(first: line 2\), 1 row with a text that is not a string \(first: line 3\), "
    with pytest.warns(DataWarning, match=said + r"1 row with an empty label \(first: line 5\)"):
        assert FileSource(path).load().texts == ("a",)


def test_a_file_without_a_usable_row_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"no row has both.*2 rows with an empty text \(first: line 2\)"):
        FileSource(table(tmp_path, "a.csv", "text,label\n,x\n ,y\n")).load()
    with pytest.raises(DataError, match="has no rows"):
        FileSource(table(tmp_path, "b.csv", ""))


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path):
    path = table(tmp_path, "a.csv", b"text,label\nfine,x\ncaf\xe9,y\n")
    with pytest.raises(DataError, match="a.csv, line 3: byte 0xe9 is not UTF-8.*pass --encoding cp1252"):
        FileSource(path).load()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "a", "label": "x"}\n{"text": \n', "line 2: not valid JSON"),
        ("a.jsonl", '{"text": "a", "label": "x"}\n["a"]\n', "line 2: expected an object"),
        ("a.csv", "text,label\na,x\nb,c,y\n", "line 3: more fields than the 2 columns"),
        ("a.csv", 'text,label\n"a,x\n', "line 2: the double quotes do not pair .unexpected end of data"),
        ("a.parquet", "PAR1 no", "cannot be read as Parquet"),
        ("a.odt", "x", "ends in '.odt'; tables are read from .csv"),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path, name, content, said):
    with pytest.raises(DataError, match=said):
        FileSource(table(tmp_path, name, content)).load()


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        FileSource(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(DataError, match="is a folder"):
        FileSource(tmp_path / "folder.csv")
