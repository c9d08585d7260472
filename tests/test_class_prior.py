"""Classes that are not equally frequent where texts are predicted: what is said of that, and what it changes."""

import json

import numpy as np
import pytest
import torch
from conftest import write_table
from several_texts import examples

from nlpmeta import FewShotClassifier
from nlpmeta.auto.heads import TUNED, lead_of
from nlpmeta.auto.mixture import Mixture
from nlpmeta.cli import main
from nlpmeta.data.inputs import carried_class_prior, checked_class_prior, parsed_class_prior, unequally_frequent
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.export.head import linear_heads

PRIOR = {"food": 0.7, "money": 0.2, "sport": 0.1}


@pytest.fixture
def known(encoder, pool):
    return FewShotClassifier(encoder=encoder).fit(pool.texts[::4], pool.names()[::4])


def corrected(probabilities, shares):
    """By hand: Saerens, Latinne and Decaestecker 2002, equation 2.4, from classes that were equally frequent."""
    found = probabilities * shares
    return found / found.sum(1, keepdims=True)


def test_one_head_is_corrected_as_the_paper_has_it(encoder, pool):
    clf = FewShotClassifier.from_names(["ball", "rice", "loan"], encoder=encoder)
    assert len(clf.fitted_.predictor.heads) == 1  # so that heads are mixed after the correction plays no part
    before = clf.predict_proba(pool.texts)
    after = clf.set_class_prior({"ball": 0.6, "loan": 0.3}).predict_proba(pool.texts)
    shares = np.asarray([{"ball": 0.6, "loan": 0.3, "rice": 0.1}[label] for label in clf.classes_])
    np.testing.assert_allclose(after, corrected(before, shares), atol=1e-5)


def test_a_mixture_is_corrected_head_by_head_and_its_temperature_has_no_part_in_it(known, pool):
    mixture = known.fitted_.predictor
    assert len(mixture.heads) > 1
    with torch.no_grad():
        scores, shares, over = mixture.parts(mixture.queries(pool.texts))
    known.set_class_prior(PRIOR)
    log_prior = torch.tensor([PRIOR[label] for label in known.classes_]).log()
    each = (scores + over * log_prior).log_softmax(2).exp()
    by_hand = (torch.einsum("h,hnk->nk", shares, each).log() / over).softmax(1)
    np.testing.assert_allclose(known.predict_proba(pool.texts), by_hand.numpy(), atol=1e-5)


def test_equally_frequent_classes_change_nothing_and_none_takes_it_back(known, pool):
    before = known.predict_proba(pool.texts)
    even = dict.fromkeys(known.classes_.tolist(), 1)
    np.testing.assert_allclose(known.set_class_prior(even).predict_proba(pool.texts), before, atol=1e-6)
    changed = known.set_class_prior(PRIOR).predict_proba(pool.texts)
    assert np.abs(changed - before).max() > 0.05
    assert known.class_prior_ == PRIOR
    assert known.set_class_prior(None).class_prior_ is None
    np.testing.assert_array_equal(known.predict_proba(pool.texts), before)


