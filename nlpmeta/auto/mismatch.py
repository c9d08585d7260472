"""What a model was not made for: tasks unlike those that adaptation knows, texts that belong to none of the classes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from nlpmeta.auto.mixture import likeness
from nlpmeta.encoder.tokenizing import Guard
from nlpmeta.encoder.vocabulary import pieces_of
from nlpmeta.errors import ModelFolderError
from nlpmeta.storage.files import read_text

if TYPE_CHECKING:
    from nlpmeta.auto.mixture import Mixture
    from nlpmeta.encoder.text_encoder import TextEncoder
    from nlpmeta.storage.files import Json


@dataclass(frozen=True)
class TokenizerCoverage:
    """What the pieces of the tokenizer make of the letters and digits of some texts.

    ``unknown`` is the share of letters and digits that are in no known piece; ``letters_per_piece`` is how many of the
    known ones a piece holds on average: near 1, words are spelt out letter by letter.
    """

    unknown: float
    letters_per_piece: float


def tokenizer_coverage(encoder: "TextEncoder", texts: Sequence[str]) -> TokenizerCoverage | None:
    """The coverage of ``texts`` themselves; ``None`` for a tokenizer that does not say where its pieces come from."""
    stripped = [text.strip() for text in texts]
    later = encoder.pending
    found = pieces_of(encoder.tokenizer, stripped) if later is None else later.vocabulary.pieces(stripped)
    if found is None:
        return None
    counts = [(sum(map(str.isalnum, piece)), known) for piece, known in found]
    letters, unknown = sum(n for n, _ in counts), sum(n for n, known in counts if not known)
    pieces = max(1, sum(n > 0 and known for n, known in counts))
    return TokenizerCoverage(unknown / max(letters, 1), (letters - unknown) / pieces)


MOST_LINES = 5
UNKNOWN = 0.2
"""Share of letters in no known piece from which on a text is not read any more."""
NEAR_GUESSING = 0.05
"""How far above guessing the low end of the expected accuracy has to lie for a task not to be called near guessing.

