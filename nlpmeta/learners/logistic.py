"""Logistic regression on embeddings: the plain baseline that everything else must beat."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.episodes import by_label, deal_folds
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.abilities import with_rows
from nlpmeta.learners.base import Learner, Option, Support, TaskState, Texts, learners
from nlpmeta.settings import check_positive

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from threadpoolctl import ThreadpoolController

    from nlpmeta.encoder.text_encoder import TextEncoder

GRID = (10.0, 100.0, 1000.0)
ONE_SHOT = 100.0
_CURVATURE, _SOLVER = 0.02, {"maxiter": 2000, "ftol": 1e-7, "gtol": 0.0}
MANY = 1000
"""With more texts than this the problem is solved by ``_fit_many``, in a fraction of scikit-learn's time."""


@learners.register("logistic")
class LogisticHead(Learner):
    """Multinomial logistic regression (scikit-learn's) whose regularisation is chosen on the support set alone.

    Among ``GRID`` the inverse penalty with the smallest cross-validated log-loss on the support is taken; where a class
    has one text only there is nothing to validate on, and ``ONE_SHOT`` is used.
    """

    differentiable = False
    weighs = True

    def __init__(
        self,
        encoder: "TextEncoder",
        *,
        inverse_penalty: float | None = None,
        n_folds: int = 5,
        name_weight: float = 0.0,
    ) -> None:
        """Build from an encoder.

        Args:
            encoder: texts to vectors.
            inverse_penalty: scikit-learn's ``C``; ``None`` chooses it on the support.
            n_folds: folds of that choice (fewer where a class has fewer texts).
            name_weight: how many texts the name of a class counts as, where it is words; 0 does not read names.

        Raises:
            NLPMetaError: if ``inverse_penalty`` is not positive, ``name_weight`` is negative, or there are fewer than 2
                folds.
        """
        super().__init__(encoder)
        check_positive(inverse_penalty=inverse_penalty, name_weight=name_weight or None)
        if n_folds < 2:
            raise NLPMetaError(f"Need n_folds >= 2; got {n_folds}.")
        self.inverse_penalty, self.n_folds, self.name_weight = inverse_penalty, n_folds, name_weight

    @property
    def reads_names(self) -> bool:
        return self.name_weight > 0 and not self.encoder.pairs

    def adapt(self, support: Support) -> TaskState:
        features, weighed = self.embed(support), support.labels
        weights = features.new_ones(len(features)) if support.weights is None else support.weights.to(features)
        if self.reads_names and support.names is not None:
            features, weighed, weights = _with_names(support, features, self.embed(support.names), self.name_weight)
        n_texts, many = len(support), len(features) > MANY
        given = None if support.weights is None else weights[:n_texts].cpu().numpy()
        # The solution lies in the span of the support, so the problem is solved there: n_support columns, not dim.
        # Problems this small only wait for threads: measured 10 to 20 times slower.
        with nullcontext() if many else _thread_pools().limit(limits=1):
            columns, labels = features.detach().cpu().double().numpy().T, weighed.cpu().numpy()
            basis, coordinates = (np.eye(len(columns)), columns) if many else np.linalg.qr(columns)
            rows = coordinates.T
            penalty = self.inverse_penalty or _choose(rows[:n_texts], labels[:n_texts], self.n_folds, given)
            weight, bias = _fit(rows, labels, penalty, weights.cpu().numpy())
        return {"weight": torch.from_numpy(weight @ basis.T).to(features), "bias": torch.from_numpy(bias).to(features)}

    def logits(self, state: TaskState, queries: Texts) -> Tensor:
        return F.linear(self.embed(queries), state["weight"], state["bias"])

    def contributions(self, state: TaskState, support: Support, queries: Texts) -> Tensor:
        """As ``SumsOverSupport``: at the least loss (the solver stops near it) weights are sums of residuals."""
        features, labels = self.embed(support), support.labels
        weights = features.new_ones(len(features)) if support.weights is None else support.weights.to(features)
        if self.reads_names and support.names is not None:
            features, labels, weights = _with_names(support, features, self.embed(support.names), self.name_weight)
        chances = F.linear(features, state["weight"], state["bias"]).softmax(1)
        residuals = weights.unsqueeze(1) * (F.one_hot(labels, support.n_way) - chances)
        direction = residuals.T @ features
        inverse_penalty = (state["weight"] * direction).sum() / direction.square().sum().clamp(min=1e-30)
        found = inverse_penalty * torch.einsum("qs,sc->qsc", self.embed(queries) @ features.T, residuals)
        return with_rows(found, support)

    def config(self) -> dict[str, Option]:
        return {"inverse_penalty": self.inverse_penalty, "n_folds": self.n_folds, "name_weight": self.name_weight}


