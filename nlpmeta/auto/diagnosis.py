"""The report on a support set, its nearest auxiliary tasks, and what fine-tuning on it will take."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.auto.heads import MANY_SHOTS, TUNED, features_of
from nlpmeta.auto.judging import rows_held_out
from nlpmeta.auto.mismatch import UNKNOWN, DoubtfulLabel, TaskReport, tokenizer_coverage
from nlpmeta.auto.mixture import mixed
from nlpmeta.auto.several import MOST_STEPS, TIMES
from nlpmeta.encoder.lora import has_adapter
from nlpmeta.encoder.tokenizing import cut_of
from nlpmeta.encoder.views import FROZEN, ScaledEncoder
from nlpmeta.episodes import most_have
from nlpmeta.errors import ModelFolderError
from nlpmeta.learners.abilities import TakesBudget
from nlpmeta.learners.tuned import LEAST_HELD_OUT, are_enough
from nlpmeta.storage.files import write_bytes

if TYPE_CHECKING:
    from nlpmeta.auto.judging import CrossValidation
    from nlpmeta.auto.method import AutoHead
    from nlpmeta.data import LabeledTexts
    from nlpmeta.learners.base import Embed, Support, TaskState

FILE = Path(__file__).parent / "families.safetensors"


@dataclass(frozen=True, eq=False)
class Families:
    """Mean vectors of families of tasks.

    Attributes:
        digest: of the files of the encoder.
        names: of the families.
        centres: mean frozen embeddings, ``(n_families, dim)``, of unit length.
        distances: from auxiliary support sets to the nearest other family, rising, ``(n_tasks,)``.
    """

    digest: str
    names: tuple[str, ...]
    centres: Tensor
    distances: Tensor

    def nearest(self, features: Tensor) -> tuple[str, float]:
        """The family nearest to a support set ``(n, dim)``, and the share of auxiliary tasks nearer to another one."""
        distance, place = self.distance(features)
        return self.names[place], float((self.distances < distance).float().mean())

    def distance(self, features: Tensor, *, but: str | None = None) -> tuple[float, int]:
        """One minus the cosine to the nearest centre, that of family ``but`` left out, and which one it is."""
        cosines = self.centres @ F.normalize(features.mean(0), dim=0).cpu()
        if but is not None:
            cosines[self.names.index(but)] = -1.0
        return 1 - float(cosines.max()), int(cosines.argmax())


def known_families() -> Families:
    """What the package comes with.

    Raises:
        ModelFolderError: if the file is damaged.
    """
    return _read(FILE)


def write_families(path: Path, families: Families) -> None:
    """Write them as safetensors."""
    from safetensors.torch import save

    tensors = {"centres": families.centres.half(), "distances": families.distances}
    facts = {"digest": families.digest, "names": json.dumps(list(families.names))}
    write_bytes(path, save(tensors, metadata=facts))


def centres_of(parts: Sequence[Tensor]) -> Tensor:
    """The mean direction of each family of embeddings ``(n, dim)``; shape ``(n_families, dim)``."""
    return torch.stack([F.normalize(part.mean(0), dim=0) for part in parts])


@lru_cache(maxsize=1)
def _read(path: Path) -> Families:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata()
            centres = F.normalize(file.get_tensor("centres").float(), dim=1)
            return Families(facts["digest"], tuple(json.loads(facts["names"])), centres, file.get_tensor("distances"))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelFolderError(f"{path} is damaged ({error}). Install nlpmeta again.") from error


CHANCE = 0.01
"""Right answers on held-out texts that random labels would give more often than this are no better than chance."""
SURE, SURELY_NOT = 0.6, 0.1
"""A label looks wrong if another class is more probable than the first, and its own less than the second."""
FEWEST_TO_JUDGE = 3
"""Texts of a class without which a single one of them says nothing about the others."""


@torch.no_grad()
def diagnose(
    auto: "AutoHead", support: "LabeledTexts", *, embed: "Embed | None" = None, judged: "CrossValidation | None" = None
) -> TaskReport:
    """What the support set says of its task.

    Args:
        auto: what adapts.
        support: the labelled texts.
        embed: where embeddings come from that are known already.
        judged: what ``auto.judge`` said of this support as it stands, where that is known already.
    """
    support = in_order(support) if judged is None else support
    known = auto.known(auto.support(support, embed))
    n_shot, n_way = len(support) / known.n_way, known.n_way
    found, rows = held_out(auto, known, auto.judge(known) if judged is None else judged), rows_held_out(known.labels)
    labels, n_out = known.labels[rows], len(rows)
    right = None if found is None else int((found.argmax(1) == labels).sum())
    tokens = tokenizer_coverage(auto.encoder, support.texts or known.texts)
    warnings = []
    if tokens is not None and tokens.unknown >= UNKNOWN:
        share = f"{100 * tokens.unknown:.0f} %"
        warnings.append(f"the encoder cannot read {share} of the letters: their script is not in its vocabulary")
    if right is not None and _looks_random(auto, right, n_out, n_shot, n_way):
        warnings.append(_why_random(auto, support.select(rows.tolist()).texts, right))
    sound = found if not warnings else None
    nearest, farther = _nearest(auto, known)
    return TaskReport(
        n_way=n_way,
        n_shot=n_shot,
        expected=None if known.stand_in is not None else expected_accuracy(auto, right, n_out, n_shot, n_way),
        by_name=0 if known.stand_in is None else int(known.stand_in.sum()),
        held_out=None if right is None else right / n_out,
        tokens=tokens,
        nearest=nearest,
        farther=farther,
        alike=() if sound is None else _alike(sound, labels, support.label_names),
        doubtful=() if sound is None else _doubtful(sound, labels, support.select(rows.tolist())),
        warnings=tuple(warnings),
        names_alone=right_by_names(auto, known),
        lone=0 if found is None else int((torch.bincount(known.labels) == 1).sum()),
    )


def _why_random(auto: "AutoHead", texts: tuple[str, ...], right: int) -> str:
    """What is the likely cause if held-out examples are classified as by guessing: the end of the texts, or labels."""
    found = f"{right} of {len(texts)} held-out examples were classified right, as by guessing"
    cut = cut_of(auto.encoder, texts)
    if not cut.are_many:
        return f"labels look random: {found}"
    return (
        f"what tells the classes apart may be cut off: {cut.n_cut} of {cut.n_texts} examples are longer than the "
        f"{cut.max_length} tokens that are read, and {found}"
    )


def in_order(support: "LabeledTexts") -> "LabeledTexts":
    """The same examples, always in the same order, on which the last bits of sums depend."""
    named = support.with_classes(sorted(support.label_names))
    return named.select(named.rows_in_order())


def log_odds(right: float, n: int) -> float:
    """Of a share of right answers, kept finite."""
    share = (right + 0.5) / (n + 1)
    return float(np.log(share / (1 - share)))


def expected_accuracy(
    auto: "AutoHead", right: int | None, n: int, n_shot: float, n_way: int
) -> tuple[float, float, float]:
    """Low end, middle and high end of the accuracy to expect, from right answers among ``n`` held-out texts."""
    estimate = None if right is None else np.asarray([log_odds(right, n)])
    priors = auto.priors
    middle = float(priors.accuracy.at(estimate, n_texts=n, n_shot=n_shot, n_way=n_way)[0])
    low, high = (float(each) for each in priors.band.at(n_shot, n_way))
    return _share(middle + low), _share(middle), _share(middle + high)


def _share(odds: float) -> float:
    return 1 / (1 + float(np.exp(-odds)))


def right_by_names(auto: "AutoHead", known: "Support") -> float | None:
    """The share of the support texts that the names of the classes alone, with no example, would label correctly."""
    view = auto.as_first_seen(known)
    if view.names is None or view.stand_in is not None:
        return None
    texts, names = (F.normalize(features_of(each), dim=1) for each in (view, view.names))
    return float(((texts @ names.T).argmax(1) == view.labels).float().mean())


def held_out(auto: "AutoHead", known: "Support", judged: "CrossValidation") -> Tensor | None:
    """Log probabilities of the texts in ``rows_held_out`` by the mixture that learned from the other folds."""
    if judged.held_out is None:
        return None
    temperature = float(auto.priors.temperature.at(len(known) / known.n_way, known.n_way))
    return (mixed(judged.held_out, auto.weights(judged, known)) / temperature).log_softmax(1)


def _looks_random(auto: "AutoHead", right: int, n: int, n_shot: float, n_way: int) -> bool:
    """Whether held-out texts are classified as by guessing, and worse than in nearly all clean tasks of this size."""
    from scipy.stats import binom

    guessed = float(binom.sf(right - 1, n, 1 / n_way)) > CHANCE
    return guessed and log_odds(right, n) < float(auto.priors.clean.at(n_shot, n_way))


def _nearest(auto: "AutoHead", known: "Support") -> tuple[str | None, float | None]:
    families, encoder = known_families(), auto.encoder
    if encoder.files is None or encoder.files.digest != families.digest or encoder.pairs:
        return None, None
    features = features_of(known)
    frozen = features[:, encoder.columns(FROZEN)] if isinstance(encoder, ScaledEncoder) else features
    return families.nearest(frozen)


def _alike(held_out: Tensor, labels: Tensor, label_names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Pairs of classes whose held-out texts are taken for the other one as often as not, the worst first."""
    n_way = held_out.size(1)
    pairs_of_classes = labels.cpu() * n_way + held_out.argmax(1).cpu()
    taken = torch.bincount(pairs_of_classes, minlength=n_way * n_way).view(n_way, n_way).float()
    counts = taken.sum(1)
    swapped = (taken + taken.T) / (counts[:, None] + counts[None, :])
    both = torch.minimum(taken, taken.T) > 0
    pairs = torch.nonzero(torch.triu(both & (swapped >= 0.5), diagonal=1)).tolist()
    pairs.sort(key=lambda pair: -float(swapped[pair[0], pair[1]]))
    return tuple((label_names[one], label_names[other]) for one, other in pairs)