def test_of_classes_with_more_examples_the_whole_lead_is_taken_back_where_it_is_known_how_often_they_occur():
    lead = 0.75 * torch.tensor([0.0, 2.0])
    state = {"mixture/leads": lead, "mixture/temperature": torch.tensor(2.0)}
    assert torch.equal(lead_of(state), lead)
    prior = {"mixture/class_prior": torch.tensor([0.5, 0.5])}
    torch.testing.assert_close(lead_of(state | prior), torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(lead_of(state | prior, tuned=True), lead)  # what is fine-tuned has no lead to lose
    assert TUNED == "tuned"


def test_texts_out_of_scope_and_explanations_agree_with_it(known, pool):
    texts = pool.texts[:6]
    before, likely = known.out_of_scope(texts), known.predict_proba(texts)
    known.set_class_prior({"money": 0.9999})
    np.testing.assert_array_equal(known.out_of_scope(texts), before)  # rare classes are in scope too
    after = known.predict_proba(texts)
    assert (after - likely)[:, known.classes_.tolist().index("money")].min() > 0
    found = known.explain(texts[0])
    assert found.label == known.predict(texts[:1])[0]
    assert found.probability == pytest.approx(after[0].max(), abs=1e-5)
    sets = known.predict(texts, abstain=0.9)
    assert [each.probabilities[0] for each in sets] == pytest.approx(after.max(1).tolist(), abs=1e-5)


def test_it_is_kept_while_classes_come_go_and_are_renamed_and_fit_begins_anew(known, pool):
    known.set_class_prior(PRIOR)
    assert known.partial_fit(["ball ball"], ["sport"]).class_prior_ == PRIOR
    grown = known.add_class("weather", ["rain", "snow"]).class_prior_
    assert grown == pytest.approx({"food": 0.525, "money": 0.15, "sport": 0.075, "weather": 0.25})
    assert known.rename_class("weather", "sky").class_prior_["sky"] == 0.25
    assert known.remove_class("sky").class_prior_ == pytest.approx(PRIOR)
    assert known.fit(pool.texts[::4], pool.names()[::4]).class_prior_ is None


def test_it_is_saved_with_the_model_and_is_in_its_linear_heads(pool, encoder_folder, tmp_path):
    known = FewShotClassifier(encoder=str(encoder_folder)).fit(pool.texts[::4], pool.names()[::4])
    known.set_class_prior(PRIOR).save_pretrained(tmp_path / "model")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    assert loaded.class_prior_ == PRIOR
    expected = known.predict_proba(pool.texts)
    np.testing.assert_array_equal(loaded.predict_proba(pool.texts), expected)
    heads = linear_heads(loaded.learner_, loaded.state_)  # what exports and compiled encoders predict with
    features = loaded.learner_.encoder.encode(pool.texts)
    np.testing.assert_allclose(heads.probabilities(features).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weather": 0.1}, "names 'weather', which is no class. Classes: food, money, sport"),
        ({"food": 1.2}, "leaves nothing for money, sport: what it names has 1.2 of 1"),
        ({"food": 0}, "must hold positive numbers; that of 'food' is 0"),
        ({"food": float("nan")}, "positive numbers; that of 'food' is nan"),
        ({"food": True}, "positive numbers; that of 'food' is True"),
        ({"food": "0.5"}, "positive numbers; that of 'food' is '0.5'"),
        ({"food": 0.999999}, "gives money, sport less than 1e-05 of 1"),
        ([0.5, 0.5], "takes shares by label, such as {'spam': 0.1}; got list"),
    ],
)
def test_shares_that_are_none_are_refused_and_nothing_is_changed(known, pool, given, said):
    before = known.predict_proba(pool.texts)
    with pytest.raises(DataError, match=said.replace("{", r"\{").replace("(", r"\(")):
        known.set_class_prior(given)
    np.testing.assert_array_equal(known.predict_proba(pool.texts), before)


def test_counts_are_as_good_as_shares_and_what_is_not_named_shares_the_rest():
    assert checked_class_prior({"a": 30, "b": np.int64(10)}, ["a", "b"]) == (0.75, 0.25)
    assert checked_class_prior({2: 0.5}, [1, 2, 3]) == (0.25, 0.5, 0.25)
    assert parsed_class_prior("not spam=0.9, a=b=0.1", word="data", counts={}) == {"not spam": 0.9, "a=b": 0.1}
    assert parsed_class_prior("data", word="data", counts={"a": 3, "b": 0}) == {"a": 3, "b": 1}
    assert carried_class_prior({"a": 0.5, "b": 0.5}, ["a", "b"]) == {"a": 0.5, "b": 0.5}
    assert carried_class_prior({"a": 0.5, "b": 0.5}, ["c", "d"]) == {"c": 0.5, "d": 0.5}
    for wrong in ("spam", "spam=", "=0.1", "spam=x", ""):
        with pytest.raises(DataError, match="--class-prior takes shares such as spam=0.1,ham=0.9, or 'data'; got"):
            parsed_class_prior(wrong, word="data", counts={})


