"""The tasks that adaptation learns from, and those it is evaluated on: no pair of dataset and language is in both.

Auxiliary tasks come from languages and datasets reserved for model selection, among them datasets of many kinds of the
wide collection, or from the dev split of training languages, whose texts were not trained on. Held-out tasks come from
the languages and datasets that docs/results.md reports.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.encoder.table import EmbeddingTable, embeddings_folder
from nlpmeta.episodes import generator
from nlpmeta.episodes.kshot import KShotSampler, keep_classes
from nlpmeta.learners.base import Learner
from nlpmeta.sources.catalogue import catalogue
from nlpmeta.sources.loading import load_source

OUTSIDE = 100
"""Texts out of scope of a task, at most."""


@dataclass(frozen=True)
class Family:
    """Tasks of one data set in one language: all its classes, or some of them drawn anew for each task.

    ``query`` names the split that is scored; ``None`` scores what the support leaves over. At most ``per_class`` texts
    of a class are used as support, and ``n_query`` as query of a task. ``ways`` are the numbers of classes, in turn;
    0 is all.
    ``n_tasks`` are drawn for each number of shots up to ``max_shot``.
    """

    data: str
    lang: str | None = None
    split: str = "train"
    query: str | None = None
    per_class: int = 24
    n_query: int = 200
    ways: tuple[int, ...] = (0,)
    max_shot: int = 16
    n_tasks: int = 4
    seed: int = 0

    @property
    def kind(self) -> str:
        """``intent``."""
        return catalogue()[self.data].kind if self.data in catalogue() else "spam"

    @property
    def name(self) -> str:
        """``injongo/hau``."""
        return self.data if self.lang is None else f"{self.data}/{self.lang}"

    def pools(self, data_dir: Path) -> "Pools":
        """Its texts."""
        source = load_source(self.data, data_dir=data_dir)
        pool = few_of_each(source.load(self.lang, self.split), self.per_class, self.seed)
        test = None if self.query is None else source.load(self.lang, self.query)
        return Pools(self, pool, test and some_of(test, 2 * self.n_query, self.seed))


@dataclass(frozen=True, eq=False)
class Pools:
    """The texts of a family."""

    family: Family
    pool: LabeledTexts
    test: LabeledTexts | None

    def task(self, number: int, n_shot: int) -> Episode:
        """Task ``number`` with ``n_shot`` examples of each class."""
        family = self.family
        n_way, seed = family.ways[number % len(family.ways)], family.seed + number
        pool = self.pool if n_way == 0 else keep_classes(self.pool, min(n_way, self.pool.n_way), seed=seed)
        sampler = KShotSampler(
            pool,
            n_shot=n_shot,
            seed=seed,
            test=self.test,
            rare="keep" if self.test else "drop",
            max_query=family.n_query,
        )
        episode = sampler.episode(0)
        return replace(episode, out_of_scope=self._outside(episode.support.label_names, seed))

    def _outside(self, label_names: Sequence[str], seed: int) -> tuple[str, ...]:
        """Texts of classes that the task does not have."""
        texts = self.pool if self.test is None else self.test
        others = [text for text, name in zip(texts.texts, texts.names(), strict=True) if name not in label_names]
        drawn = generator(seed, 2, stream=7).permutation(len(others))[:OUTSIDE]
        return tuple(others[row] for row in drawn.tolist())

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Every text that a task may have."""
        return self.pool.texts + (() if self.test is None else self.test.texts)


AUXILIARY = (
    *(Family("injongo", lang, query="dev", ways=(0, 12, 20, 5)) for lang in ("hau", "lin")),
    *(
        Family("injongo", lang, ways=(0, 8, 20), split="dev", max_shot=5, n_tasks=3)
        for lang in ("amh", "ewe", "ibo", "lug", "orm", "wol")
    ),
    Family("massive", "af-ZA", query="dev", ways=(0, 10, 25, 4)),
    *(
        Family("massive", lang, ways=(0, 15, 5), split="dev", max_shot=8, n_tasks=3)
        for lang in ("de-DE", "hi-IN", "id-ID")
    ),
    Family("sib200", "luo_Latn", query="dev", per_class=40, ways=(0, 0, 4, 2)),
    *(
        Family("sib200", lang, ways=(0, 4, 2), split="dev", max_shot=5, n_tasks=6)
        for lang in ("amh_Ethi", "arb_Arab", "eng_Latn", "ewe_Latn", "lin_Latn", "wol_Latn", "zho_Hans", "hau_Latn")
    ),
    Family("liu", per_class=24, ways=(0, 20, 8, 2, 3), n_tasks=10),
    Family("youtube-spam", per_class=200, n_tasks=8),
    Family("starter-spam", "en", per_class=80, n_tasks=6),
    Family("starter-spam", "sw", per_class=80, n_tasks=6),
    *(
        Family(name, ways=ways, per_class=60, n_tasks=6)
        for name, ways in (
            ("kazsandra-sentiment", (0,)),
            ("hebrew-sentiment", (0, 2)),
            ("korean-hate", (0,)),
            ("davidson-hate", (0,)),
            ("3i4k-speech-intention", (0, 4)),
            ("askubuntu-intent", (0,)),
            ("korean-chatbot-theme", (0,)),
            ("tgspam-chat", (0,)),
            ("fincore-register", (0,)),
            ("isarcasm-sarcasm", (0,)),
            ("kazsandra-domain", (0, 2)),
            ("cfpb-complaints", (0, 3)),
        )
    ),
    *(
        Family(name, ways=ways, per_class=30, n_tasks=6)
        for name, ways in (("goemotions", (0, 8)), ("rasa-financial", (0, 8)), ("wikipedia-film-genre", (0, 6)))
    ),
)
HELD_OUT = (
    Family("sms-spam", per_class=200, n_tasks=16),
    *(Family("sib200", lang, query="test", per_class=15, n_tasks=8) for lang in ("swh_Latn", "kin_Latn", "yor_Latn")),
    *(
        Family("injongo", lang, query="test", per_class=12, ways=(0, 10), n_tasks=6)
        for lang in ("swa", "kin", "yor", "zul")
    ),
    Family("banking77", query="test", per_class=12, ways=(0, 20)),
    Family("clinc150", query="test", per_class=12, ways=(0, 20)),
)
SHOTS_HELD_OUT = (1, 5, 10)


def few_of_each(pool: LabeledTexts, most: int, seed: int) -> LabeledTexts:
    """At most ``most`` texts of each class, drawn with the seed."""
    order = generator(seed, 0, stream=7).permutation(len(pool))
    seen: dict[int, int] = {}
    rows = []
    for row in order.tolist():
        label = pool.labels[row]
        seen[label] = seen.get(label, 0) + 1
        if seen[label] <= most:
            rows.append(row)
    return pool.select(sorted(rows))


def some_of(pool: LabeledTexts, most: int, seed: int) -> LabeledTexts:
    """At most ``most`` texts, drawn with the seed."""
    if len(pool) <= most:
        return pool
    rows = generator(seed, 1, stream=7).choice(len(pool), most, replace=False)
    return pool.select(sorted(int(row) for row in rows))


def table_of(learner: Learner, families: Sequence[Pools]) -> EmbeddingTable:
    """The embeddings of all texts, and of the class names, kept on disk between runs."""
    table = EmbeddingTable(learner.encoder, embeddings_folder())
    for pools in families:
        table.prime([*pools.texts, *learner.texts_of(pools.pool)], show_progress=True)
    return table
