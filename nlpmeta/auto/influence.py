"""Which support texts, and which names of classes, a score is made of."""

import torch
from torch import Tensor

from nlpmeta.auto.answers import gives_report
from nlpmeta.auto.heads import seen
from nlpmeta.auto.mixture import Mixture
from nlpmeta.learners.abilities import SumsOverSupport
from nlpmeta.learners.base import Predictor, Support, Texts


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
