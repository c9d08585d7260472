"""Several labels a text: a binary head for each label, its threshold, and what they predict.

Every constant here was chosen on the dev texts of ten BRIGHTER languages that no result is reported of, with supports
from their training texts (``benchmarks/multilabel.py --choose``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.auto.heads import ADAPTED, FROZEN, MOST_ODDS, LabelHeads, ScaledEncoder, columns_of, features_of, odds_of
from nlpmeta.data import class_words, words_instead
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.learners.abilities import THRESHOLDS
from nlpmeta.learners.base import Embed, Learner, Predictor, TaskState, Texts, class_means

NAME_WEIGHT = 5.0
"""How many positive examples the name of a label counts as."""
PENALTY = 1.0
"""Of the squared norm of the weights in the regression."""
EXPECTED_SHARE = 1.0
"""How many texts a label is given to, of the share of the support that has it, where nothing else is known."""
PRIOR_STRENGTH = 15.0
"""How many positive examples that expectation counts as, beside the threshold that is best on held-out examples."""
NAMES_THRESHOLD = 0.1
"""From which log-odds on, over those of guessing, a label that is known by its name alone is given."""
SLOPE, OFFSET, CALIBRATION_STRENGTH = 1.2, -0.8, 20.0
"""Of the log-odds in standard units of the scores, and how many pairs of text and label that counts as."""
_PREFIX = "several/"


@dataclass(frozen=True, eq=False)
class OneVsRest(Predictor):
    """Log-odds of each label, by itself, and the log-odds from which on it is given.

    Attributes:
        scales: of the encoder's adapters, those that the heads read.
    """

    scales: tuple[float, ...]

    @classmethod
    def of(cls, learner: Learner, state: TaskState) -> "OneVsRest":
        """Read ``state``."""
        every = _views(learner)
        read = (scale for scale in every if {_means_of(scale), _line_of(scale, every)[0]} & state.keys())
        return cls(learner, state, tuple(read))

    @property
    def choice(self) -> str:
        """What the heads are."""
        return "one-vs-rest"

    @property
    def adapter_scales(self) -> tuple[float, ...]:
        return self.scales

    @cached_property
    def heads(self) -> LabelHeads:
        """The heads that are stored, averaged in units of their spreads, with slope and offsets."""
        state, every, scales = self.state, _views(self.learner), self.scales
        means = {scale: state[name] for scale in scales if (name := _means_of(scale)) in state}
        names = {scale: _line_of(scale, every) for scale in scales}
        lines = {scale: (state[w], state[b]) for scale, (w, b) in names.items() if w in state}
        shares = state[f"{_PREFIX}slope"] / (state[f"{_PREFIX}spreads"] * (len(means) + len(lines)))
        level = state[f"{_PREFIX}offsets"] - shares @ state[f"{_PREFIX}means"]
        return LabelHeads.of(means, lines, shares, level, scales, normalise=self.learner.encoder.normalise)

    def queries(self, texts: Sequence[str]) -> Texts:
        """Texts with the embeddings that the heads read: a view that none of them sees is not computed."""
        encoder = self.learner.encoder
        seen = encoder.select(self.scales) if isinstance(encoder, ScaledEncoder) else encoder
        return Texts(tuple(texts), seen.encode(texts))

    def logits(self, queries: Texts) -> Tensor:
        known = queries if queries.features is not None else self.queries(queries.texts)
        seen = columns_of(self.learner.encoder, features_of(known), self.scales, computed=self.scales)
        return self.heads.logits(seen)

    def problem(self) -> str:
        """Which number would not give labels; empty if all do."""
        n_labels = len(self.state[f"{_PREFIX}offsets"])
        if self.state[THRESHOLDS].shape != (n_labels,):
            return f"{THRESHOLDS} is not a number a label"
        n_heads = sum(name.startswith((f"{_PREFIX}prototypes ", f"{_PREFIX}weight")) for name in self.state)
        if not any(_means_of(scale) in self.state for scale in _views(self.learner)):
            return f"{_PREFIX}prototypes are missing"
        if self.state[f"{_PREFIX}means"].shape != (n_heads, n_labels):
            return f"{_PREFIX}means is not a number for each head and label"
        slope = self.state[f"{_PREFIX}slope"]
        return "" if slope.shape == () and float(slope) > 0 else f"{_PREFIX}slope is not one positive number"


@torch.no_grad()
def learn_several(learner: Learner, data: MultiLabelTexts, embed: Embed, features: Tensor | None) -> TaskState:
    """A binary head for each label: what the support says of it, and what its name and descriptions say.

    Three scores are averaged: on the adapted encoder the cosine to the mean of the label's texts and name, against the
    means of the other labels and of the texts without any; and ridge regression on the adapted and on the frozen
    encoder, to which the name is one more positive text. Each is computed for the examples too as if they had been held
    out, in closed form. These say in which units to average, how probable a score makes a label, and its threshold: the
    one with the best F1, drawn towards a prior threshold as far as the label has few examples.

    Args:
        learner: its encoder is read.
        data: texts with their labels; there may be none.
        embed: texts to embeddings.
        features: the embeddings of the texts, where these are known, ``(n, dim)``.

    Raises:
        DataError: if a label has no example and nothing says in words what it is.
    """
    marks = torch.from_numpy(data.matrix()) if data.texts else torch.zeros(0, len(data.label_names), dtype=torch.bool)
    place, names, weights = learner.encoder.device, *_names(data, marks, embed)
    texts = embed(data.texts) if features is None and data.texts else features
    known = names.new_zeros(0, names.size(1)) if texts is None else texts.cpu().double()
    views, found, held_out, usable = _views(learner), TaskState(), list[Tensor](), marks.any(0)
    rows, own = _seen(learner, known, ADAPTED), _seen(learner, names, ADAPTED)
    found[_means_of(ADAPTED)], without = _prototypes(rows, marks, own, weights)
    held_out.append(without)
    for scale in views if len(known) else ():
        rows, own = _seen(learner, known, scale), _seen(learner, names, scale)
        *line, without = _regression(rows, marks, own, weights)
        found |= dict(zip(_line_of(scale, views), line, strict=True))
        held_out.append(without)
    stacked = torch.stack(held_out) if len(known) > 1 else torch.zeros(len(held_out), 0, len(marks.T))
    found |= _units(stacked)
    mean = _averaged(stacked, found)
    found |= _odds(mean, marks, usable)
    return {name: each.float().to(place) for name, each in found.items()}


def _names(data: MultiLabelTexts, marks: Tensor, embed: Embed) -> tuple[Tensor, Tensor]:
    """What the names and descriptions of labels are as embeddings ``(n_labels, dim)``, how much each counts."""
    n_labels, alone = len(data.label_names), torch.nonzero(~marks.any(0)).flatten().tolist()
    words = class_words(data.label_names, data.descriptions)
    labels = list(range(n_labels)) if words is not None else alone
    said = words if words is not None else tuple(words_instead(data, alone))
    weights = torch.zeros(n_labels, dtype=torch.float64)
    if not labels:
        width = embed([data.texts[0]]).size(1)
        return torch.zeros(n_labels, width, dtype=torch.float64), weights
    if words is not None and alone:
        words_instead(data, alone)
    vectors = embed([text for each in said for text in each]).cpu().double()
    owners = torch.tensor([row for row, each in enumerate(said) for _ in each])
    names = torch.zeros(n_labels, vectors.size(1), dtype=torch.float64)
    names[labels], weights[labels] = class_means(vectors, owners, len(said)), NAME_WEIGHT
    return names, weights


def _prototypes(rows: Tensor, marks: Tensor, names: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Prototypes of the labels and, last, of the texts without any; scores of ``rows`` as if each was held out.

    Shapes ``(n_labels + 1, dim)``, the last row 0 where fewer than two texts have no label, and ``(n, n_labels)``.
    """
    counts = torch.cat([marks, ~marks.any(1, keepdim=True)], dim=1).double()
    if counts[:, -1].sum() < 2:  # a single one could not be held out
        counts[:, -1] = 0
    sums = counts.T @ rows
    sums[:-1] += weights.unsqueeze(1) * names
    totals = counts.sum(0) + torch.cat([weights, weights.new_zeros(1)])
    means = F.normalize(sums / totals.clamp(min=1e-9).unsqueeze(1), dim=1)
    # The cosine to a sum without the text itself, of which only products of whole matrices are needed.
    along, own = rows @ sums.T, rows.square().sum(1, keepdim=True)
    length = (sums.square().sum(1) - counts * (2 * along - own)).clamp(min=1e-12).sqrt()
    cosines = (along - counts * own) / (length * own.sqrt().clamp(min=1e-12))
    return means, odds_of(cosines if bool(means[-1].any()) else cosines[:, :-1], len(weights))


