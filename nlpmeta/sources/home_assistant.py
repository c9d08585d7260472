"""Sources that come in packages: Home Assistant's sentence templates in over sixty languages, the starter corpus."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlpmeta.data import LabeledTexts
from nlpmeta.episodes import generator
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.sources import Source, SourceFacts, SplitNames, sources
from nlpmeta.sources.templates import Template, parse_templates
from nlpmeta.storage.files import read_text

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class LanguageYield:
    """What one language gives: intents and templates, how many of them can be expanded, and the sentences they made."""

    lang: str
    intents: int
    usable_intents: int
    templates: int
    usable_templates: int
    sentences: int


@sources.register("home-assistant")
class HomeAssistantIntents(Source):
    """Voice commands for a home in over sixty languages, expanded from sentence templates.

    The templates are those of Home Assistant's intents, written by speakers of each language. Each intent takes its
    sentences from its templates in turn, so that no template dominates. Numbers are those that people say; colours,
    states and the like are the language's own words. Branches that need a name which only the owner of a home knows
    (of a room, a lamp, a list, a song) are not taken. A sentence that agrees with an earlier one after normalisation is
    dropped, across intents too: the first intent in alphabetical order keeps it.

    Args:
        max_per_template: sentences of one template at most.
        max_per_intent: sentences of one intent at most.
        seed: decides the draws; a language depends on the seed and on nothing drawn before.
        only: these languages, in any spelling, instead of all.

    Raises:
        UnknownLanguageError: if ``only`` names a language that the package does not have.
        NLPMetaError: if a limit is below 1 or the packages home-assistant-intents and hassil are not installed.
    """

    facts = SourceFacts(
        name="home-assistant",
        title="Home Assistant's intents",
        licence="Apache-2.0 (package home-assistant-intents)",
        citation="The Home Assistant authors, package home-assistant-intents, https://github.com/OHF-Voice/intents",
        notes="Expanded from templates; no natural distribution, and languages differ much in coverage. One split.",
    )

    def __init__(
        self,
        *,
        max_per_template: int = 3,
        max_per_intent: int = 60,
        seed: int = 0,
        only: Sequence[str] | None = None,
    ) -> None:
        if max_per_template < 1 or max_per_intent < 1:
            raise NLPMetaError("At least one sentence must be allowed a template and an intent; got 0 or fewer.")
        _require_packages()
        self.max_per_template, self.max_per_intent, self.seed = max_per_template, max_per_intent, seed
        self._expanded: dict[str, LabeledTexts] = {}
        self._langs = _languages()
        if only is not None:
            self._langs = tuple(sorted({self.spelling(lang) for lang in only}))

    def languages(self) -> tuple[str, ...]:
        return self._langs

    def splits(self, lang: str | None = None) -> SplitNames:
        return SplitNames(("train",))

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        if lang is None:
            return LabeledTexts.concatenate([self.read(each, split) for each in self.languages()])
        if lang not in self._expanded:
            self._expanded[lang] = self._expand(lang, _templates(lang))
        return self._expanded[lang]

    def yields(self, lang: str) -> LanguageYield:
        """How many intents, templates and sentences a language has; ``lang`` is spelled as in ``languages()``."""
        intents = _templates(lang)
        if lang not in self._expanded:
            self._expanded[lang] = self._expand(lang, intents)
        sentences = self._expanded[lang]
        return LanguageYield(
            lang=lang,
            intents=len(intents),
            usable_intents=sum(1 for count in sentences.counts().values() if count),
            templates=sum(map(len, intents.values())),
            usable_templates=sum(each.is_usable for templates in intents.values() for each in templates),
            sentences=len(sentences),
        )

    def _expand(self, lang: str, intents: Mapping[str, list[Template]]) -> LabeledTexts:
        texts: list[str] = []
        names: list[str] = []
        seen: set[str] = set()
        for name, templates in sorted(intents.items()):
            rng = generator(self.seed, zlib.crc32(f"{lang}/{name}".encode()))
            for text in self._sentences(templates, seen, rng):
                texts.append(text)
                names.append(name)
        if not texts:
            raise DataError(f"{self.facts.title} has no template for {lang!r} that can be expanded.")
        domains = _domains()
        return LabeledTexts.from_names(
            texts, names, langs=[lang] * len(texts), domains=[domains.get(name, "homeassistant") for name in names]
        )

    def _sentences(self, templates: list[Template], seen: set[str], rng: "np.random.Generator") -> Iterator[str]:
        """The sentences of one intent: one of every template, then a second of every template, and so on."""
        usable = [each for each in templates if each.is_usable]
        order = [usable[i] for i in rng.permutation(len(usable))]
        made = 0
        for _ in range(self.max_per_template):
            exhausted: set[Template] = set()
            for template in order:
                text = template.new_sentence(seen, rng)
                if text is None:
                    exhausted.add(template)
                    continue
                yield text
                made += 1
                if made == self.max_per_intent:
                    return
            order = [each for each in order if each not in exhausted]

    @classmethod
    def example(cls, folder: Path) -> "Source":
        return cls(max_per_template=1, max_per_intent=5, only=("af", "sw"))


def _templates(lang: str) -> dict[str, list[Template]]:
    """The templates of every intent of a language."""
    from home_assistant_intents import get_intents

    record: dict[str, Any] | None = get_intents(lang)
    if record is None:
        raise DataError(f"The package home-assistant-intents has no file for the language {lang!r}.")
    return parse_templates(record)


def _languages() -> tuple[str, ...]:
    from home_assistant_intents import get_languages

    return tuple(sorted(get_languages()))


@cache
def _domains() -> Mapping[str, str]:
    """The domain of every intent, such as light or climate."""
    from home_assistant_intents import get_intent_info

    return {name: str(info["domain"]) for name, info in (get_intent_info() or {}).items()}


def _require_packages() -> None:
    try:
        import hassil  # noqa: F401
        import home_assistant_intents  # noqa: F401
    except ImportError as error:
        raise NLPMetaError(
            "Home Assistant's intents need the packages home-assistant-intents and hassil. "
            "Install them with: pip install 'nlpmeta[offline]'"
        ) from error


FOLDER = Path(__file__).parent.parent / "data" / "starter"


class _Starter(Source):
    """One folder of the starter corpus, a file a language."""

    folder: Path

    def languages(self) -> tuple[str, ...]:
        return tuple(sorted(file.stem for file in self.folder.glob("*.jsonl")))

    def splits(self, lang: str | None = None) -> tuple[str, ...]:
        return ("train",)

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        parts = [self._file(each) for each in ([lang] if lang else self.languages())]
        return LabeledTexts.concatenate(parts)

    def _file(self, lang: str) -> LabeledTexts:
        lines = read_text(self.folder / f"{lang}.jsonl").splitlines()
        rows = [json.loads(line) for line in lines]
        return LabeledTexts.from_names(
            [row["text"] for row in rows], [row["label"] for row in rows], langs=[lang] * len(rows)
        )

    @classmethod
    def example(cls, folder: Path) -> "Source":
        return cls()


_WRITTEN = "Written for nlpmeta to try the package out; not reviewed by native speakers; not a benchmark."


@sources.register("starter")
class StarterIntents(_Starter):
    """Assistant, money and service intents in ten languages."""

    folder = FOLDER / "intents"
    facts = SourceFacts(
        name="starter", title="The starter corpus", licence="Apache-2.0", citation="This package.", notes=_WRITTEN
    )


@sources.register("starter-spam")
class StarterSpam(_Starter):
    """Wanted and unwanted text messages in English and Swahili."""

    folder = FOLDER / "spam"
    facts = SourceFacts(
        name="starter-spam",
        title="The starter spam corpus",
        licence="Apache-2.0",
        citation="This package.",
        notes=_WRITTEN,
    )
