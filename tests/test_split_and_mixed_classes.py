"""Classes that are split in two by a word, and classes that become mixtures of two."""

import numpy as np
import pytest
import torch
from meta_task import KEYS, noisy_learner, noisy_pool, samplers

from nlpmeta.data import LabeledTexts
from nlpmeta.episodes import leaked_texts
from nlpmeta.episodes.pools import split_classes
from nlpmeta.episodes.raw_texts import words_of
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.maml import MAML
from nlpmeta.training import TrainSettings, TrainTasks
from nlpmeta.training.engine import make_accelerator, meta_train
from nlpmeta.training.objective import episodic_loss, mix, mixing_of
from nlpmeta.training.run import Run
from nlpmeta.training.tasks import sampler_of


def alarms():
    """Half of the texts about alarms have "monday", the others "weekend", half "now"; those about lamps "now"."""
    days, numbers = ["weekend", "monday"], "one two three four five six ten no".split()
    alarms_ = [f"please wake me {days[i % 2]} at {word}{' now' if i < 4 else ''}" for i, word in enumerate(numbers)]
    lamps = [f"please dim it now {word}" for word in numbers]
    return LabeledTexts.from_names(alarms_ + lamps, ["alarm"] * 8 + ["lamp"] * 8, langs=["en"] * 16)


def test_a_class_is_split_by_the_word_that_tells_most():
    split = split_classes(alarms(), need=3)
    assert split.texts == alarms().texts
    assert split.langs == alarms().langs
    assert split.counts() == {"alarm with monday": 4, "alarm without monday": 4, "lamp": 8}
    for text, name in zip(split.texts, split.names(), strict=True):
        if name != "lamp":
            assert ("monday" in words_of(text)) == (name == "alarm with monday")


def test_a_class_whose_halves_would_be_too_small_stays_whole():
    assert split_classes(alarms(), need=5) == alarms()
    assert split_classes(split_classes(alarms(), need=3), need=3).n_way == 3


def test_every_text_of_a_half_came_from_its_class():
    pool = noisy_pool(KEYS[:8])
    split = split_classes(pool, need=4)
    assert split.n_way > pool.n_way
    assert all(new.split(" ")[0] == old for new, old in zip(split.names(), pool.names(), strict=True))


def test_a_recipe_splits_a_share_of_the_episodes():
    part = TrainTasks(source="starter", n_way=4, n_shot=1, n_query=1)
    drawn = {}
    for share in (0.0, 0.4, 1.0):
        sampler = sampler_of(part.model_copy(update={"split_share": share}), seed=0, data_dir=None)
        episodes = [sampler.episode(i) for i in range(100)]
        assert all(leaked_texts(episode) == () for episode in episodes)
        drawn[share] = np.mean(
            [any(" with " in n or " without " in n for n in e.support.label_names) for e in episodes]
        )
    assert drawn[0.0] == 0
    assert 0.2 < drawn[0.4] < 0.6
    assert drawn[1.0] > 0.9


@pytest.mark.parametrize("kind", ["crosslingual", "clusters"])
def test_only_classes_of_one_language_can_be_split(kind):
    with pytest.raises(ValueError, match="split_share is for the kind nway"):
        TrainTasks(source="starter", kind=kind, split_share=0.5)


def sides(episode, dim=6):
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(len(episode.support) + len(episode.query), dim, generator=rng)
    words = Texts(episode.support.label_names, torch.randn(episode.n_way, dim, generator=rng))
    support = Support.of(episode.support, features[: len(episode.support)], names=words)
    return support, Support.of(episode.query, features[len(episode.support) :])


def test_mixed_texts_lie_between_their_class_and_its_partner():
    episode = EpisodeSampler([noisy_pool(KEYS[:8])], n_way=4, n_shot=2, n_query=3, seed=0).episode(0)
    partner = torch.tensor([1, 2, 3, 0])
    for side in sides(episode):
        mixed = mix(side, partner, 0.7)
        assert torch.equal(mixed.labels, side.labels)
        for row, label in enumerate(side.labels.tolist()):
            place = int((side.labels[:row] == label).sum())
            other = torch.nonzero(side.labels == partner[label]).flatten()[place]
            expected = 0.7 * side.features[row] + 0.3 * side.features[other]
            torch.testing.assert_close(mixed.features[row], expected)
    support, _ = sides(episode)
    names = mix(support, partner, 0.7).names.features
    torch.testing.assert_close(names, 0.7 * support.names.features + 0.3 * support.names.features[partner])


def test_a_partner_with_fewer_texts_is_gone_round_again():
    features = torch.arange(4.0).unsqueeze(1)
    side = Support(("a", "b", "c", "d"), features, torch.tensor([0, 0, 0, 1]), 2)
    assert mix(side, torch.tensor([1, 0]), 0.5).features.flatten().tolist() == [1.5, 2.0, 2.5, 1.5]


def test_no_class_is_its_own_partner_and_the_draw_is_that_of_the_episode():
    sampler = EpisodeSampler([noisy_pool(KEYS[:8])], n_way=5, n_shot=1, n_query=2, seed=0)
    found = [mixing_of(sampler.episode(i), share=0.5, seed=3) for i in range(200)]
    mixed = [each for each in found if each is not None]
    assert 0.35 < len(mixed) / 200 < 0.65
    for partner, own in mixed:
        assert sorted(partner.tolist()) == [0, 1, 2, 3, 4]
        assert all(int(other) != label for label, other in enumerate(partner))
        assert 0.5 <= own <= 1
    again = [mixing_of(sampler.episode(i), share=0.5, seed=3) for i in range(200)]
    assert [each and each[1] for each in again] == [each and each[1] for each in found]
    assert len({own for _, own in mixed}) > 20


def run_of(**settings):
    settings = TrainSettings(steps=2, control_episodes=0, **settings)
    return Run(noisy_learner(), samplers()[0], settings, None, {}, make_accelerator(settings, None), None, False)


def test_training_mixes_what_it_is_asked_to():
    run = run_of()
    episodes = run.stepper.groups_of(0)[0]
    texts = run.stepper._encode(episodes)
    shares = (0.0, 1e-12, 1.0)
    plain, none, every = (
        episodic_loss(run.learner, episodes, texts, mix_share=share, seed=0)[0].item() for share in shares
    )
    assert plain == none
    assert every != pytest.approx(plain, rel=1e-3)


def test_a_mixed_run_is_the_same_twice_and_differs_from_a_plain_one():
    weights = []
    for share in (1.0, 1.0, 0.0):
        run = run_of(mix_share=share)
        run.go(resume=False)
        weights.append(torch.cat([weight.detach().flatten() for weight in run.weights.values()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_learner_that_embeds_its_texts_itself_cannot_mix_them():
    learner = MAML(noisy_learner().encoder)
    with pytest.raises(NLPMetaError, match="mix_share must be 0"):
        meta_train(learner, samplers()[0], settings=TrainSettings(steps=1, mix_share=0.5))
