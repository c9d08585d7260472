"""One contract for every registered source, run on the tiny instance that each can make of itself."""

import dataclasses
import inspect

import pytest

from nlpmeta.data import COLUMNS, LabeledTexts
from nlpmeta.data.languages import UnknownLanguageError, parse
from nlpmeta.errors import DataError
from nlpmeta.sources import Source, sources
from nlpmeta.sources.form import TableForm
from nlpmeta.sources.loading import load_source

NAMES = tuple(sources)


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path_factory, monkeypatch):
    """What ``datasets`` prepares stays out of the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


@pytest.fixture(params=NAMES)
def source(request, tmp_path):
    return sources[request.param].example(tmp_path)


def leaves(cls):
    """The classes below ``cls`` that nothing is derived from."""
    below = cls.__subclasses__()
    return {cls} if not below else set().union(*(leaves(each) for each in below))


def test_every_source_class_is_registered():
    ours = {cls for cls in leaves(Source) if cls.__module__.startswith("nlpmeta.")}
    assert ours == set(sources.values())
    assert len(NAMES) >= 7


def test_a_source_can_be_made_and_is_complete(source):
    assert isinstance(source, Source)
    assert not inspect.isabstract(type(source))
    assert source.__doc__ is not None


def test_licence_citation_and_title_are_stated(source):
    for field in ("name", "title", "licence", "citation"):
        assert getattr(source.facts, field).strip(), field


def test_facts_cannot_be_changed(source):
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.facts.licence = "mine"


def test_loading_twice_gives_the_same(source):
    for split in source.splits():
        first, second = source.load(split=split), source.load(split=split)
        assert first == second
        assert isinstance(first, LabeledTexts)


def test_a_second_instance_gives_the_same(source, tmp_path):
    again = type(source).example(tmp_path)
    assert again.languages() == source.languages()
    assert all(again.load(split=split) == source.load(split=split) for split in source.splits())


def test_texts_and_labels_have_no_outer_white_space_and_are_not_empty(source):
    for split in source.splits():
        loaded = source.load(split=split)
        assert all(text == text.strip() and text for text in (*loaded.texts, *loaded.label_names))


def test_every_class_has_a_text(source):
    for split in source.splits():
        assert all(source.load(split=split).counts().values())


def test_the_languages_together_are_the_whole_split(source):
    for split in source.splits():
        parts = [source.load(lang, split) for lang in source.languages() if split in source.splits(lang)]
        if parts:
            whole = source.load(split=split)
            assert sum(map(len, parts)) == len(whole)
            assert sorted(zip(whole.texts, whole.names(), strict=True)) == sorted(
                pair for part in parts for pair in zip(part.texts, part.names(), strict=True)
            )


def test_a_language_is_understood_in_any_spelling(source):
    for lang in source.languages():
        language = parse(lang)
        assert source.spelling(lang) == source.spelling(lang.upper()) == lang
        assert source.load(language.name).texts == source.load(source.spelling(language.code)).texts
    if "sw" in source.languages():
        spellings = ("sw", "swa", "sw-KE", "swh_Latn", "Swahili")
        assert {source.load(each).texts for each in spellings} == {source.load("sw").texts}


def test_texts_of_one_language_say_that_language(source):
    for lang in source.languages():
        langs = source.load(lang).langs
        assert langs is not None
        assert set(langs) == {lang}


def test_an_unknown_language_names_the_known_ones(source):
    with pytest.raises(UnknownLanguageError) as caught:
        source.load("kl")
    assert all(lang in str(caught.value) for lang in source.languages())
    assert source.facts.title in str(caught.value)


def test_a_word_that_is_no_language_is_refused(source):
    with pytest.raises(UnknownLanguageError):
        source.load("klingonese")


def test_an_unknown_split_names_the_known_ones(source):
    with pytest.raises(DataError) as caught:
        source.load(split="nowhere")
    assert all(split in str(caught.value) for split in source.splits())


def test_other_names_of_the_same_split_are_understood_by_public_data_sets(tmp_path):
    for name in ("mirror", "hub", "catalogue"):
        source = sources[name].example(tmp_path / name)
        dev = source.load(split="dev")
        assert all(source.load(split=alias) == dev for alias in ("validation", "valid", "val"))


def test_the_optional_columns_are_as_long_as_the_texts(source):
    loaded = source.load()
    assert all(len(loaded.column(name) or loaded.texts) == len(loaded) for name in COLUMNS)


def test_source_classes_cannot_be_registered_twice_under_one_name():
    with pytest.raises(RuntimeError, match="Two data sources"):
        sources.register("hub")(type("Other", (), {}))


def test_bundled_corpora_load_by_name():
    assert len(load_source("starter").load("sw")) > 50
    assert set(load_source("starter-spam").load("sw").label_names) == {"ham", "spam"}


def test_a_source_that_is_registered_can_be_named_after_data(monkeypatch, capsys):
    """Nothing else has to know of it: no list of names, no command."""
    from nlpmeta.cli import main

    class Weather(Source):
        """Two words about the weather."""

        facts = dataclasses.replace(sources["starter"].facts, name="weather", title="Weather")

        def languages(self):
            return ("en",)

        def splits(self, lang=None):
            return ("train",)

        def read(self, lang, split):
            return LabeledTexts.from_names(["sun", "rain"], ["good", "bad"], langs=["en", "en"])

        @classmethod
        def example(cls, folder):
            return cls()

    monkeypatch.setitem(sources._load(), "weather", Weather)
    assert isinstance(load_source("weather"), Weather)
    with pytest.raises(DataError, match="is not a file"):
        load_source("weather", form=TableForm(delimiter=";"))
    assert main(["data", "show", "weather"]) == 0
    assert "Two words about the weather" in capsys.readouterr().out
    assert main(["data", "list"]) == 0
    assert "\nweather " in capsys.readouterr().out
