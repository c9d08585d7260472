"""Texts that are the same in all that matters must not be on both sides of an episode."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from nlpmeta.data import Episode, LabeledTexts

_DIGIT = re.compile(r"\d")
_SPACE = re.compile(r"\s+")


def fingerprint(text: str) -> str:
    """The text after Unicode normalisation (NFKC), case folding, digit masking and folding of white space."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _SPACE.sub(" ", _DIGIT.sub("0", unicodedata.normalize("NFKC", folded))).strip()


def fingerprints(texts: Iterable[str]) -> list[str]:
    """One fingerprint a text, in order."""
    return [fingerprint(text) for text in texts]


class Known:
    """What some texts can be recognised by: their fingerprints, and the languages that each id is there in."""

    def __init__(self, *parts: LabeledTexts) -> None:
        self._marks = {mark for part in parts for mark in fingerprints(part.texts)}
        self._languages: dict[str, set[str]] = defaultdict(set)
        for part in parts:
            for id_, lang in zip(part.ids or (), part.langs or (), strict=False):
                self._languages[id_].add(lang)

    def has(self, mark: str, *, id_: str | None = None, lang: str | None = None) -> bool:
        """Whether the text with this fingerprint is known, or its translation: the same id in another language.

        Texts may come from elsewhere, numbered independently, so an id tells nothing within one language, or where the
        language is unknown.
        """
        translated = id_ is not None and lang is not None and bool(self._languages.get(id_, set()) - {lang})
        return mark in self._marks or translated

    def has_rows(self, other: LabeledTexts) -> list[bool]:
        """``has``, for each row of ``other``."""
        none = (None,) * len(other)
        rows = zip(fingerprints(other.texts), other.ids or none, other.langs or none, strict=True)
        return [self.has(mark, id_=id_, lang=lang) for mark, id_, lang in rows]


def leaked_texts(episode: Episode) -> tuple[str, ...]:
    """Query and out-of-scope texts that the support has too, as the same text or as a translation; there must be none.

    The samplers of this package never draw such an episode; this is for checking one that was made otherwise.
    """
    known = Known(episode.support)
    in_query = (text for text, leaks in zip(episode.query.texts, known.has_rows(episode.query), strict=True) if leaks)
    return (*in_query, *(text for text in episode.out_of_scope if known.has(fingerprint(text))))
