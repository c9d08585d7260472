import numpy as np
import pytest
from meta_task import KEYS, noisy_pool

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.episodes.wrappers import DifficultySampler, surface_error
from nlpmeta.errors import NLPMetaError


@pytest.fixture(scope="module")
def plain():
    return EpisodeSampler([noisy_pool(KEYS)], n_way=4, n_shot=1, n_query=3, seed=0)


def test_letters_that_tell_the_class_make_an_easy_task_and_swapped_ones_a_hard_one():
    support = LabeledTexts.from_names(["aaa bbb", "xxx yyy"], ["one", "two"])
    easy = LabeledTexts.from_names(["bbb aaa", "yyy"], ["one", "two"])
    hard = LabeledTexts.from_names(["xxx", "aaa"], ["one", "two"])
    assert surface_error(Episode(support, easy)) == 0
    assert surface_error(Episode(support, hard)) == 1


def test_chosen_tasks_are_harder_and_the_hardest_of_their_candidates(plain):
    hard = DifficultySampler(plain, share=1.0, candidates=4, seed=0)
    chosen = [surface_error(hard.episode(i)) for i in range(30)]
    candidates = [[surface_error(plain.episode(4 * i + j)) for j in range(4)] for i in range(30)]
    assert chosen == [max(each) for each in candidates]
    assert np.mean(chosen) > np.mean(candidates) + 0.1


def test_the_share_is_kept_and_the_others_are_drawn_as_usual(plain):
    mixed = DifficultySampler(plain, share=0.5, candidates=4, seed=0)
    usual = sum(mixed.episode(i) == plain.episode(4 * i) for i in range(60))
    assert 25 < usual < 55  # half, and a quarter of the other half by chance
    assert DifficultySampler(plain, share=0.0, seed=0).episode(3) == plain.episode(12)


def test_an_episode_depends_on_its_index_alone(plain):
    one, two = (DifficultySampler(plain, share=0.5, seed=1) for _ in range(2))
    one.episode(0)
    assert one.episode(5) == two.episode(5)
    assert one.episode(5) != one.episode(6)


@pytest.mark.parametrize(("share", "candidates"), [(-0.1, 4), (1.1, 4), (0.5, 1)])
def test_impossible_sizes_are_refused(plain, share, candidates):
    with pytest.raises(NLPMetaError, match="Need a share"):
        DifficultySampler(plain, share=share, candidates=candidates, seed=0)
