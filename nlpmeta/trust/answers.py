"""Label sets and out-of-scope scores of a model that ``auto`` made, from what its state holds."""

from collections.abc import Sequence

from torch import Tensor

from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.views import Views
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.auto import AutoHead
from nlpmeta.learners.base import Learner, TaskState, Texts
from nlpmeta.trust import small_talk
from nlpmeta.trust.conformal import threshold
from nlpmeta.trust.diagnosis import diagnose
from nlpmeta.trust.label_set import Label, LabelSet
from nlpmeta.trust.mismatch import TaskReport
from nlpmeta.trust.scope import near_clues, near_weights, scope_clues, scope_scores


def label_sets(
    learner: Learner, state: TaskState, logits: Tensor, classes: Sequence[Label], *, coverage: float
) -> list[LabelSet]:
    """The labels that each text may have.

    Args:
        learner: ``auto``.
        state: of one task.
        logits: scores of the texts, ``(n, n_way)``.
        classes: the labels, ``(n_way,)``.
        coverage: how often the sets are to hold the true label.

    Raises:
        NLPMetaError: if the model is of another method or an older release, or there is no such coverage.
    """
    auto = _checked(learner, state)
    least = threshold(
        auto.experience,
        state["mixture/held_out"],
        n_shot=float(state["mixture/n_shot"]),
        n_way=len(classes),
        coverage=coverage,
    )
    found = []
    for row in logits.detach().float().log_softmax(1).cpu():
        order = row.argsort(descending=True).tolist()
        kept = [label for label in order if float(row[label]) >= least] or order[:1]
        probabilities = tuple(float(row[label].exp()) for label in kept)
        found.append(LabelSet(tuple(classes[label] for label in kept), probabilities, coverage, len(classes)))
    return found


def out_of_scope_scores(learner: Learner, state: TaskState, queries: Texts) -> Tensor:
    """How probable it is that a text belongs to none of the classes where half of all texts do not, ``(n,)``.

    Args:
        learner: ``auto``.
        state: of one task.
        queries: texts with the embeddings that ``state`` reads.

    Raises:
        NLPMetaError: if the model is of another method or an older release.
    """
    auto = _checked(learner, state)
    if queries.features is None:
        queries = auto.queries(state, queries.texts)
    features = auto.read(queries, state)
    n_views = len(auto.factors(state)) if isinstance(auto.encoder, Views) else 1
    scores, prototypes = auto.logits(state, queries).log_softmax(1), state["mixture/prototypes"]
    usual, n_shot = state.get("mixture/usual_likeness"), float(state["mixture/n_shot"])
    if usual is None:  # one example of each class, or a model of an older release
        clues = scope_clues(scores, features, prototypes, n_views=n_views, n_shot=n_shot)
        return scope_scores(clues, auto.experience.scope)
    talk = small_talk.nearest(features, small_talk.vectors(auto, state), n_views=n_views)
    clues = near_clues(scores, features, prototypes, talk, usual=float(usual), n_views=n_views, n_shot=n_shot)
    weights = near_weights()["two_views" if isinstance(auto.encoder, Views) else "one_view"]
    return scope_scores(clues, weights)


def knows_scope(learner: Learner, state: TaskState) -> bool:
    """Whether ``out_of_scope_scores`` has something to go by."""
    return isinstance(learner, AutoHead) and "mixture/held_out" in state


def task_report(learner: Learner, support: LabeledTexts, features: Tensor | None) -> TaskReport:
    """What the support set says of its task.

    Args:
        learner: ``auto``.
        support: the labelled texts.
        features: their embeddings ``(n, dim)`` where these are known.

    Raises:
        NLPMetaError: if the learner is another one.
    """
    if not isinstance(learner, AutoHead):
        raise NLPMetaError("A task report rests on what was learned for 'auto'; adapt with it.")
    row = {text: i for i, text in enumerate(support.texts)}

    def embed(texts: Sequence[str]) -> Tensor:
        if features is None or not all(text in row for text in texts):
            return learner.encoder.encode(texts)
        return features[[row[text] for text in texts]]

    return diagnose(learner, support, embed=embed)


def _checked(learner: Learner, state: TaskState) -> AutoHead:
    if not isinstance(learner, AutoHead):
        raise NLPMetaError("Label sets and out-of-scope scores rest on what was learned for 'auto'; adapt with it.")
    if "mixture/held_out" not in state:
        raise NLPMetaError("This model was adapted by a release that kept no held-out scores. Adapt it again.")
    return learner
