"""``nlpmeta adapt``: from a handful of labelled examples to a classifier on disk, measured."""

from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.options import (
    Delimiter,
    Device,
    Encoding,
    LabelColumn,
    LangColumn,
    MaxLength,
    NoHeader,
    TextColumn,
    check_device,
)
from nlpmeta.cli.process import loads_encoder

if TYPE_CHECKING:
    from nlpmeta.adaptation.trial import Stopwatch, Task, Trial
    from nlpmeta.adaptation.unlabelled import FromTexts
    from nlpmeta.classifier import FewShotClassifier
    from nlpmeta.data import LabeledTexts
    from nlpmeta.encoder.cache import EmbeddingTable
    from nlpmeta.learners.base import Learner
    from nlpmeta.trust.mismatch import TaskReport

EXAMPLES = """Examples:

  nlpmeta adapt --lang sw --shots 5

  nlpmeta adapt --data mine.csv --shots all --out my-model

  nlpmeta adapt --data train.jsonl --test-data test.jsonl --shots 10 --json

  nlpmeta adapt --data mine.csv --shots all --include-support --out my-model

  nlpmeta adapt --data mine.csv --shots all --suggest unlabelled.txt

  nlpmeta adapt --data mine.csv --shots 5 --unlabelled corpus.txt

  nlpmeta adapt --data long-texts.csv --max-length 512 --device cuda
"""


class RareChoice(str, Enum):
    """What becomes of classes with fewer examples than ``--shots``."""

    error = "error"
    drop = "drop"
    keep = "keep"


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(loads_encoder(adapt))


