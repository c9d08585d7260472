"""The catalogue's facts against the mirror folder, where there is one, and against tiny copies of Hub layouts."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.errors import DataError, DataWarning, UnknownNameError
from nlpmeta.sources import SplitNames
from nlpmeta.sources.catalogue import (
    DATA_DIR,
    PARTS,
    POOL_SPLIT,
    CatalogueEntry,
    LabelFold,
    catalogue,
    catalogue_entry,
    folds,
    known_as,
    mirror_folder,
)
from nlpmeta.sources.hub import HubSource
from nlpmeta.sources.loading import known_names, load_source
from nlpmeta.sources.published import CatalogueSource, MirrorSource

ASKED_FOR = {
    "massive", "injongo", "sib200", "mtop", "clinc150", "banking77", "hwu64", "liu", "sms-spam", "spamassassin",
    "masakhanews", "afrisenti", "home-assistant",
}  # fmt: skip
MIRRORED = sorted(name for name, entry in catalogue().items() if entry.mirror is not None)
WITH_FOLDS = ("banking77", "clinc150", "hwu64", "liu")


@pytest.fixture(autouse=True)
def no_mirror_of_the_user(monkeypatch):
    monkeypatch.delenv(DATA_DIR, raising=False)


@pytest.fixture
def datasets_cache(tmp_path_factory, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))


def lines_of(path):
    """What ``wc -l`` says."""
    return path.read_bytes().count(b"\n")


def values_of(path, key):
    return [json.loads(line)[key] for line in path.read_text("utf-8").splitlines()]


def test_every_data_set_of_the_issue_has_a_name():
    assert ASKED_FOR <= set(known_names())


@pytest.mark.parametrize("name", catalogue())
def test_an_entry_states_its_facts(name):
    entry = catalogue_entry(name)
    assert entry.facts.name == name
    assert all((entry.facts.title, entry.facts.licence, entry.facts.citation, entry.facts.notes, entry.task))
    assert entry.n_labels > 1
    assert entry.hub is not None or entry.mirror is not None
    assert len(entry.facts.citation.split()) > 5


@pytest.mark.parametrize("name", catalogue())
def test_splits_have_our_names(name):
    source = load_source(name) if catalogue_entry(name).hub else None
    splits = source.splits() if source else catalogue_entry(name).mirror.splits
    assert "train" in splits
    allowed = {"train", "dev", "test", "oos_train", "oos_dev", "oos_test", "train_5", "train_10", "all", POOL_SPLIT}
    assert set(splits) <= allowed


@pytest.mark.shared_data
@pytest.mark.parametrize("name", MIRRORED)
def test_every_split_in_the_mirror_has_as_many_texts_as_its_files_have_lines(name, shared_data):
    source = load_source(name, data_dir=shared_data)
    assert isinstance(source, MirrorSource)
    files = catalogue_entry(name).mirror.files
    assert source.languages()
    for lang in source.languages():
        assert source.splits(lang)
        if catalogue_entry(name).mirror.divide:
            assert sum(len(source.load(lang, part)) for part in PARTS) == len(source.load(lang, "all"))
        for split in files.keys() & set(source.splits(lang)):
            paths = [shared_data / path.replace("{lang}", lang) for path in files[split]]
            assert len(source.load(lang, split, several=True)) == sum(map(lines_of, paths)), (lang, split)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", MIRRORED)
def test_the_label_set_is_that_of_the_mirror(name, shared_data):
    entry, source = catalogue_entry(name), load_source(name, data_dir=shared_data)
    langs = source.languages() if entry.collection or source.several else source.languages()[:1]
    loaded = [source.load(lang, split, several=True) for lang in langs for split in source.splits(lang)]
    seen = {label for each in loaded for label in (MultiLabelTexts.of(each) if each.several else each).label_names}
    seen -= {"oos"}
    assert seen == set(entry.label_names)
    assert len(seen) == entry.n_labels


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name", [name for name in MIRRORED if "{lang}" in next(iter(catalogue_entry(name).mirror.files.values()))[0]]
)
def test_every_language_folder_of_the_mirror_is_a_language_of_the_entry(name, shared_data):
    source = load_source(name, data_dir=shared_data)
    head = next(iter(catalogue_entry(name).mirror.files.values()))[0].partition("{lang}")[0]
    assert set(source.languages()) == {folder.name for folder in (shared_data / head).iterdir()}
    assert set(source.languages()) <= set(catalogue_entry(name).languages)


@pytest.mark.shared_data
def test_domains_are_those_that_the_published_files_state(shared_data):
    massive = load_source("massive", data_dir=shared_data).load("sw", "dev")
    assert list(massive.domains) == values_of(shared_data / "massive/sw-KE/dev.jsonl", "scenario")
    hwu64 = load_source("hwu64", data_dir=shared_data).load()
    assert list(hwu64.domains) == values_of(shared_data / "protaugment/HWU64/full.jsonl", "domain")
    published = json.loads((shared_data / "clinc150/intent_to_domain.json").read_text("utf-8"))
    assert catalogue_entry("clinc150").domains == published
    clinc = load_source("clinc150", data_dir=shared_data).load(split="test")
    assert list(clinc.domains) == [published[name] for name in clinc.names()]


@pytest.mark.shared_data
def test_texts_ids_and_labels_are_the_published_ones_in_order(shared_data):
    path = shared_data / "massive/sw-KE/test.jsonl"
    loaded = load_source("massive", data_dir=shared_data).load("Swahili", "test")
    assert list(loaded.texts) == values_of(path, "text")
    assert loaded.names() == values_of(path, "label")
    assert list(loaded.ids) == values_of(path, "id")
    assert set(loaded.langs) == {"sw-KE"}


@pytest.mark.shared_data
def test_the_readme_of_the_mirror_counted_the_same(shared_data):
    """Numbers from ../shared/data/README.md."""
    injongo = load_source("injongo", data_dir=shared_data)
    assert [len(injongo.load("sw", split)) for split in ("train", "dev", "test")] == [2240, 320, 640]
    assert len(injongo.languages()) == 17
    banking = load_source("banking77", data_dir=shared_data)
    assert [len(banking.load(split=split)) for split in ("train", "test")] == [10003, 3080]
    sib200 = load_source("sib200", data_dir=shared_data)
    assert [len(sib200.load("swa", split)) for split in ("train", "dev", "test")] == [701, 99, 204]


@pytest.mark.shared_data
def test_popquorn_joins_ratings_to_texts_and_keeps_who_gave_them(shared_data):
    loaded = load_source("popquorn", data_dir=shared_data).load()
    texts = dict(
        zip(values_of(shared_data / "popquorn/items.jsonl", "item_id"),
            values_of(shared_data / "popquorn/items.jsonl", "text"), strict=True)
    )  # fmt: skip
    assert len(set(loaded.users)) == 262
    assert all(text == texts[item].strip() for text, item in zip(loaded.texts, loaded.ids, strict=True))
    raters = {user: n for user, n in Counter(loaded.users).items()}
    assert raters == Counter(values_of(shared_data / "popquorn/annotations.jsonl", "user"))


@pytest.mark.shared_data
def test_out_of_scope_queries_are_in_splits_of_their_own(shared_data):
    clinc = load_source("clinc150", data_dir=shared_data)
    assert [len(clinc.load(split=f"oos_{split}")) for split in ("train", "dev", "test")] == [100, 100, 1000]
    assert clinc.load(split="oos_valid") == clinc.load(split="oos_dev")
    assert clinc.load(split="oos_test").label_names == ("oos",)
    assert all("oos" not in clinc.load(split=split).label_names for split in ("train", "dev", "test", "train_5"))
    assert set(clinc.load(split="train_5").counts().values()) == {5}
    assert set(clinc.load(split="train_10").counts().values()) == {10}


@pytest.mark.shared_data
@pytest.mark.parametrize("name", WITH_FOLDS)
def test_published_folds_have_disjoint_classes_that_together_are_all(name, shared_data):
    pool = load_source(name, data_dir=shared_data).load(split=POOL_SPLIT)
    found = folds(name, shared_data)
    assert len(found) == 5
    for fold in found:
        parts = [set(fold.train), set(fold.valid), set(fold.test)]
        assert sum(map(len, parts)) == len(set().union(*parts))
        assert set().union(*parts) == set(pool.label_names)
        assert pool.with_classes(fold.test).n_way == len(fold.test)


def test_folds_are_refused_where_there_are_none(tmp_path):
    with pytest.raises(DataError, match="these have: banking77, clinc150, hwu64, liu"):
        folds("massive", tmp_path)
    with pytest.raises(DataError, match=DATA_DIR):
        folds("liu")
    with pytest.raises(DataError, match="does not hold the folds of liu"):
        folds("liu", tmp_path)
    path = tmp_path / "protaugment/Liu/class_splits.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"01": {"train": ["a"]}}', "utf-8")
    with pytest.raises(DataError, match="not a table of folds"):
        folds("liu", tmp_path)


def test_a_fold_that_shares_a_class_is_refused():
    with pytest.raises(DataError, match="share none"):
        LabelFold("01", ("a", "b"), ("c",), ("b",))


def test_the_mirror_folder_takes_the_place_of_the_hub_when_it_holds_the_set(tmp_path, monkeypatch):
    path = tmp_path / "banking77" / "train.jsonl"
    path.parent.mkdir()
    path.write_text('{"text": "where is my card", "label": "card_arrival"}\n', "utf-8")
    assert isinstance(load_source("banking77"), CatalogueSource)
    assert isinstance(load_source("banking77", data_dir=tmp_path), MirrorSource)
    assert isinstance(load_source("massive", data_dir=tmp_path), CatalogueSource)
    monkeypatch.setenv(DATA_DIR, str(tmp_path))
    assert load_source("banking77").load().texts == ("where is my card",)
    assert tuple(load_source("banking77").splits()) == ("train",)


def test_the_argument_counts_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv(DATA_DIR, str(tmp_path / "env"))
    assert mirror_folder(tmp_path) == tmp_path
    with pytest.raises(DataError, match=f"named by {DATA_DIR}"):
        mirror_folder(None)
    with pytest.raises(DataError, match="does not exist"):
        load_source("massive", data_dir=tmp_path / "nowhere")


def test_a_set_that_only_a_mirror_has_says_so(tmp_path):
    with pytest.raises(DataError, match=DATA_DIR):
        load_source("spamassassin")
    with pytest.raises(DataError, match="does not hold SpamAssassin"):
        load_source("spamassassin", data_dir=tmp_path)


def test_a_wrong_column_in_the_mirror_lists_the_columns_found(tmp_path):
    path = tmp_path / "banking77" / "train.jsonl"
    path.parent.mkdir()
    path.write_text('{"utterance": "where is my card", "label": "card_arrival"}\n', "utf-8")
    with pytest.raises(DataError, match=r"no column 'text'; it has utterance, label"):
        load_source("banking77", data_dir=tmp_path).load()


def test_rows_without_text_or_label_are_counted_in_a_warning(tmp_path):
    path = tmp_path / "banking77" / "train.jsonl"
    path.parent.mkdir()
    rows = ['{"text": " ", "label": "a"}', '{"text": "b", "label": null}', '{"text": " c ", "label": "d"}']
    path.write_text("\n".join(rows) + "\n", "utf-8")
    with pytest.warns(DataWarning, match="skipped 1 without a label and 1 without a text"):
        assert load_source("banking77", data_dir=tmp_path).load().texts == ("c",)


def test_a_name_that_is_nothing_gets_near_names():
    with pytest.raises(UnknownNameError, match="Did you mean 'massive'"):
        load_source("masive")
    with pytest.raises(UnknownNameError, match="clinc150"):
        catalogue_entry("clinc")


def test_split_names_understand_what_others_call_them():
    names = SplitNames(("train", "dev", "oos_dev"))
    assert "validation" in names
    assert names.spelled("valid") == "dev"
    assert names.spelled("oos_valid") == "oos_dev"
    assert "test" not in names
    assert "oos_test" not in names
    assert SplitNames(("train", "validation")).spelled("dev") == "validation"


def test_an_entry_that_miscounts_its_labels_is_refused():
    entry = catalogue_entry("sms-spam")
    with pytest.raises(ValueError, match="miscounts"):
        replace(entry, n_labels=3)
    with pytest.raises(ValueError, match="no place to read from"):
        CatalogueEntry(facts=entry.facts, task="t", languages={"en": None}, label_names=(), n_labels=2)


def write_parquet(path, rows, labels=None):
    """A split as the Hub keeps it: Parquet, with the label names in its metadata."""
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    features = datasets.Features(
        {key: datasets.ClassLabel(names=labels) if labels and key in ("intent", "label") else datasets.Value(
            "int64" if isinstance(values[0], int) else "string") for key, values in columns.items()}
    )  # fmt: skip
    datasets.Dataset.from_dict(columns, features=features).to_parquet(path)


def on_a_local_hub(name, folder, **changes):
    """The source that reads the catalogue's Hub layout from a folder instead of the Hub."""
    entry = catalogue_entry(name)
    return CatalogueSource(replace(entry, hub=replace(entry.hub, id=str(folder), **changes)))


