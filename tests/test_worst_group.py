"""Weight for the groups that are learned worst, and classes that are put together."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from meta_task import KEYS, noisy_learner, noisy_pool

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import leaked_texts
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.episodes.wrappers import MergedClassesSampler, MixtureSampler
from nlpmeta.errors import NLPMetaError
from nlpmeta.training import TrainSettings, TrainTasks
from nlpmeta.training.engine import make_accelerator, meta_train
from nlpmeta.training.run import Run
from nlpmeta.training.step import GroupWeights, group_of
from nlpmeta.training.tasks import sampler_of


def of_language(lang, keys):
    pool = noisy_pool(keys)
    pool = replace(pool, langs=(lang,) * len(pool), domains=(f"{lang} domain",) * len(pool))
    return EpisodeSampler([pool], n_way=4, n_shot=1, n_query=2, seed=0)


def two_languages():
    return MixtureSampler([of_language("sw", KEYS[:8]), of_language("en", KEYS[8:16])], seed=0)


def run_of(sampler, **settings):
    settings = TrainSettings(control_episodes=0, **settings)
    return Run(noisy_learner(), sampler, settings, None, {}, make_accelerator(settings, None), None, False)


def test_weights_are_those_of_the_paper():
    weights = GroupWeights(0.5, {})
    assert weights.factor("sw") == 1.0
    weights.update([("sw", 2.0), ("en", 1.0)])
    share = math.exp(0.5 * 2.0) / (math.exp(0.5 * 2.0) + math.exp(0.5 * 1.0))
    # the second group came in at the average of those before it, which was the first after its loss
    late = math.exp(1.0) / (math.exp(1.0) + math.exp(1.0 + 0.5))
    assert weights.factor("sw") == pytest.approx(2 * late)
    weights = GroupWeights(0.5, {"sw": torch.tensor(0.0), "en": torch.tensor(0.0)})
    weights.update([("sw", 2.0), ("en", 1.0)])
    assert weights.factor("sw") == pytest.approx(2 * share)
    assert weights.factor("sw") + weights.factor("en") == pytest.approx(2.0)


def test_weights_stay_finite_however_long_a_group_is_hard():
    weights = GroupWeights(1.0, {})
    for _ in range(5000):
        weights.update([("hard", 5.0), ("easy", 0.1)])
    assert weights.factor("hard") == pytest.approx(2.0)
    assert 0 <= weights.factor("easy") < 1e-6


def test_the_group_of_an_episode_is_that_of_its_query():
    episode = of_language("sw", KEYS[:8]).episode(0)
    assert group_of(episode, "lang") == "sw"
    assert group_of(episode, "domain") == "sw domain"
    bare = Episode(replace(episode.support, langs=None), replace(episode.query, langs=None))
    assert group_of(bare, "lang") == ""


def gradient(run, step=0):
    run.stepper._optimizer.step = lambda *_, **__: None
    run.stepper._accelerator.clip_grad_norm_ = lambda *_, **__: 0.0
    run.stepper.take(step)
    return torch.cat([weight.grad.flatten() for weight in run.weights.values() if weight.grad is not None])


def test_gradients_of_a_group_are_multiplied_by_its_factor():
    size = {"steps": 2, "episodes_per_step": 4}
    plain, weighed = run_of(two_languages(), **size), run_of(two_languages(), worst_group=1e-9, **size)
    torch.testing.assert_close(gradient(plain), gradient(weighed), rtol=1e-4, atol=1e-6)
    only = run_of(of_language("sw", KEYS[:8]), worst_group=1e-9, **size)
    only.progress.groups |= {"sw": torch.tensor(math.log(3.0)), "en": torch.tensor(0.0)}
    expected = 1.5 * gradient(run_of(of_language("sw", KEYS[:8]), **size))
    torch.testing.assert_close(gradient(only), expected, rtol=1e-4, atol=1e-6)


def test_the_harder_of_two_groups_gains_weight_in_training():
    texts = [f"{key} {key} {noise}" for key in KEYS[:8] for noise in ("noisea", "noiseb", "noisec")]
    easy = LabeledTexts.from_names(texts, [key for key in KEYS[:8] for _ in range(3)], langs=["easy"] * 24)
    sampler = MixtureSampler(
        [EpisodeSampler([easy], n_way=4, n_shot=1, n_query=2, seed=0), of_language("hard", KEYS[8:16])], seed=0
    )
    run = run_of(sampler, steps=10, worst_group=0.2)
    run.go(resume=False)
    assert float(run.progress.groups["hard"]) > float(run.progress.groups["easy"])


def test_a_resumed_run_goes_on_with_the_same_weights(tmp_path):
    settings = {"checkpoint_every": 2, "worst_group": 0.3, "control_episodes": 0, "warmup": 1}
    whole, parted = noisy_learner(), noisy_learner()
    meta_train(whole, two_languages(), settings=TrainSettings(steps=4, **settings))
    meta_train(parted, two_languages(), settings=TrainSettings(steps=4, **settings), out=tmp_path / "run")
    again = noisy_learner()
    for newest in sorted((tmp_path / "run" / "checkpoints").glob("step-*"))[1:]:
        for file in newest.iterdir():
            file.unlink()
        newest.rmdir()
    meta_train(again, two_languages(), settings=TrainSettings(steps=4, **settings), out=tmp_path / "run", resume=True)
    pairs = list(zip(whole.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)


def test_merged_classes_are_pairs_and_texts_keep_theirs():
    plain = of_language("sw", KEYS[:8])
    merged = MergedClassesSampler(plain, share=1.0, seed=0)
    for index in range(10):
        before, after = plain.episode(index), merged.episode(index)
        assert after.n_way == 2
        assert after.support.texts == before.support.texts
        assert leaked_texts(after) == ()
        for old, new in ((before.support, after.support), (before.query, after.query)):
            pairs = zip(old.names(), new.names(), strict=True)
            assert all(name in both.split(" or ") for name, both in pairs)
    assert [merged.episode(i) for i in range(5)] == [
        MergedClassesSampler(plain, share=1.0, seed=0).episode(i) for i in range(5)
    ]


def test_an_odd_class_stays_alone_and_small_episodes_as_they_are():
    five = EpisodeSampler([noisy_pool(KEYS[:8])], n_way=5, n_shot=1, n_query=1, seed=0)
    assert MergedClassesSampler(five, share=1.0, seed=0).episode(0).n_way == 3
    three = EpisodeSampler([noisy_pool(KEYS[:8])], n_way=3, n_shot=1, n_query=1, seed=0)
    assert MergedClassesSampler(three, share=1.0, seed=0).episode(0) == three.episode(0)


def test_the_share_of_merged_episodes_is_kept():
    plain = of_language("sw", KEYS[:8])
    merged = MergedClassesSampler(plain, share=0.3, seed=0)
    share = np.mean([merged.episode(i).n_way == 2 for i in range(200)])
    assert 0.2 < share < 0.4
    with pytest.raises(NLPMetaError, match=r"0\.\.1"):
        MergedClassesSampler(plain, share=1.5, seed=0)


def test_a_recipe_can_ask_for_it():
    part = TrainTasks(source="starter", n_way=8, n_shot=1, n_query=1, merge_share=1.0)
    assert sampler_of(part, seed=0, data_dir=None).episode(0).n_way == 4
