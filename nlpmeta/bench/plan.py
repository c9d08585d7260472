"""What a benchmark is made of: tasks, contenders, and cells, one for each support set that a contender adapts to."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from nlpmeta.bench.contender import OURS, contenders, peer
from nlpmeta.episodes.index import MultiLabelTasks
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.evaluation.protocols import KSHOT_ALL, Tasks, TaskSize
from nlpmeta.evaluation.runs import DataChoice, several_tasks
from nlpmeta.learners.abilities import check_several, needs_examples
from nlpmeta.learners.base import learners
from nlpmeta.learners.start import find_checkpoint
from nlpmeta.sources.form import TableForm
from nlpmeta.storage.files import sha256

Plain: TypeAlias = "str | int | float | bool | None"
_READING = ("text_column", "label_column", "lang_column", "delimiter", "encoding", "label_separator")


@dataclass(frozen=True, kw_only=True)
class BenchTask:
    """A data set in one language, and how its table is read where that is not recognised.

    ``n_way`` takes only the first so many classes of the data set's own order.
    """

    data: str
    lang: str | None = None
    data_dir: str | None = None
    max_query: int = 500
    seed: int = 0
    n_way: int | None = None
    text_column: str | None = None
    label_column: str | None = None
    lang_column: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    header: bool = True
    label_separator: str | None = None

    @property
    def title(self) -> str:
        """How it is called in tables: ``injongo swa``."""
        return self.data if self.lang is None else f"{self.data} {self.lang}"

    @property
    def read_as(self) -> str:
        """The data set and whatever was said of how to read it: equal words, equal texts."""
        given = {name: getattr(self, name) for name in _READING}
        said = [f"{name} {value!r}" for name, value in given.items() if value is not None]
        said += [] if self.header else ["no header"]
        return ", ".join([self.data, *said])

    def choice(self) -> DataChoice:
        """Where its texts come from.

        Raises:
            DataError: if the delimiter or the encoding is none.
        """
        return DataChoice(
            data=self.data,
            data_dir=None if self.data_dir is None else Path(self.data_dir),
            text_column=self.text_column,
            label_column=self.label_column,
            lang_column=self.lang_column,
            form=TableForm(self.delimiter, self.encoding, header=self.header, label_separator=self.label_separator),
        )

    def spelled(self) -> "BenchTask":
        """The same with the data set's own spelling of the language.

        Raises:
            NLPMetaError: if the data set or the language is not there.
        """
        return replace(self, lang=self.choice().spelling(self.lang))

    def tasks(self, n_shot: int, n_draws: int) -> Tasks | MultiLabelTasks:
        """The episodes, as ``nlpmeta evaluate --protocol kshot-all`` draws them.

        Raises:
            NLPMetaError: if the data cannot give them.
        """
        choice = self.choice()
        shape = TaskSize(n_way="all", n_shot=n_shot, n_episodes=n_draws, max_query=self.max_query, seed=self.seed)
        if choice.source.several:
            if self.n_way is not None:
                raise DataError(f"--scaling requires one label per text, and {self.title} has several.")
            return several_tasks(choice.several(self.lang), shape)
        material = choice.material(KSHOT_ALL, self.lang)
        if self.n_way is not None:
            names = (material.pool.label_names if material.pool else ())[: self.n_way]
            if len(names) < self.n_way:
                raise DataError(f"{self.title} has {len(names)} classes; {self.n_way} were requested.")
            pool = material.pool.with_classes(names) if material.pool else None
            material = replace(material, pool=pool, test=material.test and material.test.with_classes(names))
        return KSHOT_ALL.draw(material, shape)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A contender with its settings; ``digest`` tells one checkpoint from another."""

    name: str
    contender: str
    max_steps: int | None = None
    digest: str | None = None

    @classmethod
    def ours(cls, name: str, *, encoder: str) -> "Entry":
        """One of our methods, ``METHOD`` or ``METHOD@CHECKPOINT``.

        Raises:
            NLPMetaError: if the method or the checkpoint is not there.
        """
        method, _, checkpoint = name.partition("@")
        learners[method]
        folder = find_checkpoint(checkpoint or "none", encoder=encoder)
        return cls(name=name, contender=OURS, digest=None if folder is None else _digest(folder))

    @classmethod
    def of_peer(cls, name: str, *, max_steps: int | None) -> "Entry":
        """A peer; the limit is part of what it is only where it trains.

        Raises:
            NLPMetaError: if it is unknown or not installed.
        """
        return cls(name=name, contender=name, max_steps=max_steps if peer(name).trains else None)

    @property
    def method(self) -> str:
        """Its name without a checkpoint."""
        return self.name.partition("@")[0]

    @property
    def title(self) -> str:
        """How it is called in tables, with its limit of steps."""
        return self.name if self.max_steps is None else f"{self.name}, at most {self.max_steps} steps"


