"""More tasks from the same data: classes that are split in two by a word that some of their texts have."""

import math
from collections import Counter
from dataclasses import replace

from nlpmeta.data import LabeledTexts
from nlpmeta.sampling.masked_words import words_of

_SMALLER = 0.25  # of the texts of a class are in the smaller half at least


def split_classes(pool: LabeledTexts, *, need: int) -> LabeledTexts:
    """The same texts with finer labels: ``alarm_set with weekend`` and ``alarm_set without weekend``.

    Of the words that a quarter to three quarters of the texts of a class have, the one is taken that says most about
    the class: its share there times the logarithm of how much more frequent it is there than in all texts; of equals
    the first in the alphabet. A class without such a word, or with fewer than ``need`` texts on one side, stays whole.
    Words are runs of two or more letters, case aside. Best on texts of one language at a time.

    Source: the idea of making further tasks from the labels that there are is that of Yao, Zhang and Finn, ICLR 2022
    (arXiv:2106.02695). Where we differ: labels are made finer, texts are not mixed.

    Args:
        pool: labelled texts.
        need: how many texts a class must have, support and query together.
    """
    words = [frozenset(words_of(text)) for text in pool.texts]
    of_class: list[list[int]] = [[] for _ in pool.label_names]
    for row, label in enumerate(pool.labels):
        of_class[label].append(row)
    everywhere = Counter(word for each in words for word in each)
    finer = list(pool.names())
    for name, rows in zip(pool.label_names, of_class, strict=True):
        word = _telling_word([words[row] for row in rows], everywhere, len(pool), need)
        if word is not None:
            for row in rows:
                finer[row] = f"{name} {'with' if word in words[row] else 'without'} {word}"
    names = tuple(dict.fromkeys(finer))
    number = {name: label for label, name in enumerate(names)}
    return replace(pool, labels=tuple(number[name] for name in finer), label_names=names)


def _telling_word(texts: list[frozenset[str]], everywhere: Counter[str], n_texts: int, need: int) -> str | None:
    """The word that a class is split by."""
    least = max(need, math.ceil(_SMALLER * len(texts)))
    counts = Counter(word for each in texts for word in each)
    able = [word for word, count in counts.items() if least <= count <= len(texts) - least]
    if not able:
        return None

    def says(word: str) -> float:
        share = counts[word] / len(texts)
        return share * math.log(share * n_texts / everywhere[word])

    return min(able, key=lambda word: (-says(word), word))
