"""Answers beside a label: label sets, out-of-scope scores, what the examples add, suggestions of what to label next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.auto.diagnosis import diagnose, held_out, in_order
from nlpmeta.auto.heads import CLASS_PRIOR, seen
from nlpmeta.auto.judging import rows_held_out
from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.mismatch import (
    TaskReport,
    near_clues,
    near_weights,
    scope_clues,
    scope_scores,
    small_talk_likeness,
    small_talk_vectors,
)
from nlpmeta.auto.mixture import Mixture, OneVsRest
from nlpmeta.auto.priors import Profile, threshold
from nlpmeta.data import Label, LabeledTexts
from nlpmeta.encoder.views import ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.abilities import SumsOverSupport
from nlpmeta.learners.base import Embed, Learner, Predictor, Support, TaskState, Texts

MOST_LABELS = 5
"""A longer label set is of no use to a person."""


@dataclass(frozen=True)
class LabelSet:
    """The labels that hold the true one with the probability asked for, the most probable first.

    Attributes:
        labels: one where the model is sure, several where it is not.
        probabilities: of each of them.
        coverage: how often such sets hold the true label, over many tasks.
        n_way: how many classes there are.

    Raises:
        NLPMetaError: if there is no label, or not a probability for each.
    """

    labels: tuple[Label, ...]
    probabilities: tuple[float, ...]
    coverage: float
    n_way: int

    def __post_init__(self) -> None:
        if not self.labels or len(self.labels) != len(self.probabilities) or len(self.labels) > self.n_way:
            raise NLPMetaError(
                f"A label set of {self.n_way} classes came with {len(self.labels)} labels and "
                f"{len(self.probabilities)} probabilities."
            )

    @property
    def label(self) -> Label | None:
        """The label, if there is only one."""
        return self.labels[0] if len(self.labels) == 1 else None

    @property
    def is_unsure(self) -> bool:
        """Whether the set says nothing: it holds all classes, or more than ``MOST_LABELS``."""
        return len(self.labels) == self.n_way or len(self.labels) > MOST_LABELS

    def __str__(self) -> str:
        return "unsure" if self.is_unsure else " | ".join(map(str, self.labels))


def label_sets(predictor: Predictor, logits: Tensor, classes: Sequence[Label], *, coverage: float) -> list[LabelSet]:
    """The labels that each text may have.

    Args:
        predictor: of ``auto`` for one task.
        logits: scores of the texts, ``(n, n_way)``.
        classes: the labels, ``(n_way,)``.
        coverage: how often the sets are to hold the true label.

    Raises:
        NLPMetaError: if the model is of another method or an older release, or there is no such coverage.
    """
    profile, mixture, held_out = _checked(predictor)
    least = threshold(profile, held_out, n_shot=mixture.n_shot, n_way=len(classes), coverage=coverage)
    found = []
    for row in logits.detach().float().log_softmax(1).cpu():
        order = row.argsort(descending=True).tolist()
        kept = [label for label in order if float(row[label]) >= least] or order[:1]
        probabilities = tuple(float(row[label].exp()) for label in kept)
        found.append(LabelSet(tuple(classes[label] for label in kept), probabilities, coverage, len(classes)))
    return found


def out_of_scope_scores(predictor: Predictor, queries: Texts) -> Tensor:
    """How probable it is that a text belongs to none of the classes where half of all texts do not, ``(n,)``.

    Args:
        predictor: of ``auto`` for one task.
        queries: texts with the embeddings that it reads.

    Raises:
        NLPMetaError: if the model is of another method or an older release.
    """
    profile, mixture, _ = _checked(predictor)
    if queries.features is None:
        queries = mixture.queries(queries.texts)
    features, n_views, n_shot = mixture.read(queries), mixture.n_views, mixture.n_shot
    even = {name: value for name, value in mixture.state.items() if name != CLASS_PRIOR}
    scores = replace(mixture, state=even).logits(queries).log_softmax(1)  # rare classes are as much in scope as others
    prototypes = mixture.state["mixture/prototypes"]
    if mixture.usual_likeness is None:  # one example of each class, or a model of an older release
        clues = scope_clues(scores, features, prototypes, n_views=n_views, n_shot=n_shot)
        return scope_scores(clues, profile.scope)
    talk, usual = small_talk_likeness(features, small_talk_vectors(mixture), n_views=n_views), mixture.usual_likeness
    clues = near_clues(scores, features, prototypes, talk, usual=float(usual), n_views=n_views, n_shot=n_shot)
    weights = near_weights()["two_views" if isinstance(mixture.learner.encoder, ScaledEncoder) else "one_view"]
    return scope_scores(clues, weights)


def knows_scope(predictor: Predictor) -> bool:
    """Whether ``out_of_scope_scores`` has something to go by."""
    return isinstance(predictor, Mixture) and predictor.held_out is not None


def expecting(learner: Learner, class_prior: tuple[float, ...]) -> AutoHead:
    """``auto`` for a task whose classes occur so often.

    Raises:
        NLPMetaError: if it is another method.
    """
    if not isinstance(learner, AutoHead):
        raise NLPMetaError("How often classes occur (class_prior) is used by the method auto alone; leave it out.")
    return learner.expecting(class_prior)


def gives_report(learner: Learner) -> TypeGuard[AutoHead]:
    """Whether enough was learned about the method to say what a support set says of its task."""
    return isinstance(learner, AutoHead)


@torch.no_grad()
def adapted_with_report(
    auto: AutoHead, support: LabeledTexts, *, embed: Embed
) -> tuple[LabeledTexts, TaskState, TaskReport]:
    """The support in an order of its own, what ``auto`` learns from it, and its report: the heads are judged once.

    Sums depend on the order of the examples in their last bits, so it is fixed here: one set has one model to the bit.

    Args:
        auto: what adapts.
        support: the labelled texts.
        embed: where their embeddings come from.
    """
    ordered = in_order(support)
    known = auto.known(auto.support(ordered, embed))
    judged = auto.judge(known)
    return ordered, auto.adapt_to(known, judged), diagnose(auto, ordered, embed=embed, judged=judged)


def task_report(learner: Learner, support: LabeledTexts, features: Tensor | None) -> TaskReport:
    """What the support set says of its task.

    Args:
        learner: ``auto``.
        support: the labelled texts.
        features: their embeddings ``(n, dim)`` where these are known.

    Raises:
        NLPMetaError: if the learner is another one.
    """
    if not gives_report(learner):
        raise NLPMetaError("A task report needs the method 'auto'; adapt with it.")
    row = {text: i for i, text in enumerate(support.texts)}

    def embed(texts: Sequence[str]) -> Tensor:
        if features is None or not all(text in row for text in texts):
            return learner.encoder.encode(texts)
        return features[[row[text] for text in texts]]

    return diagnose(learner, support, embed=embed)


@torch.no_grad()
def held_out_by_mixture(learner: Learner, support: Support) -> dict[int, Tensor]:
    """The probability of each class ``(n_way,)`` that the mixture of ``auto`` gives each text held out, by its row.

    Empty for another learner, or where nothing can be held out.
    """
    if not gives_report(learner):
        return {}
    known = learner.known(support)
    found = held_out(learner, known, learner.judge(known))
    return {} if found is None else dict(zip(rows_held_out(known.labels).tolist(), found.exp(), strict=True))


def _checked(predictor: Predictor) -> tuple[Profile, Mixture, Tensor]:
    """What is known of tasks like this one, the mixture, and how likely it made the held-out texts."""
    if isinstance(predictor, OneVsRest):
        raise NLPMetaError(
            "This model gives several labels per text: each has a probability of its own (predict_proba), and a text "
            "out of scope gets none of them. Label sets and out-of-scope scores require one label per text."
        )
    if not isinstance(predictor, Mixture) or not isinstance(predictor.learner, AutoHead):
        raise NLPMetaError("Label sets and out-of-scope scores need the method 'auto'; adapt with it.")
    if predictor.held_out is None:
        raise NLPMetaError("This model was adapted by a release that kept no held-out scores. Adapt it again.")
    return predictor.learner.priors, predictor, predictor.held_out


@torch.no_grad()
def odds_parts(predictor: Predictor, support: Support, query: Texts, label: int, rather: int) -> Tensor | None:
    """What each text of the support adds to the log-odds of ``label`` against ``rather``; ``None`` if nobody can say.

    A head whose scores are sums over its support gives these sums themselves (representer theorem; Yeh, Kim, Yen and
    Ravikumar 2018, section 3, arXiv:1811.09720). A mixture is no sum: what is given is how its log-odds change as the
    part of a text grows in all heads, in proportion, which is the same where one head has all the share.

    Args:
        predictor: what predicts.
        support: what it learned from, as its learner reads it, with the embeddings of all views.
        query: one text with its embeddings.
        label: a class.
        rather: another one.

    Returns:
        A number for each text of the support and then, if it has names, for the name of each class.
    """
    if isinstance(predictor, Mixture):
        return _of_mixture(predictor, support, query, label, rather)
    learner = predictor.learner
    if not isinstance(learner, SumsOverSupport):
        return None
    parts = learner.contributions(predictor.state, support, query)[0]
    return parts[:, label] - parts[:, rather]


def _of_mixture(mixture: Mixture, support: Support, query: Texts, label: int, rather: int) -> Tensor | None:
    if gives_report(mixture.learner):
        support = mixture.learner.known(support)  # names that say nothing are not read
    scores, shares, temperature = mixture.parts(query)
    chances = scores[:, 0].softmax(1)  # (n_heads, n_way)
    joint = shares.to(chances).unsqueeze(1) * chances
    owner = joint / joint.sum(0)  # how much of the probability of a class comes from each head
    total = None
    for number, head in enumerate(mixture.heads):
        learner = head.candidate.head
        if not isinstance(learner, SumsOverSupport):
            return None
        own = Texts(query.texts, mixture.view(head, query))
        each = learner.contributions(head.state, seen(mixture.learner.encoder, support, head.candidate), own)[0]
        each = each / head.scores_over
        usual = each @ chances[number]
        slope = owner[number, label] * (each[:, label] - usual) - owner[number, rather] * (each[:, rather] - usual)
        total = slope if total is None else total + slope
    return None if total is None else total / temperature


_STARTS = 3  # of k-means, of which the best is taken
_CERTAIN = 1e-6  # what a text counts for that leaves no doubt


def most_worth_labelling(probabilities: Tensor, features: Tensor, *, most: int = 10, seed: int = 0) -> list[int]:
    """Rows of texts that are uncertain and differ from one another, those that stand for most doubt first.

    Source: diverse mini-batch active learning, Zhdanov 2019, section 3 (arXiv:1901.05954): k-means over the embeddings
    with each text weighted by how uncertain its label is, and the text of each cluster nearest to its centre. Where we
    differ: a text counts with the probability that its most probable label is wrong, embeddings are centred and of unit
    length, and no text is left out beforehand.

    Args:
        probabilities: of each text, ``(n, n_way)``.
        features: their embeddings, ``(n, dim)``.
        most: how many to name; there are fewer if fewer texts differ.
        seed: decides the start of k-means.

    Raises:
        NLPMetaError: if ``most`` is less than 1.
    """
    from sklearn.cluster import KMeans

    if most < 1:
        raise NLPMetaError(f"At least one text must be requested; got {most}.")
    doubt = 1 - probabilities.cpu().double().max(1).values.numpy()
    places = F.normalize((features - features.mean(0)).cpu().double(), dim=1).numpy()
    _, first = np.unique(places.round(6), axis=0, return_index=True)
    first.sort()
    means = KMeans(min(most, len(first)), n_init=_STARTS, random_state=seed)
    distances = means.fit_transform(places[first], sample_weight=doubt[first] + _CERTAIN)
    weight = np.bincount(means.labels_, weights=doubt[first], minlength=distances.shape[1])
    own = np.where(means.labels_[:, None] == np.arange(distances.shape[1]), distances, np.inf)
    return [int(first[own[:, cluster].argmin()]) for cluster in np.argsort(-weight, kind="stable")]