def with_configs(folder, *configs):
    lines = ["---", "configs:"]
    for config in configs:
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [f"  - {{split: {path.stem}, path: {config}/{path.name}}}" for path in (folder / config).iterdir()]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), "utf-8")


def test_on_the_hub_clinc150_keeps_out_of_scope_queries_apart(tmp_path, datasets_cache):
    labels = ["transfer", "oos", "translate"]
    rows = [
        {"text": "pay bob", "intent": 0},
        {"text": "meaning of life", "intent": 1},
        {"text": "say fly", "intent": 2},
    ]
    for split in ("train", "validation", "test"):
        write_parquet(tmp_path / "plus" / f"{split}.parquet", rows, labels)
    with_configs(tmp_path, "plus")
    source = on_a_local_hub("clinc150", tmp_path)
    assert source.load("en").texts == ("pay bob", "say fly")
    assert source.load("en").names() == ["transfer", "translate"]
    assert source.load("en").domains == ("banking", "travel")
    assert source.load(split="oos_validation").texts == ("meaning of life",)


def test_on_the_hub_a_language_is_a_configuration(tmp_path, datasets_cache):
    for lang, text in (("sw", "habari"), ("en", "hello")):
        write_parquet(tmp_path / lang / "train.parquet", [{"id": "1", "text": text, "label": "general_greet"}])
    with_configs(tmp_path, "sw", "en")
    source = on_a_local_hub("massive", tmp_path)
    swahili = source.load("Swahili")
    assert swahili.texts == ("habari",)
    assert (swahili.langs, swahili.ids, swahili.domains) == (("sw-KE",), ("1",), ("general",))
    with pytest.raises(DataError, match=r"no configuration 'de'; it has en, sw|no configuration 'de'; it has sw, en"):
        source.load("de")
    with pytest.raises(DataError, match=r"no split 'test' \(our 'test'\); it has train"):
        source.load("sw", "test")


