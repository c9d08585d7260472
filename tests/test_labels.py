"""What may be a label, from every container that people have, and what comes back."""

import enum
import unicodedata

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from conftest import save_encoder
from datasets import ClassLabel, Dataset, Features, Value

from nlpmeta import FewShotClassifier
from nlpmeta.data.labels import checked_labels, classes_of
from nlpmeta.errors import DataError

TEXTS = ["ball goal", "goal match", "rice soup", "soup bread", "bank loan", "loan cash"]
NAMES = ["sport", "sport", "food", "food", "money", "money"]


class Topic(enum.Enum):
    SPORT = 3
    FOOD = 1
    MONEY = 2


class Tone(str, enum.Enum):
    WARM = "warm words"
    COLD = "cold words"


class Step(enum.IntEnum):
    ONE = 1
    TWO = 2


GIVEN = {
    "list": NAMES,
    "tuple": tuple(NAMES),
    "iterator": iter(NAMES),
    "numpy strings": np.array(NAMES),
    "numpy objects": np.array(NAMES, dtype=object),
    "numpy variable-width strings": np.array(NAMES, dtype=np.dtypes.StringDType()),
    "list of numpy strings": list(np.array(NAMES)),
    "pandas series": pd.Series(NAMES, index=[9, 8, 7, 6, 5, 4]),
    "pandas categories": pd.Series(NAMES, dtype="category"),
    "pandas categorical with a class that no row has": pd.Categorical(NAMES, categories=[*NAMES[::2], "weather"]),
    "pandas index": pd.Index(NAMES),
    "polars series": pl.Series(NAMES),
    "polars categories": pl.Series(NAMES, dtype=pl.Categorical),
    "polars enumeration": pl.Series(NAMES, dtype=pl.Enum(["money", "food", "sport"])),
    "arrow": pa.array(NAMES),
    "arrow dictionary": pa.array(NAMES).dictionary_encode(),
    "arrow chunks": pa.chunked_array([NAMES[:2], NAMES[2:]]),
    "datasets column": Dataset.from_dict({"label": NAMES})["label"],
    "frame of one column": pd.DataFrame({"label": NAMES}),
}


@pytest.mark.parametrize("name", GIVEN)
def test_names_of_every_container_are_the_classes(name):
    labels = checked_labels(GIVEN[name])
    assert labels.tolist() == NAMES
    assert classes_of(labels).tolist() == ["food", "money", "sport"]


NUMBERS = {
    "int8": np.array([3, 1, 3], dtype=np.int8),
    "uint64": np.array([2**63 + 1, 1, 1], dtype=np.uint64),
    "float32": np.array([1, 2, 1], dtype=np.float32),
    "bool": np.array([True, False, True]),
    "python integers that a float cannot hold": [2**60 + 1, 2**60, 2**60],
    "python integers above those of int64": [2**63 + 1, 1, 1],
    "nullable integers": pd.Series([3, 1, 3], dtype="Int64"),
    "nullable booleans": pd.Series([True, False, True], dtype="boolean"),
    "arrow integers": pa.array([2**60 + 1, 2**60, 1]),
    "polars integers": pl.Series([2**60 + 1, 2**60, 1]),
    "numbers of numpy in a list": [np.int32(3), np.int64(1), 3],
    "bytes": np.array([b"a", b"bc", b"a"]),
    "class numbers of datasets": Dataset.from_dict(
        {"t": ["a", "b", "c"], "y": [1, 0, 1]},
        features=Features({"t": Value("string"), "y": ClassLabel(names=["x", "z"])}),
    )["y"],
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_booleans_and_bytes_keep_their_value_and_kind(name):
    given = list(NUMBERS[name])
    labels = checked_labels(NUMBERS[name])
    assert labels.tolist() == [getattr(each, "as_py", lambda each=each: each)() for each in given]
    assert len(classes_of(labels)) == len(set(labels.tolist()))
    if isinstance(NUMBERS[name], np.ndarray):
        assert labels.dtype == NUMBERS[name].dtype


@pytest.mark.parametrize("kind", [Topic, Tone, Step])
def test_members_of_an_enumeration_come_back_as_such(kind, encoder_folder, tmp_path):
    members = list(kind)
    y = [members[i % len(members)] for i in range(6)]
    fitted = FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(TEXTS, y)
    assert list(fitted.classes_) == members  # in the order of their definition
    assert all(isinstance(each, kind) for each in fitted.predict(TEXTS))
    assert fitted.score(TEXTS, y) == np.mean([a is b for a, b in zip(fitted.predict(TEXTS), y, strict=True)])
    fitted.save_pretrained(tmp_path / "model", include_support=True)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert set(loaded.classes_.tolist()) == {each.value if kind is Tone else each.name for each in members}
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), fitted.predict_proba(TEXTS))


@pytest.mark.parametrize("dtype", ["S", np.dtypes.StringDType(), object])
def test_strings_of_numpy_come_back_in_their_type_and_survive_saving(dtype, encoder_folder, tmp_path):
    y = np.array(NAMES, dtype=dtype)
    fitted = FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(TEXTS, y)
    assert set(fitted.predict(TEXTS).tolist()) <= set(y.tolist())
    assert fitted.classes_.dtype.kind == {"S": "S", "T": "T", "O": "U"}[y.dtype.kind]
    fitted.save_pretrained(tmp_path / "model", include_support=True)
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert loaded.predict(TEXTS).tolist() == fitted.predict(TEXTS).tolist()
    assert loaded.partial_fit(["rate"], y[-1:]).classes_.tolist() == fitted.classes_.tolist()