def _doubtful(held_out: Tensor, labels: Tensor, support: "LabeledTexts") -> tuple[DoubtfulLabel, ...]:
    """Texts that the rest of their class does not recognise, while another class does.

    Source: confident learning, Northcutt, Jiang and Chuang 2021 (arXiv:1911.00068), with fixed thresholds in place of
    the mean confidence of each class, which a handful of texts cannot give.
    """
    own = held_out[torch.arange(len(labels), device=labels.device), labels].exp()
    best = held_out.max(1)
    counts = torch.bincount(labels, minlength=held_out.size(1))
    wrong = (own < SURELY_NOT) & (best.values.exp() > SURE) & (counts[labels] >= FEWEST_TO_JUDGE)
    rows = sorted(torch.nonzero(wrong).squeeze(1).tolist(), key=lambda row: float(own[row]))
    names = support.label_names
    return tuple(
        DoubtfulLabel(
            support.texts[row], names[support.labels[row]], names[int(best.indices[row])], float(best.values[row].exp())
        )
        for row in rows
    )


def tuned_share(state: "TaskState") -> str | None:
    """What fine-tuning counts for in a model; ``None`` if nothing."""
    share = state.get(f"{TUNED}/share")
    if share is None:
        return None
    said = f"fine-tuning counts for {100 * float(share):.0f} % in the saved model"
    return f"{said}; expected accuracy and warnings are those of its heads alone"


