"""Counts of repeated and contradicting texts, compared with a slow count by hand; tables that read back unchanged."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlpmeta.data import LabeledTexts
from nlpmeta.data.labels import WRITTEN_MISSING, one_but_for_case
from nlpmeta.episodes import fingerprint
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.sources.file import FileSource
from nlpmeta.sources.home_assistant import StarterSpam
from nlpmeta.sources.inspection import Part, inspect_parts, parts_of
from nlpmeta.sources.published import MirrorSource
from nlpmeta.sources.tables import export

PAIRS = st.lists(
    st.tuples(st.sampled_from(["a b", "A  B", "a c", "5 pm", "7 PM", "x"]), st.sampled_from("uvw")),
    min_size=1,
    max_size=12,
)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12).map(str.strip)


def texts(pairs, **columns):
    return LabeledTexts.from_names([text for text, _ in pairs], [name for _, name in pairs], **columns)


@given(PAIRS, PAIRS)
def test_the_counts_are_those_of_a_slow_count(first, second):
    report = inspect_parts([Part("train", texts(first)), Part("test", texts(second))], few=3)
    marks = [(fingerprint(text), name) for text, name in first]
    part, overlap = report.parts[0], report.overlaps[0]
    assert part.exact == sum(any(first[i][0] == first[j][0] for j in range(i)) for i in range(len(first)))
    assert part.normalised == sum(any(marks[i][0] == marks[j][0] for j in range(i)) for i in range(len(first)))
    clashing = {a[0] for a, b in combinations(marks, 2) if a[0] == b[0] and a[1] != b[1]}
    assert part.conflicting == len(clashing)
    assert overlap.exact == sum(text in [t for t, _ in first] for text, _ in second)
    shared = [(text, name) for text, name in second if fingerprint(text) in [mark for mark, _ in marks]]
    assert overlap.normalised == len(shared)
    assert overlap.label_differs == sum(
        any(mark == fingerprint(text) and other != name for mark, other in marks) for text, name in shared
    )
    small = {name: len({mark for mark, each in marks if each == name}) for _, name in first}
    assert part.small_classes == {name: count for name, count in small.items() if count < 3}


def slow_first(second, first=None):
    """By every pair in order: the first row that repeats or contradicts one, with the first that it goes with."""
    pairs = [(i, j) for i in range(len(second)) for j in range(i if first is None else len(first))]
    others = second if first is None else first
    alike = [(i, j) for i, j in pairs if fingerprint(second[i][0]) == fingerprint(others[j][0])]
    kinds = {
        "exact": [(i, j) for i, j in alike if second[i][0] == others[j][0]],
        "normalised": alike,
        "conflicting" if first is None else "label_differs": [(i, j) for i, j in alike if second[i][1] != others[j][1]],
    }
    return {kind: found[0] for kind, found in kinds.items() if found}


@given(PAIRS, PAIRS)
def test_the_first_rows_are_those_of_a_slow_search(first, second):
    lines = tuple(str(10 * i + 2) for i in range(len(second)))
    report = inspect_parts([Part("train", texts(first)), Part("test", texts(second, lines=lines))])
    train, test = ({kind: (each.line, each.other) for kind, each in part.first.items()} for part in report.parts)
    found = {kind: (each.line, each.other) for kind, each in report.overlaps[0].first_rows.items()}
    assert train == {kind: (i + 1, j + 1) for kind, (i, j) in slow_first(first).items()}
    assert test == {kind: (10 * i + 2, 10 * j + 2) for kind, (i, j) in slow_first(second).items()}
    assert found == {kind: (10 * i + 2, j + 1) for kind, (i, j) in slow_first(second, first).items()}
    assert [part.counted_in for part in report.parts] == ["rows", "lines"]


def test_clean_parts_are_said_to_be_clean():
    parts = [Part("train", texts([("a", "u"), ("b", "v")])), Part("test", texts([("c", "u")]))]
    assert inspect_parts(parts).is_clean
    assert not inspect_parts([*parts, Part("dev", texts([("A", "u")]))]).is_clean


def test_classes_that_differ_only_in_capital_letters_are_named():
    part = inspect_parts([Part("train", texts([("a", "Refund"), ("b", "other"), ("c", "REFUND"), ("d", "refunds")]))])
    assert len(part.parts[0].one_but_for_case) == 1
    assert part.parts[0].one_but_for_case[0].startswith("'REFUND' and 'Refund' differ only in capital letters")
    assert not inspect_parts([Part("train", texts([("a", "u"), ("b", "v")]))]).parts[0].one_but_for_case
    many = one_but_for_case([name for each in "abcde" for name in (each, each.upper())])
    assert len(many) == 4 and many[-1].startswith("2 more groups of labels differ only")


def test_parts_in_different_languages_are_not_compared_text_by_text():
    same = texts([("taxi", "ride")])
    report = inspect_parts([Part("train", same, "sw"), Part("test", same, "de"), Part("test", same, "sw")])
    assert [(each.first, each.second, each.exact) for each in report.overlaps] == [("sw/train", "sw/test", 1)]


def test_two_sources_are_compared_whatever_they_call_the_language():
    same = texts([("teksi", "ride")])
    parts = [
        Part("train", same, "sw-KE", "massive"),
        Part("test", same, "swa", "injongo"),
        Part("train", same, None, "f"),
    ]
    report = inspect_parts(parts)
    assert [(each.first, each.second) for each in report.overlaps] == [
        ("massive/sw-KE/train", "injongo/swa/test"),
        ("massive/sw-KE/train", "f/train"),
        ("injongo/swa/test", "f/train"),
    ]


def test_a_translation_in_another_split_is_found_by_its_id():
    parts = [
        Part("train", texts([("hello", "u"), ("bye", "u")], ids=["1", "2"]), "en"),
        Part("test", texts([("habari", "u")], ids=["1"]), "sw"),
        Part("train", texts([("kwaheri", "u")], ids=["2"]), "sw"),
    ]
    found = inspect_parts(parts).split_ids
    assert (found.count, found.languages, found.examples) == (1, 2, ("1",))
    assert inspect_parts([Part("train", texts([("a", "u")]))]).split_ids is None
    assert not inspect_parts(parts).is_clean


def test_an_id_in_two_splits_of_one_language_is_no_translation():
    parts = [Part(split, texts([(split, "u")], ids=["1"]), "en") for split in ("train", "test")]
    assert inspect_parts(parts).split_ids.count == 0


def test_parts_of_a_source_are_its_languages_and_splits(tmp_path):
    source = MirrorSource.example(tmp_path)
    assert [part.name for part in parts_of(source)] == ["en/train", "en/dev", "sw/train", "sw/dev"]
    assert [part.name for part in parts_of(source, lang="Swahili", without=["dev"], named="tiny")] == ["tiny/sw/train"]


def test_nothing_to_check_is_refused():
    with pytest.raises(DataError, match="nothing to check"):
        inspect_parts([])


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"])
def test_an_exported_table_reads_back_unchanged(ending, tmp_path):
    awkward = LabeledTexts.from_names(
        ['a, "quoted" text', "two\nlines", "tab\there", "emoji 👍🏾 and عربي", "-1", "\ufeffmark", "carriage\rreturn"],
        ["x", "1", "07", "null", "true", "ünï", "1.0"],
        langs=["en"] * 7,
        domains=["d,e", "", "f", "NA", "3", "\t", "g"],
        ids=["1", "01", "a", "b", "c", "d", "e"],
        users=["u"] * 7,
        times=["2020-01-01T00:00:00Z"] * 7,
    )
    path = tmp_path / f"out{ending}"
    export(awkward, path)
    assert FileSource(path).load() == awkward


def is_label(name):
    return bool(name) and name not in WRITTEN_MISSING


@settings(max_examples=30, deadline=None)
@given(pairs=st.lists(st.tuples(TEXT.filter(bool), TEXT.filter(is_label)), min_size=1, max_size=6))
def test_any_text_survives_each_format(pairs, tmp_path_factory):
    written = texts(pairs)
    for ending in (".csv", ".tsv", ".jsonl"):
        path = tmp_path_factory.getbasetemp() / f"any{ending}"
        export(written, path, overwrite=True)
        assert FileSource(path).load() == written


def test_an_export_never_replaces_a_file_unasked(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("mine", "utf-8")
    with pytest.raises(NLPMetaError, match="was kept"):
        export(StarterSpam().load("sw"), path)
    assert path.read_text("utf-8") == "mine"
    export(StarterSpam().load("sw"), path, overwrite=True)
    assert FileSource(path).load() == StarterSpam().load("sw")
    assert [each.name for each in tmp_path.iterdir()] == ["out.csv"]


def test_an_unknown_ending_or_a_folder_is_refused(tmp_path):
    with pytest.raises(NLPMetaError, match=r"ends in '.xlsx'; tables are written as .csv, .tsv"):
        export(StarterSpam().load(), tmp_path / "out.xlsx")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(NLPMetaError, match="is a folder"):
        export(StarterSpam().load(), tmp_path / "folder.csv")