def test_other_methods_and_several_labels_refuse_it(encoder, pool):
    plain = FewShotClassifier("logistic", encoder=encoder).fit(pool.texts[::4], pool.names()[::4])
    with pytest.raises(NLPMetaError, match="class_prior.* is used by the method auto alone"):
        plain.set_class_prior(PRIOR)
    texts, labels = zip(*examples(), strict=True)
    several = FewShotClassifier(encoder=encoder).fit(texts, labels)
    with pytest.raises(NLPMetaError, match="a threshold of its own"):
        several.set_class_prior(PRIOR)
    assert plain.set_class_prior(None).class_prior_ is None


@pytest.mark.parametrize("shares", [[0.5, 0.5, 0.0], [0.5, 0.5, float("inf")], [0.5, 0.5, float("nan")]])
def test_a_state_with_a_number_that_is_no_share_is_no_model(known, shares):
    state = known.state_ | {"mixture/class_prior": torch.tensor(shares)}
    learner = known.learner_
    assert "class_prior holds a number that is no share" in learner.problem_of(state)
    assert isinstance(learner.predictor(known.state_), Mixture)


def test_a_very_rare_class_stays_one_while_others_come(known):
    known.set_class_prior({"food": 0.5, "money": 1.2e-5})
    assert known.add_class("weather", ["rain", "snow"]).class_prior_["money"] == pytest.approx(2e-5, rel=0.1)


def test_a_model_of_an_older_release_whose_mixture_had_no_temperature_takes_it_too(known, pool):
    state = {name: value for name, value in known.state_.items() if name != "mixture/temperature"}
    old = FewShotClassifier.adapted(
        known.learner_, known.examples_.data(), embed=known.learner_.encoder.encode, state=state
    )
    before = old.predict_proba(pool.texts)[:, 0]
    assert (old.set_class_prior({"food": 0.9}).predict_proba(pool.texts)[:, 0] > before).all()


@pytest.fixture
def uneven(tmp_path, pool):
    """Four texts in five are of one class, and no text says of which."""
    texts = [f"{text} {more}" for more in ("", "ball") for text in pool.texts][:60]
    return write_table(tmp_path / "uneven.csv", texts, ["money" if i % 5 == 2 else "food" for i in range(60)])


def test_the_command_scores_and_saves_with_it_and_says_where_it_would_help(run, uneven, tmp_path):
    common = ("adapt", "--data", uneven, "--shots", 2, "--draws", 2, "--json")
    code, out, err = run(*common, "--out", tmp_path / "even")
    assert code == 0
    assert "80 % of the data are 'food'" in err
    assert "--class-prior data" in " ".join(json.loads(out)["notes"])
    plain = json.loads(out)["accuracy"]["mean"]
    code, out, err = run(*common, "--out", tmp_path / "told", "--class-prior", "data")
    assert code == 0
    assert "% of the data are" not in err
    told = json.loads(out)
    assert told["task"]["class_prior"] == "data"
    assert told["accuracy"]["mean"] > plain
    assert FewShotClassifier.from_pretrained(tmp_path / "told").class_prior_ == {"food": 0.8, "money": 0.2}
    assert FewShotClassifier.from_pretrained(tmp_path / "even").class_prior_ is None
    assert "class prior food 0.8, money 0.2" in " ".join(run("info", tmp_path / "told")[1].split())
    assert json.loads(run("info", tmp_path / "told", "--json")[1])["class_prior"] == {"food": 0.8, "money": 0.2}
    assert "class_prior" not in json.loads(run("info", tmp_path / "even", "--json")[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--class-prior", "food"], "--class-prior takes shares such as spam=0.1,ham=0.9, or 'data'; got 'food'"),
        (["--class-prior", "weather=0.5"], "names 'weather', which is no class"),
        (["--class-prior", "food=0.5", "--method", "ridge"], "is used by the method auto alone"),
    ],
)
def test_the_command_refuses_what_says_nothing(run, uneven, tmp_path, arguments, said):
    code, _, err = run("adapt", "--data", uneven, "--shots", 2, "--out", tmp_path / "model", *arguments)
    assert code == 2
    assert said in err
    assert not (tmp_path / "model").exists()


