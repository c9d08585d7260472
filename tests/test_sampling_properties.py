"""What holds for every sampler on any data: repeated texts, other spellings, shared ids, two labels on one text."""

from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sampling_zoo import assert_no_leak, letters, mark

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import Range, leaked_texts
from nlpmeta.episodes.kshot import FoldSampler, KShotSampler
from nlpmeta.episodes.pools import leave_out
from nlpmeta.episodes.samplers import CrossLingualSampler, EpisodeSampler, SpamSampler, UserSampler
from nlpmeta.episodes.wrappers import ImbalancedSampler, LongTail, MetaDatasetShots, MixtureSampler
from nlpmeta.errors import DataError, NLPMetaError, NotEnoughExamplesError

fast = settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.filter_too_much])

SPELLINGS = (
    lambda text: text,
    lambda text: text.upper(),
    lambda text: text.replace("7", "3"),
    lambda text: f"  {text.replace(' ', chr(0x3000))}\n",
    lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),  # full-width forms
    lambda text: text.replace("é", "e\u0301").replace("ss", "ß"),
    lambda text: text.replace("7", "٧"),
    lambda text: "".join(chr(ord(c) - ord("a") + 0x1D400) if "a" <= c <= "z" else c for c in text),  # bold capitals
)
LANGS = {"en": "en", "en-US": "en", "sw": "sw", "swh_Latn": "sw", "de": "de"}
Row = tuple[str, str, str, str, str, str]


def row_of(number: int, seed: int, n_classes: int) -> Row:
    """Row ``number``, decoded from one integer; its text, id and class are its own but for one chance in eight each."""

    def take(size: int) -> int:
        nonlocal seed
        seed, rest = divmod(seed, size)
        return rest

    repeats_text, repeats_id, changes_class = (take(8) == 7 for _ in range(3))
    word, other = (take(12) if repeats_text else number), take(12)
    label = take(n_classes) if changes_class else word % n_classes
    text = SPELLINGS[take(len(SPELLINGS))](f"strasse é 7 {letters(word)}")
    id_ = other if repeats_id else number
    lang = tuple(LANGS)[take(len(LANGS))]
    return text, f"class_{label}", lang, f"domain {label % 2}", str(id_), f"2024-01-01T00:{take(60):02}:00"


@st.composite
def rows(draw: st.DrawFn, *, at_least: int = 2) -> list[Row]:
    """Up to 60 rows, some of which repeat a text, an id, or both."""
    n_classes = draw(st.integers(1, 5))
    seed = st.integers(0, 2**34)
    seeds = draw(
        st.lists(seed, min_size=max(30, at_least), max_size=60) | st.lists(seed, min_size=at_least, max_size=60)
    )
    return [row_of(number, seed, n_classes) for number, seed in enumerate(seeds)]


def pool_of(table: list[Row], *, ids: bool = True) -> LabeledTexts:
    texts, names, langs, domains, numbers, times = zip(*table, strict=True)
    users = [f"user {int(time[-5:-3]) % 2}" for time in times]
    own = numbers if ids else None
    return LabeledTexts.from_names(texts, names, langs=langs, domains=domains, ids=own, times=times, users=users)


def tidy_pool(n_rows: int) -> LabeledTexts:
    """Three classes in turn; every text is its own."""
    return pool_of([row_of(number, 0, 3) for number in range(n_rows)])


pools = st.builds(pool_of, rows(), ids=st.booleans())
large_pools = st.builds(pool_of, rows(at_least=40))
small = st.integers(1, 3)


def sentences(pool: LabeledTexts) -> list[list[int]]:
    """Groups of rows that share a text or an id, found by merging until nothing changes."""
    groups: list[tuple[set[object], list[int]]] = []
    for row, text in enumerate(pool.texts):
        keys: set[object] = {("text", mark(text))} | ({("id", pool.ids[row])} if pool.ids else set())
        members = [row]
        for group in [group for group in groups if group[0] & keys]:
            groups.remove(group)
            keys, members = keys | group[0], group[1] + members
        groups.append((keys, members))
    return [sorted(members) for _, members in groups]


def sentences_by_class(pool: LabeledTexts) -> Counter[str]:
    """How many sentences each class has; each counts for its most frequent class, of these for the first."""
    names, found = pool.names(), Counter(dict.fromkeys(pool.names(), 0))
    for members in sentences(pool):
        found[Counter(names[row] for row in members).most_common(1)[0][0]] += 1
    return found


