"""What ``nlpmeta predict`` loads, compiled where possible, and the answers that it gives."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from nlpmeta.errors import NLPMetaError
from nlpmeta.progress import clear_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.classifier.light import LightClassifier
    from nlpmeta.cli.process import Wanted
    from nlpmeta.encoder.engines import Engine
    from nlpmeta.sources.file import Given

Predicts: TypeAlias = "FewShotClassifier | LightClassifier"


def load_model(
    model: str, revision: str | None, *, device: str, engine: str, probabilities_alone: bool, quiet: bool = False
) -> Predicts:
    """The model by its folder or name; compiled first where ``engine`` says so.

    Args:
        model: a folder, or a name on the Hub.
        revision: of the Hub.
        device: where it runs.
        engine: what embeds the texts.
        probabilities_alone: whether nothing but class probabilities will be asked of it.
        quiet: whether to leave out the note that compiling makes this faster.

    Raises:
        NLPMetaError: if it cannot be loaded, or the engine is unknown or not installed.
    """
    from nlpmeta.encoder.engines import check_engine, takes_compiled

    chosen = check_engine(engine)
    folder = Path(model) if revision is None and Path(model).is_dir() else None
    light = folder is not None and probabilities_alone and takes_compiled(device, chosen)
    if light and folder is not None:
        from nlpmeta.classifier.light import LightClassifier

        if (found := LightClassifier.of_folder(folder, chosen)) is not None:
            clear_status()
            return found
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.export.head import compile_model

    classifier = FewShotClassifier.from_pretrained(model, revision=revision, device=device, engine=chosen)
    if folder is not None and (light or chosen.startswith("onnx")):
        compile_if_told(classifier, chosen, partial(compile_model, classifier, folder=folder), str(folder), quiet=quiet)
    clear_status()
    return classifier


def reads(classifier: Predicts) -> tuple[int, int | None]:
    """The tokens that are read of a text, and those that the encoder could read."""
    from nlpmeta.classifier.light import LightClassifier

    if isinstance(classifier, LightClassifier):
        reader = cast("LightClassifier", classifier)  # the other kind has bases of unknown type
        return reader.encoder.max_length, reader.encoder.most_tokens
    encoder = loaded(classifier).learner_.encoder
    return encoder.max_length, encoder.most_tokens


def as_pairs(classifier: Predicts, batch: "list[Given]") -> "list[Given]":
    """Texts as pairs if the model classifies pairs: in a line a tab stands between the two texts.

    Raises:
        DataError: if a line is no pair.
    """
    from nlpmeta.classifier.light import LightClassifier
    from nlpmeta.data.inputs import Pair
    from nlpmeta.errors import DataError, visible

    found: list[Given] = []
    if isinstance(classifier, LightClassifier) or not loaded(classifier).learner_.encoder.pairs:
        return batch
    for given in batch:
        parts = [part.strip() for part in given.text.split("\t")]
        if not given.text or isinstance(given.text, Pair):
            found.append(given)
            continue
        if len(parts) != 2 or not all(parts):
            raise DataError(
                f"This model classifies pairs of texts, but text {given.line} is {visible(repr(given.text))[:60]}. "
                "Write a tab between the two, or give a table with the columns text_a and text_b."
            )
        found.append(replace(given, text=Pair.of(*parts)))
    return found


def loaded(classifier: Predicts) -> "FewShotClassifier":
    """The same model, which ``load_model`` loaded in full as more than probabilities was asked for."""
    return cast("FewShotClassifier", classifier)


def compile_if_told(
    classifier: "FewShotClassifier", engine: "Engine", compiled: "Callable[[Engine], object]", what: str, *, quiet: bool
) -> None:
    """Compile what was loaded for this prediction and the next ones, or on a terminal mention that it can be.

    Args:
        classifier: what was loaded.
        engine: for ``auto``, what the next prediction needs is kept where its encoder is compiled already.
        compiled: compiles it.
        what: the argument of ``nlpmeta compile``.
        quiet: whether to mention nothing; a cache that cannot be written is mentioned all the same.
    """
    from nlpmeta.cli.console import say
    from nlpmeta.errors import WorkFailedError
    from nlpmeta.export.head import has_compiled

    there = True if engine.startswith("onnx") else has_compiled(classifier)
    if there is None:  # it has no compiled form
        return
    if not there:
        if not quiet and sys.stderr.isatty():
            first = "" if find_spec("onnxruntime") else "pip install 'nlpmeta[fast]' and "
            say(f"Tip: {first}{f'nlpmeta compile {what}'.strip()}: predictions then start and run much faster.")
        return
    try:
        compiled("onnx" if engine == "auto" else engine)
    except WorkFailedError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        say(f"Note: {error} Predicting uncompiled.")
        classifier.engine = "torch"


NONE = "none of these"
"""What is said of a text that none of the labels fits."""
OUTSIDE = 0.5
"""The out-of-scope score from which on a text is taken to belong to no class."""
Answer = dict[str, object]
"""The value of each column for one text; all are ``None`` for a text that is empty."""


@dataclass(frozen=True)
class Columns:
    """Which columns are wanted.

    Args:
        top: the most probable labels to name, ``None`` for the first alone without a list of them.
        coverage: how often a set of labels shall hold the true one, ``None`` for one label.
        nested: several labels as a list (JSON), not as columns of their own.
        out_of_scope: whether out-of-scope texts are detected, with their score.
        threshold: the least probability of a label, times that of being in scope; below it the label is ``NONE``.
        several: whether a text may have several labels, with ``separator`` between them where no list can be.
    """

    top: int | None = None
    coverage: float | None = None
    nested: bool = False
    out_of_scope: bool = False
    threshold: float | None = None
    several: bool = False
    separator: str = ";"

    def names(self, n_way: int) -> tuple[str, ...]:
        """The names of the columns for a classifier of ``n_way`` classes."""
        if self.several:
            return ("labels", "probabilities")
        if self.coverage is not None:
            sets = ("labels", "probabilities") if self.nested else ("label", "probability")
            return (*sets, "unsure", "coverage")
        more = range(2, min(self.top or 1, n_way) + 1)
        scope = ["out_of_scope"] if self.out_of_scope else []
        if self.nested:
            return ("label", "probability", *(["top"] if self.top else []), *scope)
        return ("label", "probability", *(name for k in more for name in (f"label_{k}", f"probability_{k}")), *scope)

    @property
    def is_text(self) -> bool:
        """Whether a label is text, whatever kind the classes are."""
        return self.coverage is not None or self.may_refuse or self.several

    @property
    def may_refuse(self) -> bool:
        """Whether a text may get the label ``NONE``."""
        return self.out_of_scope or self.threshold is not None

    @property
    def are_probabilities(self) -> bool:
        """Whether nothing but class probabilities is needed for them."""
        return self.coverage is None and not self.may_refuse

    def refuses(self, probability: float, outside: float | None) -> bool:
        """Whether a text gets the label ``NONE``, by the probability of its label and its score, where it has one."""
        if self.threshold is None:
            return outside is not None and outside >= OUTSIDE
        return probability * (1 - (outside or 0.0)) < self.threshold


def answers(classifier: Predicts, texts: Sequence[str], columns: Columns) -> list[Answer]:
    """An answer for each text, in order; an empty text is not asked about."""
    names = columns.names(len(classifier.classes_))
    filled = [text for text in texts if text]
    values = _several if columns.several else _labels if columns.coverage is None else _sets
    found = iter(values(classifier, filled, columns) if filled else ())
    return [dict(zip(names, next(found), strict=True)) if text else dict.fromkeys(names) for text in texts]


def _labels(classifier: Predicts, texts: Sequence[str], columns: Columns) -> list[tuple[object, ...]]:
    probabilities = classifier.predict_proba(texts)
    order = (-probabilities).argsort(axis=1, kind="stable")[:, : columns.top or 1]
    names: list[object] = classifier.classes_.tolist()
    if columns.may_refuse and not columns.nested:
        names = [str(name) for name in names]  # a column has one type
    outside = loaded(classifier).out_of_scope(texts).tolist() if columns.out_of_scope else [None] * len(texts)
    rows = []
    for row, best, score in zip(probabilities, order, outside, strict=True):
        pairs = [(names[label], round(float(row[label]), 6)) for label in best]
        named = [{"label": label, "probability": probability} for label, probability in pairs]
        if columns.refuses(pairs[0][1], score):
            pairs[0] = (NONE, pairs[0][1])
        scope = [] if score is None else [round(score, 6)]
        flat = [value for pair in pairs for value in pair]
        rows.append((*flat, *scope) if not columns.nested else (*pairs[0], *([named] if columns.top else []), *scope))
    return rows


def _several(classifier: Predicts, texts: Sequence[str], columns: Columns) -> list[tuple[object, ...]]:
    from nlpmeta.classifier.several import several_answers

    rows, found = list[tuple[object, ...]](), classifier.predict_proba(texts)
    for pairs in several_answers(loaded(classifier).fitted_, found, top=columns.top, threshold=columns.threshold):
        labels, shares = [label for label, _ in pairs], [round(probability, 6) for _, probability in pairs]
        joined = (columns.separator.join(map(str, labels)), columns.separator.join(f"{each:.3f}" for each in shares))
        rows.append((labels, shares) if columns.nested else joined)
    return rows


def _sets(classifier: Predicts, texts: Sequence[str], columns: Columns) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for found in loaded(classifier).predict(texts, abstain=columns.coverage or 0.0):
        probabilities = [round(each, 6) for each in found.probabilities]
        pair = (list(found.labels), probabilities) if columns.nested else (str(found), probabilities[0])
        rows.append((*pair, found.is_unsure, found.coverage))
    return rows


def answered(classifier: Predicts, batch: "list[Given]", columns: Columns) -> "list[tuple[Given, Answer]]":
    """Answers where one bad row does not keep the others from theirs: it comes back without a text, with its fault.

    Raises:
        NLPMetaError: if no row of several can be answered.
    """
    try:
        given = as_pairs(classifier, batch)
        return list(zip(given, answers(classifier, [each.text for each in given], columns), strict=True))
    except (NLPMetaError, ValueError, TypeError, LookupError, RuntimeError) as error:
        faults = [_fault(classifier, each, columns) for each in batch] if len(batch) > 1 else [str(error)]
        if all(fault or not each.text for each, fault in zip(batch, faults, strict=True)) and len(batch) > 1:
            raise
        kept = [replace(each, text="", fault=why) if why else each for each, why in zip(batch, faults, strict=True)]
        return answered(classifier, kept, columns)


def _fault(classifier: Predicts, given: "Given", columns: Columns) -> str:
    return given.fault or answered(classifier, [given], columns)[0][0].fault


def give_reasons(wanted: "Wanted", columns: Columns, load: "Callable[[], Predicts]") -> None:
    """Print why each text got its label.

    Raises:
        NLPMetaError: if another kind of answer is requested, too.
    """
    from nlpmeta.cli.console import out_reasons
    from nlpmeta.cli.process import given_texts

    if columns != type(columns)() or wanted.out or wanted.keep or (wanted.texts and wanted.file):
        raise NLPMetaError("--why goes with texts or --file, and with --json; give it without other kinds of answers.")
    batches = given_texts(wanted.texts, wanted.file, wanted.text_column, wanted.form).batches
    classifier = loaded(load())
    out_reasons(classifier, map(partial(as_pairs, classifier), batches), as_json=wanted.json, quiet=wanted.quiet)
