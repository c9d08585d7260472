"""Any script-free classification data set of the Hugging Face Hub, by its id."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.data import LabeledTexts
from nlpmeta.sources import Source, SourceFacts, SourceRequest, SplitNames, sources
from nlpmeta.sources.columns import LABEL_NAMES, TEXT_NAMES, Columns, choose, labelled, others_of
from nlpmeta.sources.hub_access import open_dataset
from nlpmeta.storage.files import write_text

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


@sources.register("hub")
class HubSource(Source):
    """One configuration of a data set on the Hub, or of a folder with a copy of its repository.

    Obvious columns are found by themselves; integer labels become names where the data set has them. Nothing is
    fetched before texts, splits or languages are asked for, and no code that comes with a data set is ever run.

    Args:
        name: ``user/name`` on the Hub, or a folder.
        config: the configuration; needed where there are several.
        text_column: the column of the texts, if it is not obvious.
        label_column: the column of the labels, if it is not obvious.
        lang_column: a column that says each text's language.
        revision: a branch, tag or commit.
    """

    rank = 4

    def __init__(
        self,
        name: str,
        *,
        config: str | None = None,
        text_column: str | None = None,
        label_column: str | None = None,
        lang_column: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.name, self.config, self.revision = name, config, revision
        self._text_column, self._label_column, self._lang_column = text_column, label_column, lang_column
        card = f"https://huggingface.co/datasets/{name}"
        self.facts = SourceFacts(
            name=name,
            title=f"{name} ({config})" if config else name,
            licence=f"as its card states: {card}",
            citation=f"as its card states: {card}",
        )
        self._opened: DatasetDict | None = None

    @classmethod
    def names(cls) -> tuple[str, ...]:
        return ()

    @classmethod
    def opened(cls, asked: SourceRequest) -> "Source | None":
        if asked.name.count("/") != 1 or asked.name.startswith((".", "/", "~")):
            return None
        return cls(
            asked.name,
            config=asked.config,
            revision=asked.revision,
            text_column=asked.text_column,
            label_column=asked.label_column,
            lang_column=asked.lang_column,
        )

    def languages(self) -> tuple[str, ...]:
        found: set[str] = set()
        for table in self._tables().values():
            column = self._columns(table).others.get("langs")
            found |= set(map(str, table.unique(column))) if column else set()
        return tuple(sorted(found))

    def splits(self, lang: str | None = None) -> SplitNames:
        return SplitNames(map(str, self._tables()))

    def read(self, lang: str | None, split: str) -> LabeledTexts:
        table = self._tables()[self.splits().spelled(split) or split]
        texts = texts_of(table, self._columns(table), where=f"{self.facts.title}, split {split!r}")
        if lang is None or texts.langs is None:
            return texts
        return texts.select([i for i, each in enumerate(texts.langs) if each == lang]).without_empty_classes()

    def _tables(self) -> "DatasetDict":
        if self._opened is None:
            self._opened = open_dataset(self.name, self.config, self.revision)
        return self._opened

    def _columns(self, table: "Dataset") -> Columns:
        found, where = table.column_names, self.facts.title
        return Columns(
            choose("text", self._text_column, TEXT_NAMES, found, where=where),
            choose("label", self._label_column, LABEL_NAMES, found, where=where),
            others_of(found, where=where, lang_column=self._lang_column),
        )

    @classmethod
    def example(cls, folder: Path) -> "Source":
        return cls(str(write_example(folder)))


def texts_of(
    table: "Dataset", columns: Columns, *, where: str, integer_labels: Sequence[str] = (), lang: str | None = None
) -> LabeledTexts:
    """The texts of one split; integer labels are named by the data set itself, else by ``integer_labels``.

    Raises:
        DataError: if a column is missing or no row is usable.
    """
    columns.check(table.column_names, where=where)
    feature = table.features[columns.label]
    names = getattr(feature, "names", None) or integer_labels
    needed = list(dict.fromkeys((columns.text, columns.label, *columns.others.values())))
    rows = (row for batch in table.select_columns(needed).iter(1000) for row in _rows(batch))
    return labelled(rows, columns, where=where, label_names=names, lang=lang)


def write_example(folder: Path) -> Path:
    """A copy of a tiny Hub repository below ``folder``: two splits, two languages, labels as text."""
    rows = {
        "train": [
            ("hello", "greet", "en"),
            ("bye", "leave", "en"),
            ("habari", "greet", "sw"),
            ("kwaheri", "leave", "sw"),
        ],
        "validation": [("good morning", "greet", "en"), ("tutaonana", "leave", "sw")],
    }
    path = folder / "tiny"
    for split, each in rows.items():
        lines = [json.dumps({"text": text, "label": label, "lang": lang}) for text, label, lang in each]
        write_text(path / f"{split}.jsonl", "\n".join(lines) + "\n")
    return path


def _rows(batch: dict[str, list[object]]) -> list[dict[str, object]]:
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
