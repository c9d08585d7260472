"""Tables as people have them: what one instance of each kind is read as, or how it is refused."""

import bz2
import gzip
import json
import lzma
import warnings

import pytest
from pyarrow import Table, feather, parquet

from nlpmeta.errors import DataError, DataWarning
from nlpmeta.sources import tables as sheets
from nlpmeta.sources.file import FileSource, texts_of_file
from nlpmeta.sources.form import TableForm
from nlpmeta.sources.loading import load_source
from nlpmeta.sources.tables import columns_of, rows_of

PAIRS = [("weka kengele", "alarm"), ("cheza, wimbo", "music"), ("zima taa; sasa", "light")]


def put(tmp_path, name, content, encoding="utf-8"):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return tmp_path / name


def pairs(path, **options):
    data = FileSource(path, form=TableForm(**options)).load()
    return list(zip(data.texts, data.names(), strict=True))


def delimited(delimiter, *, header="text,label", rows=PAIRS):
    quoted = [[f'"{cell}"' if delimiter in cell else cell for cell in row] for row in [header.split(","), *rows]]
    return "".join(delimiter.join(cells) + "\n" for cells in quoted)


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_recognised_whatever_the_ending_says(tmp_path, name, delimiter):
    assert pairs(put(tmp_path, name, delimited(delimiter))) == PAIRS


def test_texts_full_of_commas_do_not_make_them_the_delimiter(tmp_path):
    rows = [("a, b, c", "x"), ("d, e, f", "y"), ("g, h, i", "x")]
    assert pairs(put(tmp_path, "t.csv", delimited(";", rows=rows))) == rows
    odd = put(tmp_path, "odd.csv", "id;text, as said;label\n1;a, b;x\n2;c, d;y\n")
    assert columns_of(odd) == ("id", "text, as said", "label")


def test_excel_says_its_delimiter_in_the_first_line(tmp_path):
    path = put(tmp_path, "t.csv", "sep=!\r\ntext!label\r\na;b!x\r\nc!y\r\n", "utf-16")
    assert pairs(path) == [("a;b", "x"), ("c", "y")]
    assert [line for line, _ in rows_of(path)] == [3, 4]


def test_a_delimiter_can_be_named_and_a_wrong_one_is_refused(tmp_path):
    path = put(tmp_path, "t.csv", "text^label\na^x\n")
    assert pairs(path, delimiter="^") == [("a", "x")]
    assert pairs(put(tmp_path, "t.tsv", "text\tlabel\na\tx\n"), delimiter="tab") == [("a", "x")]
    with pytest.raises(DataError, match="--delimiter takes one character"):
        TableForm(delimiter="ab")


def test_without_a_header_columns_go_by_their_number(tmp_path):
    path = put(tmp_path, "t.csv", "x,a\ny,b\n")
    source = FileSource(path, text_column="2", label_column="1", form=TableForm(header=False))
    assert source.load().texts == ("a", "b")
    with pytest.raises(DataError, match="it has 1, 2. Name one with --text-column"):
        FileSource(path, form=TableForm(header=False))
    one = put(tmp_path, "one.csv", "a\n\nb\n")
    with pytest.warns(DataWarning, match="skipped 1 rows with an empty or non-text field .the first: line 2"):
        assert list(texts_of_file(one, form=TableForm(header=False))) == ["a", "b"]
    with pytest.raises(DataError, match="If the first line is a text itself, pass --no-header"):
        texts_of_file(one)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "text,label,text\na,x,b\n"),
        ("t.tsv", "text\tlabel\t text \na\tx\tb\n"),
        ("t.jsonl", '{"text": "a", "text": "b", "label": "x"}\n'),
        ("t.json", '[{"text": "a", "text": "b", "label": "x"}]'),
    ],
)
def test_two_columns_of_one_name_are_refused(tmp_path, name, content):
    with pytest.raises(DataError, match=r"columns named 'text'|'text' comes twice"):
        FileSource(put(tmp_path, name, content)).load()