With five examples a class this names 9 of 10 tasks that end within ten points of guessing, and 19 % of the others, on
kinds of tasks that the forecast was not learned on (``benchmarks/learn_auto.py``)."""
SPELT_OUT = 1.4
"""Letters of a piece below which words are spelt out; clean auxiliary tasks of alphabets stay above."""


@dataclass(frozen=True)
class DoubtfulLabel:
    """A support text that the others of its class do not recognise, and the class that they would put it into."""

    text: str
    label: str
    rather: str
    probability: float


@dataclass(frozen=True)
class TaskReport:
    """What a support set says of its task before anything is predicted.

    Attributes:
        n_way: how many classes.
        n_shot: support texts of a class, on average.
        expected: the accuracy to expect, and the band that nine of ten auxiliary tasks like this one lay in; ``None``
            where some class has no example.
        held_out: the share of support texts that were classified right when they were held out; ``None`` if none were.
        tokens: how well the tokenizer knows the texts.
        nearest: the auxiliary tasks that the support set is nearest to; ``None`` with another encoder than theirs.
        farther: the share of auxiliary tasks that were nearer to other families than this one is.
        alike: pairs of classes that are confused.
        doubtful: support texts whose label looks wrong, the worst first.
        warnings: why the model should not be relied on; empty for a sound task.
        by_name: classes without an example, which are known by their names and descriptions alone.
        names_alone: the share of the support texts that the names and descriptions of the classes alone would label
            correctly; ``None`` where they are not read or some class has no example.
        lone: classes with one example where others have more: the accuracy to expect is that of the other classes.
    """

    n_way: int
    n_shot: float
    expected: tuple[float, float, float] | None
    held_out: float | None
    tokens: TokenizerCoverage | None
    nearest: str | None
    farther: float | None
    alike: tuple[tuple[str, str], ...]
    doubtful: tuple[DoubtfulLabel, ...]
    warnings: tuple[str, ...]
    by_name: int = 0
    names_alone: float | None = None
    lone: int = 0

    @property
    def warns(self) -> bool:
        """Whether the model should not be relied on."""
        return bool(self.warnings)

    @property
    def is_near_guessing(self) -> bool:
        """Whether the low end of the accuracy to expect is within ``NEAR_GUESSING`` of guessing."""
        return self.expected is not None and self.expected[0] < 1 / self.n_way + NEAR_GUESSING

    def lines(self) -> list[str]:
        """The same in at most ``MOST_LINES`` plain lines, the most important first."""
        found = [f"Warning: {warning}" for warning in self.warnings]
        if self.expected is None:
            which = "all classes" if self.by_name == self.n_way else f"{self.by_name} of {self.n_way} classes"
            found.append(f"No forecast: {which} have no example and are known by name; label texts and measure")
        else:
            low, middle, high = (round(100 * each) for each in self.expected)
            named = "" if self.names_alone is None else f"; class names alone: {round(100 * self.names_alone)} %"
            found.append(f"Expect about {middle} % right ({low} to {high} % in 9 of 10 tasks of this size){named}")
            if self.is_near_guessing:
                found[-1] += f"; perhaps little better than guessing ({round(100 / self.n_way)} %)"
            if self.lone:
                found[-1] += f"; not counting classes with one example ({self.lone} of {self.n_way})"
        if self.alike:
            pairs = ", ".join(f"{one} / {other}" for one, other in self.alike[:3])
            found.append(f"Confused: {pairs}{_more(self.alike, 3)}; merge them or add examples")
        if self.doubtful:
            texts = "; ".join(f'"{_short(each.text)}" {each.label} (or {each.rather}?)' for each in self.doubtful[:3])
            found.append(f"Labels to check: {texts}{_more(self.doubtful, 3)}")
        if self.tokens is not None and self.tokens.letters_per_piece < SPELT_OUT and not self.warns:
            found.append("The encoder spells out words of this language; expect less of it than of a known one")
        if self.nearest is not None and self.farther is not None:
            far = "unlike all of them" if self.farther > FAR else "as near as these are to one another"
            found.append(f"Nearest known tasks: {self.nearest}, {far}")
        return found[:MOST_LINES]

    def json(self) -> "Mapping[str, Json]":
        """The same for a program; shares are fractions of 1."""
        low, middle, high = (None,) * 3 if self.expected is None else (round(each, 4) for each in self.expected)
        return {
            "warnings": list(self.warnings),
            "expected_accuracy": {"mean": middle, "low": low, "high": high},
            "classes_by_name": self.by_name,
            "classes_with_one_example": self.lone,
            "held_out_accuracy": self.held_out,
            "names_alone_accuracy": self.names_alone,
            "near_guessing": self.is_near_guessing,
            "tokenizer": None if self.tokens is None else asdict(self.tokens),
            "nearest_tasks": self.nearest,
            "farther_than": self.farther,
            "alike": [list(pair) for pair in self.alike],
            "doubtful_labels": [asdict(each) for each in self.doubtful],
        }


FAR = 0.98
"""Share of auxiliary tasks that are nearer to others, from which on a task counts as unlike them."""


def _more(found: Sequence[object], shown: int) -> str:
    return f" and {len(found) - shown} more" if len(found) > shown else ""


def _short(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


N_CLUES = 5
WEIGHTS_FILE = Path(__file__).parent / "scope.json"
"""Weights of ``near_clues``, which ``benchmarks/learn_scope.py`` learns."""


def scope_clues(
    log_probabilities: Tensor, features: Tensor, prototypes: Tensor, *, n_views: int, n_shot: float
) -> Tensor:
    """What speaks for a text being in scope, ``(n, N_CLUES)``, in float64 on the CPU.

    The log odds of the most probable class; the largest cosine to a mean vector of a class, on a scale where 0 is how
    alike these vectors are to one another and 1 is their own (the mean over views, as in Podolskiy et al. 2021,
    arXiv:2101.03778, distances in the space of embeddings see more than probabilities); and, so that one threshold can
    serve all tasks, the logarithms of ways and shots, and a constant.

    Args:
        log_probabilities: of the classes, ``(n, n_way)``.
        features: embeddings of the texts in all views, ``(n, n_views * dim)``.
        prototypes: mean embeddings of the classes, ``(n_way, n_views * dim)``.
        n_views: how many views the embeddings have side by side.
        n_shot: support texts of a class, on average.
    """
    odds = _odds(log_probabilities)
    near = likeness(features, prototypes, n_views=n_views).cpu().double()
    n_way = torch.full_like(odds, log_probabilities.size(1)).log()
    shots = torch.full_like(odds, n_shot).log()
    return torch.stack([odds, near, n_way, shots, torch.ones_like(odds)], dim=1)


def scope_scores(clues: Tensor, weights: "Sequence[float]") -> Tensor:
    """How probable it is that a text is out of scope where half of all texts are, ``(n,)``."""
    return torch.sigmoid(-(clues @ torch.tensor(weights, dtype=clues.dtype, device=clues.device)))


def near_clues(
    log_probabilities: Tensor,
    features: Tensor,
    prototypes: Tensor,
    talk: Tensor,
    *,
    usual: float,
    n_views: int,
    n_shot: float,
) -> Tensor:
    """The clues where some class has two examples or more, so that it is known how near to a class its own texts are.

    The log odds of the most probable class; the likeness to a class, less the likeness that the examples themselves
    have to the other examples (as in Breunig et al. 2000, LOF: a distance counts in the measure of the distances around
    it); the cosine to small talk; the logarithm of the shots; and a constant. Shape ``(n, N_CLUES)``.

    Args:
        log_probabilities: of the classes, ``(n, n_way)``.
        features: embeddings of the texts in all views, ``(n, n_views * dim)``.
        prototypes: mean embeddings of the classes, ``(n_way, n_views * dim)``.
        talk: of each text, the cosine to the nearest sentence of small talk, ``(n,)``.
        usual: the median likeness of the examples.
        n_views: how many views the embeddings have side by side.
        n_shot: support texts of a class, on average.
    """
    odds, near = _odds(log_probabilities), likeness(features, prototypes, n_views=n_views).cpu().double()
    shots = torch.full_like(odds, n_shot).log()
    return torch.stack([odds, near - usual, talk.cpu().double(), shots, torch.ones_like(odds)], dim=1)


@lru_cache(maxsize=1)
def near_weights() -> dict[str, tuple[float, ...]]:
    """The weights of ``near_clues`` for ``two_views`` and for ``one_view``.

    Raises:
        ModelFolderError: if the file is damaged.
    """
    try:
        facts = json.loads(read_text(WEIGHTS_FILE))
        return {name: tuple(map(float, facts[name])) for name in ("two_views", "one_view")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelFolderError(f"{WEIGHTS_FILE} is damaged ({error}). Install nlpmeta again.") from error


def _odds(log_probabilities: Tensor) -> Tensor:
    """The log odds of the most probable class, ``(n,)``."""
    best = log_probabilities.max(1).values.cpu().double().clamp(max=-1e-6)
    return best - torch.log1p(-best.exp())


_SMALL_TALK = Path(__file__).parent / "small_talk.txt"
_known: "WeakKeyDictionary[TextEncoder, dict[tuple[float, ...], Tensor]]" = WeakKeyDictionary()
_guard = Guard()


@lru_cache(maxsize=1)
def small_talk() -> tuple[str, ...]:
    """Sentences of small talk in many languages, each once."""
    lines = read_text(_SMALL_TALK).splitlines()
    return tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))


def small_talk_vectors(mixture: "Mixture") -> Tensor:
    """Embeddings of the small talk in the views that ``mixture`` reads, ``(n, n_views * dim)``; computed once."""
    with _guard:
        known, scales = _known.setdefault(mixture.learner.encoder, {}), mixture.scales
        if scales not in known:
            with torch.no_grad():
                known[scales] = mixture.read(mixture.queries(small_talk()))
        return known[scales]


def small_talk_likeness(features: Tensor, talk: Tensor, *, n_views: int) -> Tensor:
    """The largest cosine of each text to a sentence of small talk, the mean over views; ``(n,)``.

    Args:
        features: of the texts, ``(n, n_views * dim)``.
        talk: of the sentences, ``(n_sentences, n_views * dim)``.
        n_views: how many views stand side by side.
    """
    parts = zip(features.chunk(n_views, 1), talk.to(features).chunk(n_views, 1), strict=True)
    found = [(F.normalize(one, dim=1) @ F.normalize(other, dim=1).T).max(1).values for one, other in parts]
    return torch.stack(found).mean(0)
