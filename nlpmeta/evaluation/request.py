"""What ``adapt_and_measure`` is asked for, and the examples that it is asked about."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from nlpmeta.auto.diagnosis import tuning_note
from nlpmeta.data import LabeledTexts
from nlpmeta.data.inputs import unequally_frequent
from nlpmeta.data.languages import UnknownLanguageError, parse
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.encoder.engines import Engine, takes_compiled
from nlpmeta.encoder.parts import Longer
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.episodes.accounts import Account, accounts_of, check_apart, paired
from nlpmeta.episodes.kshot import KShotSampler, Rare, keep_classes
from nlpmeta.errors import DataError, NLPMetaError, collected_warnings
from nlpmeta.evaluation.trial import Stopwatch, Task
from nlpmeta.learners.abilities import TakesSteps, with_budget, without_budget
from nlpmeta.learners.base import Learner
from nlpmeta.learners.start import check_meta_trained, find_checkpoint, reading, starting_learner
from nlpmeta.learners.tuned import are_enough
from nlpmeta.sources import Source
from nlpmeta.sources.file import texts_of_file
from nlpmeta.sources.form import RECOGNISED, TableForm
from nlpmeta.sources.loading import Descriptions, load_source
from nlpmeta.storage.files import Json, read_json
from nlpmeta.storage.folders import CARD_FILE, check_new_folder, foreign_entry
from nlpmeta.storage.manifest import mapping

if TYPE_CHECKING:
    from nlpmeta.auto.method import AutoHead

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class AdaptRequest:
    """What to adapt to, what to start from, and how to measure it.

    Attributes:
        data: a table (a file), the name of a corpus, or a Hub id.
        lang: the language to take of it.
        n_shot: examples of each class in a support set; ``None`` takes all, 0 none: the names of the classes alone.
        test_data: score on this, not on the rest of ``data``.
        data_dir: a folder with local copies of public data sets.
        ways: only so many classes, drawn with the seed.
        method: how to adapt.
        inner_steps: gradient steps on the support set, for a method that takes some.
        encoder: a folder or Hub id; by default the packaged one.
        checkpoint: what is started from: ``default``, ``none``, or a folder.
        max_length: tokens that are read of a text; by default what texts such as those of the support need.
        device: where it runs.
        engine: what embeds where nothing trains, as in ``FewShotClassifier``.
        seed: decides which examples are drawn.
        n_draws: support sets to draw and score.
        rare: what becomes of classes with fewer examples than ``n_shot``.
        suggest: a file of unlabelled texts, of which the ten to label next are named.
        text_column, label_column, lang_column: of tables, where they are not recognised.
        form: how tables are written.
        descriptions: a table with the columns label and text that says in words what classes are.
        budget: the seconds in which ``auto`` may fine-tune the encoder, in all draws together.
        class_prior: how often classes will occur: ``spam=0.1,ham=0.9``, or ``data``, as often as there.
    """

    data: str = "starter"
    lang: str | None = None
    n_shot: int | None = 5
    test_data: str | None = None
    data_dir: Path | None = None
    ways: int | None = None
    method: str = "auto"
    inner_steps: int | None = None
    encoder: str | None = None
    checkpoint: str = "default"
    max_length: int | None = None
    device: str = "auto"
    engine: Engine = "torch"
    seed: int = 0
    n_draws: int = 5
    rare: Rare = "error"
    suggest: Path | None = None
    text_column: str | None = None
    label_column: str | None = None
    lang_column: str | None = None
    form: TableForm = RECOGNISED
    descriptions: Path | None = None
    budget: float = 0.0
    class_prior: str | None = None

    @property
    def name(self) -> str:
        """What a model of it may be called."""
        return f"{Path(self.data).stem}-{self.lang or 'all'}-{'all' if self.n_shot is None else self.n_shot}-shot"

    def facts(self, digest: str) -> dict[str, Json]:
        """What decides the model, for its report; ``digest`` is of the data."""
        wanted: dict[str, Json] = {
            "data": self.data, "lang": self.lang, "shots": self.n_shot, "ways": self.ways, "method": self.method,
            "encoder": self.encoder, "checkpoint": self.checkpoint, "test_data": self.test_data, "seed": self.seed,
            "rare": self.rare, "digest": digest,
        }  # fmt: skip
        if self.engine.startswith("onnx"):
            wanted["engine"] = self.engine
        given: dict[str, Json] = {"inner_steps": self.inner_steps, "max_length": self.max_length}
        given |= {"budget": self.budget or None, "class_prior": self.class_prior}
        given["descriptions"] = None if self.descriptions is None else Descriptions.of_file(self.descriptions).name
        return wanted | {name: value for name, value in given.items() if value is not None}

    def learner(self) -> Learner:
        """The learner that is started from.

        Raises:
            NLPMetaError: if the method takes no inner steps and some were requested, or was never meta-trained.
        """
        name = self.encoder or DEFAULT_ENCODER
        learner = starting_learner(
            self.method, encoder=name, checkpoint=self.checkpoint, max_length=self.max_length, device=self.device,
            compiled=takes_compiled(self.device, self.engine),
        )  # fmt: skip
        check_meta_trained(learner, self.method, find_checkpoint(self.checkpoint, encoder=name, method=self.method))
        if self.inner_steps is None:
            return learner
        if not isinstance(learner, TakesSteps):
            raise NLPMetaError(f"{self.method} takes no gradient steps; --inner-steps goes with --method maml.")
        return learner.stepping(self.inner_steps)

    def reading(
        self, learner: Learner, support: Sequence[str], n_texts: int, *, say: Say | None = None
    ) -> tuple[Learner, Longer | None]:
        """The learner that reads enough of texts such as ``support``, unless it was requested how much to read.

        ``say`` is called with what was chosen and what it costs, by the number of texts that will be embedded.
        """
        chosen, longer = reading(learner, support) if self.max_length is None else (learner, None)
        if longer is not None and say is not None:
            say(f"Note: {longer.message('--max-length', longer.seconds(learner.encoder, n_texts))}")
        return chosen, longer

    def budgeted(
        self, learner: Learner, supports: Sequence[LabeledTexts | MultiLabelTexts], *, say: Say | None = None
    ) -> Learner:
        """The learner with its part of the budget for each of ``supports``, the model's first; the forecast is said.

        Raises:
            NLPMetaError: if it fine-tunes nothing.
        """
        with_budget(learner, self.budget)  # refused by what was typed, not by its part
        found, several = with_budget(learner, self.budget / len(supports)), isinstance(supports[0], MultiLabelTexts)
        counts = [list(each.counts().values()) for each in supports]
        note = tuning_note(cast("AutoHead", found), supports[0].texts, counts, several=several)
        if note and say is not None:
            say(f"Note: {note}")
        return found if all(are_enough(each, several=several) for each in counts) else without_budget(found)


@dataclass(frozen=True, eq=False)
class Material:
    """The examples that a request is about, and what was noticed while they were read.

    Attributes:
        pool: all of the data.
        task: the draws to score, and the support of the model.
        candidates: texts of which the ones to label next are named, where that is asked for.
        accounts: rows that are not simply examples.
        skipped: messages about rows that were skipped.
        notes: messages about pairing the test data.
        watch: runs since reading began.
    """

    pool: LabeledTexts
    task: Task
    candidates: tuple[str, ...] | None
    accounts: tuple[Account, ...]
    skipped: tuple[str, ...]
    notes: tuple[str, ...]
    watch: Stopwatch = field(default_factory=Stopwatch)

    @classmethod
    def of(cls, request: AdaptRequest, *, say: Say | None = None) -> "Material":
        """Read what ``request`` names; no encoder is loaded. ``say`` gets a note on rows that are not examples.

        Raises:
            NLPMetaError: if a file or corpus cannot be read, or there are too few examples.
        """
        watch = Stopwatch()
        candidates = None if request.suggest is None else distinct_texts(request.suggest, request)
        if request.test_data is not None:
            check_apart(request.data, request.test_data)
        with watch.stage("data"), collected_warnings() as skipped:
            pool = source_of(request, request.data).load(request.lang)
            if request.descriptions is not None:
                pool = Descriptions.of_file(request.descriptions).added_to(pool)
            test, notes = None, list[str]()
            files = {"data": Path(request.data).name, "test_data": Path(request.test_data or "").name}
            if request.test_data is not None:
                test, notes = paired(pool, source_of(request, request.test_data).load(request.lang), **files)
            kept = pool if request.ways is None else keep_classes(pool, request.ways, seed=request.seed)
            if request.n_shot == 0:
                task, accounts = Task.of_names(kept, test), list[Account]()
            else:
                sampler = KShotSampler(kept, n_shot=request.n_shot, seed=request.seed, test=test, rare=request.rare)
                task = Task.of(sampler, n_draws=request.n_draws, seed=request.seed)
                accounts = accounts_of(sampler, **files)
        if request.n_shot is not None and request.method == "auto" and request.class_prior is None:
            notes += filter(None, [unequally_frequent(kept.counts())])
        if say is not None:
            for line in [*notes, *map(str, accounts)]:
                say(f"Note: {line}")
        return cls(pool, task, candidates, tuple(accounts), tuple(skipped), tuple(notes), watch)

    def json(self) -> dict[str, Json]:
        """What was noticed, for the report: counts with the line of the first row where it is known, and sentences."""
        return {
            "rows": [account.json() for account in self.accounts],
            "notes": [*self.skipped, *self.notes, *map(str, self.accounts)],
        }

    def lang(self, asked: str | None) -> str | None:
        """The code of the one language of the data, if there is one and a standard knows it."""
        found = set(self.pool.langs or ()) or ({asked} if asked else set())
        if len(found) != 1:
            return None
        only = found.pop()
        try:
            return parse(str(only)).code
        except UnknownLanguageError:
            return str(only)


def distinct_texts(path: Path, request: AdaptRequest) -> tuple[str, ...]:
    """The distinct texts of a file.

    Raises:
        DataError: if it is missing, damaged, empty, or a table without such a column.
    """
    texts = tuple(dict.fromkeys(texts_of_file(path, request.text_column, request.form)))
    if not texts:
        raise DataError(f"{path} holds no texts.")
    return texts


def source_of(request: AdaptRequest, name: str) -> Source:
    """The data or the test data of a request; nothing is read before texts are asked for."""
    return load_source(
        name,
        data_dir=request.data_dir,
        text_column=request.text_column,
        label_column=request.label_column,
        lang_column=request.lang_column,
        form=request.form,
    )


HOME = Path("nlpmeta-models")


@dataclass(frozen=True)
class Place:
    """A folder for a model and whether what stands there may be replaced."""

    folder: Path
    replace: bool


def choose_place(out: Path | None, *, name: str, task: Mapping[str, object], overwrite: bool) -> Place:
    """The folder asked for, else ``nlpmeta-models/NAME``, numbered where another model has that name.

    A folder that was not asked for by name is replaced only if it holds the model of the very same ``task`` and nothing
    else: the same command makes the same model again.

    Raises:
        NLPMetaError: if no model can be written at ``out``, or what is there may not be replaced; raised before any
            work is done.
        WorkFailedError: if the operating system allows no folder there.
    """
    if out is not None:
        check_new_folder(out, overwrite=overwrite, also=(CARD_FILE,))  # one that was changed is kept
        return Place(out, overwrite)
    base = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    number = 1
    while True:
        folder = HOME / (base if number == 1 else f"{base}-{number}")
        if not os.path.lexists(folder):
            check_new_folder(folder)
            return Place(folder, replace=False)
        if _task_of(folder) == task and foreign_entry(folder) is None:
            return Place(folder, replace=True)
        number += 1


def _task_of(folder: Path) -> object:
    try:
        return mapping(cast("Json", read_json(folder / "report.json"))).get("task")
    except (NLPMetaError, TypeError):
        return None