def test_two_columns_that_read_alike_are_refused_only_where_one_of_them_is_meant(tmp_path):
    path = put(tmp_path, "t.csv", "TEXT,Text,label,Date,DATE\na,b,x,1,2\n")
    with pytest.raises(DataError, match="2 columns that read 'text': TEXT, Text"):
        FileSource(path)
    assert FileSource(path, text_column="Text").load().texts == ("b",)


def test_columns_without_a_name_are_numbered_and_empty_ones_at_the_end_are_no_fault(tmp_path):
    path = put(tmp_path, "t.csv", ";text;label;;\n0;a;x;;;;\n1;b;y;;\n")
    assert columns_of(path) == ("1", "text", "label", "4", "5")
    assert pairs(path) == [("a", "x"), ("b", "y")]


@pytest.mark.parametrize("end", ['alarm"', 'alarm" again', "alarm"])
def test_a_stray_quote_in_a_tsv_swallows_no_line(tmp_path, end):
    lines = ['"weka\tx', "cheza\ty", "", "zima\tx", f"amka {end}\ty", "lala\tx"]
    with pytest.warns(DataWarning, match=r"does not pair.*1 lines; the first: line 2"):
        found = pairs(put(tmp_path, "t.tsv", "text\tlabel\n" + "\n".join(lines) + "\n"))
    assert [label for _, label in found] == ["x", "y", "x", "y", "x"]
    assert found[0][0] == '"weka'


def test_in_a_csv_quotes_that_hold_possible_rows_together_are_noted(tmp_path):
    path = put(tmp_path, "t.csv", 'text,label\n"a,x\nb,x\nc",y\nd,y\n')
    with pytest.warns(DataWarning, match="5 lines are 3 rows, header included.*lines 2 to 4"):
        assert len(pairs(path)) == 2


def test_texts_of_several_lines_between_quotes_are_whole_and_need_no_note(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pairs(put(tmp_path, "t.csv", 'text,label\n"a\n\nb ""c""",x\nd,y\n')) == [('a\n\nb "c"', "x"), ("d", "y")]
        assert pairs(put(tmp_path, "t.tsv", 'text\tlabel\n"a\nb\nc"\tx\nd\ty\n'))[0] == ("a\nb\nc", "x")


def test_a_lone_carriage_return_ends_lines_only_where_the_first_line_ends_so(tmp_path):
    assert pairs(put(tmp_path, "old.csv", "text,label\ra,x\rb,y\r")) == [("a", "x"), ("b", "y")]
    assert pairs(put(tmp_path, "both.csv", 'text,label\r"a\n\nb",x\rc,y\r')) == [("a\n\nb", "x"), ("c", "y")]
    assert pairs(put(tmp_path, "new.csv", "text,label\na\rb,x\r\nc,y\r\n")) == [("a\rb", "x"), ("c", "y")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.json"])
def test_unicode_in_any_form_is_recognised(tmp_path, encoding, name):
    rows = [("zürich ☕", "ort"), ("我想开户", "konto")]
    objects = [{"text": text, "label": label} for text, label in rows]
    content = {
        "t.csv": delimited(",", rows=rows),
        "t.jsonl": "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects),
        "t.json": json.dumps(objects, ensure_ascii=False, indent=1),
    }[name]
    assert pairs(put(tmp_path, name, content, encoding)) == rows
    if name == "t.csv":
        assert list(texts_of_file(put(tmp_path, "t.txt", "zürich ☕\n我想开户\n", encoding))) == [t for t, _ in rows]


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "où est le café à Genève"),
        ("cp1252", "mañana"),
        ("cp1251", "я хочу открыть счёт"),
        ("cp1250", "chciałbym otworzyć konto, zgubiłem kartę płatniczą"),
        ("gb18030", "我想开一个新账户"),
        ("cp932", "新しい口座を開きたい"),
    ],
)
def test_the_encoding_that_is_advised_reads_the_file(tmp_path, encoding, text):
    path = put(tmp_path, "t.csv", f"text,label\nplain,x\n{text},y\n", encoding)
    with pytest.raises(DataError, match=rf"t.csv, line 3: byte 0x.. is not UTF-8.*--encoding {encoding} ") as caught:
        pairs(path, delimiter=",")
    assert text.split(",")[0] in str(caught.value)
    assert pairs(put(tmp_path, "u.csv", f"text;label\n{text};y\n", encoding), encoding=encoding)[0][0] == text


def test_an_encoding_that_is_wrong_or_unknown_is_said(tmp_path):
    path = put(tmp_path, "t.csv", "text,label\na,x\né,y\n", "cp1252")
    with pytest.raises(DataError, match="line 3: byte 0xe9 is not ascii"):
        pairs(path, encoding="ascii")
    for name in ("klingon", "rot13", "base64"):
        with pytest.raises(DataError, match=f"no encoding '{name}'"):
            TableForm(encoding=name)


def test_the_columns_of_json_are_those_of_all_rows(tmp_path):
    path = put(tmp_path, "t.jsonl", '{"text": "a"}\n\n{"text": "b", "LABEL": "x"}\n{"LABEL": "y", "note": 1}\n')
    assert columns_of(path) == ("text", "LABEL", "note")
    with pytest.warns(DataWarning, match=r"1 row with an empty label \(first: line 1\), 1 row with an empty text"):
        assert pairs(path) == [("b", "x")]


def test_a_json_array_is_read_with_the_lines_of_its_objects(tmp_path):
    path = put(tmp_path, "t.json", '\n[\n {"text": "a",\n  "label": 1},\n {"text": "b", "label": true}\n]\n')
    assert list(rows_of(path)) == [(3, {"text": "a", "label": 1}), (5, {"text": "b", "label": True})]
    assert list(texts_of_file(put(tmp_path, "s.json", '["a", "b"]'))) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "a"},\n {"text": }]', "line 2: not valid JSON"),
        ('[{"text": "a"}\n {"text": "b"}]', "line 2: not valid JSON .'{' where ',' should be"),
        ('[{"text": "a"}]\n[]', "line 2: something follows the end"),
        ('[{"text": "a"}, 3]', "line 1: expected an object"),
        ('[{"text": "a"},', "line 1: not valid JSON"),
        ('{\n "text": ["a"]\n}', "line 1: not valid JSON.*One object a line, or an array"),
        ('{"text": {"0": "a"}, "label": {"0": "x"}}', "line 1: the text .'text'. is .*one value a row.*pandas"),
        ('[{"text": "a", "label": ["x", "y"]}]', "line 1: the label .'label'. is .*one value a row"),
    ],
)
def test_json_that_is_no_table_is_refused_with_its_line(tmp_path, content, said):
    with pytest.raises(DataError, match=said):
        FileSource(put(tmp_path, "t.json", content), text_column="text", label_column=None).load()


@pytest.mark.parametrize(("suffix", "packer"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_packed_tables_are_unpacked_on_the_way(tmp_path, suffix, packer):
    assert pairs(put(tmp_path, f"t.csv.{suffix}", packer.compress(delimited(";").encode()))) == PAIRS
    assert list(texts_of_file(put(tmp_path, f"t.txt.{suffix}", packer.compress(b"a\n\nb\n")))) == ["a", "b"]
    with pytest.raises(DataError, match="damaged or truncated"):
        pairs(put(tmp_path, f"cut.csv.{suffix}", packer.compress(delimited(",").encode() * 99)[:-9]))
    with pytest.raises(DataError, match="is not compressed as its extension says|damaged"):
        pairs(put(tmp_path, f"plain.csv.{suffix}", delimited(",")))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("t.zip", "unpack it"),
        ("t.xls", "save it as .xlsx"),
        ("t.ods", "save it as CSV"),
        ("t.pkl", "a pickle can run any program"),
        ("t.parquet.gz", "unpack it first"),
    ],
)
def test_what_is_not_read_is_refused_by_name_also_as_a_list_of_texts(tmp_path, name, said):
    path = put(tmp_path, name, "text,label\na,x\n")
    for read in (FileSource, texts_of_file):
        with pytest.raises(DataError, match=rf"which is not read here; .*{said}"):
            read(path)


