"""What a served model is at one moment: how it learns from what is stored, how it answers, what its examples say.

All that needs PyTorch is here; ``batching`` and ``models`` load it when it is asked for.
"""

import io
import threading
import zipfile
from array import array
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nlpmeta.auto.answers import LabelSet, label_sets, most_worth_labelling
from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.classifier.explaining import Suspect, suspects
from nlpmeta.classifier.fitted import Examples, Fitted
from nlpmeta.classifier.given import learned, with_class_prior_of
from nlpmeta.classifier.persistence import known_examples
from nlpmeta.classifier.several import thresholds_of
from nlpmeta.data import wordless
from nlpmeta.data.labels import checked_labels, classes_of, words_of
from nlpmeta.encoder.compiling import embedded_by
from nlpmeta.encoder.device import tokens_at_once
from nlpmeta.encoder.engines import Engine, embed_by
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.learners.abilities import ReadsStreams
from nlpmeta.learners.base import Learner, learners
from nlpmeta.progress import Advance
from nlpmeta.serve.batching import LEAST_ROWS, Read, about_tokens
from nlpmeta.serve.store import Known
from nlpmeta.storage.files import temporary_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nlpmeta.users import AdapterStore

MOST_SHOWN = 10
"""Confused classes and suspicious labels in a report, and texts to label next."""


