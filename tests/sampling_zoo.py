"""One sampler of each kind over made-up data, for the tests; as a program, the digests of the episodes it is asked for.

python tests/sampling_zoo.py 0 2 4        # prints one JSON object: sampler to {index: digest}
"""

import json
import sys
import unicodedata
from hashlib import sha256

import numpy as np

from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import Range, Sampler
from nlpmeta.episodes.clusters import ClusterSampler
from nlpmeta.episodes.kshot import FoldSampler, KShotSampler
from nlpmeta.episodes.raw_texts import MaskedWordSampler, SentenceViewSampler
from nlpmeta.episodes.samplers import CrossLingualSampler, EpisodeSampler, SpamSampler, UserSampler
from nlpmeta.episodes.wrappers import ImbalancedSampler, LongTail, MetaDatasetShots, MixtureSampler

LANGS = ("en-US", "sw-KE", "deu")
CLASSES = ("alarm_set", "alarm_stop", "mail_read", "mail_send", "music_play", "music_stop")


def letters(number: int) -> str:
    """A number as letters, for texts that must still differ once digits are masked."""
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


def parallel_pool(n_sentences: int = 12) -> LabeledTexts:
    """Six classes in three domains, each sentence in three languages under one id, rated by four users."""
    rows = [(lang, name, k) for lang in LANGS for name in CLASSES for k in range(n_sentences)]
    return LabeledTexts.from_names(
        [f"{lang} {name} {letters(k)} at {k}" for lang, name, k in rows],
        [name for _, name, _ in rows],
        langs=[lang for lang, _, _ in rows],
        domains=[name.split("_")[0] for _, name, _ in rows],
        ids=[f"{name} {k}" for _, name, k in rows],
        users=[f"user {k % 4}" for _, _, k in rows],
    )


def spam_pool(channel: str, n_texts: int = 40) -> LabeledTexts:
    """Two classes, one text an hour; every tenth text is an earlier one with other digits."""
    texts = [f"{channel} {letters(k if k % 10 else max(0, k - 7))} call {k}" for k in range(2 * n_texts)]
    return LabeledTexts.from_names(
        texts,
        [("ham", "spam")[k % 2] for k in range(2 * n_texts)],
        domains=[channel] * (2 * n_texts),
        times=[f"2024-01-{1 + k // 24:02}T{k % 24:02}:00:00Z" for k in range(2 * n_texts)],
    )


def zoo(seed: int = 7) -> dict[str, Sampler]:
    """Every kind of sampler, and some inside each other."""
    pool, sizes = parallel_pool(), {"n_shot": 2, "n_query": 3, "seed": seed}
    standard = EpisodeSampler([pool], n_way=4, **sizes)
    crossing = CrossLingualSampler(pool, n_way=3, **sizes)
    spam = SpamSampler([spam_pool("sms"), spam_pool("mail")], n_shot=2, n_query=2, seed=seed, n_windows=3)
    mixed = MixtureSampler([standard, MixtureSampler([crossing, standard], seed=seed)], weights=[1, 3], seed=seed)
    return {
        "standard": standard,
        "sizes drawn": EpisodeSampler([pool, spam_pool("sms")], n_way=2, n_shot=Range(1, 4), n_query=2, seed=seed),
        "k-shot": KShotSampler(pool, n_shot=3, seed=seed, max_query=20),
        "folds": FoldSampler(pool, n_folds=3, seed=seed),
        "cross-lingual": crossing,
        "spam": spam,
        "spam by channel": SpamSampler([spam_pool("sms")], n_shot=Range(1, 3), n_query=5, seed=seed),
        "users": UserSampler(pool, n_shot=1, n_query=2, seed=seed),
        "long tail": ImbalancedSampler(crossing, shots=LongTail(), seed=seed),
        "imbalanced": ImbalancedSampler(standard, shots=Range(1, 2), seed=seed),
        "meta-dataset": ImbalancedSampler(standard, shots=MetaDatasetShots(), seed=seed),
        "mixture": mixed,
        "all together": ImbalancedSampler(
            ImbalancedSampler(
                ImbalancedSampler(standard, shots=LongTail(0.5), seed=seed), shots=MetaDatasetShots(), seed=seed
            ),
            shots=LongTail(2.0),
            seed=seed,
        ),
    }


def zoo_without_labels(seed: int = 7) -> dict[str, Sampler]:
    """Every kind of sampler that reads texts alone."""
    rng, words = np.random.default_rng(0), [f"{a}{b}" for a in "bdfgklm" for b in "aeiou"]
    texts = [" ".join(rng.choice(words, 6)) for _ in range(300)]
    sizes = {"n_way": Range(3, 6), "n_shot": Range(1, 2), "n_query": 2, "seed": seed}
    cut = {"n_clusters": 12, "n_partitions": 3, "letter_groups": 2}
    clusters, named = (ClusterSampler(texts, **sizes, **cut, telling_names=told) for told in (False, True))
    for each in (clusters, named):
        each.renew(lambda asked: np.asarray([[t.count(w[0]) for w in words] for t in asked], dtype=np.float32))
    return {
        "masked words": MaskedWordSampler(texts, **sizes, mask="[MASK]", most_common=0.3),
        "views": SentenceViewSampler(texts, **sizes, mask="[MASK]"),
        "clusters": clusters,
        "named clusters": named,
    }


def mark(text: str) -> str:
    """What makes two texts the same, written a second time: NFKC, case folding, digits masked, white space folded."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join("0" if unicodedata.category(c) == "Nd" else c for c in folded).split())


def assert_no_leak(episode: Episode) -> None:
    """No text and no id on both sides, and none of the out-of-scope texts anywhere else."""
    support, query = episode.support, episode.query
    assert not {mark(text) for text in support.texts} & {mark(text) for text in query.texts}
    assert not set(support.ids or ()) & set(query.ids or ())
    assert not {mark(t) for t in episode.out_of_scope} & {mark(t) for t in support.texts + query.texts}


def digest(episode: Episode) -> str:
    """The same for equal episodes only, in every process."""
    return sha256(repr(episode).encode()).hexdigest()


if __name__ == "__main__":
    indices = [int(argument) for argument in sys.argv[1:]]
    found = {name: {i: digest(sampler.episode(i)) for i in indices} for name, sampler in zoo().items()}
    sys.stdout.write(json.dumps(found))
