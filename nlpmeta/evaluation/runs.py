"""Run methods under a protocol on data, the same draws for all."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from nlpmeta.data import LabeledTexts
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.encoder.table import embeddings_folder
from nlpmeta.episodes.accounts import check_apart, paired
from nlpmeta.episodes.index import MultiLabelTasks
from nlpmeta.errors import DataError, DataWarning
from nlpmeta.evaluation.measure import (
    GivesProbabilities,
    Tables,
    cuts_of,
    cuts_said,
    measure,
    measure_several,
    measure_streams,
)
from nlpmeta.evaluation.protocols import KSHOT_ALL, Material, Protocol, Tasks, TaskSize
from nlpmeta.evaluation.results import EncoderUse, Row, Setting, Summary
from nlpmeta.evaluation.several import SeveralData, head_of, plain_head
from nlpmeta.learners.abilities import GivesSeveral, check_names_alone, check_several
from nlpmeta.learners.base import Embed, Learner
from nlpmeta.sources import Source
from nlpmeta.sources.catalogue import POOL_SPLIT, LabelFold, folds
from nlpmeta.sources.form import RECOGNISED, TableForm
from nlpmeta.sources.loading import Descriptions, load_source

_PUBLISHED_NAMES = {"oos": "clinc150"}
"""What ProtAugment calls a data set that has another name here."""
SEVERAL = "kshot-several"
"""What rows call the protocol ``kshot-all`` where texts have several labels."""


@dataclass(frozen=True, kw_only=True)
class DataChoice:
    """Which data to evaluate on: names as ``load_source`` takes them, and the split that the support comes from.

    With ``fold`` only the test classes of that published fold are drawn from; ``descriptions`` say what classes are.
    """

    data: str
    data_dir: Path | None = None
    test_data: str | None = None
    split: str = "train"
    text_column: str | None = None
    label_column: str | None = None
    lang_column: str | None = None
    form: TableForm = RECOGNISED
    fold: int | None = None
    descriptions: Path | None = None

    @cached_property
    def source(self) -> Source:
        """The data set itself, opened once: a large file is read once, and what is wrong with it said once."""
        return self._open(self.data)

    @cached_property
    def said(self) -> Descriptions | None:
        """What is said of the classes, read once."""
        return None if self.descriptions is None else Descriptions.of_file(self.descriptions)

    def languages(self, asked: Sequence[str] | None) -> list[str | None]:
        """What to evaluate on in turn: the languages asked for (``all`` for all), or all texts at once (``None``).

        Raises:
            UnknownLanguageError: if the data set lacks one.
        """
        source = self.source
        if asked is None:
            return [None]
        if list(asked) == ["all"]:
            return list(source.languages())
        return list(dict.fromkeys(source.spelling(lang) for lang in asked))

    def spelling(self, lang: str | None) -> str | None:
        """The data set's own spelling of a language; where it has one only, that one."""
        source = self.source
        if lang is not None:
            return source.spelling(lang)
        return source.languages()[0] if len(source.languages()) == 1 else None

    def material(self, protocol: Protocol, lang: str | None) -> Material:
        """What ``protocol`` needs of it.

        Raises:
            NLPMetaError: if the data set, the language, a split or the folds are not there.
        """
        if protocol.draws_from == "folds":
            return Material(folds=self._folds())
        source = self.source
        if protocol.draws_from == "test split":
            pool = self._described(source.load(lang, "test" if "test" in source.splits() else self.split))
            return Material(pool=pool if self.fold is None else pool.with_classes(self._fold(self.fold).test))
        if self.fold is not None:
            raise DataError(f"{protocol.name} draws from all classes; a fold is for n-way and stream.")
        pool, test = self._described(source.load(lang, self.split)), self._test(source, lang)
        if test is not None and self.test_data is not None:
            test, notes = paired(pool, test, data=self.data, test_data=self.test_data)
            for note in notes:
                warnings.warn(note, DataWarning, stacklevel=2)
        return Material(pool=pool, test=test, out_of_scope=_out_of_scope(source, protocol, lang))

    def check(self, protocol: Protocol, shapes: Sequence[TaskSize], kinds: Mapping[str, type[Learner]]) -> None:
        """See that protocol, sizes and ``kinds`` (methods by name) go with texts that have several labels, if they do.

        Raises:
            NLPMetaError: names the option or the method that requires one label per text.
        """
        if not self.source.several:
            return
        wrong = "--fold" if self.fold is not None else ""
        if protocol.draw is not KSHOT_ALL.draw or any(shape.n_way != "all" for shape in shapes):
            wrong = f"{protocol.name} (--protocol, --ways)"
        if wrong:
            raise DataError(f"{wrong} requires one label per text, and {self.data} has several; leave it out.")
        check_several(kinds, [shape.n_shot for shape in shapes], data=self.data)

    def several(self, lang: str | None) -> SeveralData:
        """What ``kshot-all`` needs of it where texts have several labels.

        Raises:
            NLPMetaError: if the data set, the language or a split is not there.
        """
        pool = self.source.load(lang, self.split, several=True)
        return SeveralData.of(pool, self._test(self.source, lang), data=self.data).described(self.said)

    def _test(self, source: Source, lang: str | None) -> LabeledTexts | None:
        """The texts to score on; ``None`` where the data set has no test split of its own and no other is named."""
        if self.test_data is not None:
            check_apart(self.data, self.test_data)
            other = self._open(self.test_data)
            return other.load(lang, "test" if "test" in other.splits() else "train", several=source.several)
        if "test" in source.splits(self.spelling(lang)) and self.split != "test":
            return source.load(lang, "test", several=source.several)
        return None

    def _fold(self, number: int) -> LabelFold:
        published = folds(_PUBLISHED_NAMES.get(self.data, self.data), self.data_dir)
        if number >= len(published):
            raise DataError(f"{self.data} has folds 0 to {len(published) - 1}; fold {number} was requested.")
        return published[number]

    def _folds(self) -> tuple[LabeledTexts, ...]:
        published = folds(_PUBLISHED_NAMES.get(self.data, self.data), self.data_dir)
        pool = self._described(self.source.load(split=POOL_SPLIT))
        return tuple(pool.with_classes(fold.test) for fold in published)

    def _described(self, pool: LabeledTexts) -> LabeledTexts:
        return pool if self.said is None else self.said.added_to(pool)

    def _open(self, name: str) -> Source:
        return load_source(
            _PUBLISHED_NAMES.get(name, name),
            data_dir=self.data_dir,
            text_column=self.text_column,
            label_column=self.label_column,
            lang_column=self.lang_column,
            form=self.form,
        )