def test_on_the_hub_numbers_become_the_names_that_the_catalogue_knows(tmp_path, datasets_cache):
    rows = [{"text": "nzuri sana", "label": 0}, {"text": "sawa", "label": 1}, {"text": "mbaya", "label": 2}]
    write_parquet(tmp_path / "swa" / "train.parquet", rows)
    with_configs(tmp_path, "swa")
    assert on_a_local_hub("afrisenti", tmp_path).load("sw").names() == ["positive", "neutral", "negative"]
    rows[0]["label"] = 3
    write_parquet(tmp_path / "swa" / "train.parquet", rows)
    with pytest.raises(DataError, match="a label is 3, but only 3 label names are known"):
        on_a_local_hub("afrisenti", tmp_path).load("sw")


def test_on_the_hub_mtop_is_read_from_its_plain_files(tmp_path):
    path = tmp_path / "hi" / "validation.jsonl"
    path.parent.mkdir()
    path.write_text('{"id": 7, "text": "namaste", "label": 3, "label_text": "GET_WEATHER"}\n', "utf-8")
    loaded = on_a_local_hub("mtop", tmp_path).load("Hindi", "dev")
    assert (loaded.texts, loaded.names(), loaded.langs) == (("namaste",), ["GET_WEATHER"], ("hi",))


