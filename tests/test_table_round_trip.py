"""Tables are written in every form that people have and read back row for row."""

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from nlpmeta.data import LabeledTexts
from nlpmeta.sources.file import FileSource
from nlpmeta.sources.form import TableForm
from nlpmeta.sources.tables import columns_of, export, rows_of

BOUNDED = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SIGNS = st.sampled_from([*",;|\t\"' \n\r#=", "sep=;", '""', "é", "ñ", "€"])
LATIN = st.text(st.characters(codec="cp1252", exclude_categories=("Cc",)), max_size=4)
ANY = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4)


def texts(letters):
    """A text that begins and ends with a letter and has the signs of tables in between; \\r\\n is one sign."""
    middle = st.lists(st.one_of(letters, SIGNS), max_size=6).map("".join)
    return st.builds("a{}z".format, middle)


LABELS = {
    "text": st.sampled_from(["refund", "card; lost", "a,b", 'say "x"', "12a", "straße"]),
    "int": st.integers(-3, 10**20),
    "bool": st.booleans(),
    "float": st.sampled_from([0.5, -1.25, 1e-9]),
}


def read_again(content, name, form=None):
    """The rows of a table of that content, by the reader that all commands use."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        form = form or TableForm()
        return [row for _, row in rows_of(path, form)], columns_of(path, form)


@st.composite
def delimited(draw, delimiters=",;\t|"):
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]))
    kind = draw(st.sampled_from(sorted(LABELS)))
    text = texts(LATIN if encoding == "cp1252" else ANY)
    rows = draw(st.lists(st.tuples(text, LABELS[kind].map(str), st.sampled_from(["", "7", "x y"])), min_size=1))
    return rows, draw(st.sampled_from(delimiters)), encoding, draw(st.sampled_from(["\n", "\r\n", "\r"]))


def written(rows, delimiter, newline, quoting):
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=newline, quoting=quoting).writerows(rows)
    return out.getvalue()


@pytest.mark.filterwarnings("ignore::nlpmeta.errors.DataWarning")  # lines that could be rows are said to be doubtful
@BOUNDED
@given(
    table=delimited(),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    packed=st.booleans(),
    named=st.booleans(),
)
def test_delimited_tables_come_back_row_for_row(table, quoting, packed, named):
    rows, delimiter, encoding, newline = table
    content = written([("text", "label", "note"), *rows], delimiter, newline, quoting).encode(encoding)
    form = TableForm(
        encoding=encoding if encoding == "cp1252" or named else None, delimiter=delimiter if named else None
    )
    suffix = ".tsv" if delimiter == "\t" else ".csv"
    found, columns = read_again(gzip.compress(content) if packed else content, f"t{suffix}{'.gz' * packed}", form)
    assert columns == ("text", "label", "note")
    assert [tuple(row.values()) for row in found] == rows


@st.composite
def one_line(draw, letters):
    """A text without ends of lines, which no delimiter or quote can lead to be read as several."""
    return "".join(each for each in draw(texts(letters)) if each not in "\r\n")


@BOUNDED
@given(data=st.data(), delimiter=st.sampled_from(",;\t|"), newline=st.sampled_from(["\n", "\r\n", "\r"]))
def test_rows_are_recognised_without_a_word_where_only_what_needs_quotes_has_them(data, delimiter, newline):
    rows = data.draw(st.lists(st.tuples(one_line(ANY), LABELS["text"]), min_size=1))
    header = [("Text ", "label")] if data.draw(st.booleans()) else [("sms", "intent")]
    content = written([*header, *rows], delimiter, newline, csv.QUOTE_MINIMAL)
    found, columns = read_again(content.encode(), "t.csv")
    assert columns == tuple(name.strip() for name in header[0])
    assert [tuple(row.values()) for row in found] == rows


@BOUNDED
@given(rows=st.lists(st.tuples(one_line(ANY), st.sampled_from(["x", "y"])), min_size=1), stray=st.data())
@pytest.mark.filterwarnings("ignore::nlpmeta.errors.DataWarning")
def test_in_a_tsv_without_quoting_no_line_is_swallowed(rows, stray):
    """Quotes are letters here: anywhere in a text, paired or not, also as its first or last sign."""
    before, after = st.sampled_from(["", '"', ' "']), st.sampled_from(["", '"'])
    rows = [(stray.draw(before) + text.replace("\t", " ") + stray.draw(after), label) for text, label in rows]
    content = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows)
    found, _ = read_again(content.encode(), "t.tsv")
    assert [row["label"] for row in found] == [label for _, label in rows]
    assert [str(row["text"]).replace('"', "").strip() for row in found] == [t.replace('"', "").strip() for t, _ in rows]


@pytest.mark.parametrize("delimiter", "\t|")
@pytest.mark.parametrize(
    "found",
    [
        ["az", '"az', 'a""z"'],
        ['"az', '""', 'az"'],
        ['"a', 'b ""c"" d', 'z"', '"whole"', "e"],
        ['""az', 'a"z"', '"'],
    ],
)
@pytest.mark.filterwarnings("ignore::nlpmeta.errors.DataWarning")
def test_where_every_line_is_a_row_two_quotes_in_one_do_not_make_them_one_field(found, delimiter):
    content = f"text{delimiter}label\n" + "".join(f"{text}{delimiter}{i}x\n" for i, text in enumerate(found))
    rows, _ = read_again(content.encode(), "t.tsv" if delimiter == "\t" else "t.csv")
    assert [row["label"] for row in rows] == [f"{i}x" for i in range(len(found))]
    assert [str(row["text"]).replace('"', "") for row in rows] == [text.replace('"', "") for text in found]


OBJECT = st.builds(dict, text=texts(ANY)) | st.fixed_dictionaries(
    {"text": texts(ANY), "label": st.one_of(*LABELS.values())}
)


@BOUNDED
@given(
    rows=st.lists(OBJECT, min_size=1),
    form=st.sampled_from(["lines", "array", "indented array"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    escaped=st.booleans(),
)
def test_json_comes_back_row_for_row_with_the_kinds_of_its_labels(rows, form, encoding, newline, escaped):
    if form == "lines":
        content = "".join(json.dumps(row, ensure_ascii=escaped) + newline for row in rows)
    else:
        content = json.dumps(rows, ensure_ascii=escaped, indent=2 if form.startswith("indented") else None)
        content = content.replace("\n", newline) + newline
    found, columns = read_again(content.encode(encoding), "t.jsonl" if form == "lines" else "t.json")
    assert [repr(row) for row in found] == [repr(row) for row in rows]
    assert set(columns) == {name for row in rows for name in row}


@BOUNDED
@given(
    data=st.data(),
    kind=st.sampled_from(sorted(LABELS)),
    ending=st.sampled_from(["parquet", "feather", "arrow", "stream"]),
)
def test_arrow_formats_come_back_row_for_row_with_the_kinds_of_their_labels(data, kind, ending):
    labels = st.integers(-9, 2**60) if kind == "int" else LABELS[kind]
    rows = data.draw(st.lists(st.fixed_dictionaries({"text": texts(ANY), "label": st.none() | labels}), min_size=1))
    table, out = pyarrow.Table.from_pylist(rows), io.BytesIO()
    if ending == "parquet":
        parquet.write_table(table, out)
    elif ending == "feather":
        feather.write_feather(table, out)
    else:
        with (pyarrow.ipc.new_file if ending == "arrow" else pyarrow.ipc.new_stream)(out, table.schema) as writer:
            writer.write_table(table)
    found, columns = read_again(out.getvalue(), f"t.{ending.replace('stream', 'arrow')}")
    assert set(columns) == {"text", "label"}
    assert [(row["text"], repr(row["label"])) for row in found] == [(row["text"], repr(row["label"])) for row in rows]


@BOUNDED
@given(
    rows=st.lists(st.tuples(texts(ANY), LABELS["text"]), min_size=1),
    ending=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]),
)
def test_what_is_exported_is_read_again_without_a_word(rows, ending):
    data = LabeledTexts.from_names([text for text, _ in rows], [label for _, label in rows])
    with tempfile.TemporaryDirectory() as folder:
        export(data, Path(folder) / f"t.{ending}")
        again = FileSource(Path(folder) / f"t.{ending}").load()
    assert (again.texts, again.names()) == (data.texts, data.names())
