"""Evaluation from end to end: data and methods in, rows of results out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nlpmeta.encoder.store import embeddings_folder
from nlpmeta.learners.base import Learner
from nlpmeta.protocols.base import Protocol, Shape, Tasks, Ways
from nlpmeta.protocols.materials import DataChoice
from nlpmeta.protocols.measure import Summary, Tables, measure
from nlpmeta.protocols.published import KSHOT_ALL
from nlpmeta.protocols.results import EncoderUse, Row, Setting
from nlpmeta.protocols.streams import measure_streams


def evaluate(
    methods: Mapping[str, Learner],
    data: str | DataChoice,
    *,
    lang: str | None = None,
    protocol: Protocol = KSHOT_ALL,
    n_shots: Sequence[int] | None = None,
    n_ways: Sequence[Ways] | None = None,
    n_episodes: int | None = None,
    max_query: int | None = None,
    seed: int | None = None,
) -> list[Row]:
    """Score learners on the same episodes of a data set.

    Args:
        methods: learners by the name that their rows get; differences are to the first one.
        data: a name or file as ``load_source`` takes it, or a ``DataChoice`` to say more.
        lang: a code or name in any spelling; ``None`` takes all texts.
        protocol: one of ``nlpmeta.protocols``.
        n_shots: support texts of each class; as the protocol says by default, like all that follow.
        n_ways: classes of an episode.
        n_episodes: episodes, of each fold where there are folds.
        max_query: query texts at most.
        seed: decides what is drawn.

    Returns:
        A row for each number of ways, of shots, and method.

    Raises:
        NLPMetaError: if a split, a language or a size does not fit; the message says which.
    """
    shapes = shapes_of(protocol, n_shots=n_shots, n_ways=n_ways, n_episodes=n_episodes, max_query=max_query, seed=seed)
    run = Run(
        protocol=protocol, methods=methods, choice=data if isinstance(data, DataChoice) else DataChoice(data=data)
    )
    return [row for rows in run.rows([lang], shapes) for row in rows]


def shapes_of(
    protocol: Protocol,
    *,
    n_shots: Sequence[int] | None,
    n_ways: Sequence[Ways] | None,
    n_episodes: int | None,
    max_query: int | None,
    seed: int | None,
) -> list[Shape]:
    """The sizes of tasks that were asked for, one for each number of ways and shots.

    Raises:
        NLPMetaError: if the protocol does not allow them.
    """
    ways, shots = tuple(n_ways or protocol.n_ways), tuple(n_shots or protocol.n_shots)
    protocol.check(ways, shots)
    return [
        Shape(
            n_way=n_way,
            n_shot=n_shot,
            n_episodes=protocol.n_episodes if n_episodes is None else n_episodes,
            max_query=protocol.max_query if max_query is None else max_query,
            seed=protocol.seed if seed is None else seed,
        )
        for n_way in ways
        for n_shot in shots
    ]


@dataclass(frozen=True, kw_only=True)
class Run:
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
        self, langs: Sequence[str | None], shapes: Sequence[Shape], *, note: Callable[[str], None] | None = None
    ) -> Iterator[list[Row]]:
        """The rows of each language and shape, one a method, as soon as they are known.

        ``note`` hears what a reader should know about the tasks.
        """
        for lang in langs:
            material, tables = self.choice.material(self.protocol, lang), Tables(self.folder)
            spelled = self.choice.spelling(lang)
            for shape in shapes:
                tasks = self.protocol.draw(material, shape)
                if note is not None and tasks.notes:
                    note("\n".join(tasks.notes))
                yield self._rows(tasks, spelled, tables)

    def _rows(self, tasks: Tasks, lang: str | None, tables: Tables) -> list[Row]:
        if self.protocol.presentations:
            found = measure_streams(self.methods, tasks, tables=tables, show_progress=self.show_progress)
            counts = sorted({count for each in found.values() for count in each})
            parts = {count: {name: each[count] for name, each in found.items()} for count in counts}
            return [row for count in counts for row in self._compared(parts[count], tasks, lang, count)]
        summaries = measure(self.methods, self.protocol, tasks, tables=tables, show_progress=self.show_progress)
        return self._compared(summaries, tasks, lang)

    def _compared(
        self, summaries: Mapping[str, Summary], tasks: Tasks, lang: str | None, presentation: int | None = None
    ) -> list[Row]:
        """A row for each method, with its difference to the first."""
        first = next(iter(summaries))
        return [
            Row(
                setting=self._setting(name, tasks, lang, presentation),
                summary=summary,
                baseline=first if name != first else None,
                gains=summary.gain_over(summaries[first]) if name != first else None,
                command=self.command,
            )
            for name, summary in summaries.items()
        ]

    def _setting(self, name: str, tasks: Tasks, lang: str | None, presentation: int | None) -> Setting:
        learner = self.methods[name]
        return Setting(
            data=self.choice.data,
            lang=lang,
            method=name,
            protocol=self.protocol.name,
            n_way=tasks.n_way,
            n_shot=tasks.shape.n_shot,
            episodes=tasks.n_episodes,
            seed=tasks.shape.seed,
            max_query=tasks.shape.max_query,
            split=self.choice.split,
            test_data=self.choice.test_data,
            method_options=learner.config(),
            encoder=EncoderUse.of(learner.encoder),
            fold=self.choice.fold,
            presentation=presentation,
        )
