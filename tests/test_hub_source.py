"""``HubSource`` with the real ``datasets`` library: folders, the caches of this machine, and a Hub out of reach."""

import json
import shutil
import socket
import threading
import time
from contextlib import closing

import pytest

from nlpmeta.errors import DataError, DataWarning, NetworkError, NLPMetaError
from nlpmeta.sources import hub as hub_source
from nlpmeta.sources.hub import HubSource
from nlpmeta.sources.loading import load_source
from nlpmeta.storage import hub as calls

COMMIT = "a" * 40


@pytest.fixture(autouse=True)
def caches(tmp_path_factory, monkeypatch):
    """Empty caches, and a network that is not forbidden by a setting: what a new machine has."""
    import datasets
    import huggingface_hub

    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return folder


@pytest.fixture
def unreachable(monkeypatch):
    """A Hub at a port where nobody listens."""
    import huggingface_hub

    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        yield


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def write_repository(folder, *, text="text", label="label"):
    """Two configurations, each with a train split and one with a validation split."""
    for config, words in (("first", ("hello", "bye")), ("second", ("habari", "kwaheri"))):
        rows = [{text: word, label: name} for word, name in zip(words, ("greet", "leave"), strict=True)]
        write_lines(folder / config / "train.jsonl", rows)
    write_lines(folder / "first" / "validation.jsonl", [{text: "good morning", label: "greet"}])
    card = """---
configs:
- config_name: first
  data_files:
  - {split: train, path: first/train.jsonl}
  - {split: validation, path: first/validation.jsonl}
- config_name: second
  data_files:
  - {split: train, path: second/train.jsonl}
---
"""
    (folder / "README.md").write_text(card, "utf-8")
    return folder


def in_the_hub_cache(caches, name, write):
    """Lay out what ``hf download`` leaves behind."""
    repository = caches / "hub" / f"datasets--{name.replace('/', '--')}"
    write(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)


def test_a_folder_with_a_copy_of_a_repository_is_read(tmp_path):
    source = HubSource(str(write_repository(tmp_path)), config="second")
    assert source.load().texts == ("habari", "kwaheri")
    assert source.load().names() == ["greet", "leave"]
    assert tuple(source.splits()) == ("train",)


def test_a_missing_configuration_lists_those_that_there_are(tmp_path):
    name = str(write_repository(tmp_path))
    with pytest.raises(DataError, match=r"has several configurations, so name one with config=…: first, second"):
        HubSource(name).load()
    with pytest.raises(DataError, match=r"no configuration 'third'; it has first, second"):
        HubSource(name, config="third").load()


def test_splits_are_those_of_the_configuration(tmp_path):
    source = HubSource(str(write_repository(tmp_path)), config="first")
    assert source.load(split="dev").texts == source.load(split="validation").texts == ("good morning",)
    with pytest.raises(DataError, match=r"no split 'test'; it has train, validation"):
        source.load(split="test")


def test_a_wrong_column_lists_the_columns_found(tmp_path):
    write_lines(tmp_path / "train.jsonl", [{"said": "hello", "meant": "greet"}])
    with pytest.raises(DataError, match=r"no column that is obviously the text; it has said, meant"):
        HubSource(str(tmp_path)).load()
    with pytest.raises(DataError, match=r"no column 'talk'; it has said, meant"):
        HubSource(str(tmp_path), text_column="talk", label_column="meant").load()
    with pytest.raises(DataError, match=r"no column 'lang'; it has said, meant"):
        HubSource(str(tmp_path), text_column="said", label_column="meant", lang_column="lang").load()
    assert HubSource(str(tmp_path), text_column="said", label_column="meant").load().texts == ("hello",)


def test_integer_labels_become_the_names_that_the_data_set_has(tmp_path):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])}
    )
    rows = {"text": ["win now", "see you", "hidden"], "label": [1, 0, -1]}
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data" / "train.parquet")
    with pytest.warns(DataWarning, match="skipped 1 without a label"):
        loaded = HubSource(str(tmp_path)).load()
    assert loaded.names() == ["spam", "ham"]


def test_integers_without_names_stay_numbers(tmp_path):
    write_lines(tmp_path / "train.jsonl", [{"text": "a b", "label": 10}, {"text": "c d", "label": 2}])
    assert HubSource(str(tmp_path)).load().names() == ["10", "2"]


def test_several_labels_a_row_are_refused(tmp_path):
    write_lines(tmp_path / "train.jsonl", [{"text": "a b", "label": ["x", "y"]}])
    with pytest.raises(DataError, match="a label must be a text or a number"):
        HubSource(str(tmp_path)).load()


def test_optional_columns_come_along(tmp_path):
    rows = [{"text": "hello", "label": "greet", "lang": "en", "domain": "talk", "id": 7, "user": "u", "timestamp": "t"}]
    write_lines(tmp_path / "train.jsonl", rows)
    loaded = HubSource(str(tmp_path)).load()
    assert (loaded.langs, loaded.domains, loaded.ids) == (("en",), ("talk",), ("7",))
    assert (loaded.users, loaded.times) == (("u",), ("t",))