def assert_rows_of(part: LabeledTexts, pool: LabeledTexts) -> None:
    columns = ("texts", "langs", "domains", "ids", "users", "times")

    def whole(data: LabeledTexts) -> set[tuple[object, ...]]:
        present = [getattr(data, name) or (None,) * len(data) for name in columns]
        return set(zip(data.names(), *present, strict=True))

    assert whole(part) <= whole(pool)


# ---------------------------------------------------------------------------------------------- N-way K-shot


@fast
@given(pools, st.integers(1, 4), small, small, st.integers(0, 99))
def test_episodes_have_the_sizes_asked_for_and_no_sentence_twice(pool, n_way, n_shot, n_query, seed):
    enough = sum(count >= n_shot + n_query for count in sentences_by_class(pool).values())
    if enough < n_way:
        with pytest.raises(NLPMetaError):
            EpisodeSampler([pool], n_way=n_way, n_shot=n_shot, n_query=n_query, seed=seed)
        return
    sampler = EpisodeSampler([pool], n_way=n_way, n_shot=n_shot, n_query=n_query, seed=seed)
    for index in range(5):
        episode = sampler.episode(index)
        assert set(episode.support.counts().values()) == {n_shot} and set(episode.query.counts().values()) == {n_query}
        assert episode.n_way == n_way
        texts = [mark(text) for text in episode.texts()]
        assert len(set(texts)) == len(texts)
        ids = (episode.support.ids or ()) + (episode.query.ids or ())
        assert len(set(ids)) == len(ids)
        assert_rows_of(episode.support, pool)
        assert_rows_of(episode.query, pool)


@fast
@given(pools, st.permutations(range(6)), st.integers(0, 99))
def test_the_order_of_calls_and_other_instances_change_nothing(pool, order, seed):
    def build() -> EpisodeSampler:
        return EpisodeSampler([pool, pool], n_way=Range(1, 2), n_shot=Range(1, 2), n_query=1, seed=seed)

    try:
        first, second = build(), build()
    except NLPMetaError:
        assume(False)
    straight = [first.episode(index) for index in range(6)]
    assert [second.episode(index) for index in order] == [straight[index] for index in order]


# ---------------------------------------------------------------------------------------------- every kind

BUILDERS = {
    "k-shot": lambda pool, base: KShotSampler(pool, n_shot=2, seed=3, rare="keep"),
    "folds": lambda pool, base: FoldSampler(pool, n_folds=2, seed=3),
    "cross-lingual": lambda pool, base: CrossLingualSampler(pool, n_way=Range(1, 3), n_shot=2, n_query=2, seed=3),
    "users": lambda pool, base: UserSampler(pool, n_shot=1, n_query=1, seed=3),
    "spam": lambda pool, base: SpamSampler(
        [pool.with_classes(pool.label_names[:2])], n_shot=1, n_query=1, seed=3, n_windows=2, by_domain=False
    ),
    "long tail": lambda pool, base: ImbalancedSampler(base, shots=LongTail(), seed=3),
    "range": lambda pool, base: ImbalancedSampler(base, shots=Range(1, 2), seed=3),
    "meta-dataset": lambda pool, base: ImbalancedSampler(base, shots=MetaDatasetShots(), seed=3),
    "mixture": lambda pool, base: MixtureSampler([base, MixtureSampler([base], seed=3)], seed=3),
}


@pytest.mark.parametrize("kind", BUILDERS)
@settings(fast, max_examples=25)
@given(pool=pools)
def test_no_kind_leaks_on_any_data_and_each_repeats_itself(kind, pool):
    try:
        base = EpisodeSampler([pool], n_way=min(3, pool.n_way), n_shot=2, n_query=1, seed=3)
    except NLPMetaError:
        base = EpisodeSampler([tidy_pool(9)], n_way=3, n_shot=2, n_query=1, seed=3)
    try:
        sampler, again = (BUILDERS[kind](pool, base) for _ in range(2))
        episodes = [sampler.episode(index) for index in range(4)]
    except NLPMetaError:
        assume(False)
    for episode in episodes:
        assert_no_leak(episode)
        assert leaked_texts(episode) == ()
        assert set(episode.support.labels) == set(range(episode.n_way))
    assert [again.episode(index) for index in (3, 1, 0, 2)] == [episodes[index] for index in (3, 1, 0, 2)]


