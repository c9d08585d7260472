"""Several labels a text: a binary head for each label, its threshold, and what they predict.

Every constant here was chosen on the dev texts of ten BRIGHTER languages that no result is reported of, with supports
from their training texts (``benchmarks/multilabel.py --choose``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.auto.heads import MOST_ODDS, PREFIX, TUNED, columns_of, line_of, means_of, odds_of, views_of
from nlpmeta.auto.mixture import OneVsRest
from nlpmeta.data import class_words, words_instead
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.encoder.views import ADAPTED
from nlpmeta.episodes import fingerprints
from nlpmeta.episodes.index import multilabel_folds
from nlpmeta.learners.abilities import THRESHOLDS
from nlpmeta.learners.base import Embed, Learner, TaskState, Texts, class_means
from nlpmeta.learners.inner_loop import BIAS, WEIGHT
from nlpmeta.learners.tuned import HELD_OUT, FineTuned

NAME_WEIGHT = 5.0
"""How many positive examples the name of a label counts as."""
PENALTY = 1.0
"""Of the squared norm of the weights in the regression."""
NAMES_THRESHOLD = 0.1
"""From which log-odds on, over those of guessing, a label that is known by its name alone is given."""
SHARPNESS, MIDDLE = 8.0, 0.25
"""By which regression on 0 and 1 becomes log-odds that fine-tuning starts from."""
TUNED_SHARE, SPREADS, WORTH_TUNING = 1 / 2, (0.5, 1.0, 2.0, 4.0), 1.0
"""Of the log-odds, where there was time to fine-tune; how much more these may spread than those of the heads; and how
much likelier, in the logarithm, the labels of held-out texts must become by it."""
MOST_STEPS, TIMES = 100, 2
"""Of fine-tuning, which looks at held-out texts once; and how often it takes them: without these and with."""
SLOPE, OFFSET, CALIBRATION_STRENGTH = 1.2, -0.8, 20.0
"""Of the log-odds in standard units of the scores, and how many pairs of text and label that counts as."""


@torch.no_grad()
def learn_several(learner: Learner, data: MultiLabelTexts, embed: Embed, features: Tensor | None) -> TaskState:
    """A binary head for each label: what the support says of it, and what its name and descriptions say.

    Three scores are averaged: on the adapted encoder the cosine to the mean of the label's texts and name, against the
    means of the other labels and of the texts without any; and ridge regression on the adapted and on the frozen
    encoder, to which the name is one more positive text. Each is computed for the examples too as if they had been held
    out, in closed form. These say in which units to average, how probable a score makes a label, and its threshold,
    which is half-way between two: from the one on the F1 that the probabilities lead to expect is best; from the other
    on the label is given to the share of texts that has it.

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
    views, found, held_out, usable = views_of(learner), TaskState(), list[Tensor](), marks.any(0)
    rows, own = _seen(learner, known, ADAPTED), _seen(learner, names, ADAPTED)
    found[means_of(ADAPTED)], without = _prototypes(rows, marks, own, weights)
    held_out.append(without)
    for scale in views if len(known) else ():
        rows, own = _seen(learner, known, scale), _seen(learner, names, scale)
        *line, without = _regression(rows, marks, own, weights)
        found |= dict(zip(line_of(scale, views), line, strict=True))
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
            f"{PREFIX}means": torch.zeros(n_heads, n_labels, dtype=torch.float64),
            f"{PREFIX}spreads": torch.ones(n_heads, dtype=torch.float64),
        }
    spread = held_out.std(1, unbiased=False).mean(1).clamp(min=1e-6)
    return {f"{PREFIX}means": held_out.mean(1), f"{PREFIX}spreads": spread}


def _averaged(scores: Tensor, state: TaskState) -> Tensor:
    """The mean of the heads' scores ``(n_heads, n, n_labels)`` in units of their spread; ``(n, n_labels)``."""
    means, spreads = state[f"{PREFIX}means"], state[f"{PREFIX}spreads"]
    return ((scores - means.unsqueeze(1)) / spreads.view(-1, 1, 1)).mean(0)


def _odds(scores: Tensor, marks: Tensor, usable: Tensor) -> TaskState:
    """Slope and offsets that make log-odds of averaged scores, and the log-odds from which on each label is given."""
    n_texts, n_labels = scores.shape
    if not n_texts:
        level = -torch.full((n_labels,), float(max(n_labels - 1, 1)), dtype=torch.float64).log()
        return {
            f"{PREFIX}slope": torch.tensor(1.0),
            f"{PREFIX}offsets": level,
            THRESHOLDS: level + NAMES_THRESHOLD,
        }
    counts = marks.sum(0).double()
    shares = (counts + 0.5) / (n_texts + 1)
    if bool((~usable).any()):  # a label without examples is expected to be as frequent as the others
        shares = torch.where(usable, shares, shares[usable].median() if bool(usable.any()) else shares)
    base = shares.logit()
    slope, offset = _calibrated(scores[:, usable], marks[:, usable], base[usable])
    offsets = offset + base
    odds = slope * scores + offsets
    as_often = torch.special.ndtri(1 - shares.clamp(1e-4, 0.95)) * scores.std(0, unbiased=False)
    wanted = slope * as_often + offsets
    thresholds = torch.where(usable, (best_threshold(odds) + wanted) / 2, wanted)
    return {
        f"{PREFIX}slope": torch.tensor(slope),
        f"{PREFIX}offsets": offsets,
        THRESHOLDS: thresholds.clamp(-MOST_ODDS, MOST_ODDS),
    }


