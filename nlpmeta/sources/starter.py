"""The starter corpus, which comes with the package."""

import json
from pathlib import Path

from nlpmeta.data import LabeledTexts
from nlpmeta.sources import Source, SourceFacts, sources
from nlpmeta.storage.files import read_text

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


_WRITTEN = "Written for nlpmeta to try the package out; not reviewed by native speakers, no benchmark."


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
