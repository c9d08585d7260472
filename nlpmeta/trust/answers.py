"""Label sets and out-of-scope scores of a model that ``auto`` made, from what its state holds."""

from collections.abc import Sequence
from typing import TypeGuard

from torch import Tensor

from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.views import Views
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.auto import AutoHead
from nlpmeta.learners.base import Learner, Predictor, Texts
from nlpmeta.learners.experience import Profile
from nlpmeta.learners.mixture import Mixture
from nlpmeta.trust import small_talk
from nlpmeta.trust.conformal import threshold
from nlpmeta.trust.diagnosis import diagnose
from nlpmeta.trust.label_set import Label, LabelSet
from nlpmeta.trust.mismatch import TaskReport
from nlpmeta.trust.scope import near_clues, near_weights, scope_clues, scope_scores


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
    scores, prototypes = mixture.logits(queries).log_softmax(1), mixture.state["mixture/prototypes"]
    if mixture.usual_likeness is None:  # one example of each class, or a model of an older release
        clues = scope_clues(scores, features, prototypes, n_views=n_views, n_shot=n_shot)
        return scope_scores(clues, profile.scope)
    talk, usual = small_talk.nearest(features, small_talk.vectors(mixture), n_views=n_views), mixture.usual_likeness
    clues = near_clues(scores, features, prototypes, talk, usual=float(usual), n_views=n_views, n_shot=n_shot)
    weights = near_weights()["two_views" if isinstance(mixture.learner.encoder, Views) else "one_view"]
    return scope_scores(clues, weights)


def knows_scope(predictor: Predictor) -> bool:
    """Whether ``out_of_scope_scores`` has something to go by."""
    return isinstance(predictor, Mixture) and predictor.held_out is not None


def gives_report(learner: Learner) -> TypeGuard[AutoHead]:
    """Whether enough was learned about the method to say what a support set says of its task."""
    return isinstance(learner, AutoHead)


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
        raise NLPMetaError("A task report rests on what was learned for 'auto'; adapt with it.")
    row = {text: i for i, text in enumerate(support.texts)}

    def embed(texts: Sequence[str]) -> Tensor:
        if features is None or not all(text in row for text in texts):
            return learner.encoder.encode(texts)
        return features[[row[text] for text in texts]]

    return diagnose(learner, support, embed=embed)


def _checked(predictor: Predictor) -> tuple[Profile, Mixture, Tensor]:
    """What is known of tasks like this one, the mixture, and how likely it made the held-out texts."""
    if not isinstance(predictor, Mixture) or not isinstance(predictor.learner, AutoHead):
        raise NLPMetaError("Label sets and out-of-scope scores rest on what was learned for 'auto'; adapt with it.")
    if predictor.held_out is None:
        raise NLPMetaError("This model was adapted by a release that kept no held-out scores. Adapt it again.")
    return predictor.learner.experience, predictor, predictor.held_out