def adapt(
    *,
    lang: Annotated[str | None, typer.Option(help="Language: sw, swa, sw-KE, swh_Latn or Swahili.")] = None,
    shots: Annotated[str, typer.Option(help="Examples of each class in the support set, or 'all'.")] = "5",
    data: Annotated[str, typer.Option(help="Table (CSV, JSON, Parquet, xlsx, …), corpus name, or Hub id.")] = "starter",
    test_data: Annotated[str | None, typer.Option(help="Score on this file, not the rest of --data.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder with local copies of public data sets.")] = None,
    ways: Annotated[int | None, typer.Option(help="Only this many classes, drawn with the seed.", min=2)] = None,
    method: Annotated[str, typer.Option(help="How to adapt; 'auto' compares heads on the support set.")] = "auto",
    inner_steps: Annotated[
        int | None, typer.Option(help="Gradient steps on the support set (maml, anil, metasgd, reptile).", min=0)
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="Folder or Hub id of an encoder.")] = None,
    checkpoint: Annotated[
        str, typer.Option(help="Start from: default, none (frozen encoder), or a folder.")
    ] = "default",
    max_length: MaxLength = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Decides which examples are drawn.", min=0)] = 0,
    draws: Annotated[int, typer.Option(help="Support sets to draw and score.", min=1)] = 5,
    rare: Annotated[RareChoice, typer.Option(help="Classes with fewer than --shots examples.")] = RareChoice.error,
    suggest: Annotated[Path | None, typer.Option(help="Unlabelled texts; name the ten to label next.")] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Texts to learn the language from first; kept only if the support gains.")
    ] = None,
    unlabelled_steps: Annotated[int, typer.Option(help="Training steps on the texts of --unlabelled.", min=1)] = 60,
    out: Annotated[Path | None, typer.Option(help="Folder for the model.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the folder of --out.")] = False,
    include_support: Annotated[
        bool, typer.Option("--include-support", help="Keep the examples in the model, for nlpmeta teach.")
    ] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    lang_column: LangColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes and no progress.")] = False,
) -> None:
    """Adapt to a few labelled examples, measure over several draws, and save the model.

    The support set (--shots examples of each class) is drawn from the data and the rest is scored; this is repeated
    over --draws different support sets, or once where there is only one. The model of the first draw is saved.
    """
    from nlpmeta.adaptation.place import choose_place
    from nlpmeta.adaptation.trial import Stopwatch, Task
    from nlpmeta.cli import adapt_output
    from nlpmeta.cli.adapt_rows import heard, row_report
    from nlpmeta.cli.console import out_json, say
    from nlpmeta.cli.suggest import suggestions, texts_without_labels
    from nlpmeta.sampling import KShotSampler, keep_classes
    from nlpmeta.sampling.accounts import accounts_of
    from nlpmeta.sources.form import TableForm
    from nlpmeta.sources.loading import load_source
    from nlpmeta.sources.pairing import check_apart, paired

    start, watch = perf_counter(), Stopwatch()
    check_device(device)
    n_shot, form = _shots(shots), TableForm(delimiter=delimiter, encoding=encoding, header=not no_header)
    candidates = None if suggest is None else texts_without_labels(suggest, text_column, form)
    raw = None if unlabelled is None else texts_without_labels(unlabelled, text_column, form)
    read = partial(
        load_source,
        data_dir=data_dir,
        text_column=text_column,
        label_column=label_column,
        lang_column=lang_column,
        form=form,
    )
    if test_data is not None:
        check_apart(data, test_data)
    with watch.stage("data"), heard() as skipped:
        pool = read(data).load(lang)
        test = None if test_data is None else read(test_data).load(lang)
        files, notes = {"data": Path(data).name, "test_data": Path(test_data or "").name}, list[str]()
        if test is not None:
            test, notes = paired(pool, test, **files)
        kept = pool if ways is None else keep_classes(pool, ways, seed=seed)
        sampler = KShotSampler(kept, n_shot=n_shot, seed=seed, test=test, rare=rare.value)
        task = Task.of(sampler, n_draws=draws, seed=seed)
        raw = None if raw is None else _others(raw, pool, test)
    accounts = accounts_of(sampler, **files)
    for line in [] if quiet else [*notes, *map(str, accounts)]:
        say(f"Note: {line}")
    asked = {"data": data, "lang": lang, "shots": n_shot, "ways": ways, "method": method, "encoder": encoder}
    asked |= {"checkpoint": checkpoint} | ({} if inner_steps is None else {"inner_steps": inner_steps})
    asked |= {} if max_length is None else {"max_length": max_length}
    asked |= {"test_data": test_data, "seed": seed, "rare": rare.value, "digest": pool.digest()}
    asked |= {} if unlabelled is None else {"unlabelled": str(unlabelled), "unlabelled_steps": unlabelled_steps}
    name = f"{Path(data).stem}-{lang or 'all'}-{shots}-shot"
    place = choose_place(out, name=name, task=asked, overwrite=overwrite)
    start_from = StartFrom(method, encoder, checkpoint, inner_steps, max_length, device)
    with watch.stage("import_and_load"):
        learner = start_from.learner()
    learned = None
    if raw is not None:
        with watch.stage("learn_from_texts"):
            learner, learned = _learn_from_texts(
                start_from, raw, task.support, steps=unlabelled_steps, seed=seed, quiet=quiet
            )
    trial, classifier, table = _run(learner, method, task, watch, quiet=quiet)
    found = _look(classifier, task, table, watch)
    next_ones = None if candidates is None else suggestions(classifier, task.support, candidates, table)
    watch.seconds["total"] = perf_counter() - start
    report = adapt_output.report(
        trial, task=asked, lang=_language(lang, pool), folder=place.folder, watch=watch, found=found
    )
    report |= row_report(accounts, skipped + notes)
    if next_ones is not None:
        report["label_next"] = next_ones
    if learned is not None:
        report["learned_from_texts"] = learned.json()
    classifier.save_pretrained(place.folder, overwrite=place.replace, report=report, include_support=include_support)
    if json:
        out_json(report)
    else:
        adapt_output.show(trial, place.folder, watch, found=found, label_next=next_ones, learned=learned)