class Embedder:
    """An encoder with the embeddings that it made last, by tokens: what was embedded once costs no pass again."""

    def __init__(self, encoder: TextEncoder, engine: Engine, *, most_bytes: int) -> None:
        self.encoder, self._engine = encoder, engine
        self.pass_tokens = tokens_at_once(encoder)
        self._most = max(LEAST_ROWS, most_bytes // (4 * encoder.dim))
        self._rows: OrderedDict[bytes, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    def tokens(self, text: str) -> int:
        """About how many tokens a text has."""
        return about_tokens(text, self.encoder.max_length)

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Within the block this thread's encoders embed from here."""
        before = embed_by.set(self._embed)
        try:
            with torch.no_grad():
                yield
        finally:
            embed_by.reset(before)

    def warm(self, texts: Sequence[str]) -> None:
        """Embed texts together whose answers are asked for next."""
        self.encoder.encode(texts)

    def knows(self, texts: Sequence[str]) -> list[bool]:
        """Whether the embedding of each text is at hand."""
        keys = [_key(ids) for ids in self.encoder.tokenize(texts)]
        with self._lock:
            return [key in self._rows for key in keys]

    def _embed(self, encoder: TextEncoder, tokens: Sequence[list[int]], advance: Advance | None) -> Tensor | None:
        scales, own = (getattr(each, "scales", None) for each in (encoder, self.encoder))
        if not _same_weights(encoder, self.encoder) or (scales is None) != (own is None):
            return embedded_by(self._engine, encoder, tokens, advance)
        keys = [_key(ids) for ids in tokens]
        found: dict[bytes, Tensor] = {}
        with self._lock:
            for key in keys:
                if key in self._rows:
                    self._rows.move_to_end(key)
                    found[key] = self._rows[key]
        new = {key: ids for key, ids in zip(keys, tokens, strict=True) if key not in found}
        if new:
            made = self._computed(list(new.values()))
            found |= dict(zip(new, made, strict=True))
            self._keep(dict(zip(new, made.cpu(), strict=True)))
        rows = torch.stack([found[key] for key in keys]).to(self.encoder.device)
        if scales is None or rows.size(1) == encoder.dim:
            return rows
        columns: Callable[[float], slice] = self.encoder.columns
        return torch.cat([rows[:, columns(scale)] for scale in scales], dim=1)

    def _computed(self, tokens: list[list[int]]) -> Tensor:
        made = embedded_by(self._engine, self.encoder, tokens, None) if self._engine != "torch" else None
        return self.encoder.merged().embed_tokens(tokens) if made is None else made

    def _keep(self, rows: dict[bytes, Tensor]) -> None:
        with self._lock:
            self._rows.update({key: row.clone() for key, row in rows.items()})
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)


def _same_weights(one: TextEncoder, other: TextEncoder) -> bool:
    """Whether two encoders share their transformer, which is not loaded for the answer."""
    if one.pending is not None or other.pending is not None:
        return one.later is other.later
    return one.backbone is other.backbone


def _key(ids: Sequence[int]) -> bytes:
    return array("I", ids).tobytes()


@dataclass(frozen=True, eq=False)
class Served:
    """A model as it is at one moment; whoever began with it ends with it."""

    name: str
    version: int
    fitted: Fitted
    embedder: Embedder

    @property
    def shares(self) -> bool:
        """Whether it works on embeddings."""
        return self.fitted.learner.inputs == "embeddings"

    def answers(self, texts: Sequence[str], owners: Sequence[str]) -> Sequence[Tensor]:
        """The scores of each text, ``(n_way,)``."""
        return list(self.fitted.predictor.logits(self.fitted.predictor.queries(texts)).float().cpu())

    @property
    def classes(self) -> "NDArray[np.generic]":
        """Its labels."""
        return self.fitted.classes

    def read(self, rows: Sequence[object], abstain: float | None) -> Read:
        """What ``answers`` gave, with label sets of that coverage where they are requested and the method has them."""
        scores, fitted = torch.stack([row for row in rows if isinstance(row, Tensor)]), self.fitted
        if fitted.gives_sets:
            return Read(scores.sigmoid().numpy(), least=thresholds_of(fitted))
        sets: list[LabelSet] | None = None
        if abstain is not None:
            with suppress(NLPMetaError):  # the method knows none; its probabilities say how sure it is
                sets = label_sets(fitted.predictor, scores, list(words_of(fitted.classes)), coverage=abstain)
        return Read(scores.softmax(1).numpy(), sets=sets)


@dataclass(frozen=True, eq=False)
class UsersHeads:
    """The heads of many users, of which each text asks one."""

    store: "AdapterStore"
    embedder: Embedder
    shares: bool = True

    def answers(self, texts: Sequence[str], owners: Sequence[str]) -> Sequence[object]:
        """Labels and probabilities of each text by the head of its user."""
        return self.store.predict_proba(owners, texts)


@dataclass(frozen=True)
class Report:
    """What the examples of a model say of it; accuracy is by cross-validation, ``None`` if nothing can be held out."""

    version: int
    held_out: int
    correct: int
    confused: tuple[tuple[str, str, int], ...]
    """Label, predicted label, how many examples."""
    suspects: tuple[Suspect, ...]

    @property
    def accuracy(self) -> float | None:
        """The share of held-out examples that were classified correctly."""
        return self.correct / self.held_out if self.held_out else None


def fitted_to(
    known: Known, learner: Learner, embedder: Embedder, before: Fitted | None = None, *, saved: Fitted | None = None
) -> Served:
    """What ``learner`` makes of what is stored of a model, from what it had learned ``before`` if anything.

    Of the model that was ``saved``, from which it was taught on, only how often classes occur is kept.
    """
    with embedder.embedding():
        fitted = learned(learner, _examples(known), embed=learner.encoder.encode, before=before)
    fitted = with_class_prior_of(saved, fitted) if before is None else fitted
    return Served(known.name, known.version, fitted, embedder)


def measured(served: Served) -> Report:
    """What its examples say of a model: each is classified by what was learned from the others."""
    fitted, ranked = served.fitted, list[Suspect]()
    if fitted.examples is not None and len(fitted.examples.texts) and not fitted.gives_sets:
        try:
            with served.embedder.embedding():
                ranked = suspects(fitted, fitted.examples)
        except DataError:  # nothing can be held out yet
            ranked = []
    judged = [each for each in ranked if each.rather is not None]
    wrong = [each for each in judged if each.rather != each.label]
    confused = Counter((each.label, str(each.rather)) for each in wrong)
    pairs = tuple((label, rather, n) for (label, rather), n in confused.most_common(MOST_SHOWN))
    return Report(served.version, len(judged), len(judged) - len(wrong), pairs, tuple(wrong[:MOST_SHOWN]))


_POOL = 1000  # unlabelled texts, the least certain of all, among which those to label next are sought


def worth_labelling(served: Served, texts: Sequence[str], *, most: int) -> list[int]:
    """The places of the unlabelled texts to label next."""
    with served.embedder.embedding():
        predictor = served.fitted.predictor
        chances = predictor.logits(predictor.queries(texts)).softmax(1)
        least = chances.max(1).values.argsort(stable=True)[:_POOL].tolist()
        features = served.embedder.encoder.encode([texts[row] for row in least])
        return [least[row] for row in most_worth_labelling(chances[least], features, most=most)]


def taken_over(served: Served) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """What a saved model knows: the description of each class, and its examples with their labels.

    Raises:
        NLPMetaError: if it cannot be taught.
    """
    fitted = served.fitted
    if fitted.gives_sets or isinstance(fitted.learner, ReadsStreams):
        kind = "gives several labels per text" if fitted.gives_sets else learners.name_of(type(fitted.learner))
        raise NLPMetaError(f"The model {served.name!r} cannot be taught here ({kind}); it can only predict.")
    examples = known_examples(fitted)
    words = words_of(fitted.classes)
    label = dict(zip(fitted.classes.tolist(), words, strict=True))
    said = {label[each]: ". ".join(texts) for each, texts in fitted.descriptions.items()}
    pairs = dict(zip(examples.texts, (label[each] for each in examples.labels.tolist()), strict=True))
    return {word: said.get(word, "") for word in words}, list(pairs.items())


def archived(served: Served, name: str) -> bytes:
    """A model as a zip file of its folder, with its examples where it keeps them."""
    fitted = served.fitted
    classifier = FewShotClassifier.from_state(
        fitted.learner, fitted.state, fitted.classes, fitted.examples, fitted.descriptions, fitted.by_name,
        as_matrix=fitted.as_matrix,
    )  # fmt: skip
    content = io.BytesIO()
    with temporary_folder("nlpmeta-serve") as temporary, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        classifier.save_pretrained(temporary / name, include_support=fitted.examples is not None)
        for path in sorted((temporary / name).rglob("*")):
            file.write(path, path.relative_to(temporary))
    return content.getvalue()


def _examples(known: Known) -> Examples:
    """The examples as a learner takes them; classes without one are known by name and description."""
    labels = np.asarray([each.label for each in known.examples], dtype=str)
    seen = set(labels.tolist())
    alone = np.asarray([label for label in known.classes if label not in seen], dtype=str)
    texts = tuple(each.text for each in known.examples)
    found = Examples.of(texts, labels, by_name=alone)
    return found.described({label: said for label, said in known.classes.items() if said} or None)


def check_words(known: Known, with_examples: set[str]) -> None:
    """See that each class has an example, or says in words what it is, and that no two names read alike.

    Raises:
        DataError: names the first that does not, or those two.
    """
    names = tuple(known.classes)
    classes_of(checked_labels(list(names)))
    said = tuple((text,) if text else () for text in known.classes.values())
    for label in wordless(names, said):
        if label not in with_examples:
            raise DataError(f"The class {label!r} says nothing in words; describe it, or give an example of it.")
