"""Episodes from many data sets: their sizes, their shares, and what never meets."""

from collections import Counter
from dataclasses import replace

import pytest

from nlpmeta.data import LabeledTexts
from nlpmeta.episodes import Range, leaked_texts
from nlpmeta.episodes.many_sets import ManySetsSampler, ManySetsShape, SetPart
from nlpmeta.errors import NLPMetaError

SMALL = ManySetsShape(n_way=Range(2, 9), n_shot=Range(1, 8), n_query=Range(1, 6), most_chars=6000)


def part(kind, name, lang, labels, n=20, ids=False, length=0):
    """Texts that say where they are from; with ids, row ``i`` of a class is one sentence in all languages."""
    rows = [(f"{name} {lang} {label} number {chr(97 + i)}{'x' * length}", label) for label in labels for i in range(n)]
    pool = LabeledTexts.from_names([text for text, _ in rows], [label for _, label in rows], langs=[lang] * len(rows))
    numbers = tuple(f"{label} {i}" for label in labels for i in range(n))
    return SetPart(kind, name, lang, replace(pool, ids=numbers) if ids else pool)


def sampler(parts, *, shape=SMALL, cross_share=0.0, seed=0, **options):
    return ManySetsSampler(parts, shape=shape, cross_share=cross_share, seed=seed, **options)


def set_of(side):
    found = {text.split()[0] for text in side.texts}
    assert len(found) == 1
    return found.pop()


def place(side):
    return set_of(side), side.langs[0]


FEELINGS = ("bad", "good")
LETTERS = "abcdefghi"
PARTS = [
    part("sentiment", "films", "en", FEELINGS),
    part("sentiment", "films", "sw", FEELINGS),
    part("sentiment", "shops", "de", (*FEELINGS, "neither")),
    part("intent", "home", "en", tuple(f"wish {letter}" for letter in LETTERS)),
]


def test_an_episode_depends_on_its_number_alone():
    one, other = sampler(PARTS, cross_share=0.5), sampler(PARTS, cross_share=0.5)
    for i in (7, 3, 0):
        other.episode(i + 1)
        assert one.episode(i) == other.episode(i)
    assert one.episode(0) != sampler(PARTS, cross_share=0.5, seed=1).episode(0)


def test_an_episode_is_of_one_set_and_language_unless_a_share_crosses():
    one = sampler(PARTS)
    drawn = [one.episode(i) for i in range(60)]
    assert all(place(episode.support) == place(episode.query) for episode in drawn)
    assert {place(episode.query) for episode in drawn} == {(each.name, each.lang) for each in PARTS}


def test_across_sets_the_classes_are_those_that_both_have_and_the_kind_is_one():
    one = sampler(PARTS, cross_share=1.0)
    drawn = [one.episode(i) for i in range(80)]
    pairs = Counter((place(each.support), place(each.query)) for each in drawn)
    assert (("films", "en"), ("films", "sw")) in pairs
    assert (("films", "sw"), ("shops", "de")) in pairs
    for (one, other), _ in pairs.items():
        assert (one == other) == (one[0] == "home")  # the only set of its kind, in one language
    for each in drawn:
        if set_of(each.support) != set_of(each.query):
            assert set(each.support.label_names) == set(FEELINGS)


def test_translations_never_stand_on_both_sides():
    parts = [part("topic", "news", lang, ("a", "b", "c"), n=6, ids=True) for lang in ("en", "sw")]
    shape = replace(SMALL, n_shot=Range(1, 5))
    one = sampler(parts, shape=shape, cross_share=1.0)
    for i in range(60):
        episode = one.episode(i)
        assert place(episode.support) != place(episode.query)
        assert not set(episode.support.ids) & set(episode.query.ids)
        assert not leaked_texts(episode)


def test_the_same_number_in_two_sets_is_not_the_same_sentence():
    parts = [part("topic", name, "en", ("a", "b"), n=3, ids=True) for name in ("news", "wiki")]
    shape = replace(SMALL, n_shot=Range(2, 2), n_query=Range(1, 1))
    one = sampler(parts, shape=shape, cross_share=1.0)
    drawn = [one.episode(i) for i in range(40)]
    assert any(set(i.split("/")[1] for i in e.support.ids) & set(i.split("/")[1] for i in e.query.ids) for e in drawn)


