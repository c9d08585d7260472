"""The words of a text in any script, found without a dictionary."""

import unicodedata
from collections.abc import Iterator
from itertools import groupby

_WITHOUT_SPACES = {
    "CJK": 2, "HIRAGANA": 2, "KATAKANA": 4, "BOPOMOFO": 2, "YI": 2,
    "THAI": 4, "LAO": 4, "KHMER": 4, "MYANMAR": 4, "TIBETAN": 3, "JAVANESE": 3, "BALINESE": 3,
}  # fmt: skip
"""Scripts that put no space between words, by how Unicode names begin, and how many characters make a group there."""
_JOINERS = "'’ʼ·-\u200c\u200d"


def words_in(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends.

    A word is a run of letters, marks and digits, with single apostrophes, hyphens and joiners inside it. Runs of
    scripts that are written without spaces are parted into groups of a few characters; a mark stays with its letter.
    """
    found: list[tuple[int, int]] = []
    for start, end in _runs(text):
        for script, places in groupby(range(start, end), key=_scripts(text, start, end).__getitem__):
            part = list(places)
            size = _WITHOUT_SPACES.get(script)
            found += [(part[0], part[-1] + 1)] if size is None else list(_groups(text, part[0], part[-1] + 1, size))
    return found


def _runs(text: str) -> Iterator[tuple[int, int]]:
    start = None
    for place, character in enumerate(text):
        inside = _is_part(character) or (
            character in _JOINERS and start is not None and place + 1 < len(text) and _is_part(text[place + 1])
        )
        if inside and start is None:
            start = place
        elif not inside and start is not None:
            yield start, place
            start = None
    if start is not None:
        yield start, len(text)


def _is_part(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _scripts(text: str, start: int, end: int) -> dict[int, str]:
    """For each place, the script without spaces that its character is of, or nothing; marks are as what they mark."""
    found: dict[int, str] = {}
    for place in range(start, end):
        marks = unicodedata.category(text[place])[0] == "M" or text[place] == "ー"
        if marks and place > start:
            found[place] = found[place - 1]
            continue
        name = unicodedata.name(text[place], "").partition(" ")[0].partition("-")[0]
        found[place] = name if name in _WITHOUT_SPACES else ""
    return found


def _groups(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    begun, count = start, 0
    for place in range(start, end):
        if unicodedata.category(text[place])[0] != "M":
            if count == size:
                yield begun, place
                begun, count = place, 0
            count += 1
    yield begun, end