def class_table(**labels):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["ham", "spam"])})
    return Dataset.from_dict({"text": ["hi", "win", "?"], "label": [0, 1, -1], **labels}, features=features)


def test_class_names_that_datasets_wrote_into_parquet_and_arrow_are_the_labels(tmp_path):
    class_table().to_parquet(tmp_path / "t.parquet")
    feather.write_feather(class_table().data.table, tmp_path / "t.feather")
    for name in ("t.parquet", "t.feather"):
        with pytest.warns(DataWarning, match=r"1 row with an empty label \(first: line 3\)"):
            assert pairs(tmp_path / name) == [("hi", "ham"), ("win", "spam")]
    schema = parquet.read_schema(tmp_path / "t.parquet")
    parquet.write_table(Table.from_pydict({"text": ["a"], "label": [7]}, schema=schema), tmp_path / "wrong.parquet")
    with pytest.raises(DataError, match="row 1: the class is 7, but only 2 classes have names"):
        pairs(tmp_path / "wrong.parquet")


@pytest.mark.filterwarnings("ignore::nlpmeta.errors.DataWarning")
def test_what_save_to_disk_wrote_is_read_and_the_splits_of_a_dict_have_names(tmp_path):
    from datasets import DatasetDict

    class_table().save_to_disk(tmp_path / "one")
    assert pairs(tmp_path / "one") == [("hi", "ham"), ("win", "spam")]
    DatasetDict(train=class_table(), validation=class_table().select([1])).save_to_disk(tmp_path / "both")
    source = load_source(str(tmp_path / "both"))
    assert (source.splits(), source.load().texts, source.load(split="dev").names()) == (
        ("train", "validation"),
        ("hi", "win"),
        ["spam"],
    )
    with pytest.raises(DataError, match=r"name the folder of one of its splits: .*both/train, .*both/validation"):
        texts_of_file(tmp_path / "both")
    assert list(texts_of_file(tmp_path / "both" / "validation")) == ["win"]


def test_the_first_sheet_of_a_workbook_is_read(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [("Text", "Label", "n"), ("a", 1, 2.5), (None, None, None), ("b", 2, None)]:
        book.active.append(row)
    book.create_sheet("more")
    book.save(tmp_path / "t.xlsx")
    with pytest.warns(DataWarning, match="the first sheet, 'Sheet', is read; 1 more are not"):
        assert pairs(tmp_path / "t.xlsx") == [("a", "1"), ("b", "2")]
    with pytest.raises(DataError, match="cannot be read as an Excel workbook"):
        pairs(put(tmp_path, "no.xlsx", "text,label\n"))


def test_a_workbook_without_what_reads_it_is_refused_with_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(DataError, match=r"pip install 'nlpmeta\[xlsx\]'"):
        list(sheets.sheet_records(tmp_path / "t.xlsx"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", "", "is empty: it has no rows"),
        ("t.jsonl", "\n\n", "is empty: it has no rows"),
        ("t.csv", "text,label\n", "has a header and no rows"),
        ("t.tsv", "phrase\tkind\na\tx\n", "it has phrase, kind. Name one with --text-column"),
        ("t.csv", 'text,label\na,x\n"b" c,y\n', "line 3: the double quotes do not pair"),
        ("t.csv", "text,label\na, b,x\n", "line 2: more fields than the 2 columns.*--delimiter"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path, name, content, said):
    with pytest.raises(DataError, match=said):
        FileSource(put(tmp_path, name, content)).load()


def test_what_says_its_own_form_takes_no_other(tmp_path):
    parquet.write_table(Table.from_pylist([{"text": "a", "label": "x"}]), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="states its own format"):
        pairs(tmp_path / "t.parquet", encoding="cp1252")
    with pytest.raises(DataError, match="starter is not a file"):
        load_source("starter", form=TableForm(delimiter=";"))
