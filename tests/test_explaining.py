"""``explain`` and ``nlpmeta predict --why``: what a label hangs on."""

import json

import numpy as np
import pytest
import torch

from nlpmeta import FewShotClassifier, KShotSampler, load_source
from nlpmeta.auto.answers import odds_parts
from nlpmeta.auto.method import AutoHead
from nlpmeta.classifier.explaining import words_in
from nlpmeta.classifier.given import support_of
from nlpmeta.cli import main
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.ridge import RidgeHead


def _cut(text):
    return [text[start:end] for start, end in words_in(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't wake me, at 6:30!", ["Don't", "wake", "me", "at", "6", "30"]),
        ("amka saa kumi-na-moja", ["amka", "saa", "kumi-na-moja"]),
        ("मुझे छह बजे जगाओ", ["मुझे", "छह", "बजे", "जगाओ"]),
        ("打开客厅的灯", ["打开", "客厅", "的灯"]),
        ("テレビを消して", ["テレビ", "を消", "して"]),
        ("ปลุกฉันตอนหกโมง", None),
        ("… !?", []),
    ],
)
def test_words_are_found_in_any_script(text, words):
    found = _cut(text)
    assert "".join(found) == "".join(c for c in text if c not in " …!?,:")
    if words is not None and text != "テレビを消して":
        assert found == words
    assert all(len(each) <= 8 for each in found) or words


HEADS = [  # logistic regression up to where its solver stops, the others up to rounding
    (lambda encoder: LogisticHead(encoder, inverse_penalty=100.0), 2e-2),
    (lambda encoder: LogisticHead(encoder, inverse_penalty=1.0, name_weight=2.0), 1e-3),
    (RidgeHead, 1e-4),
    (PrototypicalNetwork, 1e-4),
    (lambda encoder: PrototypicalNetwork(encoder, metric="cosine", names=True), 1e-4),
]


@pytest.mark.parametrize(("head", "tolerance"), HEADS, ids=["logistic", "names", "ridge", "prototypes", "cosine"])
@pytest.mark.parametrize("weighed", [False, True])
def test_the_parts_of_a_head_sum_to_its_scores_up_to_what_all_texts_share(head, tolerance, weighed, encoder, sampler):
    learner = head(encoder)
    data, weights = sampler.episode(0).support, np.linspace(0.5, 2, 15) if weighed else None
    model = FewShotClassifier(learner).fit(list(data.texts), data.names(), sample_weight=weights)
    support = support_of(learner, model.fitted_.examples, encoder.encode)
    with torch.no_grad():
        queries = model.fitted_.predictor.queries(["ball goal", "rice loan", "team"])
        scores = model.fitted_.predictor.logits(queries)
        left = scores - learner.contributions(model.fitted_.state, support, queries).sum(1)
    assert torch.allclose(left, left[:1].expand_as(left), atol=tolerance * float(scores.abs().max()))


def test_the_parts_of_a_mixture_are_the_slope_of_its_log_odds(encoder, sampler):
    """By finite differences: the scores of all heads with the part of one text a little larger."""
    data = sampler.episode(1).support
    model = FewShotClassifier.adapted(AutoHead(encoder).eval(), data)
    mixture, examples = model.fitted_.predictor, model.fitted_.examples
    support = mixture.learner.known(support_of(mixture.learner, examples, mixture.learner.encoder.encode))
    query = mixture.queries(["ball rice"])
    found = odds_parts(mixture, support, query, 0, 2)
    with torch.no_grad():
        scores, shares, temperature = mixture.parts(query)
        each = [head.candidate.head.contributions(head.state, support, query)[0] for head in mixture.heads]
    parts = torch.stack([part / head.scores_over for part, head in zip(each, mixture.heads, strict=True)]).double()

    def odds(row, more):
        chances = (scores[:, 0].double() + more * parts[:, row]).softmax(1)
        mixed = (shares.double()[:, None] * chances).sum(0).log() / temperature
        return float(mixed[0] - mixed[2])

    assert len(mixture.heads) > 1
    for row in range(len(found)):
        assert float(found[row]) == pytest.approx((odds(row, 1e-4) - odds(row, -1e-4)) / 2e-4, rel=1e-3, abs=1e-4)


@pytest.fixture
def model(encoder_folder, pool):
    return FewShotClassifier(encoder=str(encoder_folder), checkpoint="none").fit(list(pool.texts), pool.names())


def test_the_drop_of_a_word_is_that_of_the_probability_without_it(model):
    found = model.explain("ball bank, Ball")
    whole, bank, ball = model.predict_proba(["ball bank, Ball", "ball , Ball", "bank,"])
    column = model.classes_.tolist().index(found.label)
    assert found.probability == pytest.approx(whole[column], abs=1e-6)
    drops = {each.word: each.drop for each in found.words}
    assert drops == pytest.approx(
        {"ball": whole[column] - ball[column], "bank": whole[column] - bank[column]}, abs=1e-5
    )
    assert {each.word: each.spans for each in found.words}["ball"] == ((0, 4), (11, 15))
    assert [each.drop for each in found.words] == sorted(drops.values(), reverse=True)