def _with_names(support: Support, features: Tensor, names: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
    """The support with the name of each class as one more text of it.

    Args:
        support: the labels.
        features: embeddings of its texts, ``(n, dim)``.
        names: embeddings of its class names, ``(n_way, dim)``.
        weight: how many texts a name counts as.

    Returns:
        Embeddings ``(n + n_way, dim)``, labels and weights ``(n + n_way,)``.
    """
    labels = torch.cat([support.labels, torch.arange(support.n_way, device=support.labels.device)])
    own = features.new_ones(len(features)) if support.weights is None else support.weights.to(features)
    weights = torch.cat([own, features.new_full((support.n_way,), weight)])
    return torch.cat([features, names]), labels, weights


@cache
def _thread_pools() -> "ThreadpoolController":
    """The libraries whose threads can be limited, looked for once: it takes as long as a small fit."""
    import sklearn.linear_model  # noqa: F401  # so that those that it loads are found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def few_texts_a_class() -> Iterator[None]:
    """Keep scikit-learn from taking one text a class, which is our daily bread, for a regression problem."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes is greater than 50%")
        yield


def _fit(
    rows: "NDArray[np.float64]",
    labels: "NDArray[np.int64]",
    inverse_penalty: float,
    weights: "NDArray[np.float64] | None" = None,
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Weight ``(n_way, dim)`` and bias ``(n_way,)``; scikit-learn's single row for two classes is spelled out."""
    if len(rows) > MANY:
        return _fit_many(rows, labels, inverse_penalty, weights)
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression

    with few_texts_a_class(), config_context(skip_parameter_validation=True):  # hundreds of small fits, all alike
        model = LogisticRegression(C=inverse_penalty, max_iter=2000).fit(rows, labels, weights)
    if len(model.classes_) > 2:
        return model.coef_, model.intercept_
    return np.vstack([-model.coef_, model.coef_]) / 2, np.hstack([-model.intercept_, model.intercept_]) / 2


def _fit_many(
    rows: "NDArray[np.float64]",
    labels: "NDArray[np.int64]",
    inverse_penalty: float,
    given: "NDArray[np.float64] | None",
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """The same minimum: L-BFGS along the scaled eigenvectors of least squares, whose Hessian is alike (Böhning)."""
    from scipy.optimize import minimize

    texts, true, each = torch.from_numpy(rows), torch.from_numpy(labels), torch.arange(len(rows), device="cpu")
    own = torch.from_numpy(np.ones(len(rows)) if given is None else given).double()
    n_way = int(labels.max()) + 1
    penalty = (2 if n_way == 2 else 1) / inverse_penalty  # scikit-learn's single row counts half of two
    centre, all_texts, counts = own @ texts / own.sum(), float(own.sum()), own.float().unsqueeze(1)
    around, constant = texts - centre, (_CURVATURE * all_texts) ** -0.5
    values, vectors = torch.linalg.eigh((around * own.unsqueeze(1)).T @ around)
    turn = vectors / (_CURVATURE * values.clamp(min=0) + penalty).sqrt()
    columns = F.pad(around @ turn, (0, 1), value=constant).float()
    penalties = F.pad(penalty * turn.square().sum(0), (0, 1))

    def loss(point: "NDArray[np.float64]") -> "tuple[float, NDArray[np.float64]]":
        weight = torch.from_numpy(point).view(n_way, -1)
        scores = columns @ weight.float().T
        whole = scores.logsumexp(1)
        value = own @ (whole - scores[each, true]).double() + (weight.square() * penalties).sum() / 2
        scores = scores.sub_(whole.unsqueeze(1)).exp_()
        scores[each, true] -= 1
        gradient = ((scores * counts).T @ columns).double() + weight * penalties
        return float(value), gradient.numpy().ravel()

    found = minimize(loss, np.zeros(n_way * columns.size(1)), jac=True, method="L-BFGS-B", options=_SOLVER)
    solved = torch.from_numpy(found.x).view(n_way, -1)
    weight = solved[:, :-1] @ turn.T
    return weight.numpy(), (constant * solved[:, -1] - weight @ centre).numpy()


def _choose(
    rows: "NDArray[np.float64]",
    labels: "NDArray[np.int64]",
    n_folds: int,
    weights: "NDArray[np.float64] | None" = None,
) -> float:
    n_folds = min(n_folds, int(np.bincount(labels).min()))
    if n_folds < 2:
        return ONE_SHOT
    fold = _shuffled_folds(labels, n_folds)
    parts = [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(n_folds)]

    def loss(penalty: float) -> float:
        return sum(_loss(rows, labels, train, test, penalty, weights) for train, test in parts)

    return min(GRID, key=loss)


def _shuffled_folds(labels: "NDArray[np.int64]", n_folds: int) -> "NDArray[np.int64]":
    """A fold for each text, ``(n,)``, as ``StratifiedKFold(shuffle=True, random_state=0)`` of scikit-learn deals."""
    legacy = np.random.RandomState(0)  # noqa: NPY002  # its stream decides which penalty is chosen
    classes = sorted(by_label(labels), key=lambda rows: int(rows[0]))
    return deal_folds(
        classes,
        n_folds,
        n_rows=len(labels),
        order=lambda dealt: np.sort(dealt)[legacy.permutation(len(dealt))],
        carry_below=math.inf,
    )


def _loss(
    rows: "NDArray[np.float64]",
    labels: "NDArray[np.int64]",
    train: "NDArray[np.intp]",
    test: "NDArray[np.intp]",
    inverse_penalty: float,
    weights: "NDArray[np.float64] | None",
) -> float:
    weight, bias = _fit(rows[train], labels[train], inverse_penalty, None if weights is None else weights[train])
    scores, true = torch.from_numpy(rows[test] @ weight.T + bias), torch.from_numpy(labels[test])
    if weights is None:
        return float(F.cross_entropy(scores, true, reduction="sum"))
    return float(F.cross_entropy(scores, true, reduction="none") @ torch.from_numpy(weights[test]).to(scores))


ONE_VS_REST, _NEVER = 10.0, -50.0
"""The inverse penalty of ``one_vs_rest``: of 1, 10 and 100 the best on the sets of ``benchmarks/multilabel.py
--choose``; and the log-odds of a label that nothing was learned of."""


def one_vs_rest(
    rows: "NDArray[np.float64]", marks: "NDArray[np.bool_]", *, held_out: bool = True
) -> "tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]":
    """Logistic regression for each of several labels, and the probability from which on it has the best F1.

    Args:
        rows: embeddings, ``(n, dim)``.
        marks: which labels each text has, ``(n, n_labels)``.
        held_out: choose thresholds on held-out folds (which does better), not on the fitted texts themselves. A label
            with one text gets 0.5.

    Returns:
        Weight ``(n_labels, dim)``, bias and threshold ``(n_labels,)``.
    """
    from sklearn.linear_model import LogisticRegression

    n_labels = marks.shape[1]
    weight, bias, least = np.zeros((n_labels, rows.shape[1])), np.full(n_labels, _NEVER), np.full(n_labels, 0.5)

    def fit(label: int, chosen: "NDArray[np.intp]") -> "LogisticRegression":
        return LogisticRegression(C=ONE_VS_REST, max_iter=1000).fit(rows[chosen], marks[chosen, label])

    whole = np.arange(len(rows))
    with _thread_pools().limit(limits=1):
        for label in range(n_labels):
            there = marks[:, label]
            n_folds = min(5, int(there.sum()), int((~there).sum()))
            if not n_folds:
                bias[label] = -_NEVER if there.any() else _NEVER
                continue
            head = fit(label, whole)
            weight[label], bias[label] = head.coef_[0], head.intercept_[0]
            if n_folds > 1:
                fold = _shuffled_folds(there.astype(np.int64), n_folds)
                parts = [(np.flatnonzero(fold != i), np.flatnonzero(fold == i)) for i in range(n_folds)]
                found = np.zeros(len(rows))
                for chosen, out in parts if held_out else [(whole, whole)]:
                    found[out] = fit(label, chosen).predict_proba(rows[out])[:, 1]
                least[label] = _best_cut(found, there)
    return weight, bias, least


def _best_cut(scores: "NDArray[np.float64]", marks: "NDArray[np.bool_]") -> float:
    """The score with the best F1, half-way to the next lower one."""
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(marks[order])
    place = int((2 * found / (np.arange(1, len(order) + 1) + marks.sum())).argmax())
    return float((scores[order[place]] + scores[order[min(place + 1, len(order) - 1)]]) / 2)