@fast
@given(pools, small, small)
def test_cross_lingual_sides_are_two_languages_and_full(pool, n_shot, n_query):
    try:
        sampler = CrossLingualSampler(pool, n_way=Range(1, 3), n_shot=n_shot, n_query=n_query, seed=0)
    except NLPMetaError:
        assume(False)
    for index in range(8):
        episode = sampler.episode(index)
        support, query = ({LANGS[lang] for lang in part.langs} for part in (episode.support, episode.query))
        assert len(support) == len(query) == 1 and support != query
        assert (*support, *query) in sampler.pairs
        assert set(episode.support.counts().values()) == {n_shot} and set(episode.query.counts().values()) == {n_query}
        assert_rows_of(episode.support, pool)
        assert_rows_of(episode.query, pool)


@fast
@given(st.floats(0.1, 4), st.integers(0, 50))
def test_imbalanced_supports_are_parts_of_the_whole_with_every_class(exponent, index):
    base = KShotSampler(tidy_pool(40), n_shot=9, seed=index)
    whole = base.episode(index)
    for shots in (Range(1, 9), LongTail(exponent), MetaDatasetShots(most=12)):
        part = ImbalancedSampler(base, shots=shots, seed=index).episode(index)
        assert not Counter(part.support.texts) - Counter(whole.support.texts)
        assert min(part.support.counts().values()) >= 1 and part.query == whole.query
        if isinstance(shots, MetaDatasetShots):
            assert len(part.support) <= 12


# ---------------------------------------------------------------------------------------------- K-shot and folds


@fast
@given(pools, small, st.sampled_from(("error", "drop", "keep")), st.integers(0, 9))
def test_k_shot_sizes_follow_the_rare_mode(pool, n_shot, rare, index):
    have = different_texts_by_class(pool)
    short = [name for name, count in have.items() if count < n_shot]
    kept = [name for name, count in have.items() if count >= (1 if rare == "keep" else n_shot)]
    if rare == "error" and short:
        with pytest.raises(NotEnoughExamplesError):
            KShotSampler(pool, n_shot=n_shot, seed=0, rare=rare)
        return
    if len(kept) < 2:
        with pytest.raises(DataError):
            KShotSampler(pool, n_shot=n_shot, seed=0, rare=rare)
        return
    sampler = KShotSampler(pool, n_shot=n_shot, seed=0, rare=rare)
    assert sorted(sampler.label_names) == sorted(kept)
    assume(sampler.has_query())
    episode = sampler.episode(index)
    assert episode.support.counts() == {name: min(n_shot, have[name]) for name in sampler.label_names}
    assert len(episode.query) == len(untouched(pool, episode.support, kept))
    assert_no_leak(episode)
    drawn = list(zip(episode.support.texts, episode.support.names(), strict=True))
    assert len(set(drawn)) == len(drawn)
    rows = [row for row, name in enumerate(pool.names()) if name in kept]
    assert sampler.everything() == pool.select(rows).with_classes(sampler.label_names)


def different_texts_by_class(pool: LabeledTexts) -> Counter[str]:
    return Counter(name for _, name in {*zip(pool.texts, pool.names(), strict=True)})


def untouched(pool: LabeledTexts, support: LabeledTexts, kept: list[str]) -> list[int]:
    """The rows of kept classes whose sentence has no row in the support."""
    marks = {mark(text) for text in support.texts}
    ids = set(support.ids or ())
    free = [
        members
        for members in sentences(pool)
        if not any(mark(pool.texts[row]) in marks or (pool.ids or [None] * len(pool))[row] in ids for row in members)
    ]
    names = pool.names()
    return [row for members in free for row in members if names[row] in kept]


@fast
@given(large_pools, pools, small)
def test_a_separate_test_set_is_scored_whole_and_shares_nothing_with_the_support(pool, test, n_shot):
    try:
        sampler = KShotSampler(pool, n_shot=n_shot, seed=0, test=test, rare="keep")
    except NLPMetaError:
        assume(False)
    episode = sampler.episode(1)
    assert leaked_texts(episode) == ()
    assert not {mark(text) for text in episode.support.texts} & {mark(text) for text in test.texts}
    assert len(episode.query) + sum(sampler.left_out.values()) == len(test)


