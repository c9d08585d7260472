"""Episodes without examples, and episodes whose names say nothing."""

from collections import Counter

import pytest
import torch

from nlpmeta.data import readable_names
from nlpmeta.episodes.clusters import ClueSampler, ClueShares
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.prototypical import PrototypicalNetwork

VOCABULARY = ("river", "stone", "cloud", "sport")


def clued(sampler, seed=0, vocabulary=VOCABULARY, **shares):
    return ClueSampler(
        sampler, shares=ClueShares(**shares), plain_names=readable_names, vocabulary=vocabulary, seed=seed
    )


def test_with_names_only_each_class_has_its_name_in_the_place_of_examples(sampler):
    whole, episode = sampler.episode(4), clued(sampler, names_only=1.0).episode(4)
    assert episode.support.texts == episode.support.label_names == whole.support.label_names
    assert episode.support.labels == (0, 1, 2)
    assert episode.query == whole.query


def test_names_stand_there_in_plain_words(pool):
    named = pool.__class__(pool.texts, pool.labels, ("order_food", "savingsMoney", "go/sport"))
    plain = EpisodeSampler([named], n_way=3, n_shot=2, n_query=1, seed=0)
    support = clued(plain, names_only=1.0).episode(0).support
    assert set(support.texts) == {"order food", "savings money", "go sport"}
    assert {"order_food", "savingsMoney", "go/sport"} == set(support.label_names)


def test_a_class_without_examples_has_the_embedding_of_its_name_as_prototype(sampler, encoder):
    learner = PrototypicalNetwork(encoder, metric="cosine", names=True).eval()
    support = learner.support(clued(sampler, names_only=1.0).episode(0).support)
    expected = encoder(support.names.texts)
    assert torch.allclose(learner.adapt(support)["prototypes"], expected, atol=1e-6)


def test_where_some_examples_are_missing_the_other_classes_keep_all_of_theirs(sampler):
    seen = Counter()
    for i in range(40):
        whole, episode = sampler.episode(i), clued(sampler, missing=1.0).episode(i)
        for label, name in enumerate(whole.support.label_names):
            texts = [t for t, each in zip(episode.support.texts, episode.support.labels, strict=True) if each == label]
            own = [t for t, each in zip(whole.support.texts, whole.support.labels, strict=True) if each == label]
            assert texts in ([name], own)
            seen[i] += texts == [name]
    assert set(seen.values()) == {1, 2}


def test_withheld_names_are_numbers_that_no_learner_reads(sampler):
    episode = clued(sampler, withheld=1.0).episode(2)
    assert episode.support.label_names == episode.query.label_names == ("0", "1", "2")
    assert readable_names(episode.support.label_names) is None
    assert episode.support.texts == sampler.episode(2).support.texts


def test_replaced_names_are_those_of_no_class_of_the_episode(sampler):
    drawn = [clued(sampler, replaced=1.0).episode(i).support.label_names for i in range(20)]
    assert all(set(names) == {"river", "stone", "cloud"} for names in drawn)
    assert len(set(drawn)) > 1


def test_without_enough_other_names_those_of_the_episode_are_dealt_out_anew(sampler):
    whole = sampler.episode(0)
    drawn = [clued(sampler, replaced=1.0, vocabulary=(), seed=seed).episode(0) for seed in range(20)]
    assert all(set(each.query.label_names) == set(whole.query.label_names) for each in drawn)
    assert any(each.query.label_names != whole.query.label_names for each in drawn)
    assert all(each.query.labels == whole.query.labels for each in drawn)


def test_names_that_say_nothing_take_no_example_away(pool):
    numbered = pool.__class__(pool.texts, pool.labels, ("1", "2", "3"))
    plain = EpisodeSampler([numbered], n_way=3, n_shot=2, n_query=1, seed=0)
    assert clued(plain, names_only=0.5, missing=0.5).episode(0) == plain.episode(0)


def test_each_clue_is_taken_away_as_often_as_its_share_says(sampler):
    shares = {"names_only": 0.2, "missing": 0.1, "withheld": 0.3, "replaced": 0.15}
    drawn = Counter(ClueShares(**shares).draw(number / 1000 + 1e-9) for number in range(1000))
    assert drawn == {"names_only": 200, "missing": 100, "withheld": 300, "replaced": 150, None: 250}
    mixed = clued(sampler, **shares)
    whole = sum(mixed.episode(i) == sampler.episode(i) for i in range(400))
    assert 0.18 * 400 < whole < 0.32 * 400


def test_an_episode_depends_on_its_number_alone(sampler):
    one, other = clued(sampler, names_only=0.5, withheld=0.5), clued(sampler, names_only=0.5, withheld=0.5)
    other.episode(9)
    assert one.episode(5) == other.episode(5)


@pytest.mark.parametrize("shares", [{"missing": -0.1}, {"missing": 0.6, "withheld": 0.5}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(NLPMetaError, match="sum to more than 1"):
        ClueShares(**shares)