def best_threshold(odds: Tensor) -> Tensor:
    """The log-odds from which on each label is given for the best expected F1 on some texts, ``(n_labels,)``.

    Source: Lipton, Elkan and Naryanaswamy, ECML 2014 (arXiv:1402.1892): a label is best given where it is at least half
    as probable as the F1 that this leads to. The expected F1 is taken as that of the expected counts.

    Args:
        odds: log-odds of each label, ``(n, n_labels)``.
    """
    probable = odds.sigmoid().sort(0, descending=True).values
    given = torch.arange(1, len(probable) + 1, device=odds.device).unsqueeze(1)
    best = (2 * probable.cumsum(0) / (given + probable.sum(0))).max(0).values
    return (best / 2).logit()


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


def _seen(learner: Learner, features: Tensor, scale: float) -> Tensor:
    return columns_of(learner.encoder, features, (scale,))


@torch.no_grad()
def several_beside_tuned(
    tuned: FineTuned, learner: Learner, state: TaskState, data: MultiLabelTexts, embed: Embed, steps: int
) -> TaskState:
    """The heads and a fine-tuned part with ``TUNED_SHARE`` of the log-odds, if held-out texts are likelier with it.

    It learns by binary cross-entropy from where the regression on the adapted encoder stands. On a fifth of the texts,
    which neither it nor heads for that purpose learned from, its log-odds get the level of theirs and a spread.

    Args:
        tuned: what fine-tunes.
        learner: its encoder is read.
        state: of heads that learned from all of ``data``.
        data: texts with their labels.
        embed: texts to embeddings.
        steps: of fine-tuning.
    """
    data = data.select(sorted(range(len(data.texts)), key=lambda row: (data.texts[row], data.marks[row])))
    texts = fingerprints(data.texts)
    distinct = list(dict.fromkeys(texts))
    folds = multilabel_folds(len(distinct), HELD_OUT, seed=0)
    held = {distinct[row] for row in folds[0][1]} if folds else set()
    rest = data.select([row for row, text in enumerate(texts) if text not in held])
    out = data.select([row for row, text in enumerate(texts) if text in held])
    if not folds or not rest.matrix().any(0).all():
        return state
    few = learn_several(learner, rest, embed, None)
    known = OneVsRest.of(learner, {}, few).logits(Texts(out.texts, embed(out.texts))).cpu().double()
    found = tuned.logits(_fine_tuned(tuned, learner, few, rest, steps), Texts(out.texts)).cpu().double()
    losses, usual = list[float](), known.std(0).mean() / found.std(0).mean().clamp(min=1e-6)
    for times in (0.0, *SPREADS):
        scaled = times * usual * (found - found.mean(0)) + known.mean(0)
        odds = (1 - TUNED_SHARE) * known + TUNED_SHARE * scaled if times else known
        truth = torch.from_numpy(out.matrix()).to(odds)
        losses.append(float(F.binary_cross_entropy_with_logits(odds, truth, reduction="sum")))
    best = min(range(1, len(losses)), key=losses.__getitem__)
    if losses[0] - losses[best] <= WORTH_TUNING:
        return state
    spread = SPREADS[best - 1] * usual
    level = known.mean(0) - spread * found.mean(0)
    whole = _fine_tuned(tuned, learner, state, data, steps)
    spread, level = spread.to(whole[WEIGHT]), level.to(whole[WEIGHT])
    whole[WEIGHT], whole[BIAS] = spread * whole[WEIGHT], spread * whole[BIAS] + level
    one = torch.ones((), device=whole[WEIGHT].device)
    facts = {"share": TUNED_SHARE * one, "scores_over": one}
    return state | {f"{TUNED}/{name}": value for name, value in (whole | facts).items()}


def _fine_tuned(tuned: FineTuned, learner: Learner, heads: TaskState, data: MultiLabelTexts, steps: int) -> TaskState:
    """``tuned`` after so many steps from the regression among ``heads``; the mean of its log-odds is 0."""
    weight, bias = (heads[name] for name in line_of(ADAPTED, views_of(learner)))
    marks = torch.from_numpy(data.matrix()).to(weight)
    start = tuned.with_head(SHARPNESS * weight, SHARPNESS * (bias - MIDDLE))
    found = tuned.trained(
        data.texts, start, steps, lambda odds, rows: F.binary_cross_entropy_with_logits(odds, marks[rows]), falls=True
    )[-1]
    return found | {BIAS: found[BIAS] - tuned.logits(found, Texts(data.texts)).mean(0)}