def test_examples_of_the_label_speak_for_it_and_those_of_the_runner_up_against(model):
    found = model.explain("goal team")
    assert {each.label for each in found.speak_for(3)} == {found.label}
    assert all(each.log_odds < 0 for each in found.speak_against(3))
    other = model.explain("goal team", label=found.rather)
    assert (other.label, other.rather) == (found.rather, found.label)
    strongest, weakest = found.examples[0], other.examples[-1]
    assert strongest.text == weakest.text
    assert strongest.log_odds == pytest.approx(-weakest.log_odds, rel=1e-3)


def test_examples_against_a_label_come_the_strongest_first(model):
    found = model.explain("goal team")
    against = sorted(each.log_odds for each in found.examples if each.log_odds < 0)
    assert [each.log_odds for each in found.speak_against(3)] == against[:3]
    assert len(against) >= 3


def test_only_the_first_words_of_a_long_text_are_tried_and_a_note_says_so(model, monkeypatch):
    monkeypatch.setattr("nlpmeta.classifier.explaining.MOST_WORDS", 2)
    found = model.explain("ball goal team match")
    assert {each.word for each in found.words} == {"ball", "goal"}
    assert "first 2 of 4 different words" in found.note
    assert model.explain("ball goal").note == ""


def test_what_cannot_be_shown_is_named(model, tmp_path, encoder_folder, pool):
    model.save_pretrained(tmp_path / "bare")
    bare = FewShotClassifier.from_pretrained(tmp_path / "bare").explain("ball goal")
    assert bare.words and not bare.examples and "--include-support" in bare.note
    other = FewShotClassifier("matching", encoder=str(encoder_folder), checkpoint="none")
    other = other.fit(list(pool.texts), pool.names())
    assert "matching cannot say" in other.explain("ball goal").note
    several = FewShotClassifier(encoder=str(encoder_folder), checkpoint="none")
    several.fit(list(pool.texts), [[name] for name in pool.names()], multilabel=True)
    assert several.explain("ball goal").words and "several labels" in several.explain("ball goal").note
    alone = model.explain("ball")
    assert not alone.words and "only word" in alone.note
    for text in ("", "  ", 3):
        with pytest.raises(NLPMetaError):
            model.explain(text)
    with pytest.raises(NLPMetaError, match="zzz"):
        model.explain("ball goal", label="zzz")


def test_the_command_gives_reasons_as_text_and_as_json(model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model", include_support=True)
    folder, texts = str(tmp_path / "model"), ["ball goal team", "rice \x1b[31mloan"]
    assert main(["predict", folder, *texts, "--why", "--json", "-q"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = model.explain(texts[0])
    assert [row["text"] for row in rows] == texts
    assert rows[0]["why"]["words"][0]["word"] == expected.words[0].word
    assert rows[0]["label"] == expected.label == rows[0]["why"]["label"]
    assert main(["predict", folder, *texts, "--why", "-q"]) == 0
    out = capsys.readouterr().out
    assert expected.examples[0].text in out and "\x1b" not in out


@pytest.mark.parametrize(
    "options", [("--top", 2), ("--abstain", 0.9), ("--out-of-scope",), ("--threshold", 0.5), ("--out", "x.csv")]
)
def test_reasons_go_with_no_other_answer(model, tmp_path, capsys, options):
    model.save_pretrained(tmp_path / "model")
    assert main(["predict", str(tmp_path / "model"), "ball goal", "--why", *map(str, options)]) == 2
    assert "--why" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_without_the_named_words_the_label_loses_more_than_without_random_ones_in_9_of_10_texts():
    data = (
        load_source("starter")
        .load("en")
        .with_classes(["alarm_set", "weather", "play_music", "lights", "transfer_money", "book_doctor"])
    )
    episode = KShotSampler(data, n_shot=5, seed=0, max_query=60).episode(0)
    model = FewShotClassifier().fit(list(episode.support.texts), episode.support.names())
    rng, won, tried = np.random.default_rng(0), 0, 0
    for text in episode.query.texts:
        spans = words_in(text)
        named = [span for each in model.explain(text).words[:2] for span in each.spans]
        if len(spans) < len(named) + 2:
            continue
        other = [spans[i] for i in rng.choice(len(spans), len(named), replace=False)]
        first = model.predict_proba([text])[0]
        left = model.predict_proba([_without(text, named), _without(text, other)])[:, first.argmax()]
        won, tried = won + (left[0] < left[1]), tried + 1
    assert tried >= 50
    assert won >= 0.9 * tried, f"{won} of {tried}"


def _without(text, spans):
    return "".join(c for place, c in enumerate(text) if not any(start <= place < end for start, end in spans))