def _regression(rows: Tensor, marks: Tensor, names: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression on 0 and 1 with a bias: weight ``(n_labels, dim)``, bias, and scores of held-out ``rows``.

    Leaving one out is the closed form (PRESS): a residual is divided by one minus its leverage.
    """
    counted = torch.nonzero(weights > 0).flatten()
    inputs, share = torch.cat([rows, names[counted]]), torch.cat([rows.new_ones(len(rows)), weights[counted]])
    targets = torch.cat([marks.double(), torch.eye(len(weights), dtype=torch.float64)[counted]])
    centre, level = (share @ inputs) / share.sum(), (share @ targets) / share.sum()
    root = share.sqrt().unsqueeze(1)
    scaled, wanted = root * (inputs - centre), root * (targets - level)
    wide = len(scaled) < scaled.size(1)
    gram = scaled @ scaled.T if wide else scaled.T @ scaled
    inverse = torch.linalg.inv(gram + PENALTY * torch.eye(len(gram), dtype=torch.float64))
    weight = scaled.T @ (inverse @ wanted) if wide else inverse @ (scaled.T @ wanted)
    leverage = 1 - PENALTY * inverse.diagonal() if wide else ((scaled @ inverse) * scaled).sum(1)
    leverage = (leverage + share / share.sum()).clamp(max=0.999)
    left_out = targets - (wanted - scaled @ weight) / (1 - leverage).unsqueeze(1) / root
    return weight.T, level - centre @ weight, left_out[: len(rows)]


def _units(held_out: Tensor) -> TaskState:
    """The mean of each head's held-out scores for each label ``(n_heads, n_labels)``, and their spread ``(n_heads,)``.

    Without examples scores stay as they are.
    """
    n_heads, n_texts, n_labels = held_out.shape
    if n_texts < 2:
        return {
            f"{_PREFIX}means": torch.zeros(n_heads, n_labels, dtype=torch.float64),
            f"{_PREFIX}spreads": torch.ones(n_heads, dtype=torch.float64),
        }
    spread = held_out.std(1, unbiased=False).mean(1).clamp(min=1e-6)
    return {f"{_PREFIX}means": held_out.mean(1), f"{_PREFIX}spreads": spread}


def _averaged(scores: Tensor, state: TaskState) -> Tensor:
    """The mean of the heads' scores ``(n_heads, n, n_labels)`` in units of their spread; ``(n, n_labels)``."""
    means, spreads = state[f"{_PREFIX}means"], state[f"{_PREFIX}spreads"]
    return ((scores - means.unsqueeze(1)) / spreads.view(-1, 1, 1)).mean(0)


def _odds(scores: Tensor, marks: Tensor, usable: Tensor) -> TaskState:
    """Slope and offsets that make log-odds of averaged scores, and the log-odds from which on each label is given."""
    n_texts, n_labels = scores.shape
    if not n_texts:
        level = -torch.full((n_labels,), float(max(n_labels - 1, 1)), dtype=torch.float64).log()
        return {
            f"{_PREFIX}slope": torch.tensor(1.0),
            f"{_PREFIX}offsets": level,
            THRESHOLDS: level + NAMES_THRESHOLD,
        }
    counts = marks.sum(0).double()
    shares = (counts + 0.5) / (n_texts + 1)
    if bool((~usable).any()):  # a label without examples is expected to be as frequent as the others
        shares = torch.where(usable, shares, shares[usable].median() if bool(usable.any()) else shares)
    base = shares.logit()
    slope, offset = _calibrated(scores[:, usable], marks[:, usable], base[usable])
    expected = (EXPECTED_SHARE * shares).clamp(1e-4, 0.95)
    prior = torch.special.ndtri(1 - expected) * scores.std(0, unbiased=False)
    best = torch.stack([_best_threshold(scores[:, i], marks[:, i]) for i in range(n_labels)])
    best = torch.where(usable, best, prior)
    least = (counts * best + PRIOR_STRENGTH * prior) / (counts + PRIOR_STRENGTH)
    offsets = offset + base
    return {
        f"{_PREFIX}slope": torch.tensor(slope),
        f"{_PREFIX}offsets": offsets,
        THRESHOLDS: (slope * least + offsets).clamp(-MOST_ODDS, MOST_ODDS),
    }


def _best_threshold(scores: Tensor, marks: Tensor) -> Tensor:
    """The score half-way below the cut with the best F1."""
    order = scores.argsort(descending=True)
    found = marks[order].double().cumsum(0)
    places = torch.arange(1, len(order) + 1, dtype=torch.float64)
    place = int((2 * found / (places + marks.sum())).argmax())
    ranked = scores[order]
    return (ranked[place] + ranked[min(place + 1, len(ranked) - 1)]) / 2


def _calibrated(scores: Tensor, marks: Tensor, base: Tensor) -> tuple[float, float]:
    """Slope and offset of logistic regression on all pairs of text and label, beside the log-odds of the label's share.

    Source: Platt scaling (Platt 1999), with a Gaussian prior around the values of other tasks; by Newton's method.
    """
    values = torch.tensor([SLOPE, OFFSET], dtype=torch.float64)
    usual, strength = values.clone(), CALIBRATION_STRENGTH * torch.tensor([1.0, 0.25], dtype=torch.float64)
    inputs = torch.stack([scores.flatten(), torch.ones(scores.numel(), dtype=torch.float64)], dim=1)
    shift, truth = base.expand_as(scores).flatten(), marks.flatten().double()
    for _ in range(20):
        probable = (inputs @ values + shift).sigmoid()
        gradient = inputs.T @ (probable - truth) + strength * (values - usual)
        curvature = (inputs * (probable * (1 - probable)).unsqueeze(1)).T @ inputs + strength.diag()
        values = values - torch.linalg.solve(curvature, gradient)
    return max(float(values[0]), 0.1), float(values[1])


def _views(learner: Learner) -> tuple[float, ...]:
    """The scales that are read, the frozen view last; one without meaning where the encoder has no adapters."""
    return (ADAPTED, FROZEN) if isinstance(learner.encoder, ScaledEncoder) else (ADAPTED,)


def _means_of(scale: float) -> str:
    """The name of a view's prototypes in a state."""
    return f"{_PREFIX}prototypes {scale:g}"


def _line_of(scale: float, views: tuple[float, ...]) -> tuple[str, str]:
    """The names of weight and bias of a view's regression; the last one's, the only one in earlier models, are bare."""
    end = "" if scale == views[-1] else f" {scale:g}"
    return f"{_PREFIX}weight{end}", f"{_PREFIX}bias{end}"


def _seen(learner: Learner, features: Tensor, scale: float) -> Tensor:
    return columns_of(learner.encoder, features, (scale,))