@dataclass(frozen=True, order=True)
class Cell:
    """One support set: how many texts of each class, and which draw."""

    n_shot: int
    draw: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """The cells of one task that one contender does in one process."""

    task: BenchTask
    entry: Entry
    encoder: str
    encoder_digest: str
    max_length: int | None = None
    device: str = "auto"
    cells: tuple[Cell, ...] = field(default=())

    def key(self, cell: Cell) -> dict[str, Plain]:
        """All that decides what comes out for a cell: equal keys, equal figures."""
        decides = ("lang", "max_query", "seed", "n_way")
        task = {"data": self.task.read_as, **{name: getattr(self.task, name) for name in decides}}
        entry = {"method": self.entry.name, "max_steps": self.entry.max_steps, "checkpoint": self.entry.digest}
        encoder = self.encoder_digest[:12] + (f", {self.max_length} tokens" if self.max_length is not None else "")
        return {**task, **entry, "encoder": encoder, **asdict(cell)}

    def json(self) -> dict[str, object]:
        """As plain values for another process."""
        return asdict(self)

    @classmethod
    def parse(cls, values: Mapping[str, object]) -> "Job":
        """What ``json`` gave."""
        given = dict(values)
        task, entry = BenchTask(**given.pop("task")), Entry(**given.pop("entry"))  # type: ignore[arg-type]  # ours
        cells = tuple(Cell(**each) for each in given.pop("cells"))  # type: ignore[attr-defined]
        return cls(task=task, entry=entry, cells=cells, **given)  # type: ignore[arg-type]


def entries_of(
    methods: Sequence[str], peers: Sequence[str], *, encoder: str, max_steps: int | None, least: int = 1
) -> tuple[Entry, ...]:
    """Our methods and the peers, each checked before any work.

    Args:
        methods: ``METHOD`` or ``METHOD@CHECKPOINT``.
        peers: their names.
        encoder: what all of them use.
        max_steps: training steps of the peers that train.
        least: the fewest shots that they get; with 0 they have the names of the classes alone.

    Raises:
        NLPMetaError: if one is unknown, not installed, named twice or needs examples, or there is none.
    """
    ours = [Entry.ours(name, encoder=encoder) for name in methods]
    others = [Entry.of_peer(name, max_steps=max_steps) for name in peers]
    names = [entry.name for entry in ours + others]
    if not names:
        raise NLPMetaError(f"Name methods or peers to compare; peers are: {', '.join(k for k in contenders)}.")
    if len(set(names)) < len(names):
        raise NLPMetaError(f"Each method can be named once; got {', '.join(names)}.")
    able = {name for name in methods if learners[name.partition("@")[0]].learns_from_names}
    if least == 0 and set(names) != able:
        raise needs_examples([name for name in names if name not in able])
    return tuple(ours + others)


def takers_of(tasks: Sequence[BenchTask], entries: Sequence[Entry], *, named: bool) -> tuple[Entry, ...]:
    """The contenders that take the data, before any work: not all do where texts have several labels.

    Args:
        tasks: the data.
        entries: our methods and peers.
        named: whether somebody asked for these peers; else those that require one label per text are left out.

    Raises:
        NLPMetaError: names those that require one label per text where texts have several.
    """
    several = [task.title for task in tasks if task.choice().source.several]
    if not several:
        return tuple(entries)
    check_several({each.name: learners[each.method] for each in entries if each.contender == OURS}, (), data=several[0])
    wrong = [each.name for each in entries if not contenders[each.contender].several]
    if wrong and named:
        able = ", ".join(name for name in contenders if name != OURS and contenders[name].several)
        raise NLPMetaError(
            f"{several[0]} has several labels per text, and {', '.join(wrong)} {'give' if len(wrong) > 1 else 'gives'} "
            f"one; these peers give several: {able}."
        )
    return tuple(each for each in entries if each.name not in wrong)


def _digest(folder: Path) -> str:
    """Twelve digits that tell the files of one checkpoint from those of another."""
    from hashlib import sha256 as hashed

    each = [f"{path.name} {sha256(path)}" for path in sorted(folder.iterdir()) if path.suffix == ".safetensors"]
    return hashed("\n".join(each).encode()).hexdigest()[:12]


def explained(name: str, max_steps: int | None) -> str:
    """What a method in results is, in a phrase: the first sentence of its class, and what it starts from."""
    method, _, checkpoint = name.partition("@")
    if method in learners:
        start = {"": "the frozen encoder", "default": "the shipped checkpoint"}
        found = f"{_first_sentence(learners[method])}, on {start.get(checkpoint, f'the checkpoint {checkpoint}')}"
    else:
        found = _first_sentence(contenders[method]) if method in contenders else "a method of another version"
    return found if max_steps is None else f"{found}; at most {max_steps} training steps"


def commands_of(keys: Sequence[Mapping[str, Plain]]) -> list[str]:
    """The commands that measure the same again, one for each limit of steps; runs of scaling are left out."""
    found: dict[tuple[Plain, ...], dict[str, dict[str, None]]] = {}
    for key in keys:
        if key["n_way"] is None:
            ours = str(key["method"]).partition("@")[0] in learners
            group = found.setdefault((key["max_query"], key["seed"], key["max_steps"]), {})
            data = str(key["data"]) if key["lang"] is None else f"{key['data']}:{key['lang']}"
            words = {"data": data, "shots": str(key["n_shot"]), "draw": str(key["draw"])}
            words["methods" if ours else "peers"] = str(key["method"])
            for option, word in words.items():
                group.setdefault(option, {})[word] = None
    return [
        f"nlpmeta bench --data {','.join(words['data'])} --shots {','.join(words['shots'])} "
        f"--draws {len(words['draw'])} --max-query {max_query} --seed {seed} "
        f"--methods {','.join(words.get('methods', ['none']))} --peers {','.join(words.get('peers', ['none']))} "
        f"--max-steps {max_steps or 0} --out FOLDER"
        for (max_query, seed, max_steps), words in found.items()
    ]


def _first_sentence(kind: type) -> str:
    text = " ".join((kind.__doc__ or kind.__name__).split())
    sentence = text.split(". ")[0].replace("``", "").rstrip(".")
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence
