"""Why a text got its label (words, examples), and which examples probably have a wrong one."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch

from nlpmeta.classifier.fitted import Examples, Fitted
from nlpmeta.classifier.given import at_least_two, held_out_probabilities, support_of
from nlpmeta.data.inputs import BETWEEN
from nlpmeta.data.labels import words_of
from nlpmeta.errors import DataError, NLPMetaError

if TYPE_CHECKING:
    from nlpmeta.storage.files import Json

MOST_WORDS = 256
"""Different words of a text that are left out one after the other; each costs a pass through the encoder."""


@dataclass(frozen=True)
class WordEffect:
    """A word, where it stands in the text, and by how much the probability of the label drops without it."""

    word: str
    spans: tuple[tuple[int, int], ...]
    drop: float


@dataclass(frozen=True)
class ExampleEffect:
    """An example of a class, or its name, and what it adds to the log-odds of the label against the runner-up."""

    text: str
    label: str
    log_odds: float
    is_name: bool = False


@dataclass(frozen=True)
class Explanation:
    """Why a text got its label.

    Attributes:
        text: the text.
        label: the label that is explained, in words.
        probability: what the model gives it.
        rather: the most probable of the other labels.
        words: of the text, those without which the label becomes less probable first; a word that is there twice is
            left out at both places.
        examples: those that speak most for the label first, those that speak most against it last.
        note: what cannot be shown, and why; empty if all is.
    """

    text: str
    label: str
    probability: float
    rather: str
    words: tuple[WordEffect, ...]
    examples: tuple[ExampleEffect, ...]
    note: str = ""

    def speak_for(self, n: int) -> tuple[ExampleEffect, ...]:
        """The examples that add most to the log-odds of the label."""
        return tuple(each for each in self.examples[:n] if each.log_odds > 0)

    def speak_against(self, n: int) -> tuple[ExampleEffect, ...]:
        """The examples that take most from the log-odds of the label, the strongest first."""
        return tuple(each for each in self.examples[::-1][:n] if each.log_odds < 0)

    def json(self, n: int = 3) -> "dict[str, Json]":
        """For programs, with the ``n`` examples that speak most for the label and as many against it."""
        examples = {"for": self.speak_for(n), "against": self.speak_against(n)}
        return {
            "label": self.label,
            "probability": round(self.probability, 6),
            "rather": self.rather,
            "words": [
                {"word": each.word, "spans": [list(span) for span in each.spans], "drop": round(each.drop, 6)}
                for each in self.words
            ],
            "examples": {side: [asdict(each) for each in found] for side, found in examples.items()},
            "note": self.note,
        }


@torch.no_grad()
def explain(fitted: Fitted, text: str, *, label: object = None) -> Explanation:
    """Why ``fitted`` gives ``text`` its most probable label, or what speaks for ``label``.

    Words are left out one after the other, all in one batch. Examples need to be known: see ``odds_parts``.

    Raises:
        DataError: if the text is empty or no string.
        UnknownNameError: if there is no such label.
    """
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"Only a text that says something can be explained; got {text!r}.")
    words, whole = _distinct(text), [text]
    kept = {word: _without(text, spans) for word, spans in list(words.items())[:MOST_WORDS]}
    told = [(word, rest) for word, rest in kept.items() if all(map(words_in, rest.split(BETWEEN)))]
    probabilities = _probabilities(fitted, whole + [rest for _, rest in told])
    order = probabilities[0].argsort(descending=True, stable=True).tolist()
    chosen = order[0] if label is None else fitted.number(label)
    rather = next(each for each in order if each != chosen)
    drops = (probabilities[0, chosen] - probabilities[1:, chosen]).tolist()
    effects = [
        WordEffect(text[slice(*words[word][0])], tuple(words[word]), drop)
        for (word, _), drop in zip(told, drops, strict=True)
    ]
    examples, note = _examples(fitted, text, chosen, rather)
    notes = [note] if note else []
    if len(words) > MOST_WORDS:
        notes.append(f"Only the first {MOST_WORDS} of {len(words)} different words were tried.")
    if not told:
        notes.append("Nothing is left of the text without its only word." if words else "The text has no words.")
    names = words_of(fitted.classes)
    return Explanation(
        text,
        names[chosen],
        float(probabilities[0, chosen]),
        names[rather],
        tuple(sorted(effects, key=lambda each: -each.drop)),
        tuple(sorted(examples, key=lambda each: -each.log_odds)),
        " ".join(notes),
    )


@dataclass(frozen=True)
class Suspect:
    """An example, the probability of its label when it is held out, and the label that is most probable then.

    ``row`` counts from 0; both are ``None`` where the example is the only one of its class and was not held out.
    """

    row: int
    text: str
    label: str
    probability: float | None
    rather: str | None


@torch.no_grad()
def suspects(fitted: Fitted, examples: Examples) -> list[Suspect]:
    """All examples, those whose label is the least probable when they are held out first.

    Source: self-confidence of confident learning, Northcutt, Jiang and Chuang 2021, section 3 (arXiv:1911.00068). For
    ``auto`` the probabilities are those of the folds by which it weighs its heads.

    Raises:
        DataError: if there are fewer than two classes, or each has one example, so that nothing can be held out.
        NLPMetaError: if texts may have several labels.
    """
    from nlpmeta.auto.answers import held_out_by_mixture

    if fitted.gives_sets:
        raise NLPMetaError("Suspicious labels are found where each text has one label; this model gives several.")
    at_least_two(examples.classes)
    learner, data = fitted.learner, examples.data()
    examples = examples.embedded(learner.encoder.encode) if learner.inputs == "embeddings" else examples
    rows = data.rows_in_order()
    ordered = examples.select(rows)
    held_out = held_out_by_mixture(learner, support_of(learner, ordered, learner.encoder.encode))
    found = {rows[place]: each for place, each in (held_out or held_out_probabilities(learner, ordered)).items()}
    if not found:
        raise DataError("No example can be held out: every class has one distinct text. Add a second of some class.")
    ranked = sorted(range(len(data)), key=lambda row: float(found[row][data.labels[row]]) if row in found else 2.0)
    names = data.label_names
    return [
        Suspect(
            row,
            data.texts[row],
            names[data.labels[row]],
            float(found[row][data.labels[row]]) if row in found else None,
            names[int(found[row].argmax())] if row in found else None,
        )
        for row in ranked
    ]


def _distinct(text: str) -> dict[str, list[tuple[int, int]]]:
    """Where each word stands; words that differ in case only are one."""
    found: dict[str, list[tuple[int, int]]] = {}
    for start, end in words_in(text):
        found.setdefault(text[start:end].casefold(), []).append((start, end))
    return found


def _without(text: str, spans: Sequence[tuple[int, int]]) -> str:
    parts, place = [], 0
    for start, end in spans:
        parts.append(text[place:start])
        place = end
    left = "".join([*parts, text[place:]]).split(BETWEEN)
    return BETWEEN.join(" ".join(part.split()) for part in left)


def _probabilities(fitted: Fitted, texts: Sequence[str]) -> torch.Tensor:
    scores = fitted.predictor.logits(fitted.predictor.queries(texts)).float().cpu()
    return scores.sigmoid() if fitted.gives_sets else scores.softmax(1)


def _examples(fitted: Fitted, text: str, label: int, rather: int) -> tuple[list[ExampleEffect], str]:
    """What each example says, and why there is nothing if there is nothing."""
    from nlpmeta.auto.answers import odds_parts
    from nlpmeta.learners.base import learners

    learner, examples = fitted.learner, fitted.examples
    if examples is None:
        return [], "Its examples were not saved with the model (adapt --include-support saves them): words only."
    if fitted.gives_sets:
        return [], "What examples add is not known where a text may have several labels: words only."
    unable = f"{learners.name_of(type(learner))} cannot say what each of its examples adds: words only."
    if learner.inputs != "embeddings":
        return [], unable
    examples = examples.embedded(learner.encoder.encode)
    support = support_of(learner, examples, learner.encoder.encode)
    parts = odds_parts(fitted.predictor, support, fitted.predictor.queries([text]), label, rather)
    if parts is None:
        return [], unable
    names, labels, values = words_of(fitted.classes), support.labels.tolist(), parts.tolist()
    stand_in = [False] * len(support) if support.stand_in is None else support.stand_in.tolist()
    told = zip(support.texts, labels, values, stand_in, strict=False)  # names follow
    found = [ExampleEffect(each, names[number], value, is_name) for each, number, value, is_name in told]
    if support.names is not None:
        spoken = zip(support.names.texts, names, values[len(support) :], strict=False)  # none if they say nothing
        found += [ExampleEffect(each, name, value, is_name=True) for each, name, value in spoken if value]
    return found, ""


_WITHOUT_SPACES = {
    "CJK": 2, "HIRAGANA": 2, "KATAKANA": 4, "BOPOMOFO": 2, "YI": 2,
    "THAI": 4, "LAO": 4, "KHMER": 4, "MYANMAR": 4, "TIBETAN": 3, "JAVANESE": 3, "BALINESE": 3,
}  # fmt: skip
"""Scripts that put no space between words, by how Unicode names begin, and how many characters make a group there."""
_JOINERS = "'’ʼ·-\u200c\u200d"


def words_in(text: str) -> list[tuple[int, int]]:
    """Where each word begins and ends.

    A word is a run of letters, marks and digits, with single apostrophes, hyphens and joiners inside it. Runs of
    scripts that are written without spaces are parted into groups of a few characters; a mark stays with its letter.
    """
    found: list[tuple[int, int]] = []
    for start, end in _runs(text):
        for script, places in groupby(range(start, end), key=_scripts(text, start, end).__getitem__):
            part = list(places)
            size = _WITHOUT_SPACES.get(script)
            found += [(part[0], part[-1] + 1)] if size is None else list(_groups(text, part[0], part[-1] + 1, size))
    return found


def _runs(text: str) -> Iterator[tuple[int, int]]:
    start = None
    for place, character in enumerate(text):
        inside = _is_part(character) or (
            character in _JOINERS and start is not None and place + 1 < len(text) and _is_part(text[place + 1])
        )
        if inside and start is None:
            start = place
        elif not inside and start is not None:
            yield start, place
            start = None
    if start is not None:
        yield start, len(text)


def _is_part(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _scripts(text: str, start: int, end: int) -> dict[int, str]:
    """For each place, the script without spaces that its character is of, or nothing; marks are as what they mark."""
    found: dict[int, str] = {}
    for place in range(start, end):
        marks = unicodedata.category(text[place])[0] == "M" or text[place] == "ー"
        if marks and place > start:
            found[place] = found[place - 1]
            continue
        name = unicodedata.name(text[place], "").partition(" ")[0].partition("-")[0]
        found[place] = name if name in _WITHOUT_SPACES else ""
    return found


def _groups(text: str, start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    begun, count = start, 0
    for place in range(start, end):
        if unicodedata.category(text[place])[0] != "M":
            if count == size:
                yield begun, place
                begun, count = place, 0
            count += 1
    yield begun, end