MISSING = {
    "none in a list": ["a", "b", None],
    "nan in a list": ["a", "b", float("nan")],
    "nan in an object array": np.array(["a", "b", np.nan], dtype=object),
    "nan that numpy made a string": np.array(["a", "b", np.nan]),
    "nan among floats": np.array([1.0, 2.0, np.nan]),
    "none in a series": pd.Series(["a", "b", None]),
    "NA in a series": pd.Series(["a", "b", pd.NA], dtype="string"),
    "NA among integers": pd.Series([1, 2, None], dtype="Int64"),
    "nan in a category": pd.Series(["a", "b", None], dtype="category"),
    "NaT in a list": ["a", "b", pd.NaT],
    "NaT of numpy": ["a", "b", np.datetime64("NaT")],
    "masked": np.ma.array([1, 2, 3], mask=[False, False, True]),
    "arrow null": pa.array(["a", "b", None]),
    "polars null": pl.Series(["a", "b", None]),
    "polars nan": pl.Series([1.0, 2.0, float("nan")]),
    "variable-width strings": np.array(["a", "b", None], dtype=np.dtypes.StringDType(na_object=None)),
    "white space": ["a", "b", " \t"],
    "nothing": ["a", "b", ""],
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_label_is_refused_and_never_a_class(name):
    with pytest.raises(DataError, match=r"no label in row 2|a missing value reads as text"):
        checked_labels(MISSING[name])


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (["a", 1], r"row 0 is 'a' \(a string\) and row 1 is 1 \(a whole number\)"),
        ([1, "1"], r"row 0 is 1 .* row 1 is '1'"),
        ([1, 1, True], r"row 0 is 1 .* row 2 is True \(a boolean\)"),
        ([True, False, 0], r"row 0 is True .* row 2 is 0"),
        ([1, 2, 2.0], r"row 0 is 1 .* row 2 is 2.0 \(a number with a point\)"),
        (np.array(["a", 1], dtype=object), r"row 0 is 'a' .* row 1 is 1"),
        (pd.Series([True, "a"]), r"row 0 is True .* row 1 is 'a'"),
        (["a", b"a"], r"row 1 is b'a' \(bytes\)"),
        ([Topic.FOOD, Tone.WARM], r"a member of Topic.*a member of Tone"),
        ([Tone.WARM, "warm words"], r"a member of Tone.*a string"),
        ([["x"], ["x", "y"]], "Several labels per text are not taken"),
        ([("x", "y"), ("z", "x")], r"its shape is \(2, 2\).*Several labels"),
        ([{"x"}, {"y"}], "Several labels"),
        ([np.array([1, 2]), np.array([1])], "Several labels"),
        (pa.array([["a"], ["b", "c"]]), "Several labels"),
        (np.zeros((3, 1)), r"its shape is \(3, 1\)"),
        (pd.DataFrame({"a": [1], "b": [2]}), r"a table \(DataFrame\) with 2 columns \(a, b\)"),
        ([{"a": 1}], r"row 0 is \{'a': 1\} \(dict\)"),
        (pd.Series(pd.to_datetime(["2020-01-01", "2021-01-01"])), "Timestamp"),
        ([1.5, 2.0], "continuous"),
        ([1.0, float("inf")], "infinite"),
        ([2**70, 1], "more than 64 bits"),
        ([-1, 2**63], "more than 64 bits"),
        ("ab", "not one string"),
        (np.array("ab"), "one dimension"),
        (7, r"it is 7 \(int\)"),
        (None, "NoneType"),
        ({"a": 1}, "dict with the keys a"),
        ({"a", "b"}, "no order"),
        ([b"\xff", b"a"], "not Unicode text"),
        ([], "no labels"),
    ],
)
def test_what_is_no_label_is_refused_with_its_row(y, said):
    with pytest.raises(DataError, match=said):
        checked_labels(y)


@pytest.mark.parametrize(
    "pair",
    [
        ("refund", "refund "),
        ("refund", "\u00a0refund"),
        ("out of scope", "out  of scope"),
        ("café", unicodedata.normalize("NFD", "café")),
    ],
)
def test_labels_that_look_the_same_are_refused_and_one_alone_comes_back_unchanged(pair):
    with pytest.raises(DataError, match="differ only in white space or Unicode form"):
        classes_of(checked_labels([*pair, "other"]))
    assert classes_of(checked_labels([pair[1], "other"])).tolist() == sorted([pair[1], "other"])


def test_a_new_label_of_another_kind_or_spelling_changes_nothing(encoder):
    fitted = FewShotClassifier("prototypical", encoder=encoder).fit(TEXTS, NAMES)
    before = fitted.predict_proba(TEXTS)
    for wrong in (3, True, None, "sport ", "nan"):
        with pytest.raises(DataError):
            fitted.partial_fit(["rate"], [wrong])
    np.testing.assert_array_equal(fitted.predict_proba(TEXTS), before)


def test_large_numbers_are_saved_to_the_last_digit(tmp_path):
    encoder = str(save_encoder(tmp_path / "encoder"))
    y = [2**60 + 1, 2**60 + 1, 2**60, 2**60, 2**60 + 2, 2**60 + 2]
    FewShotClassifier("prototypical", encoder=encoder).fit(TEXTS, y).save_pretrained(tmp_path / "model")
    assert FewShotClassifier.from_pretrained(tmp_path / "model").classes_.tolist() == sorted(set(y))