@fast
@given(pools, st.integers(2, 4))
def test_folds_part_the_pool_by_sentence(pool, n_folds):
    counts = sentences_by_class(pool)
    if max(counts.values()) < n_folds:
        with pytest.raises(DataError, match="need a class with as many"):
            FoldSampler(pool, n_folds=n_folds, seed=0)
        return
    try:
        sampler = FoldSampler(pool, n_folds=n_folds, seed=0)
    except DataError as error:
        assert "every text of some fold is needed in the support" in str(error)
        assume(False)
    queries: list[str] = []
    for fold in range(n_folds):
        episode = sampler.episode(fold)
        assert_no_leak(episode)
        assert set(episode.support.labels) == set(range(pool.n_way))
        assert len(episode.support) + len(episode.query) == len(pool)
        queries += episode.query.texts
    assert not Counter(queries) - Counter(pool.texts)  # no row is scored twice
    names, fold_of = pool.names(), sampler._fold.tolist()
    for rows in sentences(pool):
        assert len({fold_of[row] for row in rows}) == 1
        owner = Counter(names[row] for row in rows).most_common(1)[0][0]
        if fold_of[rows[0]] < 0 and counts[owner] > 1:  # kept back: some class would be without a support text
            others = {name: {fold_of[row] for row, each in enumerate(names) if each == name} for name in set(names)}
            assert any(len(others[names[row]] - {-1}) <= 1 for row in rows)
    scored = {name for name, fold in zip(names, fold_of, strict=True) if fold >= 0}
    assert set(sampler.never_scored) == set(names) - scored


# ---------------------------------------------------------------------------------------------- leave-out lists


@fast
@given(rows(), st.data())
def test_leave_out_lists_are_honoured_to_the_row(table, data):
    pool = pool_of(table)
    pick = {
        column: sorted({row[number] for row in table}) for column, number in {"text": 0, "label": 1, "id": 4}.items()
    }
    texts, labels, ids = (data.draw(st.lists(st.sampled_from(pick[c]), max_size=2)) for c in ("text", "label", "id"))
    langs = data.draw(st.lists(st.sampled_from(("en", "eng", "English", "sw-KE", "Swahili", "fr")), max_size=2))
    gone = {{"eng": "en", "English": "en", "sw-KE": "sw", "Swahili": "sw"}.get(lang, lang) for lang in langs}
    left = [
        row
        for row in table
        if row[1] not in labels
        and row[4] not in ids
        and LANGS[row[2]] not in gone
        and mark(row[0]) not in {mark(text) for text in texts}
    ]
    if not left:
        with pytest.raises(DataError, match="Nothing remains"):
            leave_out(pool, langs=langs, labels=labels, ids=ids, texts=texts)
        return
    part = leave_out(pool, langs=langs, labels=labels, ids=ids, texts=texts)
    assert list(zip(part.texts, part.names(), part.langs, part.ids, strict=True)) == [
        (r[0], r[1], r[2], r[4]) for r in left
    ]
    assert 0 not in part.counts().values()


@fast
@given(large_pools, st.integers(0, 9))
def test_what_is_left_out_of_a_pool_is_in_no_episode(pool, index):
    barred = {"langs": ["Swahili"], "labels": [pool.names()[0]], "ids": [pool.ids[-1]], "texts": [pool.texts[-1]]}
    try:
        sampler = EpisodeSampler([leave_out(pool, **barred)], n_way=1, n_shot=1, n_query=1, seed=0)
    except NLPMetaError:
        assume(False)
    episode: Episode = sampler.episode(index)
    for part in (episode.support, episode.query):
        assert "sw" not in {LANGS[lang] for lang in part.langs}
        assert not set(part.names()) & set(barred["labels"]) and not set(part.ids) & set(barred["ids"])
        assert mark(barred["texts"][0]) not in {mark(text) for text in part.texts}


# ---------------------------------------------------------------------------------------------- users and time


@fast
@given(pools, small)
def test_a_users_task_is_all_one_users(pool, n_shot):
    try:
        sampler = UserSampler(pool, n_shot=n_shot, n_query=1, seed=0)
    except NLPMetaError:
        assume(False)
    rated: dict[str, set[str]] = defaultdict(set)
    for user, name in zip(pool.users, pool.names(), strict=True):
        rated[user].add(name)
    for index in range(4):
        episode = sampler.episode(index)
        (user,) = set(episode.support.users + episode.query.users)
        assert user in sampler.users and set(episode.support.label_names) <= rated[user]


@fast
@given(pools, st.integers(2, 3))
def test_no_query_is_older_than_the_support_of_a_window(pool, n_windows):
    assume(pool.n_way >= 2)
    two = pool.with_classes(pool.label_names[:2])
    try:
        sampler = SpamSampler([two], n_shot=1, n_query=1, seed=0, n_windows=n_windows, by_domain=False)
    except NLPMetaError:
        assume(False)
    for index in range(6):
        episode = sampler.episode(index)
        assert max(episode.support.times) <= min(episode.query.times)
