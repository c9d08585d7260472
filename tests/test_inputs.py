"""Texts from every container that people have; what is no column of texts is refused in one sentence."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from nlpmeta import FewShotClassifier
from nlpmeta.errors import DataError

TEXTS = ["ball goal", "goal match", "rice soup", "soup bread"]
ASKED = ["match team", "bread salt", "ball"]


@pytest.fixture(scope="module")
def fitted(encoder_folder):
    return FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(TEXTS, ["s", "s", "f", "f"])


COLUMNS = {
    "tuple": lambda: tuple(ASKED),
    "numpy strings": lambda: np.array(ASKED),
    "numpy objects": lambda: np.array(ASKED, dtype=object),
    "variable-width strings": lambda: np.array(ASKED, dtype=np.dtypes.StringDType()),
    "pandas series with an index of its own": lambda: pd.Series(ASKED, index=[5, 3, 1]),
    "pandas strings": lambda: pd.Series(ASKED, dtype="string"),
    "pandas frame of one column": lambda: pd.DataFrame({"anything": ASKED}),
    "polars series": lambda: pl.Series(ASKED),
    "polars frame of one column": lambda: pl.DataFrame({"text": ASKED}),
    "arrow array": lambda: pa.array(ASKED),
    "arrow chunks": lambda: pa.chunked_array([ASKED[:1], ASKED[1:]]),
    "arrow table of one column": lambda: pa.table({"text": ASKED}),
    "datasets column": lambda: Dataset.from_dict({"text": ASKED, "id": [1, 2, 3]})["text"],
    "data set of one column": lambda: Dataset.from_dict({"text": ASKED}),
    "generator": lambda: (text for text in ASKED),
    "keys of a dictionary": lambda: dict.fromkeys(ASKED).keys(),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_texts_gets_an_answer_for_each_of_them(name, fitted):
    expected = fitted.predict_proba(ASKED)
    np.testing.assert_array_equal(fitted.predict_proba(COLUMNS[name]()), expected)
    assert fitted.predict(COLUMNS[name]()).tolist() == fitted.predict(ASKED).tolist()


FRAME = {"id": [1, 2, 3], "text": ASKED}
REFUSED = {
    "pandas frame": (pd.DataFrame(FRAME), r"with 2 columns \(id, text\); pass one of them, such as X\['text'\]"),
    "polars frame": (pl.DataFrame(FRAME), r"with 2 columns \(id, text\)"),
    "arrow table": (pa.table(FRAME), r"with 2 columns \(id, text\)"),
    "data set": (Dataset.from_dict(FRAME), r"with 2 columns \(id, text\)"),
    "data sets by split": (DatasetDict(train=Dataset.from_dict(FRAME)), "with the keys train"),
    "frame without columns": (pd.DataFrame(index=[0, 1]), "with 0 columns"),
    "frame of one column of numbers": (pd.DataFrame({"n": [1, 2]}), r"row 0 is 1 \(int\)"),
    "dict": ({"text": ASKED}, r"with the keys text; pass one of its values, such as X\['text'\]"),
    "set": (set(ASKED), "no order"),
    "bare string": ("ball goal", "not one string"),
    "numpy string": (np.str_("ball goal"), "not one string"),
    "bytes": (b"ball goal", "not one bytes value"),
    "array without a dimension": (np.array("ball goal"), r"its shape is \(\)"),
    "array of two dimensions": (np.array([ASKED]), r"its shape is \(1, 3\)"),
    "nested lists": ([ASKED, ASKED], r"X holds pairs, but row 0 has 3 texts"),
    "rows of a table": ([{"text": "ball"}], r"row 0 is .* \(dict\)"),
    "list of bytes": ([b"ball"], r"row 0 is b'ball' \(bytes\)"),
    "nothing": (None, "NoneType"),
    "number": (3, r"it is 3 \(int\)"),
    "missing text": (["ball", None], r"row 1 is missing \(None\)"),
    "missing in a series": (pd.Series(["ball", pd.NA], dtype="string"), "row 1 is missing"),
    "missing in polars": (pl.Series(["ball", None]), "row 1 is missing"),
    "missing in arrow": (pa.array(["ball", None]), "row 1 is missing"),
    "no texts": ([], "no texts"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_column_of_texts_is_refused_by_fit_and_prediction(name, fitted):
    given, said = REFUSED[name]
    for call in (fitted.predict, fitted.predict_proba, lambda X: FewShotClassifier().fit(X, ["a", "b"])):
        with pytest.raises(DataError, match=said):
            call(given)


def test_pandas_and_polars_are_not_imported_for_lists():
    import subprocess
    import sys

    code = (
        "import sys; from nlpmeta.data.inputs import values_of; from nlpmeta.data.labels import checked_labels;"
        "values_of(['a b'], name='X', what='texts'); checked_labels(['x']);"
        "print({'pandas', 'polars', 'datasets'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
