"""The card that a saved model has: what it says and does not, and that what its author writes there stays."""

import json

import pytest

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.sharing import PLACE
from nlpmeta.storage.folders import CARD_FILE, foreign_entry
from nlpmeta.storage.manifest import MANIFEST, read_manifest, write_manifest

REPORT = {
    "data": "/home/somebody/mine.csv",
    "n_support": 6,
    "n_shot": 3,
    "scored": "5 draws, 40 texts",
    "scored_on": "the rest of the data",
    "accuracy": {"mean": 0.812, "ci95": 0.03},
    "task_report": {"doubtful_labels": [["a secret", "x", "y"]], "warnings": ["few examples"]},
}


@pytest.fixture
def classifier(encoder_folder, pool):
    return FewShotClassifier("prototypical", encoder=str(encoder_folder)).fit(pool.texts, list(pool.names()))


@pytest.fixture
def model(classifier, tmp_path):
    classifier.save_pretrained(tmp_path / "my-secret-project", report=REPORT)
    return tmp_path / "my-secret-project"


def card_of(folder):
    return (folder / CARD_FILE).read_text(encoding="utf-8")


def test_a_saved_model_has_a_card_with_its_figures_and_classes(model, pool):
    card = card_of(model)
    assert f"# {PLACE}" in card and "| this model | 81.2 ± 3.0 |" in card and "few examples" in card
    assert all(name in card for name in pool.label_names)


def test_the_card_tells_nothing_of_the_machine_its_files_or_its_examples(model, pool, encoder_folder):
    card = card_of(model)
    told = [str(encoder_folder), "/home/", "mine.csv", str(model.parent), model.name, "secret", *pool.texts]
    assert [each for each in told if each in card] == []


def test_an_example_is_quoted_where_the_examples_lie_in_the_same_folder(classifier, pool, tmp_path):
    classifier.save_pretrained(tmp_path / "model", include_support=True)
    assert any(f'nlpmeta predict {PLACE} "{text}"' in card_of(tmp_path / "model") for text in pool.texts)


def test_a_card_may_be_changed_or_removed_and_the_model_still_loads(model):
    assert CARD_FILE not in read_manifest(model)["files"]
    (model / CARD_FILE).write_text("Mine.")
    FewShotClassifier.from_pretrained(model)
    (model / CARD_FILE).unlink()
    FewShotClassifier.from_pretrained(model)


def test_a_later_save_replaces_our_card_and_keeps_one_that_was_changed(classifier, model):
    classifier.save_pretrained(model, overwrite=True)
    assert "Nothing was measured" in card_of(model) and foreign_entry(model) is None
    (model / CARD_FILE).write_text("Mine, with ünïcode.\n", encoding="utf-8")
    for _ in range(2):
        classifier.save_pretrained(model, overwrite=True, report=REPORT)
        assert card_of(model) == "Mine, with ünïcode.\n"


def test_a_card_beside_a_model_without_one_is_its_author_s(classifier, model):
    facts = json.loads((model / MANIFEST).read_text())
    del facts["card"]  # as an older release wrote it
    (model / MANIFEST).write_text(json.dumps(facts))
    (model / CARD_FILE).write_text("Mine.")
    classifier.save_pretrained(model, overwrite=True)
    assert card_of(model) == "Mine."


def test_a_card_that_is_changed_while_the_model_is_saved_is_not_lost(classifier, model, monkeypatch):
    import nlpmeta.sharing

    real = nlpmeta.sharing.gather

    def slow(folder, **options):
        (model / CARD_FILE).write_text("Mine.")
        return real(folder, **options)

    monkeypatch.setattr(nlpmeta.sharing, "gather", slow)
    with pytest.raises(NLPMetaError, match=CARD_FILE):
        classifier.save_pretrained(model, overwrite=True)
    assert card_of(model) == "Mine."


def test_a_card_that_cannot_be_made_leaves_the_old_model(classifier, model, monkeypatch):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    monkeypatch.setattr("nlpmeta.sharing.card", lambda *_: (_ for _ in ()).throw(ModelFolderError("no card")))
    with pytest.raises(ModelFolderError):
        classifier.save_pretrained(model, overwrite=True)
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]


@pytest.fixture
def named(model):
    """The model with the id of an encoder of the Hub, so that it can be planned for a push."""
    facts = json.loads((model / MANIFEST).read_text())
    facts["encoder"]["id"] = "user/encoder"
    (model / MANIFEST).write_text(json.dumps(facts))
    return model


def test_a_dry_run_shows_the_card_that_the_author_changed(named, capsys):
    (named / CARD_FILE).write_text(card_of(named).replace("## Classes", "For our help desk.\n\n## Classes"))
    assert main(["push", str(named), "me/tickets", "--dry-run", "--licence", "mit", "--lang", "sw"]) == 0
    said = capsys.readouterr()
    assert "For our help desk." in said.out and "# me/tickets" in said.out and PLACE not in said.out
    assert "license: mit" in said.out and "- sw" in said.out
    assert "changed" in said.err


def test_a_changed_card_that_quotes_an_example_is_not_pushed_without_the_examples(pool, named, capsys):
    facts = json.loads((named / MANIFEST).read_text())
    (named / "support.json").write_text(json.dumps({"texts": list(pool.texts)}))
    (named / CARD_FILE).unlink()
    (named / MANIFEST).unlink()
    write_manifest(named, {name: facts[name] for name in ("kind", "learner", "encoder", "card")})
    (named / CARD_FILE).write_text(f'Try "{pool.texts[1]}".')
    assert main(["push", str(named), "me/tickets", "--dry-run"]) == 2
    assert pool.texts[1] in capsys.readouterr().err
    (named / CARD_FILE).write_text("---\na: [\n---\n")
    assert main(["push", str(named), "me/tickets", "--dry-run"]) == 2
    assert "cannot be read" in capsys.readouterr().err
