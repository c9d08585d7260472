"""What ``auto`` holds out of a support set, and what it concludes about its heads."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_views import WAYS, few_of_the_first_class, heads, task
from test_lora import adapted_encoder

from nlpmeta.auto import judging
from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.priors import shipped_priors
from nlpmeta.learners.base import Support, Texts


@pytest.fixture
def adapted():
    return adapted_encoder()


def test_a_class_gives_away_the_lead_that_more_examples_gave_it():
    assert torch.equal(judging.leads(torch.tensor([0, 1, 2, 0, 1, 2]), 3), torch.zeros(3))
    counts = torch.tensor([2, 8, 16, 100])
    labels = torch.arange(4).repeat_interleave(counts)
    expected = 0.75 * torch.tensor([1.0, 4.0, 8.0, 50.0]).log()
    torch.testing.assert_close(judging.leads(labels, 4), expected)


def test_heads_are_judged_with_the_lead_taken_back():
    labels = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    scores = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    judged = judging.CrossValidation.of(["one"], [scores], labels, shipped_priors().two_views)
    adjusted = scores / judged.temperatures[0] - 0.75 * torch.tensor([1.0, 3.0]).log()
    torch.testing.assert_close(judged.held_out[0], adjusted.log_softmax(1))


def test_a_few_held_out_texts_leave_a_known_head_near_its_usual_temperature():
    profile, labels = shipped_priors().two_views, torch.tensor([0, 1, 0, 1])
    free, scores = replace(profile, temperature_strength=0.0), 4 * torch.eye(2)[labels]
    over = {
        which: judging.CrossValidation.of(["logistic", "unknown"], [scores, scores], labels, each).temperatures
        for which, each in {"held": profile, "free": free}.items()
    }
    usual = profile.temperatures_of(2, 2)["logistic"]
    assert abs(math.log2(over["held"][0] / usual)) < abs(math.log2(over["free"][0] / usual)) - 1
    assert over["held"][1] == over["free"][1] == over["free"][0]  # of a head that is not known nothing is usual


def test_a_class_with_few_examples_is_predicted_nearly_as_often_as_the_others(adapted, monkeypatch):
    auto, found = AutoHead(adapted), {}
    for balance in (0.0, judging.BALANCE):
        monkeypatch.setattr(judging, "BALANCE", balance)
        times = 0
        for seed in range(32):
            support, queries, labels = task(2.0, 0.0, lower_signal=2.0, n_shot=9, seed=seed)
            state = auto.adapt(few_of_the_first_class(support, 2))
            times += int((auto.logits(state, queries).argmax(1) == 0).sum())
        found[balance] = times / (32 * int((labels == 0).sum()))  # 1 if predicted as often as it is there
    assert found[0.0] < 0.5  # of the time that it should be
    assert found[judging.BALANCE] > found[0.0] + 0.25


def test_a_class_with_one_text_does_not_keep_the_others_from_being_held_out(adapted):
    auto = AutoHead(adapted)
    uneven = few_of_the_first_class(task(2.0, 2.0, n_shot=40)[0], 1)
    alone = int(torch.nonzero(uneven.labels == 0))
    rows = judging.rows_held_out(uneven.labels).tolist()
    assert rows == [row for row in range(len(uneven)) if row != alone]
    assert any(name.startswith("regularised") for name in auto.heads_for(uneven))
    with torch.no_grad():
        judged = auto.judge(uneven)
        state = auto.adapt_to(uneven, judged)
    assert judged.held_out.shape == (len(judged.heads), len(rows), WAYS)
    assert state["mixture/held_out"].shape == (len(rows),)
    assert float(sum(head.share for head in auto.predictor(state).heads)) == pytest.approx(1.0)


def test_heads_are_judged_again_once_a_lone_text_has_others_of_its_class(adapted):
    auto = AutoHead(adapted)
    whole, _, _ = task(2.0, 2.0, n_shot=9)
    before = auto.adapt(few_of_the_first_class(whole, 1))
    again = auto.readapt(few_of_the_first_class(whole, 8), before)  # not 1.5 times as many, and as many folds
    assert len(again["mixture/held_out"]) == 8 + 27
    earlier = again | {"mixture/judged": again["mixture/judged"][:3]}  # as an earlier release wrote it
    assert len(auto.readapt(whole, earlier)["mixture/held_out"]) == 36


def test_the_temperature_of_the_mixture_is_fitted_and_kept_while_heads_are_not_judged_again(adapted):
    auto = AutoHead(adapted)
    whole, queries, _ = task(1.5, 0.5, n_shot=9)
    before = auto.adapt(few_of_the_first_class(whole, 8))
    kept = before["mixture/temperature"]
    assert float(kept) != pytest.approx(float(auto.priors.temperature.at(35 / WAYS, WAYS)))
    doubled = before | {"mixture/temperature": 2 * kept}
    torch.testing.assert_close(auto.logits(doubled, queries), auto.logits(before, queries) / 2)
    assert torch.equal(auto.readapt(whole, doubled)["mixture/temperature"], 2 * kept)


def test_heads_are_compared_as_if_a_class_with_one_text_did_not_exist():
    labels = torch.tensor([2, 0, 0, 1, 2, 2, 3, 3])  # class 1 has one text
    scores = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    found, own = judging.without_lone(scores, labels)
    assert own.tolist() == [1, 0, 0, 1, 1, 2, 2]
    torch.testing.assert_close(found, scores[:, [0, 2, 3]].log_softmax(1))
    profile, bold = shipped_priors().two_views, scores + torch.tensor([0.0, 9.0, 0.0, 0.0])
    shy = judging.CrossValidation.of(["shy", "bold"], [scores, bold], labels, profile)
    assert shy.temperatures[0] == shy.temperatures[1]  # whatever they say of the class that nothing is known of
    even = torch.arange(4).repeat(2)
    assert judging.without_lone(bold, even[:7])[0].shape == (7, 3)
    assert judging.without_lone(scores.repeat(2, 1)[:8], even)[0].shape == (8, 4)


def test_a_head_that_never_predicts_a_class_with_one_text_has_no_advantage(adapted):
    auto = AutoHead(adapted)
    uneven = few_of_the_first_class(task(2.0, 2.0, n_shot=8)[0], 1)
    shy = torch.randn(24, WAYS, generator=torch.Generator().manual_seed(0))
    bold = shy + torch.tensor([9.0, 0.0, 0.0, 0.0])
    judged = [
        judging.CrossValidation(("logistic", "prototypical"), (1.0, 1.0), torch.stack([shy, each]).log_softmax(2))
        for each in (shy, bold)
    ]
    torch.testing.assert_close(auto.weights(judged[0], uneven), auto.weights(judged[1], uneven))


def test_the_order_of_the_examples_does_not_decide_what_counts(adapted):
    auto = AutoHead(adapted)
    support, query, _ = task(1.0, 0.5, lower_signal=1.0, n_shot=2)
    support = replace(support, texts=tuple(f"text {row}" for row in range(len(support))))
    turned = np.random.default_rng(1).permutation(len(support)).tolist()
    texts = tuple(support.texts[row] for row in turned)
    other = Support(texts, support.features[turned], support.labels[turned], WAYS)
    with torch.no_grad():
        one, two = (auto.adapt_to(each, auto.judge(each)) for each in (support, other))
        assert heads(auto, one) == heads(auto, two)
        torch.testing.assert_close(auto.logits(one, query), auto.logits(two, query), rtol=1e-3, atol=1e-3)


def test_what_is_held_out_of_an_uneven_support_is_in_its_order_and_never_seen(adapted):
    """Each text is scored by a head that knows those of the other fold and the lone one, here prototypes by hand."""
    uneven = few_of_the_first_class(task(2.0, 2.0, n_shot=4)[0], 1)
    head = AutoHead(adapted).candidates["prototypical on frozen"].head
    own = replace(uneven, features=uneven.features[:, : uneven.features.size(1) // 2])
    found, rows = judging.held_out_scores(head, own, 2), judging.rows_held_out(own.labels).tolist()
    fold = judging._folds_of(own, 2).tolist()
    assert fold[int(torch.nonzero(own.labels == 0))] == -1
    for place, row in enumerate(rows):
        rest = torch.tensor([other for other in range(len(own)) if fold[other] != fold[row]])
        known = Support(("",) * len(rest), own.features[rest], own.labels[rest], WAYS)
        expected = head.logits(head.adapt(known), Texts(("",), own.features[row : row + 1]))[0]
        torch.testing.assert_close(found[place], expected)


def test_nothing_is_held_out_where_half_of_the_classes_have_one_text(adapted):
    auto = AutoHead(adapted)
    labels = torch.arange(WAYS).repeat_interleave(torch.tensor([1, 1, 30, 30]))
    features = torch.randn(len(labels), 32, generator=torch.Generator().manual_seed(0))
    half = Support(("",) * len(labels), features, labels, WAYS)
    assert judging.n_folds(half) < 2 and auto.judge(half).held_out is None
    assert not any(name.startswith("regularised") for name in auto.heads_for(half))


def test_heads_are_judged_anew_once_there_are_many_examples(adapted, monkeypatch):
    auto, judged, plain = AutoHead(adapted), [], AutoHead.judge
    monkeypatch.setattr(AutoHead, "judge", lambda self, known: judged.append(len(known)) or plain(self, known))
    before = auto.adapt(task(1.0, 1.0, n_shot=18)[0])
    nearly = auto.readapt(task(1.0, 1.0, n_shot=19)[0], before)
    auto.readapt(task(1.0, 1.0, n_shot=20)[0], nearly)
    assert judged == [18 * WAYS, 20 * WAYS]


def test_the_temperature_is_the_one_that_suits_the_held_out_folds(adapted):
    """Weak evidence must give flat probabilities, strong evidence sharp ones."""
    auto = AutoHead(adapted)
    sure, doubtful = (auto.adapt(task(signal, 0.0, n_shot=10)[0]) for signal in (6.0, 0.7))
    over = [float(state[f"{auto.predictor(state).choice}/scores_over"]) for state in (sure, doubtful)]
    assert over[1] > 2 * over[0]
