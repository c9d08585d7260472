"""Recurrent meta-learners: the same one by one as all at once, and they learn to learn."""

import pytest
import torch
from conftest import make_encoder
from stream_tasks import recall, streams, train

from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.mann import MemoryAugmentedNetwork
from nlpmeta.learners.recurrent import AttentiveMetaLearner, RecurrentMetaLearner
from nlpmeta.learners.start import check_meta_trained

KINDS = {
    "rnn": lambda **options: RecurrentMetaLearner(make_encoder(), max_way=8, hidden=64, **options),
    "attention by a switch": lambda **options: RecurrentMetaLearner(
        make_encoder(), attention=True, max_way=8, hidden=64, **options
    ),
    "snail": lambda **options: AttentiveMetaLearner(make_encoder(), max_way=8, hidden=64, **options),
    "mann": lambda **options: MemoryAugmentedNetwork(make_encoder(), max_way=8, rows=32, training_rows=32, **options),
}


def built(kind, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return KINDS[kind](**options)


def step_by_step(learner, features, slots, codes):
    memory = {name: value.expand(len(features), *value.shape[1:]) for name, value in learner.blank().items()}
    scores = []
    for step in range(features.size(1)):
        looked = learner.look(memory, features[:, step], codes, slots[:, step])
        scores.append(looked.scores)
        memory = looked.memory
    return torch.stack(scores, dim=1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("context", [5, 512])
@torch.no_grad()
def test_streams_at_once_score_as_texts_one_by_one(kind, context):
    if kind in ("rnn", "mann") and context != 512:
        pytest.skip("has no window")
    learner = built(kind, **({} if kind == "mann" else {"context": context})).eval()
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(3, 12, 16, generator=generator)
    slots = torch.arange(12).remainder(4).expand(3, 12)
    codes = learner.codes[:4].expand(3, 4, -1)
    at_once = learner.run(features, slots, codes)
    torch.testing.assert_close(step_by_step(learner, features, slots, codes), at_once, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_no_text_hears_of_its_own_label_or_of_what_comes_after():
    for kind in KINDS:
        learner = built(kind).eval()
        features = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(2))
        slots = torch.tensor([[0, 1, 2, 0, 1, 2, 0, 1]])
        other = slots.clone()
        other[0, 4:] = torch.tensor([2, 0, 1, 2])
        codes = learner.codes[:3].expand(1, 3, -1)
        one, two = learner.run(features, slots, codes), learner.run(features, other, codes)
        assert torch.equal(one[:, :5], two[:, :5]), kind
        if kind != "mann":  # whose answers hang on its rows alone before it is trained
            assert not torch.allclose(one[:, 5:], two[:, 5:]), kind


@torch.no_grad()
def test_attention_forgets_what_lies_beyond_its_window():
    learner = built("snail", context=4).eval()
    features = torch.randn(1, 10, 16, generator=torch.Generator().manual_seed(3))
    codes, slots = learner.codes[:2].expand(1, 2, -1), torch.arange(10).remainder(2).expand(1, 10)
    changed = features.clone()
    changed[:, 0] += 1
    # Two blocks, each with a window of 4: what lies more than 8 texts back cannot be felt.
    one, two = (learner.run(each, slots, codes)[0] for each in (features, changed))
    assert torch.equal(one[9], two[9])
    assert not torch.allclose(one[4], two[4])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "n_way", "steps", "rate", "least"), [("snail", 3, 160, 2e-3, 0.9), ("rnn", 2, 600, 2e-3, 0.65)]
)
def test_meta_training_teaches_them_to_learn(kind, n_way, steps, rate, least):
    shape = {"n_way": n_way, "n_each": 6, "noise": 0.3}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = train(built(kind, dropout=0.0), steps=steps, rate=rate, per_step=16, **shape)
    assert recall(built(kind), **shape) < 1 / n_way + 0.08
    assert recall(learner, **shape) > least
    tasks = streams(40, seed=77, **shape)
    right = [learner.logits(learner.adapt(support), query).argmax(1) == query.labels for support, query in tasks]
    assert torch.cat(right).float().mean() > least - 0.05


def test_what_was_never_meta_trained_is_refused_before_work(tmp_path):
    with pytest.raises(NLPMetaError, match="snail needs meta-training"):
        check_meta_trained(built("snail"), "snail", None)
    check_meta_trained(built("mann"), "mann", None)
