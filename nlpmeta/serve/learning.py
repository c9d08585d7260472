"""What a served model is at one moment: how it learns from what is stored, how it answers, what its examples say."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from nlpmeta.classifier.explaining import Suspect, suspects
from nlpmeta.classifier.fitted import Examples, Fitted
from nlpmeta.classifier.given import learned
from nlpmeta.classifier.several import gives_sets
from nlpmeta.data import wordless
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.errors import DataError
from nlpmeta.learners.base import Learner
from nlpmeta.serve.batching import Embedder
from nlpmeta.serve.store import Known

if TYPE_CHECKING:
    from nlpmeta.users import AdapterStore

MOST_SHOWN = 10
"""Confused classes and suspicious labels in a report, and texts to label next."""


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


def fitted_to(known: Known, learner: Learner, embedder: Embedder, before: Fitted | None = None) -> Served:
    """What ``learner`` makes of what is stored of a model, from what it had learned ``before`` if anything."""
    with embedder.embedding():
        fitted = learned(
            learner, _examples(known), EmbeddingTable(learner.encoder), embed=learner.encoder.encode,
            before=None if before is None else before.state,
        )  # fmt: skip
    return Served(known.name, known.version, fitted, embedder)


def measured(served: Served) -> Report:
    """What its examples say of a model: each is classified by what was learned from the others."""
    fitted, ranked = served.fitted, list[Suspect]()
    if fitted.examples is not None and len(fitted.examples.texts) and not gives_sets(fitted):
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


def _examples(known: Known) -> Examples:
    """The examples as a learner takes them; classes without one are known by name and description."""
    labels = np.asarray([each.label for each in known.examples], dtype=str)
    seen = set(labels.tolist())
    alone = np.asarray([label for label in known.classes if label not in seen], dtype=str)
    texts = tuple(each.text for each in known.examples)
    found = Examples.of(texts, labels, by_name=alone)
    return found.described({label: said for label, said in known.classes.items() if said} or None)


def check_words(known: Known, with_examples: set[str]) -> None:
    """See that each class has an example, or says in words what it is.

    Raises:
        DataError: names the first that does not.
    """
    names = tuple(known.classes)
    said = tuple((text,) if text else () for text in known.classes.values())
    for label in wordless(names, said):
        if label not in with_examples:
            raise DataError(f"The class {label!r} says nothing in words; describe it, or give an example of it.")