def test_several_labels_on_the_command_line_refuse_it(encoder_folder, tmp_path, capsys):
    rows = [json.dumps({"text": text, "label": labels}) for text, labels in examples() * 3]
    (tmp_path / "tagged.jsonl").write_text("\n".join(rows), encoding="utf-8")
    asked = ["adapt", "--data", str(tmp_path / "tagged.jsonl"), "--encoder", str(encoder_folder)]
    assert main([*asked, "--class-prior", "data"]) == 2
    assert "--class-prior requires one label per text" in capsys.readouterr().err


def test_data_whose_classes_are_about_as_frequent_need_no_note():
    assert unequally_frequent({"a": 40, "b": 30}) is None
    assert unequally_frequent({"a": 20, "b": 2}) is None  # too few to know
    assert unequally_frequent({"a": 90, "b": 30}).startswith("75 % of the data are 'a'")


@pytest.fixture
def saved(pool, encoder_folder, tmp_path):
    known = FewShotClassifier(encoder=str(encoder_folder)).fit(pool.texts[::4], pool.names()[::4])
    known.save_pretrained(tmp_path / "model", include_support=True)
    return tmp_path / "model"


def test_teach_says_it_of_a_saved_model_and_takes_it_back(run, saved, pool):
    code, out, _ = run("teach", saved, "--class-prior", "food=0.7,money=0.2,sport=0.1")
    assert code == 0 and "occur: food 70 %, money 20 %, sport 10 %\nSaved:" in out
    changed = FewShotClassifier.from_pretrained(saved)
    assert changed.class_prior_ == PRIOR and len(changed.examples_.texts) == len(pool.texts[::4])
    code, out, _ = run("teach", saved, "a new ball", "--label", "sport", "--json")
    assert code == 0 and json.loads(out)["class_prior"] == PRIOR
    code, out, _ = run("teach", saved, "--class-prior", "even")
    assert code == 0 and "occur: equally often" in out
    assert FewShotClassifier.from_pretrained(saved).class_prior_ is None
    assert len(FewShotClassifier.from_pretrained(saved).examples_.texts) == len(pool.texts[::4]) + 1


def test_teach_says_it_of_a_model_without_its_examples_and_of_labels_that_are_numbers(
    run, pool, encoder_folder, tmp_path
):
    numbers = [sorted(PRIOR).index(name) for name in pool.names()[::4]]
    clf = FewShotClassifier(encoder=str(encoder_folder)).fit(pool.texts[::4], numbers)
    clf.save_pretrained(tmp_path / "bare")
    assert run("teach", tmp_path / "bare", "--class-prior", "1=0.5,0=0.4")[0] == 0
    assert FewShotClassifier.from_pretrained(tmp_path / "bare").class_prior_ == {0: 0.4, 1: 0.5, 2: 0.1}


@pytest.mark.parametrize(
    ("asked", "said"),
    [("data", "shares such as spam=0.1,ham=0.9, or 'even'; got 'data'"), ("tea=0.1", "which is no class")],
)
def test_teach_refuses_what_says_nothing_and_changes_nothing(run, saved, asked, said):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    code, _, err = run("teach", saved, "a new ball", "--label", "sport", "--class-prior", asked)
    assert code == 2 and said in err
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
