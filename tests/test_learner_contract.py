"""Every registered learner must pass these checks; a new learner is picked up by itself."""

import copy

import pytest
import torch
from conftest import make_encoder

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.learners.base import Learner, Support, Texts, learners


def every_subclass(kind):
    return {each for child in kind.__subclasses__() for each in {child, *every_subclass(child)}}


def concrete(kinds):
    return {kind for kind in kinds if not getattr(kind, "__abstractmethods__", None) and "nlpmeta." in kind.__module__}


def test_every_learner_class_is_registered():
    names = list(learners)
    assert concrete(every_subclass(Learner)) == set(learners.values())
    assert all(learners.name_of(learners[name]) == name for name in names)


@pytest.fixture(params=sorted(learners))
def learner(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return learners[request.param](make_encoder(dropout=0.0)).eval()


def sides(learner, episode):
    """Support and query of an episode, with features computed by the learner's own encoder where it takes them."""
    return Support.of(episode.support), Support.of(episode.query)


def test_can_be_built_from_an_encoder_alone(learner):
    assert isinstance(learner, Learner)


def test_logits_have_one_row_per_text_and_one_column_per_label(learner, sampler):
    support, query = sides(learner, sampler.episode(0))
    logits = learner.logits(learner.adapt(support), query)
    assert logits.shape == (15, 3)
    assert logits.isfinite().all()


def test_adapting_changes_nothing_in_the_learner_and_repeats_exactly(learner, sampler):
    before = copy.deepcopy(learner.state_dict())
    support, _ = sides(learner, sampler.episode(0))
    first, second = learner.adapt(support), learner.adapt(support)
    torch.testing.assert_close(learner.state_dict(), before, rtol=0, atol=0)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_the_state_is_named_tensors_alone(learner, sampler):
    state = learner.adapt(sides(learner, sampler.episode(0))[0])
    assert state
    assert all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items())


def test_embeddings_that_come_along_give_the_same_scores(learner, sampler):
    if learner.inputs != "embeddings":
        pytest.skip("takes tokens, not embeddings")
    episode = sampler.episode(0)
    own = learner.logits(learner.adapt(Support.of(episode.support)), Texts(episode.query.texts))
    support, query = (learner.encoder(part.texts) for part in (episode.support, episode.query))
    given = learner.logits(learner.adapt(Support.of(episode.support, support)), Texts(episode.query.texts, query))
    torch.testing.assert_close(given, own, rtol=0, atol=0)


def test_every_weight_of_a_trainable_learner_gets_a_gradient(learner, sampler):
    if not learner.differentiable:
        pytest.skip("is not meta-trained")
    if learner.gradient_in_adapt:  # what it trains are adapters
        add_adapter(learner.encoder, AdapterSettings(rank=2), seed=0)
        learner = type(learner)(learner.encoder)
    else:
        learner.encoder.requires_grad_(True)
    for index in range(2):  # adapters start with a zero factor, whose partner has no gradient before the first step
        learner.zero_grad()
        learner.episode_loss(*sides(learner, sampler.episode(index))).backward()
        with torch.no_grad():
            for weight in learner.parameters():
                if weight.grad is not None:
                    weight -= 0.1 * weight.grad
    unused = {"encoder.backbone.embeddings.token_type_embeddings.weight"}
    missing = [name for name, w in learner.named_parameters() if w.requires_grad and w.grad is None]
    missing = [name for name in missing if name not in unused]
    assert not missing


def test_beats_chance_on_a_separable_task(learner, sampler):
    if learner.needs_meta_training:
        pytest.skip("does so once it was meta-trained: tests/test_recurrent.py")
    episode = sampler.episode(1)
    classifier = FewShotClassifier(learner).fit(episode.support.texts, episode.support.names())
    right = (classifier.predict(list(episode.query.texts)) == episode.query.names()).sum()
    assert right > 10  # of 15; chance is 5


def test_ragged_supports_are_taken(learner, pool):
    rows = [0, 1, 2, 16, 17, 32]  # three, two and one text of the three classes
    support = Support.of(pool.select(rows))
    assert learner.logits(learner.adapt(support), Texts(pool.texts[:4])).shape == (4, 3)


def test_the_order_of_the_support_does_not_matter(learner, sampler):
    if getattr(learner, "order_matters", False):
        pytest.skip("reads its support in order")
    episode = sampler.episode(2)
    turned = episode.support.select(list(reversed(range(len(episode.support)))))
    queries = Texts(episode.query.texts)
    one, two = (learner.logits(learner.adapt(Support.of(s)), queries) for s in (episode.support, turned))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3)


def test_config_rebuilds_the_learner(learner):
    again = type(learner)(learner.encoder, **learner.config())
    assert again.config() == learner.config()


def test_scores_of_other_classes_stay_where_the_learner_says_so(learner, pool):
    if not learner.independent_classes:
        pytest.skip("a class may move the scores of the others")
    two = pool.select([i for i, label in enumerate(pool.labels) if label < 2]).with_classes(pool.label_names[:2])
    queries = Texts(pool.texts[:6])
    few = learner.logits(learner.adapt(Support.of(two)), queries)
    more = learner.logits(learner.adapt(Support.of(pool)), queries)
    torch.testing.assert_close(more[:, :2], few)


@pytest.mark.parametrize("name", sorted(learners))
def test_a_saved_classifier_gives_the_same_probabilities(name, sampler, tmp_path, encoder_folder):
    classifier = FewShotClassifier(name, encoder=str(encoder_folder))
    learner = classifier._learner_for(("a",))
    with torch.no_grad():  # away from the start, or forgetting to save a weight would go unnoticed
        for weight in learner.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
    episode = sampler.episode(0)
    classifier = FewShotClassifier(learner).fit(episode.support.texts, episode.support.names())
    classifier.save_pretrained(tmp_path / "model")
    loaded = FewShotClassifier.from_pretrained(tmp_path / "model")
    queries = list(episode.query.texts)
    assert (loaded.predict_proba(queries) == classifier.predict_proba(queries)).all()
    assert (loaded.predict(queries) == classifier.predict(queries)).all()
