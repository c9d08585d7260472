"""Recurrent meta-learners: the same one by one as all at once, and they learn to learn."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_encoder
from stream_tasks import recall, streams, train

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.episodes.pools import StreamSampler
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.errors import ModelFolderError, NLPMetaError
from nlpmeta.learners.base import learners
from nlpmeta.learners.mann import MemoryAugmentedNetwork
from nlpmeta.learners.recurrent import AttentiveMetaLearner, RecurrentMetaLearner
from nlpmeta.learners.start import check_meta_trained, own_checkpoint, starting_learner
from nlpmeta.learners.streams import score_stream
from nlpmeta.sources.loading import load_source

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
    changed = slots.clone()
    changed[:, 0] = 1
    # Two layers, each with a window of 4: a label more than 8 texts back cannot be felt.
    one, two = (learner.run(features, each, codes)[0] for each in (slots, changed))
    assert torch.equal(one[9], two[9])
    assert not torch.allclose(one[4], two[4])


@pytest.mark.parametrize("kind", ["rnn", "snail"])
@torch.no_grad()
def test_results_do_not_depend_on_which_codes_classes_get(kind):
    learner = built(kind).eval()
    features = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(4))
    slots = torch.arange(12).remainder(4).expand(2, 12)
    one, two = (
        learner.run(features, slots, learner.codes[rows].expand(2, 4, -1)) for rows in ([0, 1, 2, 3], [7, 2, 5, 0])
    )
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["rnn", "snail"])
@torch.no_grad()
def test_what_all_texts_of_a_stream_share_tells_no_classes_apart(kind):
    """A direction that is common to all texts, as embeddings of one language have, is taken off by the running mean."""
    learner = built(kind).eval()
    generator = torch.Generator().manual_seed(5)
    classes, labels = torch.randn(5, 16, generator=generator), torch.arange(50).remainder(5)
    noise = 0.3 * torch.randn(50, 16, generator=generator)
    shared = 8 * torch.ones(16)
    features = torch.nn.functional.normalize(classes[labels] + noise + shared, dim=1)
    found = learner.run(features[None], labels[None], learner.codes[:5][None])[0].argmax(1)
    assert (found == labels)[10:].float().mean() > 0.9


@pytest.mark.parametrize("kind", ["rnn", "snail"])
def test_bad_sizes_are_refused(kind):
    with pytest.raises(NLPMetaError, match="code_dim of at least max_way, 8; got 4"):
        built(kind, code_dim=4)
    with pytest.raises(NLPMetaError, match="must be positive; got 64, 512 and 0"):
        built(kind, width=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rnn", "snail"])
def test_meta_training_teaches_them_which_texts_are_alike(kind):
    """Half of the directions are loud and mean nothing; and what was learned holds on streams twice as long."""
    shape = {"n_way": 5, "n_each": 6}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = train(built(kind, dropout=0.0), steps=120, rate=1e-2, per_step=16, **shape)
    before, after = recall(built(kind), **shape), recall(learner, **shape)
    longer = recall(learner, n_way=5, n_each=12)
    assert after > before + 0.1 and after > 0.95
    assert longer > after
    tasks = streams(40, seed=77, **shape)
    right = [learner.logits(learner.adapt(support), query).argmax(1) == query.labels for support, query in tasks]
    assert torch.cat(right).float().mean() > after - 0.05


@pytest.mark.parametrize("kind", ["rnn", "snail"])
def test_the_shipped_checkpoint_is_small(kind):
    assert sum(file.stat().st_size for file in own_checkpoint(kind).iterdir()) < 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rnn", "snail"])
@torch.no_grad()
def test_the_shipped_checkpoint_recalls_and_gets_no_worse_as_a_stream_goes_on(kind):
    """Twenty streams of the starter corpus in a language that it was not trained on, without any option."""
    learner = starting_learner(kind)
    assert type(learner) is learners[kind]
    pool = load_source("starter").load("sw", "train")
    embed = EmbeddingTable(learner.encoder)
    shape = EpisodeSampler([pool], n_way=5, n_shot=10, n_query=1, seed=0)
    scores = [score_stream(learner, StreamSampler(shape, seed=0).episode(i), embed) for i in range(20)]
    right = torch.cat([score.probabilities.argmax(1) == score.labels for score in scores]).float()
    presentations = torch.cat([score.presentations for score in scores])
    second, fifth, tenth = (float(right[presentations == k].mean()) for k in (2, 5, 10))
    assert second > 0.5
    assert tenth >= second
    assert tenth > 0.7


def test_what_was_never_meta_trained_is_refused_before_work():
    with pytest.raises(NLPMetaError, match="snail needs meta-training"):
        check_meta_trained(built("snail"), "snail", None)
    check_meta_trained(built("mann"), "mann", None)


@pytest.mark.parametrize("before", ["lstm", "blocks"])
def test_networks_that_an_earlier_release_saved_are_refused_in_one_line(before, tmp_path, monkeypatch):
    here = Path(__file__).parent
    shutil.copytree(here / "fixtures" / "refused" / before, tmp_path / "model")
    shutil.copytree(here / "saved_models" / "encoder", tmp_path / "encoder")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelFolderError, match="does not fit the learner: .* train the learner again") as refused:
        FewShotClassifier.from_pretrained("model")
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300
