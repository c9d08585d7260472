import pytest

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.errors import DataError


def small():
    return LabeledTexts.from_names(
        ["a", "b", "c", "d"], ["y", "x", "y", "z"], langs=["en", "sw", "en", "sw"], ids=["1", "2", "3", "4"]
    )


def test_classes_are_numbered_in_the_order_of_their_names():
    data = small()
    assert data.label_names == ("x", "y", "z")
    assert data.labels == (1, 0, 1, 2)
    assert data.names() == ["y", "x", "y", "z"]
    assert data.counts() == {"x": 1, "y": 2, "z": 1}


def test_selecting_rows_takes_every_column_along():
    picked = small().select([3, 0])
    assert (picked.texts, picked.names()) == (("d", "a"), ["z", "y"])
    assert (picked.langs, picked.ids) == (("sw", "en"), ("4", "1"))
    assert picked.users is None


def test_with_classes_renumbers_and_drops_the_others():
    kept = small().with_classes(["z", "y"])
    assert (kept.texts, kept.labels, kept.label_names) == (("a", "c", "d"), (1, 1, 0), ("z", "y"))
    with pytest.raises(DataError, match=r"No text has any of the labels \['q'\]"):
        small().with_classes(["q"])


def test_concatenating_matches_classes_by_name_and_keeps_shared_columns():
    other = LabeledTexts.from_names(["e"], ["x"], langs=["fr"])
    both = LabeledTexts.concatenate([small(), other])
    assert both.names() == ["y", "x", "y", "z", "x"]
    assert both.langs == ("en", "sw", "en", "sw", "fr")
    assert both.ids is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (((), (), ("x",)), "There are no texts"),
        ((("a",), (0, 1), ("x", "y")), "1 texts came with 2 labels"),
        ((("a",), (2,), ("x", "y")), r"Labels must lie in 0\.\.1; got 2\.\.2"),
        ((("a",), (-1,), ("x", "y")), r"got -1\.\.-1"),
        ((("a",), (0,), ("x", "x")), r"these repeat: \['x'\]"),
        ((("a",), (0,), ("x",), ("en", "sw")), "1 texts came with 2 values of 'langs'"),
    ],
)
def test_wrong_values_are_refused_by_name(arguments, said):
    with pytest.raises(DataError, match=said):
        LabeledTexts(*arguments)


def test_an_episode_needs_the_same_classes_on_both_sides_and_a_text_for_each():
    data = small()
    with pytest.raises(DataError, match="same label names"):
        Episode(data, data.with_classes(["z", "y"]))
    with pytest.raises(DataError, match=r"No support text for the classes \['z'\]"):
        Episode(data.select([0, 1]), data)


def test_equal_data_has_an_equal_digest_and_other_data_another():
    assert small().digest() == small().digest()
    assert small().digest() != small().select([1, 0, 2, 3]).digest()
