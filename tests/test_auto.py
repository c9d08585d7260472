import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from made_views import WAYS, heads, task, words
from test_lora import TEXTS, adapted_encoder

from nlpmeta import FewShotClassifier
from nlpmeta.auto.heads import BY_NAMES, MISLEADING, disbelief, seen
from nlpmeta.auto.method import AutoHead
from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.encoder.merged import INNER
from nlpmeta.encoder.table import EmbeddingStore
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.views import ADAPTED, FROZEN, ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Texts
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.prototypical import PrototypicalNetwork


@pytest.fixture
def adapted():
    return adapted_encoder()


def share_of_frozen(auto, state):
    """The weight of all heads that see the frozen encoder."""
    return sum(float(head.share) for head in auto.predictor(state).heads if FROZEN in head.candidate.scales)


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


def test_heads_that_differ_by_names_alone_are_left_out_without_names(adapted):
    auto = AutoHead(adapted)
    support, _, _ = task(2.0, 0.0, n_shot=5)
    alike = {"logistic without names", *BY_NAMES}
    assert set(auto.candidates) - set(auto.heads_for(support)) == alike
    assert set(auto.heads_for(replace(support, names=words(4.0)))) == set(auto.candidates)


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
