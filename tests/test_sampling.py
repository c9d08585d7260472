"""Each sampler does what it says, on data made for it."""

import json
import math
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sampling_zoo import CLASSES, assert_no_leak, digest, letters, parallel_pool, spam_pool, zoo

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.data.languages import UnknownLanguageError
from nlpmeta.episodes import Range, generator, leaked_texts
from nlpmeta.episodes.kshot import FoldSampler, KShotSampler
from nlpmeta.episodes.pools import leave_out, split_by
from nlpmeta.episodes.samplers import CrossLingualSampler, EpisodeSampler, SpamSampler, UserSampler
from nlpmeta.episodes.wrappers import ImbalancedSampler, LongTail, MetaDatasetShots, MixtureSampler, temperature_weights
from nlpmeta.errors import DataError, NLPMetaError, NotEnoughExamplesError

KINDS = tuple(zoo())


def made(**sizes: int) -> LabeledTexts:
    """So many texts of each class; all differ."""
    names = [name for name, size in sizes.items() for _ in range(size)]
    return LabeledTexts.from_names([f"{name} {letters(k)}" for k, name in enumerate(names)], names)


@pytest.fixture(scope="module")
def samplers():
    return zoo()


@pytest.fixture(scope="module")
def same_again():
    return zoo()


@pytest.fixture(scope="module")
def other_seed():
    return zoo(seed=8)


# ---------------------------------------------------------------------------------------------- every kind of sampler


@pytest.mark.parametrize("kind", KINDS)
def test_no_sampler_has_a_text_or_an_id_on_both_sides(samplers, kind):
    for index in range(60):
        episode = samplers[kind].episode(index)
        assert_no_leak(episode)
        assert leaked_texts(episode) == ()


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_depends_on_its_index_and_the_seed_alone(samplers, same_again, other_seed, kind):
    forwards = [digest(samplers[kind].episode(index)) for index in range(12)]
    assert [digest(same_again[kind].episode(index)) for index in reversed(range(12))] == forwards[::-1]
    assert [digest(other_seed[kind].episode(index)) for index in range(12)] != forwards
    assert len(set(forwards)) == (3 if kind == "folds" else 12)


@pytest.mark.parametrize("kind", KINDS)
def test_texts_keep_their_label_names_and_columns(samplers, kind):
    pools = [parallel_pool(), spam_pool("sms"), spam_pool("mail")]
    known = {row for pool in pools for row in rows_of(pool)}
    for index in range(10):
        episode = samplers[kind].episode(index)
        assert set(rows_of(episode.support)) | set(rows_of(episode.query)) <= known


def rows_of(data: LabeledTexts) -> list[tuple[object, ...]]:
    none = (None,) * len(data)
    columns = (data.langs, data.domains, data.ids, data.users, data.times)
    return list(zip(data.texts, data.names(), *(column or none for column in columns), strict=True))


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(samplers):
    program = Path(__file__).with_name("sampling_zoo.py")
    environment = {**os.environ, "PYTHONPATH": str(program.parents[1])}
    running = [
        subprocess.Popen(
            [sys.executable, str(program), *map(str, range(part, 10, 2))],
            env={**environment, "PYTHONHASHSEED": str(part + 1)},
            stdout=subprocess.PIPE,
        )
        for part in (0, 1)
    ]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    found: dict[str, dict[str, str]] = {kind: {} for kind in KINDS}
    for output in outputs:
        for kind, digests in json.loads(output).items():
            found[kind].update(digests)
    assert found == {kind: {str(i): digest(samplers[kind].episode(i)) for i in range(10)} for kind in KINDS}


def test_the_process_random_state_is_neither_read_nor_moved(samplers):
    np.random.seed(1)  # noqa: NPY002  the global state is the point
    before = [digest(sampler.episode(3)) for sampler in samplers.values()]
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert [digest(sampler.episode(3)) for sampler in samplers.values()] == before
    np.random.seed(1)  # noqa: NPY002
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


def test_seeds_and_indices_that_do_not_fit_are_refused():
    for seed, index in ((-1, 0), (0, -1), (2**64, 0), (0, 2**64)):
        with pytest.raises(NLPMetaError, match="must lie in"):
            generator(seed, index)


# ---------------------------------------------------------------------------------------------- N-way K-shot


def test_every_text_and_class_is_drawn_equally_often():
    pool = made(a=30, b=30, c=30)
    sampler = EpisodeSampler([pool], n_way=2, n_shot=3, n_query=5, seed=0)
    support, query = Counter(), Counter()
    for index in range(1500):
        episode = sampler.episode(index)
        support.update(episode.support.texts)
        query.update(episode.query.texts)
    # 1,500 episodes x 2 of 3 classes x 3 (or 5) of 30 texts: 100 and 167 draws a text; 5 standard deviations allowed.
    for drawn, mean in ((support, 100), (query, 500 / 3)):
        assert len(drawn) == 90
        assert all(abs(count - mean) < 5 * math.sqrt(mean) for count in drawn.values())


def test_large_classes_are_drawn_from_end_to_end():
    sampler = EpisodeSampler([made(a=900, b=900)], n_way=2, n_shot=5, n_query=5, seed=0)
    drawn = {text for index in range(600) for text in sampler.episode(index).support.texts}
    assert (
        len(drawn) > 1700
    )  # of 1,800; 3,000 draws of each class leave 900 x (1 - 1/900) ** 3000 = 32 of each on average


def test_class_numbers_are_shuffled():
    sampler = EpisodeSampler([made(a=9, b=9)], n_way=2, n_shot=1, n_query=1, seed=0)
    orders = Counter(sampler.episode(index).support.label_names for index in range(200))
    assert set(orders) == {("a", "b"), ("b", "a")} and min(orders.values()) > 60


def test_sizes_given_as_ranges_take_every_value():
    sampler = EpisodeSampler([parallel_pool()], n_way=Range(2, 5), n_shot=Range(1, 3), n_query=2, seed=0)
    sizes = {(e.n_way, len(e.support) // e.n_way) for e in map(sampler.episode, range(300))}
    assert sizes == {(n_way, n_shot) for n_way in range(2, 6) for n_shot in range(1, 4)}


def test_a_pool_of_several_languages_gives_all_of_them_but_a_sentence_once():
    sampler = EpisodeSampler([parallel_pool()], n_way=3, n_shot=3, n_query=4, seed=0)
    langs = Counter()
    for index in range(100):
        episode = sampler.episode(index)
        ids = episode.support.ids + episode.query.ids
        assert len(ids) == len(set(ids)) == 21
        langs.update(episode.support.langs + episode.query.langs)
    assert set(langs) == {"en-US", "sw-KE", "deu"} and min(langs.values()) > 600  # 700 each on average


def test_a_sentence_is_followed_through_chains_of_ids_and_texts():
    texts = ["stop", "acha", "ACHA ", "halt", "go", "nenda"]
    pool = LabeledTexts.from_names(texts, ["s", "s", "s", "s", "g", "g"], ids=["1", "1", "2", "2", "3", "3"])
    with pytest.raises(NotEnoughExamplesError, match="'g' has 1, 's' has 1"):
        EpisodeSampler([pool], n_way=2, n_shot=1, n_query=1, seed=0)


def test_a_text_with_two_labels_is_drawn_under_the_more_frequent():
    names = ["a"] * 3 + ["b"] * 3 + ["a", "b", "b"]
    pool = LabeledTexts.from_names(["a 1 x", "a y", "a z", "b x", "b y", "b z", "both 1", "both 2", "BOTH 3"], names)
    sampler = EpisodeSampler([pool], n_way=2, n_shot=1, n_query=2, seed=0)
    drawn = {pair for i in range(200) for pair in rows_of(sampler.episode(i).query)}
    assert {row[1] for row in drawn if row[0].casefold().startswith("both")} == {"b"}
    assert {row[0] for row in drawn if row[1] == "a"} == {"a 1 x", "a y", "a z"}


def test_impossible_sizes_are_refused_when_the_sampler_is_built():
    for options, error, said in (
        ({"n_way": 4}, NLPMetaError, "has 3 classes: 'a', 'b', 'c'"),
        ({"n_shot": 5}, NotEnoughExamplesError, "'c' has 6"),
        ({"n_query": 0}, NLPMetaError, "n_query must be at least 1"),
        ({"n_shot": 0}, NLPMetaError, "1 <= low <= high"),
    ):
        with pytest.raises(error, match=said):
            EpisodeSampler([made(a=9, b=9, c=6)], **{"n_way": 3, "n_shot": 2, "n_query": 3, "seed": 0, **options})
    with pytest.raises(NLPMetaError, match="at least one pool"):
        EpisodeSampler([], n_way=2, n_shot=1, n_query=1, seed=0)


# ---------------------------------------------------------------------------------------------- K-shot and folds


def test_rare_classes_are_refused_dropped_or_kept():
    pool = made(a=9, b=9, c=2)
    with pytest.raises(NotEnoughExamplesError, match="'c' has 2"):
        KShotSampler(pool, n_shot=4, seed=0)
    dropped = KShotSampler(pool, n_shot=4, seed=0, rare="drop").episode(0)
    assert dropped.support.counts() == {"a": 4, "b": 4} and dropped.query.counts() == {"a": 5, "b": 5}
    kept = KShotSampler(pool, n_shot=4, seed=0, rare="keep").episode(0)
    assert kept.support.counts() == {"a": 4, "b": 4, "c": 2} and kept.query.counts()["c"] == 0


def test_a_class_whose_texts_differ_from_others_in_case_alone_has_them_and_none_is_scored():
    pool = LabeledTexts.from_names(["x", "y", "z", "w", "X"], ["a", "a", "b", "b", "c"])
    episode = KShotSampler(pool, n_shot=1, seed=0).episode(0)
    assert [text for text, name in zip(episode.support.texts, episode.support.names(), strict=True) if name == "c"] == [
        "X"
    ]
    assert not {"x", "X"} & set(episode.query.texts)


def test_classes_told_apart_by_a_number_alone_have_as_many_examples_as_they_were_given():
    codes = {"missing": "404", "broken": "500", "forbidden": "403"}
    forms = ("page {}", "got {}", "error {} again", "it says {}", "why {}", "{} since today")
    rows = [(form.format(code), name) for name, code in codes.items() for form in forms]
    pool = LabeledTexts.from_names(*zip(*rows, strict=True))
    for n_shot in (1, 2, 3, 4, 5):
        sampler = KShotSampler(pool, n_shot=n_shot, seed=0)
        for index in range(3):
            support = sampler.episode(index).support
            assert set(support.counts().values()) == {n_shot}
            assert len(set(support.texts)) == 3 * n_shot
    three = KShotSampler(pool, n_shot=3, seed=0).episode(0)
    assert len(three.query) == 9 and not leaked_texts(three)  # the same three sentences are the support of every class
    assert sorted(KShotSampler(pool, n_shot=None, seed=0).everything().texts) == sorted(pool.texts)
    folds = FoldSampler(pool, n_folds=3, seed=0)
    assert folds.never_scored == ()
    assert sum(len(folds.episode(i).query) for i in range(3)) == len(pool)


def test_one_sentence_in_every_class_leaves_nothing_to_hold_out():
    pool = LabeledTexts.from_names(["code 1", "code 2", "code 3", "code 4"], ["a", "a", "b", "b"])
    assert KShotSampler(pool, n_shot=2, seed=0).everything().counts() == {"a": 2, "b": 2}
    assert not KShotSampler(pool, n_shot=2, seed=0).has_query()
    with pytest.raises(DataError, match="The classes have 0 to 1"):
        FoldSampler(pool, n_folds=2, seed=0)


def test_translations_of_the_test_set_are_left_out_of_the_support():
    pool = parallel_pool()
    swahili, english = (split_by(pool, "langs")[lang] for lang in ("sw", "en"))
    test = english.select([row for row, id_ in enumerate(english.ids) if id_.split()[1] in "012345678"])
    sampler = KShotSampler(swahili, n_shot=3, seed=0, test=test)
    assert {id_.split()[1] for id_ in sampler.episode(0).support.ids} == {"9", "10", "11"}
    with pytest.raises(NotEnoughExamplesError, match="'alarm_set' has 3"):
        KShotSampler(swahili, n_shot=4, seed=0, test=test)


def test_ids_of_a_test_file_that_is_numbered_on_its_own_bar_nothing():
    ids = [str(k) for k in range(10)]
    train = LabeledTexts.from_names([f"train {letters(k)}" for k in range(10)], ["a", "b"] * 5, ids=ids)
    test = LabeledTexts.from_names([f"test {letters(k)}" for k in range(10)], ["a", "b"] * 5, ids=ids)
    assert len(KShotSampler(train, n_shot=5, seed=0, test=test).episode(0).support) == 10


def test_all_shots_are_all_rows_in_their_order_repeats_and_translations_included():
    pool = parallel_pool(4)
    twice = LabeledTexts.concatenate([pool, pool])
    assert KShotSampler(twice, n_shot=None, seed=0).everything() == twice


def test_a_text_under_two_labels_stays_under_both_in_the_support_of_all_shots():
    pool = LabeledTexts.from_names(["x", "y", "x", "z"], ["a", "a", "b", "b"])
    assert KShotSampler(pool, n_shot=None, seed=0).everything() == pool


def test_sizes_below_one_are_refused():
    for options in ({"n_shot": 0}, {"n_shot": 1, "max_query": 0}):
        with pytest.raises(NLPMetaError, match="must be at least 1"):
            KShotSampler(made(a=3, b=3), seed=0, **options)


def test_folds_hold_every_row_once_and_every_class():
    pool = parallel_pool()
    sampler = FoldSampler(pool, n_folds=4, seed=0)
    queries = [sampler.episode(fold).query for fold in range(4)]
    assert sorted(row for query in queries for row in rows_of(query)) == sorted(rows_of(pool))
    assert all(set(query.counts().values()) == {9} for query in queries)  # 12 sentences in 3 languages over 4 folds
    assert digest(sampler.episode(5)) == digest(sampler.episode(1))


def test_folds_count_a_repeated_text_once():
    pool = LabeledTexts.from_names(["x 1", "x 2", "X 3", "y", "z", "w"], ["a", "a", "a", "b", "b", "b"])
    sampler = FoldSampler(pool, n_folds=3, seed=0)
    assert sampler.never_scored == ("a",)
    assert all(set(sampler.episode(fold).query.names()) == {"b"} for fold in range(3))
    with pytest.raises(DataError, match="The classes have 1 to 3"):
        FoldSampler(pool, n_folds=4, seed=0)


def test_small_classes_are_spread_over_the_folds():
    pool = made(a=10, b=2, c=3, d=1, e=2)
    sampler = FoldSampler(pool, n_folds=5, seed=0)
    queries = [sampler.episode(fold).query for fold in range(5)]
    held_out = Counter(name for query in queries for name in query.names())
    assert held_out == {"a": 10, "b": 2, "c": 3, "e": 2}
    assert {len(query) for query in queries} == {3, 4}  # 2 of class a, and 7 others over 5 folds
    assert all(set(sampler.episode(fold).support.names()) == set("abcde") for fold in range(5))
    assert sampler.never_scored == ("d",)


# ---------------------------------------------------------------------------------------------- parts of a pool


def test_left_out_languages_labels_ids_and_texts_are_gone():
    pool = parallel_pool(3)
    for spelling in ("sw", "swa", "swh_Latn", "Swahili", "sw-KE"):
        assert set(leave_out(pool, langs=[spelling]).langs) == {"en-US", "deu"}
    assert leave_out(pool, labels=["mail_read", "alarm_set"]).label_names == (
        "alarm_stop",
        "mail_send",
        "music_play",
        "music_stop",
    )
    assert not {"mail_read 0", "mail_read 1"} & set(leave_out(pool, ids=["mail_read 0", "mail_read 1"]).ids)
    without = leave_out(pool, texts=["EN-US  mail_read a at 9"])  # the text has 0 in place of 9
    assert len(without) == len(pool) - 1 and "en-US mail_read a at 0" not in without.texts
    assert leave_out(pool) == pool
    assert leave_out(pool, labels=["not there"], langs=["fr"], ids=["?"], texts=["?"]) == pool


def test_leave_out_lists_that_cannot_be_honoured_are_errors():
    with pytest.raises(DataError, match="'langs'"):
        leave_out(made(a=2), langs=["sw"])
    with pytest.raises(DataError, match="'ids'"):
        leave_out(made(a=2), ids=["1"])
    with pytest.raises(UnknownLanguageError, match="Swahilli"):
        leave_out(parallel_pool(2), langs=["Swahilli!"])
    with pytest.raises(DataError, match="Nothing remains of 36 texts after leaving out 6 labels"):
        leave_out(parallel_pool(2), labels=CLASSES)


def test_one_language_in_two_spellings_is_one_part():
    pool = LabeledTexts.from_names(list("abcd"), ["x"] * 4, langs=["en-US", "eng", "sw", "swh_Latn"])
    assert {lang: part.texts for lang, part in split_by(pool, "langs").items()} == {"en": ("a", "b"), "sw": ("c", "d")}


# ---------------------------------------------------------------------------------------------- domains, hard classes


# ---------------------------------------------------------------------------------------------- languages


def test_support_is_in_one_language_and_query_in_another():
    sampler = CrossLingualSampler(parallel_pool(), n_way=4, n_shot=5, n_query=7, seed=0)  # all 12 sentences
    seen = set()
    for index in range(80):
        episode = sampler.episode(index)
        (support,), (query,) = set(episode.support.langs), set(episode.query.langs)
        seen.add((support, query))
        assert len(episode.support) == 20 and len(episode.query) == 28
    assert len(seen) == len(sampler.pairs) == 6 and all(a != b for a, b in seen)


def test_the_languages_of_support_and_query_can_be_named():
    options = {"n_way": 2, "n_shot": 1, "n_query": 1, "seed": 0}
    sampler = CrossLingualSampler(parallel_pool(), support_langs=["English", "de-DE"], query_langs=["swa"], **options)
    assert sampler.pairs == (("en", "sw"), ("de", "sw"))
    with pytest.raises(UnknownLanguageError, match="no texts in 'fr'"):
        CrossLingualSampler(parallel_pool(), query_langs=["fr"], **options)
    with pytest.raises(NLPMetaError, match="sw with another language"):
        CrossLingualSampler(parallel_pool(), support_langs=["sw"], query_langs=["sw-KE"], **options)
    with pytest.raises(NLPMetaError, match="at least one"):
        CrossLingualSampler(parallel_pool(), query_langs=[], **options)
    with pytest.raises(NLPMetaError, match="any two of"):
        CrossLingualSampler(parallel_pool(), n_way=2, n_shot=6, n_query=7, seed=0)


def test_languages_that_are_not_parallel_need_less():
    pool = LabeledTexts.from_names(
        [f"{lang} {name} {letters(k)}" for lang in ("en", "sw") for name in "ab" for k in range(5)],
        [name for _ in range(2) for name in "ab" for _ in range(5)],
        langs=["en"] * 10 + ["sw"] * 10,
    )
    sampler = CrossLingualSampler(pool, n_way=2, n_shot=5, n_query=5, seed=0)
    assert len(sampler.episode(0).support) == len(sampler.episode(0).query) == 10


def test_temperature_weights_agree_with_the_exponent_of_xlm_r():
    sizes = [100, 5000, 250]
    by_hand = [size**0.3 / sum(other**0.3 for other in sizes) for size in sizes]
    assert temperature_weights(sizes, temperature=1 / 0.3) == pytest.approx(by_hand)
    assert temperature_weights(sizes, temperature=1) == pytest.approx([size / 5350 for size in sizes])
    assert temperature_weights(sizes, temperature=math.inf) == pytest.approx([1 / 3] * 3)
    for wrong in (([], 1), ([0, 1], 1), ([1], 0), ([1], math.nan)):
        with pytest.raises(NLPMetaError, match="must be positive"):
            temperature_weights(wrong[0], temperature=wrong[1])


# ---------------------------------------------------------------------------------------------- mixtures


class Marked:
    """A sampler that says its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def episode(self, index: int) -> Episode:
        return Episode(*(LabeledTexts((f"{self.name} {side} {index}",), (0,), ("x",)) for side in ("s", "q")))


def test_a_mixture_draws_by_weight_and_keeps_the_index():
    sampler = MixtureSampler([Marked("a"), Marked("b"), Marked("never")], weights=[1, 3, 0], seed=0)
    drawn = Counter(sampler.episode(index).support.texts[0].split()[0] for index in range(4000))
    assert drawn["b"] / 4000 == pytest.approx(0.75, abs=0.03) and drawn["never"] == 0
    assert sampler.episode(17).support.texts[0].endswith("s 17")


def test_mixtures_inside_mixtures_of_the_same_seed_draw_independently():
    inner = MixtureSampler([Marked("a"), Marked("b")], seed=0)
    middle = MixtureSampler([inner, Marked("c")], seed=0)
    outer = MixtureSampler([middle, Marked("d")], seed=0)
    drawn = Counter(outer.episode(index).support.texts[0].split()[0] for index in range(4000))
    for name, share in {"a": 1 / 8, "b": 1 / 8, "c": 1 / 4, "d": 1 / 2}.items():
        assert drawn[name] / 4000 == pytest.approx(share, abs=0.03)


def test_wrappers_in_each_other_use_streams_of_their_own(samplers):
    streams, sampler = [], samplers["all together"]
    while hasattr(sampler, "stream"):
        streams.append(sampler.stream)
        sampler = sampler.sampler
    assert len(streams) == len(set(streams)) == 3 and min(streams) > 8


def test_weights_that_do_not_fit_are_refused():
    for weights in ([1], [1, -1], [0, 0], [1, math.inf]):
        with pytest.raises(NLPMetaError, match="as many weights"):
            MixtureSampler([Marked("a"), Marked("b")], weights=weights, seed=0)
    with pytest.raises(NLPMetaError, match="at least one sampler"):
        MixtureSampler([], seed=0)


# ---------------------------------------------------------------------------------------------- imbalance


def test_a_long_tail_follows_zipfs_law_with_at_least_one_shot():
    base = EpisodeSampler([parallel_pool()], n_way=6, n_shot=10, n_query=1, seed=0)
    firsts = set()
    for index in range(60):
        counts = ImbalancedSampler(base, shots=LongTail(1.0), seed=0).episode(index).support.counts()
        assert sorted(counts.values(), reverse=True) == [10, 5, 3, 2, 2, 2]  # 10 / rank, rounded
        firsts.add(max(range(6), key=list(counts.values()).__getitem__))
    assert firsts == set(range(6))
    steep = ImbalancedSampler(base, shots=LongTail(9.0), seed=0).episode(0).support.counts()
    assert sorted(steep.values()) == [1, 1, 1, 1, 1, 10]


def test_each_class_draws_its_own_shots_from_a_range():
    base = EpisodeSampler([parallel_pool()], n_way=6, n_shot=5, n_query=2, seed=0)
    sampler = ImbalancedSampler(base, shots=Range(2, 5), seed=0)
    counts = [tuple(sampler.episode(index).support.counts().values()) for index in range(50)]
    assert {size for each in counts for size in each} == {2, 3, 4, 5} and len(set(counts)) > 40
    assert sampler.episode(4).query == base.episode(4).query
    assert set(sampler.episode(4).support.texts) < set(base.episode(4).support.texts)
    with pytest.raises(NLPMetaError, match="n_shot=6"):
        ImbalancedSampler(base, shots=Range(1, 6), seed=0)


def test_what_is_kept_of_a_support_set_in_the_order_of_the_data_is_drawn():
    whole = KShotSampler(made(a=20, b=20), n_shot=None, seed=0, test=made(a=3, b=3).select([0, 3]))
    sampler = ImbalancedSampler(whole, shots=Range(2, 2), seed=0)
    assert len({text for index in range(60) for text in sampler.episode(index).support.texts}) > 30


def test_meta_dataset_shots_stay_within_the_budget_and_follow_the_class_sizes():
    sizes = np.asarray([200, 20, 20, 20])
    law, drawn = MetaDatasetShots(most=60), []
    for index in range(400):
        shots = law.draw(generator(0, index), sizes)
        assert (shots >= 1).all() and (shots <= sizes).all() and shots.sum() <= 60
        drawn.append(shots)
    mean = np.mean(drawn, axis=0)
    assert mean[0] > 3 * mean[1:].max() and len({tuple(shots) for shots in drawn}) > 200
    alone = [law.draw(generator(1, index), np.asarray([1, 1])).tolist() for index in range(50)]
    assert alone == [[1, 1]] * 50


def test_laws_that_mean_nothing_are_refused():
    for exponent in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(NLPMetaError, match="exponent"):
            LongTail(exponent)
    with pytest.raises(NLPMetaError, match="at least 1"):
        MetaDatasetShots(most=0)


# ---------------------------------------------------------------------------------------------- spam


def test_spam_queries_come_from_the_window_after_the_support():
    sampler = SpamSampler([spam_pool("sms"), spam_pool("mail")], n_shot=2, n_query=3, seed=0, n_windows=4)
    assert sampler.tasks == tuple((channel, window) for channel in ("sms", "mail") for window in range(3))
    for index in range(60):
        episode = sampler.episode(index)
        assert max(episode.support.times) < min(episode.query.times)
        assert len(set(episode.support.domains + episode.query.domains)) == 1
        assert sorted(episode.support.counts().items()) == [("ham", 2), ("spam", 2)]
        hours = [(int(t[8:10]) - 1) * 24 + int(t[11:13]) for t in episode.support.times + episode.query.times]
        assert max(hours) // 20 == min(hours) // 20 + 1  # 80 hours in 4 windows


def test_windows_of_time_read_zones_and_seconds():
    from nlpmeta.episodes.pools import time_windows

    def order(*times: str) -> list[list[int]]:
        pool = LabeledTexts.from_names(list("abcd")[: len(times)], ["x"] * len(times), times=times)
        return time_windows(pool, n_windows=len(times))

    assert order("2024-01-01T12:00:00+03:00", "2024-01-01T10:00:00Z", "2024-01-01T09:30:00") == [[0], [2], [1]]
    assert order("1432859050", "999999999.5") == [[1], [0]]
    for wrong in ("yesterday", "nan", ""):
        with pytest.raises(DataError, match="is not a time"):
            order("2024-01-01", wrong)


def test_a_channel_can_be_a_whole_pool():
    pool = LabeledTexts.concatenate([spam_pool("sms"), spam_pool("mail")])
    assert SpamSampler([pool], n_shot=1, n_query=1, seed=0).tasks == (("mail", 0), ("sms", 0))
    together = SpamSampler([pool], n_shot=1, n_query=1, seed=0, by_domain=False)
    assert together.tasks == (("0", 0),)
    assert any(len(set(together.episode(index).support.domains)) == 2 for index in range(9))


def test_spam_tasks_that_cannot_be_drawn_are_refused():
    for pools, options, said in (
        ([parallel_pool()], {}, "has 6"),
        ([spam_pool("sms")], {"n_windows": 1}, "there must be two"),
        ([spam_pool("sms")], {"n_windows": 40}, "fewer windows"),
        ([made(ham=9, spam=9)], {"n_windows": 2}, "'times'"),
        ([], {}, "No channel"),
    ):
        with pytest.raises(NLPMetaError, match=said):
            SpamSampler(pools, **{"n_shot": 2, "n_query": 2, "seed": 0, **options})


# ---------------------------------------------------------------------------------------------- users


def ratings() -> LabeledTexts:
    """Three users rate the same texts: one all alike, one by parity, one in four grades, each of them often enough."""
    grades = {"flat": lambda k: 3, "parity": lambda k: 1 + k % 2, "fine": lambda k: 1 + k % 4}
    rows = [(user, k, grade(k)) for user, grade in grades.items() for k in range(16)]
    return LabeledTexts.from_names(
        [f"item {letters(k)}" for _, k, _ in rows],
        [str(grade) for *_, grade in rows],
        ids=[str(k) for _, k, _ in rows],
        users=[user for user, *_ in rows],
    )


def test_a_task_holds_one_users_ratings_of_the_classes_they_use():
    sampler = UserSampler(ratings(), n_shot=1, n_query=3, seed=0)
    assert sampler.users == ("fine", "parity")
    for index in range(40):
        episode = sampler.episode(index)
        (user,) = set(episode.support.users + episode.query.users)
        assert set(episode.support.label_names) == ({"1", "2"} if user == "parity" else {"1", "2", "3", "4"})
    pairs = UserSampler(ratings(), n_shot=1, n_query=3, seed=0, n_way=2)
    assert {pairs.episode(index).n_way for index in range(20)} == {2}


def test_users_with_too_little_are_passed_over():
    assert UserSampler(ratings(), n_shot=4, n_query=4, seed=0).users == ("parity",)
    assert UserSampler(ratings(), n_shot=1, n_query=1, seed=0, n_way=Range(3, 9)).users == ("fine",)
    with pytest.raises(DataError, match="None of 3 users has 17"):
        UserSampler(ratings(), n_shot=1, n_query=1, seed=0, min_ratings=17)
    with pytest.raises(DataError, match="'users'"):
        UserSampler(made(a=4, b=4), n_shot=1, n_query=1, seed=0)


# ---------------------------------------------------------------------------------------------- out of scope


def test_a_leak_in_an_episode_made_otherwise_is_found():
    support = LabeledTexts(("wake me at 6", "play"), (0, 1), ("a", "b"), langs=("en", "en"), ids=("1", "2"))
    query = LabeledTexts(
        ("WAKE me at 7", "cheza", "sing"), (0, 1, 1), ("a", "b"), langs=("en", "sw", "en"), ids=("3", "2", "2")
    )
    assert leaked_texts(Episode(support, query, ("Ｐｌａｙ", "dance"))) == ("WAKE me at 7", "cheza", "Ｐｌａｙ")


# ---------------------------------------------------------------------------------------------- documentation


def test_the_examples_of_the_documentation_run():
    page = Path(__file__).parents[1] / "docs" / "sampling.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 10
    exec("\n".join(blocks), {})  # noqa: S102  our own page


# ---------------------------------------------------------------------------------------------- real data


def massive(folder: Path, *langs: str) -> LabeledTexts:
    parts = []
    for lang in langs:
        lines = (folder / "massive" / lang / "train.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        columns = [[row[key] for row in rows] for key in ("text", "label", "lang", "scenario", "id")]
        parts.append(LabeledTexts.from_names(*columns[:2], langs=columns[2], domains=columns[3], ids=columns[4]))
    return LabeledTexts.concatenate(parts)


def work_of_the_same_kind() -> None:
    """Small draws and look-ups, as a sampler does; ten times take 0.265 s of processor time where nothing else runs.

    Other processes that share the caches and the threads of a core make both slower alike.
    """
    found: dict[tuple[int, int], int] = {}
    draw = np.random.default_rng(0)
    for i in range(4000):
        for row in draw.permutation(20).tolist():
            found[row, i % 97] = found.get((row, i % 89), 0) + 1


@pytest.mark.slow
@pytest.mark.shared_data
def test_a_thousand_episodes_of_massive_are_drawn_in_a_second(shared_data):
    sampler = EpisodeSampler([massive(shared_data, "en-US")], n_way=20, n_shot=5, n_query=15, seed=0)
    seconds = []
    for _ in range(3):
        drawing = beside = 0.0
        for first in range(0, 1000, 100):
            start = time.process_time()
            for index in range(first, first + 100):
                sampler.episode(index)
            drawing += (middle := time.process_time()) - start
            work_of_the_same_kind()
            beside += time.process_time() - middle
        seconds.append(drawing / max(1.0, beside / 0.265))  # of a machine with nothing else to do, where it takes 0.56
    assert min(seconds) < 1.0


@pytest.mark.shared_data
def test_no_sentence_of_massive_is_on_both_sides_in_two_languages(shared_data):
    pool = massive(shared_data, "en-US", "sw-KE", "af-ZA")
    for sampler in (
        EpisodeSampler([pool], n_way=20, n_shot=5, n_query=15, seed=0),
        CrossLingualSampler(pool, n_way=20, n_shot=5, n_query=15, seed=0),
    ):
        for index in range(20):
            assert_no_leak(sampler.episode(index))
