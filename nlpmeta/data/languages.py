"""One language, many spellings: ``sw``, ``swa``, ``sw-KE``, ``swh_Latn`` and ``Swahili`` are the same to us."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from nlpmeta.errors import NLPMetaError

if TYPE_CHECKING:
    from langcodes import Language as Tag


class UnknownLanguageError(NLPMetaError):
    """A language that no standard knows, or that the data set at hand does not have."""


@dataclass(frozen=True)
class Language:
    """A language as the standards name it: ``code`` is its shortest ISO 639 code, ``name`` its English name."""

    code: str
    name: str


def parse(asked: str) -> Language:
    """The language that a code or a name stands for; a member of a macrolanguage stands for the whole of it.

    Raises:
        UnknownLanguageError: if no standard knows the code or the name.
    """
    tag = _tag(asked)
    if tag is None:
        raise UnknownLanguageError(
            f"{asked!r} is not a language code or name known to ISO 639. Give one such as sw, swa, sw-KE or Swahili."
        )
    code = _broad(tag)
    return Language(code, _name(code))


def match(asked: str, available: Iterable[str], *, where: str) -> str:
    """The spelling in ``available`` that means the language ``asked``; the closest one if several do.

    Raises:
        UnknownLanguageError: if none does; the message lists the nearest names and all that there are.
    """
    spellings = tuple(available)
    by_fold = {spelling.casefold(): spelling for spelling in spellings}
    if asked.casefold() in by_fold:
        return by_fold[asked.casefold()]
    tag = _tag(asked)
    candidates = [] if tag is None else _candidates(tag, spellings)
    if not candidates:
        raise UnknownLanguageError(_unknown(asked, tag is not None, spellings, where))
    return candidates[0]


def _candidates(tag: "Tag", spellings: Sequence[str]) -> list[str]:
    """Spellings of the same language, the most exact first: same tag, same language, same macrolanguage."""
    ranked = []
    for order, spelling in enumerate(spellings):
        other = _tag(spelling)
        if other is None or _broad(other) != _broad(tag):
            continue
        exact = (other.to_tag() != tag.to_tag(), other.language != tag.language, other.territory != tag.territory)
        ranked.append((*exact, order, spelling))
    return [spelling for *_, spelling in sorted(ranked)]


def _unknown(asked: str, is_language: bool, spellings: Sequence[str], where: str) -> str:
    named = {spelling: _name(_broad(tag)) if (tag := _tag(spelling)) else spelling for spelling in spellings}
    lookup = {**{s.casefold(): s for s in spellings}, **{name.casefold(): s for s, name in named.items()}}
    close = dict.fromkeys(lookup[hit] for hit in get_close_matches(asked.casefold(), lookup, n=3, cutoff=0.5))
    hint = f" Did you mean {' or '.join(f'{s} ({named[s]})' for s in close)}?" if close else ""
    problem = "no texts in" if is_language else "no language named"
    listed = ", ".join(f"{s} ({named[s]})" for s in spellings)
    return f"{where} has {problem} {asked!r}.{hint} It has: {listed}."


def _tag(spelling: str) -> "Tag | None":
    import langcodes

    if langcodes.tag_is_valid(spelling):
        return langcodes.get(spelling)
    try:
        return langcodes.find(spelling)
    except LookupError:
        return None


def _broad(tag: "Tag") -> str:
    """The macrolanguage where there is one: Swahili for Coastal Swahili, Oromo for West Central Oromo."""
    return str(tag.prefer_macrolanguage().language)


def _name(code: str) -> str:
    import langcodes

    return str(langcodes.get(code).display_name()).removesuffix(" (macrolanguage)")