def test_on_the_hub_a_wrong_column_lists_the_columns_found(tmp_path, datasets_cache):
    write_parquet(tmp_path / "plain_text" / "train.parquet", [{"message": "win a prize", "label": "spam"}])
    with_configs(tmp_path, "plain_text")
    with pytest.raises(DataError, match=r"no text column 'sms'; it has message, label"):
        on_a_local_hub("sms-spam", tmp_path).load()


def test_a_hub_id_is_no_name_of_the_catalogue():
    assert isinstance(load_source("mteb/banking77"), HubSource)


def test_nothing_is_fetched_before_texts_are_asked_for():
    for name, entry in catalogue().items():
        if entry.hub is not None:
            source = load_source(name)
            assert source.languages()
            assert source.splits()


@pytest.mark.parametrize(
    ("name", "meant"), [("HWU64", "hwu64"), ("OOS", "clinc150"), ("sms_spam", "sms-spam"), ("x", "x")]
)
def test_names_are_understood_in_other_spellings(name, meant):
    assert known_as(name) == meant


def test_a_name_that_nobody_knows_gets_the_nearest_ones_and_no_wall_of_names():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'massive'.* and \d+ more\.$") as caught:
        catalogue_entry("masive")
    assert len(str(caught.value)) < 1200 and len(caught.value.known) == len(catalogue())