def test_ids_that_repeat_within_a_language_name_nothing():
    doubtful = part("topic", "news", "en", ("a", "b"), n=4)
    doubtful = replace(doubtful, pool=replace(doubtful.pool, ids=("0",) * 8))
    episode = sampler([doubtful]).episode(0)
    assert len(episode.support) >= 2
    assert len(set(episode.query.ids)) == len(episode.query)


@pytest.mark.parametrize("length", [0, 300, 5000])
def test_an_episode_keeps_within_its_characters(length):
    parts = [part("topic", "t", "en", tuple("abcdefgh"), length=length), part("topic", "u", "en", ("a", "b"))]
    shape = replace(SMALL, n_way=Range(2, 60))
    one = sampler(parts, shape=shape)
    for i in range(80):
        episode = one.episode(i)
        texts = episode.support.texts + episode.query.texts
        assert sum(min(len(text), 500) + 20 for text in texts) <= 6000 * 1.05
        assert episode.n_way >= 2


def test_sizes_reach_from_one_end_of_their_ranges_to_the_other():
    many = [part("intent", "home", "en", tuple(a + b for a in LETTERS for b in LETTERS[:7]), n=16)]
    shape = ManySetsShape(Range(2, 60), Range(1, 8), Range(1, 6), most_chars=12000)
    one = sampler(many, shape=shape)
    drawn = [one.episode(i) for i in range(150)]
    assert min(each.n_way for each in drawn) <= 4
    assert max(each.n_way for each in drawn) > 50
    assert {len(each.support) // each.n_way for each in drawn} == set(range(1, 9))
    assert {len(each.query) // each.n_way for each in drawn} >= {1, 6}


def test_a_class_with_few_texts_is_drawn_where_it_is_rich_enough():
    rich, poor = part("topic", "t", "en", ("a", "b"), n=20), part("topic", "t", "en", ("c",), n=3)
    both = LabeledTexts.concatenate([rich.pool, poor.pool])
    one = sampler([SetPart("topic", "t", "en", both)])
    drawn = [each for each in (one.episode(i) for i in range(200)) if "c" in each.support.label_names]
    assert {len(each.support) // each.n_way for each in drawn} == {1, 2}


def test_temperatures_make_kinds_and_sets_more_equal():
    big, small = part("a", "big", "en", FEELINGS, n=200), part("b", "small", "en", FEELINGS, n=10)
    as_large = sampler([big, small], kind_temperature=1)
    equal = sampler([big, small], kind_temperature=1e9)
    counts = [Counter(set_of(each.episode(i).query) for i in range(400)) for each in (as_large, equal)]
    assert counts[0]["small"] < 0.12 * 400
    assert 0.4 * 400 < counts[1]["small"] < 0.6 * 400
    same_kind = [replace(small, kind="a"), big]
    by_set = [sampler(same_kind, set_temperature=each) for each in (1, 1e9)]
    counts = [Counter(set_of(each.episode(i).query) for i in range(400)) for each in by_set]
    assert counts[0]["small"] < 0.12 * 400 < 0.4 * 400 < counts[1]["small"]


def test_languages_of_a_set_share_its_probability():
    parts = [part("a", "one", lang, FEELINGS) for lang in ("en", "de", "fr")] + [part("a", "two", "en", FEELINGS)]
    drawn = sampler(parts, set_temperature=1e9)
    counts = Counter(set_of(drawn.episode(i).query) for i in range(400))
    assert 0.4 * 400 < counts["two"] < 0.6 * 400


def test_parts_that_cannot_fill_an_episode_are_left_out_and_none_at_all_is_an_error():
    poor = part("a", "poor", "en", FEELINGS, n=1)
    kept = sampler([poor, PARTS[0]])
    assert [each.name for each in kept.parts] == ["films"]
    assert kept.label_names == FEELINGS
    with pytest.raises(NLPMetaError, match="None of 1 sets and languages has 2 classes with 2 distinct texts"):
        sampler([poor])


def test_impossible_shares_and_sizes_are_refused():
    with pytest.raises(NLPMetaError, match="0..1"):
        sampler(PARTS, cross_share=1.5)
    with pytest.raises(NLPMetaError, match="two classes"):
        ManySetsShape(n_way=Range(1, 3))