def tuning_note(
    auto: "AutoHead", texts: Sequence[str], counts: Sequence[Sequence[int]], *, several: bool = False
) -> str | None:
    """Whether the budget is enough to fine-tune on ``texts``, and the seconds that this takes for all supports.

    Args:
        auto: with its budget for each time; without one there is a hint where it may help, ``None`` elsewhere.
        texts: as many and as long as those of each support.
        counts: the examples of each class in each support.
        several: whether a text may have several labels.
    """
    times = len(counts)
    if not isinstance(auto, TakesBudget) or not auto.budget:
        able = isinstance(auto, TakesBudget) and has_adapter(auto.encoder)
        able = able and all(most_have(each, MANY_SHOTS) for each in counts)
        return "with so many examples fine-tuning may do better; --budget 2min tries it" if able else None
    tuned, budget, n = auto.tuned, auto.budget, len(texts)
    if several:
        tuned, budget, times = tuned.stepping(MOST_STEPS), budget / TIMES, times * TIMES
    if not all(are_enough(each, several=several) for each in counts):
        needed = f"{LEAST_HELD_OUT} examples of " + ("each label" if several else "most classes and 2 of each")
        return f"no fine-tuning: it needs {needed}"
    if steps := tuned.steps_within(budget, texts):
        seconds = times * tuned.seconds_for(texts, steps)
        return f"fine-tuning on {n} texts, {times} times {steps} steps at most: about {seconds:.0f} s on two cores"
    seconds = times * tuned.seconds_for(texts, tuned.least_steps(texts))
    return f"no fine-tuning: {times} times on {n} texts take {seconds:.0f} s at least: more --budget or fewer --draws"