@dataclass(frozen=True)
class StartFrom:
    """What is adapted, as the user named it."""

    method: str
    encoder: str | None
    checkpoint: str
    inner_steps: int | None
    max_length: int | None
    device: str

    def learner(self) -> "Learner":
        """The learner itself.

        Raises:
            NLPMetaError: if the method takes no inner steps and some were asked for.
        """
        from nlpmeta.encoder.weights import DEFAULT_ENCODER
        from nlpmeta.errors import NLPMetaError
        from nlpmeta.learners.maml import MAML
        from nlpmeta.starting import check_meta_trained, find_checkpoint, starting_learner

        name = self.encoder or DEFAULT_ENCODER
        learner = starting_learner(
            self.method, encoder=name, checkpoint=self.checkpoint, max_length=self.max_length, device=self.device
        )
        check_meta_trained(learner, self.method, find_checkpoint(self.checkpoint, encoder=name, method=self.method))
        if self.inner_steps is None:
            return learner
        if not isinstance(learner, MAML):
            raise NLPMetaError(f"{self.method} takes no gradient steps; --inner-steps goes with --method maml.")
        return learner.stepping(self.inner_steps)


def _others(texts: list[str], *parts: "LabeledTexts | None") -> list[str]:
    """The texts that are in none of the labelled data, which is scored on."""
    from nlpmeta.sampling.leaks import fingerprint

    known = {fingerprint(text) for part in parts if part is not None for text in part.texts}
    return [text for text in texts if fingerprint(text) not in known]


def _learn_from_texts(
    start_from: StartFrom, texts: list[str], support: "LabeledTexts", *, steps: int, seed: int, quiet: bool
) -> "tuple[Learner, FromTexts]":
    from nlpmeta.adaptation.unlabelled import learn_from_texts
    from nlpmeta.cli.console import say
    from nlpmeta.encoder.weights import DEFAULT_ENCODER

    return learn_from_texts(
        start_from.method,
        texts,
        support,
        encoder=start_from.encoder or DEFAULT_ENCODER,
        checkpoint=start_from.checkpoint,
        max_length=start_from.max_length,
        device=start_from.device,
        steps=steps,
        seed=seed,
        show_progress=not quiet,
        say=None if quiet else say,
    )


def _run(
    learner: "Learner", method: str, task: "Task", watch: "Stopwatch", *, quiet: bool
) -> "tuple[Trial, FewShotClassifier, EmbeddingTable]":
    """The trial, the classifier that is saved, and the embeddings that are known."""
    from nlpmeta.adaptation.trial import run_trial
    from nlpmeta.classifier import FewShotClassifier
    from nlpmeta.cli.console import say
    from nlpmeta.encoder.cache import EmbeddingTable

    if not quiet and learner.encoder.files is not None:
        say(learner.encoder.files.said)
    table = EmbeddingTable(learner.encoder)
    trial = run_trial(learner, task, method=method, table=table, watch=watch, show_progress=not quiet)
    return trial, FewShotClassifier.adapted(learner, task.support, embed=table), table


def _look(
    classifier: "FewShotClassifier", task: "Task", table: "EmbeddingTable", watch: "Stopwatch"
) -> "TaskReport | None":
    """What the support set says of the task; ``None`` for a method that no experience was gathered for."""
    from nlpmeta.learners.auto import AutoHead
    from nlpmeta.trust.diagnosis import diagnose

    learner = classifier.learner_
    if not isinstance(learner, AutoHead):
        return None
    with watch.stage("look_at_the_support"):
        return diagnose(learner, task.support, embed=table)


def _shots(asked: str) -> int | None:
    """The number of shots; ``None`` for all.

    Raises:
        NLPMetaError: if it is neither a positive whole number nor ``all``.
    """
    from nlpmeta.errors import NLPMetaError

    if asked == "all":
        return None
    if not asked.isascii() or not asked.isdigit() or int(asked) < 1:
        raise NLPMetaError(f"--shots takes a whole number from 1, or 'all'; got {asked!r}.")
    return int(asked)


def _language(asked: str | None, pool: "LabeledTexts") -> str | None:
    """The code of the one language of the pool, if there is one and a standard knows it."""
    from nlpmeta.languages import UnknownLanguageError, parse

    found = set(pool.langs or ()) or ({asked} if asked else set())
    if len(found) != 1:
        return None
    only = found.pop()
    try:
        return parse(str(only)).code
    except UnknownLanguageError:
        return str(only)
