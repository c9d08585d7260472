"""Tasks from raw text: what each sampler promises, that nothing but text is read, and that a run uses them."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from meta_task import KEYS, noisy_learner, noisy_pool
from sampling_zoo import assert_no_leak, digest, zoo_without_labels

from nlpmeta.data import readable_names
from nlpmeta.episodes import leaked_texts
from nlpmeta.episodes.clusters import (
    ClueSampler,
    ClueShares,
    ClusterSampler,
    cluster_samplers,
    groups_by_letters,
    partitions,
)
from nlpmeta.episodes.raw_texts import MaskedWordSampler, SentenceViewSampler, TellingWords, masked, units_of, words_of
from nlpmeta.episodes.wrappers import DifficultySampler, MixtureSampler
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.settings import SettingsError
from nlpmeta.sources.loading import load_source
from nlpmeta.training import RAW_KINDS, TrainSettings, TrainTasks, tasks
from nlpmeta.training.engine import meta_train, run_recipe
from nlpmeta.training.recipe_files import load_recipe
from nlpmeta.training.tasks import raw_texts, sampler_of

KINDS = tuple(zoo_without_labels())


@pytest.fixture(scope="module")
def samplers():
    return zoo_without_labels()


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_is_on_both_sides_and_sizes_are_kept(samplers, kind):
    for index in range(60):
        episode = samplers[kind].episode(index)
        assert_no_leak(episode)
        assert leaked_texts(episode) == ()
        assert 3 <= episode.n_way <= 6
        assert set(episode.query.counts().values()) == {2}
        assert len(set(episode.support.counts().values())) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_episode_depends_on_its_index_and_the_seed_alone(samplers, kind):
    forwards = [digest(samplers[kind].episode(index)) for index in range(12)]
    again, other = zoo_without_labels()[kind], zoo_without_labels(8)[kind]
    assert [digest(again.episode(index)) for index in reversed(range(12))] == forwards[::-1]
    assert [digest(other.episode(index)) for index in range(12)] != forwards
    assert len(set(forwards)) == 12


def test_a_masked_text_had_its_word_and_shows_no_word_of_the_episode(samplers):
    sampler = samplers["masked words"]
    for index in range(20):
        episode = sampler.episode(index)
        for part in (episode.support, episode.query):
            for text, word in zip(part.texts, part.names(), strict=True):
                assert not set(words_of(text)) & set(episode.support.label_names)
                assert any(word in words_of(original) and matches(text, original) for original in sampler.texts)


def matches(text, original):
    """Whether one is the other but for masked words."""
    pairs = list(zip(text.split(), original.split(), strict=True))
    return all(a in (b, "[MASK]") for a, b in pairs)


def test_words_are_masked_whole_and_whatever_their_case():
    assert masked("Play playing, PLAY!", ["play"], "<mask>") == "<mask> playing, <mask>!"
    assert words_of("Weka kengele saa 7, x tafadhali") == ["weka", "kengele", "saa", "tafadhali"]


def test_a_view_lost_about_its_share_and_nothing_was_added(samplers):
    text, rng = "one two three four five six seven eight", np.random.default_rng(0)
    sampler = SentenceViewSampler([text] * 2 + ["a b c d"], n_way=2, n_shot=1, n_query=1, seed=0, mask="_", share=0.25)
    views = {sampler.view(text, rng) for _ in range(200)}
    for view in views:
        kept = [unit for unit in view.split() if unit != "_"]
        assert len(kept) == 6
        assert [unit for unit in text.split() if unit in kept] == kept
    assert any("_" in view for view in views)
    assert any("_" not in view for view in views)


def test_a_text_without_spaces_is_taken_letter_by_letter():
    assert units_of("こんにちは") == ["こ", "ん", "に", "ち", "は"]
    sampler = SentenceViewSampler(["こんにちは", "さようなら"], n_way=2, n_shot=1, n_query=1, seed=0, mask="_")
    assert all(" " not in text for text in sampler.episode(0).texts())


def test_clusters_are_the_groups_that_the_embedding_has():
    rng = np.random.default_rng(0)
    texts, truth = [f"text number {chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(120)], np.arange(120) % 4
    centres = rng.normal(size=(4, 16)).astype(np.float32)
    sampler = ClusterSampler(texts, n_way=4, n_shot=2, n_query=2, seed=0, n_clusters=4, n_partitions=2)
    found = sampler.renew(lambda asked: centres[truth] + 0.05 * rng.normal(size=(120, 16)).astype(np.float32))
    for labels in found:
        assert len({(a, b) for a, b in zip(labels.tolist(), truth.tolist(), strict=True)}) == 4
    episode = sampler.episode(0)
    of = dict(zip(texts, truth.tolist(), strict=True))
    for part in (episode.support, episode.query):
        assert len({(name, of[text]) for text, name in zip(part.texts, part.names(), strict=True)}) == 4


def test_means_of_letter_groups_are_taken_off_so_that_clusters_go_across():
    rng = np.random.default_rng(0)
    topic, lang = np.arange(400) % 4, np.arange(400) // 200
    topics, langs = rng.normal(size=(4, 32)), 5 * rng.normal(size=(2, 32))
    vectors = (topics[topic] + langs[lang] + 0.1 * rng.normal(size=(400, 32))).astype(np.float32)
    apart = partitions(vectors, np.zeros(400, dtype=np.int64), n_clusters=4, n_partitions=1, seed=0)[0]
    across = partitions(vectors, lang.astype(np.int64), n_clusters=4, n_partitions=1, seed=0)[0]
    assert all(len(set(lang[apart == c].tolist())) == 1 for c in range(4))
    assert all(
        len(set(topic[across == c].tolist())) == 1 and len(set(lang[across == c].tolist())) == 2 for c in range(4)
    )


def test_letters_tell_scripts_apart():
    texts = [f"weka kengele saa {w}" for w in ("moja", "mbili", "tatu", "nne")] * 5
    texts += [f"поставь будильник на {w}" for w in ("час", "два", "три", "пять")] * 5
    found = groups_by_letters(texts, 2, seed=0)
    assert len(set(found[:20].tolist())) == len(set(found[20:].tolist())) == 1
    assert found[0] != found[-1]


RAIN = ["rain and wind today", "rain tomorrow", "rain or wind", "wind today", "strong wind and rain", "rain now"]
FOOD = ["rice and beans today", "rice tomorrow", "beans or rice", "beans today", "cold beans and rice", "rice now"]
MUSIC = [
    "songs and drums today",
    "songs tomorrow",
    "drums or songs",
    "drums today",
    "loud drums and songs",
    "songs now",
]


def told(texts, *, seed=0, n_way=3, n_shot=1, groups=1, n_clusters=3, labels=None):
    """A sampler of given clusters, equal parts of the texts in their order by default."""
    sampler = ClusterSampler(
        texts, n_way=n_way, n_shot=n_shot, n_query=1, seed=seed, n_clusters=n_clusters, telling_names=True,
        letter_groups=groups,
    )  # fmt: skip
    each = np.arange(len(texts)) * n_clusters // len(texts)
    sampler.put(np.asarray([each if labels is None else labels]))
    return sampler


def test_a_cluster_is_named_by_words_that_tell_it_from_the_others():
    by_kind, n_told = [(RAIN, {"rain", "wind"}), (FOOD, {"rice", "beans"}), (MUSIC, {"songs", "drums"})], 0
    for index in range(20):
        episode = told([*RAIN, *FOOD, *MUSIC]).episode(index)
        assert readable_names(episode.support.label_names) == episode.support.label_names
        named = dict(zip(episode.query.texts, episode.query.names(), strict=True))
        for texts, own in by_kind:
            words = {word for text, name in named.items() if text in texts for word in name.split()}
            assert not words & {word for _, others in by_kind for word in others - own}
            n_told += bool(words & own)
    assert n_told >= 50


def test_words_weigh_as_class_based_tf_idf_written_out_by_hand():
    """Grootendorst 2022, equation 2: the share of the class times log(1 + words of a class / words in all)."""
    texts, found = [*RAIN, *FOOD, *MUSIC], TellingWords([*RAIN, *FOOD, *MUSIC], np.zeros(18, dtype=np.int64), 3)
    weights = found._weights([np.arange(6), np.arange(6, 12), np.arange(12, 18)])
    counted = Counter(word for text in texts for word in set(text.split()))
    counted = Counter({word: count for word, count in counted.items() if count >= 2})
    own = Counter(word for text in RAIN for word in set(text.split()) if word in counted)
    for word in ("rain", "wind"):
        expected = own[word] / own.total() * np.log(1 + counted.total() / 3 / counted[word])
        assert weights[0, found.words.index(word)] == pytest.approx(expected)
    assert not weights[1:, found.words.index("rain")].any()


def test_a_name_is_made_of_other_texts_than_those_of_its_episode(samplers):
    texts, labels = samplers["clusters"].texts, samplers["clusters"]._parts[0][0].pool.labels
    sampler, n_named = told(texts, n_way=5, n_shot=2, n_clusters=12, labels=labels), 0
    of = dict(zip(texts, labels, strict=True))
    for index in range(60):
        episode = sampler.episode(index)
        n_named += not episode.support.label_names[0].isdigit()
        for name, text in zip(episode.query.names(), episode.query.texts, strict=True):
            others = [each for each in texts if of[each] == of[text] and each not in episode.texts()]
            assert name.isdigit() or all(sum(word in each.split() for each in others) >= 2 for word in name.split())
    assert n_named > 40


def test_a_word_that_only_texts_of_the_episode_have_names_nothing():
    texts = ["odd one", "odd two", "odd too", "plain three", "plain four", "plain five", "plain six", "plain seven"]
    sampler = told(texts, n_way=2, n_clusters=2, labels=[0, 0, 0, 1, 1, 1, 1, 1])
    assert all("odd" not in name for index in range(20) for name in sampler.episode(index).support.label_names)


def test_no_two_classes_share_a_word_and_names_are_read_as_they_are(samplers):
    for index in range(60):
        names = samplers["named clusters"].episode(index).support.label_names
        words = [word for name in names for word in name.split()]
        assert len(set(words)) == len(words)
        assert readable_names(names) in (names, None)
        assert readable_names(names) is not None or all(name.isdigit() for name in names)


def test_names_are_of_one_language_where_the_groups_are_languages():
    weather = [*(f"mvua {word}" for word in "leo kesho sasa jana usiku".split())]
    weather += [f"дождь {word}" for word in "сегодня завтра сейчас вчера ночью".split()]
    meals = [text.replace("mvua", "wali").replace("дождь", "обед") for text in weather]
    sampler = told([*weather, *meals], n_way=2, n_clusters=2, groups=2)
    drawn = {tuple(sorted(sampler.episode(index).support.label_names)) for index in range(40)}
    assert drawn == {("mvua", "wali"), ("дождь", "обед")}


def test_clusters_of_a_checkpoint_have_the_names_that_they_had(samplers):
    before = samplers["named clusters"]
    sizes = {"n_way": before.shape.n_way, "n_shot": before.shape.n_shot, "n_query": 2, "seed": 7, "n_clusters": 12}
    again = ClusterSampler(before.texts, **sizes, n_partitions=3, letter_groups=2, telling_names=True)
    again.put(np.asarray([part.pool.labels for part, _ in before._parts]))
    assert [digest(again.episode(i)) for i in range(6)] == [digest(before.episode(i)) for i in range(6)]


def test_scripts_without_spaces_are_numbered():
    texts = [f"{word}{place}" for word in ("今日は雨", "ご飯を食べる", "音楽を聞く") for place in "東西南北中"]
    episode = told(texts).episode(0)
    assert sorted(episode.support.label_names) == ["0", "1", "2"]


def test_named_clusters_can_stand_without_examples_so_that_names_alone_are_learned():
    sampler = told([*RAIN, *FOOD, *MUSIC], n_shot=2)
    names_only = ClueSampler(sampler, shares=ClueShares(names_only=1.0), plain_names=readable_names, seed=0)
    withheld = ClueSampler(sampler, shares=ClueShares(withheld=1.0), plain_names=readable_names, seed=0)
    assert names_only.episode(3).support.texts == sampler.episode(3).support.label_names
    assert withheld.episode(3).support.label_names == ("0", "1", "2")
    assert list(cluster_samplers(names_only)) == [sampler]


def test_without_telling_names_episodes_are_what_they_were():
    """Drawn on 30 November 2026 before there were any telling names."""
    sampler = ClusterSampler(
        [f"text {chr(97 + i)}" for i in range(24)], n_way=3, n_shot=1, n_query=1, seed=5, n_clusters=6
    )
    sampler.put(np.asarray([np.arange(24) % 6, np.arange(24) // 4]))
    assert [digest(sampler.episode(i))[:12] for i in range(3)] == ["bcd66b3998e4", "34de77a9bbfc", "735804c2553f"]


def test_what_cannot_be_drawn_is_said():
    sizes = {"n_way": 3, "n_shot": 1, "n_query": 1, "seed": 0}
    with pytest.raises(NLPMetaError, match="0 words are in 2 to 8 of the 2 texts"):
        MaskedWordSampler(["one two three", "four five six"], **sizes, mask="_")
    with pytest.raises(NLPMetaError, match="1 of 3 texts have 3 different words or more"):
        SentenceViewSampler(["ab", "two words", "now there are four"], **sizes, mask="_")
    with pytest.raises(NLPMetaError, match="need 20 distinct texts; there are 2. Add texts"):
        ClusterSampler(["a", "b"], **sizes, n_clusters=10)
    with pytest.raises(NLPMetaError, match="call renew"):
        ClusterSampler(["a", "b", "c", "d", "e", "f"], **sizes, n_clusters=3).episode(0)
    with pytest.raises(NLPMetaError, match="are not of 6 texts"):
        ClusterSampler(["a", "b", "c", "d", "e", "f"], **sizes, n_clusters=3).put(np.zeros((1, 5), dtype=np.int64))


def part_of(kind, **changes):
    return TrainTasks(source="starter", kind=kind, n_way=4, n_shot=1, n_query=1, n_clusters=10, **changes)


class Relabelled:
    """The starter corpus with its labels, ids, domains and users dealt out at random, or taken away."""

    def __init__(self, keep):
        self._inner, self._keep = load_source("starter"), keep

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def load(self, lang=None, split="train"):
        pool = self._inner.load(lang, split)
        if not self._keep:
            return replace(pool, labels=(0,) * len(pool), label_names=("",), ids=None, domains=None, users=None)
        order = np.random.default_rng(1).permutation(len(pool)).tolist()
        return replace(pool, labels=tuple(pool.labels[i] for i in order), ids=tuple(f"x{i}" for i in order))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("kind", RAW_KINDS)
def test_labels_and_other_columns_change_nothing(monkeypatch, kind, keep):
    def episodes():
        sampler = sampler_of(part_of(kind), seed=0, data_dir=None, mask="<mask>")
        for each in cluster_samplers(sampler):
            each.renew(
                lambda texts: np.asarray([[len(t), t.count("a"), t.count("e")] for t in texts], dtype=np.float32)
            )
        return [digest(sampler.episode(i)) for i in range(8)]

    before = episodes()
    monkeypatch.setattr(tasks, "load_source", lambda *_, **__: Relabelled(keep))
    assert episodes() == before


def test_a_file_is_read_in_place_of_the_source(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text("one text here\n\nOne  text here\nand another one\n", encoding="utf-8")
    recipe = load_recipe("unsupervised", [f"data.file={path}"])
    assert {part.file for part in recipe.data} == {str(path)}
    assert raw_texts(recipe.data[0], seed=0, data_dir=None) == ["One  text here", "and another one"]


def test_a_file_without_a_text_is_named(tmp_path):
    path = tmp_path / "empty.txt"
    path.write_text(" \n\n")
    with pytest.raises(DataError, match=r"empty\.txt holds no texts"):
        raw_texts(part_of("clusters", file=str(path)), seed=0, data_dir=None)


def test_so_many_texts_are_read_at_most_and_always_the_same():
    part = part_of("clusters", n_texts=30)
    texts = raw_texts(part, seed=0, data_dir=None)
    assert len(texts) == 30
    assert texts == raw_texts(part, seed=0, data_dir=None)
    assert texts != raw_texts(part, seed=1, data_dir=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["data.0.labels=[alarm]"], "read no labels, so labels cannot be used"),
        (["data.0.kind=nway", "data.0.file=x.txt"], "file is for the kinds"),
        (["data.0.kind=views", "data.0.telling_names=true"], "telling_names is for the kind clusters, not for views"),
    ],
)
def test_settings_that_contradict_a_kind_are_refused(changes, message):
    with pytest.raises(SettingsError, match=message):
        load_recipe("unsupervised", changes)


def test_an_encoder_without_a_mask_token_is_refused_where_one_is_needed():
    with pytest.raises(NLPMetaError, match="mask token"):
        sampler_of(part_of("views"), seed=0, data_dir=None)
    assert isinstance(sampler_of(part_of("clusters"), seed=0, data_dir=None), ClusterSampler)


def test_cluster_samplers_are_found_however_they_are_wrapped():
    texts = [f"text {chr(97 + i)}" for i in range(20)]
    one, two = (ClusterSampler(texts, n_way=2, n_shot=1, n_query=1, seed=s, n_clusters=4) for s in (0, 1))
    wrapped = MixtureSampler([DifficultySampler(one, share=0.5, seed=0), MixtureSampler([two], seed=0)], seed=0)
    assert list(cluster_samplers(wrapped)) == [one, two]


def test_tasks_are_clustered_anew_as_the_encoder_learns():
    texts = noisy_pool(KEYS[:16]).texts
    sampler = ClusterSampler(texts, n_way=5, n_shot=1, n_query=3, seed=0, n_clusters=16, n_partitions=1)
    made = []
    sampler.put = lambda found, put=sampler.put: (made.append(found), put(found))
    learner = noisy_learner()
    meta_train(learner, sampler, settings=TrainSettings(steps=7, renew_every=3, warmup=1, learning_rate=5e-3))
    assert len(made) == 3  # before the first step and before the fourth and the seventh
    assert not np.array_equal(made[0], made[2])


def test_the_last_weights_are_kept_if_asked_whatever_the_held_out_tasks_say():
    pool = noisy_pool(KEYS[:16])
    sampler = ClusterSampler(pool.texts, n_way=5, n_shot=1, n_query=3, seed=0, n_clusters=16)
    settings = TrainSettings(steps=4, eval_every=2, eval_episodes=2, keep="last", ema=0.0, control_episodes=0)
    learner, other = noisy_learner(), noisy_learner()
    found = meta_train(learner, sampler, settings=settings, evaluate={"same": sampler})
    meta_train(other, sampler, settings=settings)
    assert found.best_step == 4
    pairs = zip(learner.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_the_recipe_trains_on_a_plain_text_file(tmp_path):
    path = tmp_path / "corpus.txt"
    texts = [text for lang in ("sw", "en") for text in load_source("starter").load(lang).texts[::3]]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    small = ["steps=2", "renew_every=1", "data.n_way=[3,5]", "data.n_clusters=12", f"out={tmp_path / 'run'}"]
    run_recipe(load_recipe("unsupervised", [f"data.file={path}", *small]))
    facts = json.loads((tmp_path / "run" / "nlpmeta.json").read_text())
    assert "corpus.txt" in json.dumps(facts)