def test_a_changed_file_in_a_folder_is_noticed(tmp_path):
    name = str(write_repository(tmp_path))
    assert HubSource(name, config="second").load().texts == ("habari", "kwaheri")
    write_lines(tmp_path / "second" / "train.jsonl", [{"text": "jambo", "label": "greet"}])
    assert HubSource(name, config="second").load().texts == ("jambo",)


def test_a_damaged_file_is_said_in_one_sentence(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"text": "hello", "label": \n', "utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        HubSource(str(tmp_path)).load()


def test_what_was_prepared_before_is_used_when_the_hub_is_out_of_reach(tmp_path, caches, unreachable):
    """``datasets`` keeps Arrow files under owner___name/configuration/version/commit."""
    import datasets

    write_repository(tmp_path / "tiny")
    datasets.load_dataset(str(tmp_path / "tiny"), "second", cache_dir=str(tmp_path / "prepared"))
    (info,) = (tmp_path / "prepared").rglob("dataset_info.json")
    shutil.copytree(info.parent, caches / "datasets" / "owner___tiny" / "second" / "0.0.0" / COMMIT)
    assert HubSource("owner/tiny", config="second").load().texts == ("habari", "kwaheri")
    assert HubSource("owner/tiny").load().texts == ("habari", "kwaheri")
    assert HubSource("owner/tiny", config="second", revision=COMMIT).load().texts == ("habari", "kwaheri")
    with pytest.raises(NetworkError, match="not in the caches"):
        HubSource("owner/tiny", config="second", revision="b" * 40).load()


def test_what_the_hub_library_downloaded_is_used_when_the_hub_is_out_of_reach(caches, unreachable):
    in_the_hub_cache(caches, "owner/tiny", write_repository)
    assert HubSource("owner/tiny", config="first").load(split="validation").texts == ("good morning",)
    assert HubSource("owner/tiny", config="first", revision=COMMIT).load().texts == ("hello", "bye")


def test_a_single_file_is_taken_from_the_cache_of_the_hub_library(caches, unreachable):
    in_the_hub_cache(caches, "owner/tiny", write_repository)
    path = hub_source.fetch_file("owner/tiny", "first/train.jsonl")
    assert path.read_text("utf-8").startswith('{"text": "hello"')
    with pytest.raises(NetworkError, match="'owner/tiny' could not be fetched"):
        hub_source.fetch_file("owner/tiny", "first/test.jsonl")


def test_an_unreachable_hub_is_said_at_once(unreachable):
    start = time.monotonic()
    with pytest.raises(NetworkError, match=r"'owner/tiny' could not be fetched .* --data-dir"):
        load_source("owner/tiny").load()
    assert time.monotonic() - start < 5


def test_a_hub_that_never_answers_is_given_up_within_five_seconds(monkeypatch):
    import huggingface_hub

    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(NetworkError, match="'owner/tiny'"):
            HubSource("owner/tiny").load()
        assert time.monotonic() - start < 5


def test_a_name_that_takes_for_ever_to_resolve_is_given_up(monkeypatch):
    monkeypatch.setattr(calls, "PROBE_SECONDS", 0.2)
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(30))
    start = time.monotonic()
    with pytest.raises(NetworkError, match="no answer in"):
        HubSource("owner/tiny").load()
    assert time.monotonic() - start < 20  # it did not wait for the answer
    release.set()


def test_a_forbidden_network_is_not_tried(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    with pytest.raises(NetworkError, match="HF_HUB_OFFLINE forbids the network"):
        HubSource("owner/tiny").load()


def test_a_program_that_comes_with_a_data_set_is_not_run(monkeypatch):
    import datasets

    def refuse(*_, **__):
        raise RuntimeError("Dataset scripts are no longer supported, but found tiny.py")

    monkeypatch.setattr(hub_source, "_probe", lambda *_: None)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match="scripts are not executed"):
        HubSource("owner/tiny").load()


@pytest.mark.parametrize(("kind", "said"), [
    ("RepositoryNotFoundError", "There is no data set 'owner/tiny'"),
    ("RevisionNotFoundError", "no revision 'v9'"),
    ("GatedRepoError", "hf auth login"),
    ("HfHubHTTPError", "could not be fetched"),
])  # fmt: skip
def test_what_the_hub_answers_becomes_one_sentence(kind, said, monkeypatch):
    import httpx2
    from huggingface_hub import HfApi, errors

    response = httpx2.Response(404, request=httpx2.Request("GET", "http://hub.example"))

    def answer(*_, **__):
        raise getattr(errors, kind)("no", response=response)

    monkeypatch.setattr(HfApi, "dataset_info", answer)
    with pytest.raises(NLPMetaError, match=said):
        HubSource("owner/tiny", revision="v9").load()


def test_a_name_that_the_hub_cannot_have_is_refused():
    with pytest.raises(DataError, match="There is no data set"):
        HubSource("owner/--tiny--").load()


def test_the_licence_says_where_it_is_stated():
    facts = HubSource("owner/tiny", config="first").facts
    assert "https://huggingface.co/datasets/owner/tiny" in facts.licence
    assert facts.title == "owner/tiny (first)"


def test_options_reach_the_hub_source_by_name():
    source = load_source("owner/tiny", config="second", revision=COMMIT)
    assert isinstance(source, HubSource)
    assert (source.config, source.revision) == ("second", COMMIT)