def _out_of_scope(source: Source, protocol: Protocol, lang: str | None) -> tuple[str, ...]:
    if protocol.draws_from != "splits and out of scope":
        return ()
    if "oos_test" not in source.splits():
        raise DataError(
            f"{source.facts.title} has no texts out of scope (a split oos_test), which {protocol.name} needs; "
            "clinc150 has them."
        )
    return source.load(lang, "oos_test").texts


@dataclass(frozen=True, kw_only=True)
class ProtocolRun:
    """Methods, data and protocol; what stays the same from one language and shape to the next.

    ``folder`` is where embeddings are kept between runs, ``command`` what a reader types to get the rows again.
    """

    protocol: Protocol
    methods: Mapping[str, Learner]
    choice: DataChoice
    command: str = ""
    show_progress: bool = False
    folder: Path | None = field(default_factory=embeddings_folder)

    def rows(
        self, langs: Sequence[str | None], shapes: Sequence[TaskSize], *, note: Callable[[str], None] | None = None
    ) -> Iterator[list[Row]]:
        """The rows of each language and shape, one a method, as soon as they are known.

        ``note`` is called with what a reader should know about the tasks.
        """
        choice, several = self.choice, self.choice.source.several
        choice.check(self.protocol, shapes, {name: type(learner) for name, learner in self.methods.items()})
        if not several and any(shape.n_shot == 0 for shape in shapes):
            check_names_alone(self.methods)
        for lang in langs:
            tables, spelled = Tables(self.folder), choice.spelling(lang)
            material = choice.several(lang) if several else choice.material(self.protocol, lang)
            cuts = cuts_of(self.methods, material.texts())
            if note is not None:
                for line in cuts_said(cuts, None if len(langs) == 1 else spelled):
                    note(line)
            for shape in shapes:
                tasks = self._tasks(material, shape)
                if several and not shape.n_shot and note is not None and self._needy():
                    note(f"With 0 shots {', '.join(self._needy())} cannot be measured: there are no examples.")
                if note is not None and tasks.notes:
                    note("\n".join(tasks.notes))
                rows = self._rows(tasks, shape, spelled, tables)
                yield [replace(row, cut=cuts[row.setting.method]) for row in rows]

    def _needy(self) -> list[str]:
        """The methods that need examples where texts have several labels."""
        return [name for name, each in self.methods.items() if not isinstance(each, GivesSeveral)]

    def _tasks(self, material: Material | SeveralData, shape: TaskSize) -> Tasks | MultiLabelTasks:
        if isinstance(material, Material):
            return self.protocol.draw(material, shape)
        return several_tasks(material, shape)

    def _rows(self, tasks: Tasks | MultiLabelTasks, shape: TaskSize, lang: str | None, tables: Tables) -> list[Row]:
        if isinstance(tasks, MultiLabelTasks):
            needy = [] if shape.n_shot else self._needy()
            methods = {name: each for name, each in self.methods.items() if name not in needy}
            tables.primed(methods, tasks.texts(), show_progress=self.show_progress)
            able = {name: partial(learned, each, tables.of(each.encoder)) for name, each in methods.items()}
            several = measure_several(able, tasks.draws, show_progress=self.show_progress)
            return self._compared(several, tasks, shape, lang)
        if self.protocol.presentations:
            found = measure_streams(self.methods, tasks, tables=tables, show_progress=self.show_progress)
            counts = sorted({count for each in found.values() for count in each})
            parts = {count: {name: each[count] for name, each in found.items()} for count in counts}
            return [row for count in counts for row in self._compared(parts[count], tasks, shape, lang, count)]
        summaries = measure(self.methods, self.protocol, tasks, tables=tables, show_progress=self.show_progress)
        return self._compared(summaries, tasks, shape, lang)

    def _compared(
        self,
        summaries: Mapping[str, Summary],
        tasks: Tasks | MultiLabelTasks,
        shape: TaskSize,
        lang: str | None,
        presentation: int | None = None,
    ) -> list[Row]:
        """A row for each method, with its difference to the first if that was measured."""
        first = next(iter(self.methods))
        base = summaries.get(first)
        return [
            Row(
                setting=self._setting(name, tasks, shape, lang, presentation),
                summary=summary,
                baseline=None if base is None or name == first else first,
                gains=None if base is None or name == first else summary.gain_over(base),
                command=self.command,
            )
            for name, summary in summaries.items()
        ]

    def _setting(
        self, name: str, tasks: Tasks | MultiLabelTasks, shape: TaskSize, lang: str | None, presentation: int | None
    ) -> Setting:
        learner = self.methods[name]
        return Setting(
            data=self.choice.data,
            lang=lang,
            method=name,
            protocol=SEVERAL if isinstance(tasks, MultiLabelTasks) else self.protocol.name,
            n_way=tasks.n_way,
            n_shot=shape.n_shot,
            episodes=tasks.n_episodes,
            seed=shape.seed,
            max_query=shape.max_query,
            split=self.choice.split,
            test_data=self.choice.test_data,
            method_options=learner.config(),
            encoder=EncoderUse.of(learner.encoder),
            fold=self.choice.fold,
            presentation=presentation,
            descriptions=None if self.choice.said is None else self.choice.said.name,
        )


def several_tasks(material: SeveralData, shape: TaskSize) -> MultiLabelTasks:
    """The draws of that size."""
    sizes = {"n_shot": shape.n_shot, "n_draws": shape.n_episodes, "seed": shape.seed}
    return MultiLabelTasks.of(material.pool, material.test, max_query=shape.max_query, **sizes)


def learned(learner: Learner, embed: Embed, support: MultiLabelTexts) -> GivesProbabilities:
    """What a method that ``check_several`` lets pass makes of one support."""
    return head_of(learner, support, embed) if isinstance(learner, GivesSeveral) else plain_head(support, embed)
