import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_lora import TEXTS, adapted_encoder

from nlpmeta import FewShotClassifier
from nlpmeta.auto import judging
from nlpmeta.auto.heads import BY_NAMES, MISLEADING, disbelief, seen
from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.priors import shipped_priors
from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.encoder.merged import INNER
from nlpmeta.encoder.table import EmbeddingStore
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.views import ADAPTED, FROZEN, ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork

WAYS = 4


@pytest.fixture
def adapted():
    return adapted_encoder()


def task(adapted_signal, frozen_signal, *, lower_signal=0.0, n_shot=6, dim=16, names=None, seed=0):
    """Support and query whose three views tell the classes apart as well as the signals are strong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(WAYS).repeat_interleave(n_shot + 10)

    def view(signal):
        noise = torch.randn(len(labels), dim, generator=generator)
        return torch.nn.functional.normalize(noise + signal * torch.eye(WAYS, dim)[labels], dim=1)

    features = torch.cat([view(signal) for signal in (adapted_signal, frozen_signal, lower_signal)], dim=1)
    in_support = torch.arange(len(labels)) % (n_shot + 10) < n_shot
    n = int(in_support.sum())
    support = Support(("",) * n, features[in_support], labels[in_support], WAYS, names)
    return support, Texts(("",) * (len(labels) - n), features[~in_support]), labels[~in_support]


def share_of_frozen(auto, state):
    """The weight of all heads that see the frozen encoder."""
    return sum(float(head.share) for head in auto.predictor(state).heads if FROZEN in head.candidate.scales)


def heads(auto, state):
    """The names of the heads in a state."""
    return [head.name for head in auto.predictor(state).heads]


def words(signal, dim=16):
    one = torch.nn.functional.normalize(torch.eye(WAYS, dim) * signal + 0.01, dim=1)
    return Texts(tuple("wxyz"), torch.cat([one, one, one], dim=1))


def test_views_are_the_adapted_and_the_frozen_embeddings_side_by_side(adapted):
    views = ScaledEncoder(adapted)
    frozen = adapted.merged(0.0).encode(TEXTS)
    torch.testing.assert_close(views.encode(TEXTS), torch.cat([adapted.encode(TEXTS), frozen], dim=1))
    assert not torch.allclose(frozen, adapted.encode(TEXTS))
    torch.testing.assert_close(views.encode(TEXTS)[:, views.columns(FROZEN)], views.select([FROZEN]).encode(TEXTS))
    assert views.encode([]).shape == (0, views.dim)


def test_stored_embeddings_of_one_view_are_not_taken_for_those_of_another(adapted, encoder_folder, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    encoder.requires_grad_(False)
    encoders = [encoder, ScaledEncoder(encoder), ScaledEncoder(encoder, [ADAPTED]), ScaledEncoder(encoder, [FROZEN])]
    stores = [EmbeddingStore.of(each, tmp_path) for each in encoders]
    assert len({store.path for store in stores}) == len(stores)


def test_the_frozen_encoder_is_taken_where_the_adapters_did_harm(adapted):
    auto = AutoHead(adapted)
    support, queries, labels = task(0.0, 2.5, n_shot=12)
    state = auto.adapt(support)
    assert "frozen" in auto.predictor(state).choice
    assert share_of_frozen(auto, state) > 0.9
    assert float((auto.logits(state, queries).argmax(1) == labels).float().mean()) > 0.75  # chance is 0.25


def test_the_frozen_encoder_is_not_even_computed_where_it_adds_nothing(adapted):
    auto = AutoHead(adapted)
    support, queries, _ = task(4.0, 0.0, n_shot=4)
    for known in (support, replace(support, names=words(4.0))):
        state = auto.adapt(known)
        assert auto.predictor(state).scales == (ADAPTED,)
        torch.testing.assert_close(sum(float(state[f"{name}/share"]) for name in heads(auto, state)), 1.0)
        only = Texts(queries.texts, queries.features[:, auto.encoder.columns(ADAPTED)])
        torch.testing.assert_close(auto.logits(state, only), auto.logits(state, queries))


def test_scores_are_the_logarithm_of_the_weighted_mean_of_the_heads_probabilities(adapted):
    auto = AutoHead(adapted)
    support, queries, _ = task(1.5, 1.5, n_shot=5)
    state = auto.adapt(support)
    assert len(heads(auto, state)) > 1
    total = 0.0
    for name in heads(auto, state):
        candidate = auto.candidates[name]
        inner = candidate.head.adapt(seen(auto.encoder, support, candidate))
        features = torch.cat([queries.features[:, auto.encoder.columns(scale)] for scale in candidate.scales], dim=1)
        scores = candidate.head.logits(inner, Texts(queries.texts, features)) / state[f"{name}/scores_over"]
        total = total + state[f"{name}/share"] * scores.softmax(1)
    torch.testing.assert_close(auto.logits(state, queries) * state["mixture/temperature"], total.log())


def few_of_the_first_class(support, n_shot):
    """The support with ``n_shot`` texts of class 0 and all of the others."""
    of_first = torch.cumsum(support.labels == 0, 0)
    kept = (support.labels != 0) | (of_first <= n_shot)
    return Support(("",) * int(kept.sum()), support.features[kept], support.labels[kept], WAYS, support.names)


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


def test_heads_that_differ_by_names_alone_are_left_out_without_names(adapted):
    auto = AutoHead(adapted)
    support, _, _ = task(2.0, 0.0, n_shot=5)
    alike = {"logistic without names", *BY_NAMES}
    assert set(auto.candidates) - set(auto.heads_for(support)) == alike
    assert set(auto.heads_for(replace(support, names=words(4.0)))) == set(auto.candidates)


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


def test_the_order_of_a_state_does_not_change_a_bit(adapted):
    auto = AutoHead(adapted)
    for seed in range(5):
        support, queries, _ = task(1.5, 1.5, n_shot=5, seed=seed)
        state = auto.adapt(support)
        assert len(heads(auto, state)) > 1
        backwards = dict(reversed(state.items()))  # a file of tensors has no order
        assert heads(auto, backwards) == heads(auto, state)
        assert torch.equal(auto.logits(backwards, queries), auto.logits(state, queries))


def test_with_one_shot_the_weights_are_those_of_the_priors(adapted):
    auto = AutoHead(adapted)
    support, _, _ = task(4.0, 0.0, n_shot=1)
    state = auto.adapt(replace(support, names=words(4.0)))
    prior = dict(zip(auto.candidates, auto.priors.prior_of(list(auto.candidates), 1, WAYS).tolist(), strict=True))
    kept = {name: prior[name] for name in heads(auto, state)}
    for name, weight in kept.items():
        assert float(state[f"{name}/share"]) == pytest.approx(weight / sum(kept.values()), rel=1e-5)
        assert float(state[f"{name}/scores_over"]) == pytest.approx(auto.priors.temperatures_of(1, WAYS)[name])


def test_the_better_names_find_held_out_texts_the_more_the_heads_count_that_trust_them(adapted):
    auto, found = AutoHead(adapted), {}
    for blur in (0.0, 0.3, 1.0):
        for seed in range(6):
            support, _, _ = task(2.0, 0.0, n_shot=5, seed=seed)
            random = torch.randn(WAYS, 16, generator=torch.Generator().manual_seed(seed))
            rows = F.normalize(words(4.0).features[:, :16] + blur * random, dim=1)
            named = replace(support, names=Texts(tuple("wxyz"), torch.cat([rows, rows, rows], dim=1)))
            state = auto.adapt(named)
            share = sum(float(state.get(f"{name}/share", 0.0)) for name in BY_NAMES)
            found[blur] = found.get(blur, 0.0) + share / 6
    assert found[0.0] > found[0.3] + 0.2 > found[1.0] + 0.2
    assert found[0.0] > 0.5


def test_names_that_find_texts_better_than_few_examples_do_make_answers_right(adapted, monkeypatch):
    auto, right = AutoHead(adapted), {}
    for trusting in (True, False):
        if not trusting:
            monkeypatch.setattr(auto, "candidates", {n: c for n, c in auto.candidates.items() if n not in BY_NAMES})
        for seed in range(6):
            support, queries, labels = task(1.5, 0.0, n_shot=5, seed=seed)
            state = auto.adapt(replace(support, names=words(4.0)))
            hits = (auto.logits(state, queries).argmax(1) == labels).float().mean()
            right[trusting] = right.get(trusting, 0.0) + float(hits) / 6
    assert right[True] > right[False] + 0.03


def test_with_one_shot_names_that_contradict_the_examples_are_not_read(adapted):
    auto = AutoHead(adapted)
    support, queries, _ = task(4.0, 0.0, n_shot=1)
    turned = replace(support, names=Texts(tuple("wxyz"), words(4.0).features.roll(1, dims=0)))
    without, believed = auto.adapt(support), auto.adapt(replace(support, names=words(4.0)))
    torch.testing.assert_close(auto.logits(auto.adapt(turned), queries), auto.logits(without, queries))
    assert not torch.allclose(auto.logits(believed, queries), auto.logits(without, queries))


def test_names_that_miss_one_example_of_few_are_still_read(adapted):
    """A single text can be far from its name by chance; two classes at one shot are only two texts."""
    auto = AutoHead(adapted)
    support, queries, _ = task(4.0, 0.0, n_shot=1)
    half_right = words(4.0).features.clone()
    half_right[:2] = 0.5 * (half_right[:2] + half_right[:2].flip(0)) + 0.01 * half_right[:2].flip(0)
    named = replace(support, names=Texts(tuple("wxyz"), half_right))
    assert float(disbelief(auto.as_first_seen(named), auto.names_over(named.n_way))) < MISLEADING
    with_names, without = (auto.logits(auto.adapt(each), queries) for each in (named, support))
    assert not torch.allclose(with_names, without)


def test_disbelief_is_the_log_likelihood_ratio_of_chance_to_the_names(adapted):
    auto = AutoHead(adapted)
    support, _, _ = task(4.0, 0.0, n_shot=1)
    known = replace(support, names=words(4.0))
    first = auto.as_first_seen(known)
    rows, names = (F.normalize(each.features, dim=1) for each in (first, first.names))
    loss = F.cross_entropy(rows @ names.T / 0.3, first.labels, reduction="sum")
    assert disbelief(first, 0.3) == pytest.approx(float(loss) - len(rows) * math.log(WAYS), rel=1e-5)
    assert disbelief(support, 0.3) == 0.0


def test_a_model_with_one_head_of_an_older_release_still_predicts(adapted):
    auto = AutoHead(adapted)
    support, queries, labels = task(4.0, 0.0)
    candidate = auto.candidates["logistic"]
    inner = candidate.head.adapt(seen(auto.encoder, support, candidate))
    old = {f"logistic/{key}": value for key, value in {**inner, "scores_over": torch.tensor(2.0)}.items()}
    features = queries.features[:, auto.encoder.columns(ADAPTED)]
    expected = candidate.head.logits(inner, Texts(queries.texts, features)) / 2.0
    torch.testing.assert_close(auto.logits(old, queries).softmax(1), expected.softmax(1))
    assert float((auto.logits(old, queries).argmax(1) == labels).float().mean()) > 0.9


@pytest.mark.parametrize("n_shot", [19, 20])
def test_from_twenty_examples_a_class_on_there_are_heads_that_are_regularised_more(adapted, n_shot):
    auto = AutoHead(adapted)
    support, queries, labels = task(2.0, 2.0, n_shot=n_shot)
    names = {name for name in auto.heads_for(support) if name.startswith("regularised")}
    views = {"on both": (ADAPTED, FROZEN), "on frozen": (FROZEN,), "on lower layers": (INNER,)} if n_shot == 20 else {}
    assert names == {f"regularised logistic {which}" for which in views}
    state = auto.adapt(support)
    for name in names & set(heads(auto, state)):
        scales = views[name.removeprefix("regularised logistic ")]
        features = torch.cat([support.features[:, auto.encoder.columns(scale)] for scale in scales], dim=1)
        expected = LogisticHead(adapted, inverse_penalty=3.0).adapt(replace(support, features=features, names=None))
        torch.testing.assert_close(state[f"{name}/weight"], expected["weight"])
    assert bool(names & set(heads(auto, state))) == (n_shot == 20)  # noise that is as loud as the classes wants them
    assert float((auto.logits(state, queries).argmax(1) == labels).float().mean()) > 0.5


def test_an_encoder_without_adapters_has_one_head_that_is_regularised_more(encoder):
    auto = AutoHead(encoder)
    support, _, _ = task(1.0, 1.0, n_shot=20)
    one = replace(support, features=support.features[:, : support.features.size(1) // 3])
    assert [name for name in auto.heads_for(one) if name.startswith("regularised")] == ["regularised logistic"]
    with torch.no_grad():
        shares = auto.weights(auto.judge(one), one)
    assert float(shares.sum()) == pytest.approx(1.0) and bool((shares >= 0).all())


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


def test_only_the_views_that_are_read_are_computed_for_a_prediction(adapted, monkeypatch):
    auto = AutoHead(adapted)
    state = auto.adapt(task(0.0, 6.0, n_shot=12)[0])
    assert FROZEN in auto.predictor(state).scales
    computed = []
    plain = ScaledEncoder.embed_tokens
    note = lambda self, *a, **k: computed.append(self.scales) or plain(self, *a, **k)  # noqa: E731
    monkeypatch.setattr(ScaledEncoder, "embed_tokens", note)
    few = auto.predictor(state).queries(TEXTS)
    assert computed == [auto.predictor(state).scales]
    whole = Texts(tuple(TEXTS), auto.encoder.encode(TEXTS))
    torch.testing.assert_close(auto.logits(state, few), auto.logits(state, whole))
    torch.testing.assert_close(auto.logits(state, Texts(tuple(TEXTS))), auto.logits(state, whole))


def test_what_a_prototypical_network_learned_is_taken_over(adapted):
    trained = PrototypicalNetwork(adapted, metric="cosine", temperature=0.07, names=True, name_weight=1.5)
    assert AutoHead.on(trained).config() == pytest.approx({"temperature": 0.07, "name_weight": 1.5})


def test_a_state_with_an_unknown_head_says_so(adapted):
    with pytest.raises(NLPMetaError, match=r"head 'oracle'.*Adapt it again"):
        AutoHead(adapted).logits({"oracle/weight": torch.ones(2, 2)}, Texts(("a",)))


def test_the_baseline_of_a_trial_is_the_frozen_encoder(adapted, pool):
    from nlpmeta.encoder.table import EmbeddingTable
    from nlpmeta.episodes.kshot import KShotSampler
    from nlpmeta.evaluation.trial import Stopwatch, Task, run_trial

    def baseline(learner):
        sampler = KShotSampler(pool, n_shot=3, seed=0)
        table = EmbeddingTable(learner.encoder)
        trial = run_trial(learner, Task.of(sampler, n_draws=2, seed=0), method="m", table=table, watch=Stopwatch())
        return torch.cat([score.probabilities for score in trial.baseline.scores])

    from conftest import make_encoder

    plain = baseline(PrototypicalNetwork(make_encoder()))
    torch.testing.assert_close(baseline(AutoHead(adapted)), plain, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(baseline(PrototypicalNetwork(adapted)), plain, atol=1e-4, rtol=1e-3)


def test_an_adapted_model_reads_the_names_of_its_classes(encoder, pool):
    texts, labels = pool.texts[::3], pool.names()[::3]
    named = FewShotClassifier(PrototypicalNetwork(encoder, names=True)).fit(texts, labels)
    plain = FewShotClassifier(PrototypicalNetwork(encoder)).fit(texts, labels)
    numbered = FewShotClassifier(PrototypicalNetwork(encoder, names=True)).fit(texts, [len(x) for x in labels])
    assert not torch.allclose(named.state_["prototypes"], plain.state_["prototypes"])
    assert numbered.learner_.reads_names
