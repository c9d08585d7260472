"""Quality rules of the hand-written starter corpus (nlpmeta/data/starter)."""

import itertools
import json
import pathlib
import unicodedata
from collections import Counter, defaultdict

import pytest

STARTER = pathlib.Path(__file__).resolve().parents[1] / "nlpmeta" / "data" / "starter"
INTENT_FILES = sorted((STARTER / "intents").glob("*.jsonl"))
SPAM_FILES = sorted((STARTER / "spam").glob("*.jsonl"))
ALL_FILES = INTENT_FILES + SPAM_FILES

MIN_LANGUAGES = 10
MIN_INTENTS = 12
MIN_PER_INTENT = 20
MIN_PER_SPAM_LABEL = 80
MAX_SIMILARITY = 0.5
MAX_SAME_OPENING = 4
UNSPACED = {"zh"}  # languages written without spaces between words


def name(path):
    return f"{path.parent.name}/{path.name}"


def lines(path):
    """The raw lines of a file, without the empty piece after the last newline (splitlines would cut at U+2028)."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def records(path):
    return [json.loads(line) for line in lines(path)]


def normalise(text):
    """NFKC, casefold, digits to 0, punctuation and symbols removed, spaces folded."""
    kept = []
    for char in unicodedata.normalize("NFKC", text).casefold():
        category = unicodedata.category(char)
        if category == "Nd":
            kept.append("0")
        elif category[0] not in "PS":
            kept.append(char)
    return " ".join("".join(kept).split())


def ngrams(text, size):
    text = normalise(text)
    return {text[i : i + size] for i in range(max(1, len(text) - size + 1))}


def jaccard(left, right):
    return len(left & right) / len(left | right)


def opening(text, language):
    """The first two words, or the first two characters where words are not spaced."""
    text = normalise(text)
    if language in UNSPACED:
        return text.replace(" ", "")[:2]
    return " ".join(text.split()[:2])


def test_similarity_ignores_case_digits_punctuation_and_spacing():
    assert normalise("  Wake me,  at 7:30! ") == normalise("wake ME at 8.45") == "wake me at 000"
    assert jaccard(ngrams("Wake me at 7:30", 3), ngrams("wake me, at 8:15", 3)) == 1
    assert jaccard(ngrams("abcd", 3), ngrams("bcde", 3)) == pytest.approx(1 / 3)
    assert opening("Wake me, at 7", "en") == "wake me"
    assert opening("明天 会下雨吗", "zh") == "明天"


def test_at_least_ten_languages_have_intents_and_swahili_is_one():
    languages = [path.stem for path in INTENT_FILES]
    assert "sw" in languages, f"no Swahili among the intents files: {languages}"
    assert len(languages) >= MIN_LANGUAGES, f"only {len(languages)} intents files: {languages}"


def test_spam_files_are_there_for_english_and_swahili():
    languages = {path.stem for path in SPAM_FILES}
    assert {"en", "sw"} <= languages, f"spam files found: {sorted(languages)}"


def test_all_intents_files_have_the_same_twelve_or_more_labels():
    labels = {name(path): {record["label"] for record in records(path)} for path in INTENT_FILES}
    assert labels, "no intents files at all"
    expected = set().union(*labels.values())
    assert len(expected) >= MIN_INTENTS, f"only {len(expected)} labels: {sorted(expected)}"
    missing = {file: sorted(expected - found) for file, found in labels.items() if found != expected}
    assert not missing, f"labels that other files have and these lack: {missing}"


@pytest.mark.parametrize("path", INTENT_FILES, ids=name)
def test_every_intent_has_at_least_twenty_utterances(path):
    counts = Counter(record["label"] for record in records(path))
    few = {label: count for label, count in counts.items() if count < MIN_PER_INTENT}
    assert not few, f"{name(path)}: fewer than {MIN_PER_INTENT} utterances: {few}"


@pytest.mark.parametrize("path", SPAM_FILES, ids=name)
def test_spam_files_hold_at_least_eighty_ham_and_eighty_spam_and_nothing_else(path):
    counts = Counter(record["label"] for record in records(path))
    assert set(counts) == {"ham", "spam"}, f"{name(path)}: labels are {sorted(counts)}"
    assert min(counts.values()) >= MIN_PER_SPAM_LABEL, f"{name(path)}: too few messages: {dict(counts)}"


@pytest.mark.parametrize("path", ALL_FILES, ids=name)
def test_every_line_has_just_a_text_and_a_label_that_are_not_empty_or_padded(path):
    problems = []
    for number, line in enumerate(lines(path), start=1):
        record = json.loads(line) if line.strip() else None
        if not isinstance(record, dict) or set(record) != {"text", "label"}:
            problems.append(f"{name(path)}:{number}: not an object with just text and label: {line!r}")
            continue
        for key, value in record.items():
            if not isinstance(value, str) or not value or value != value.strip() or not normalise(value):
                problems.append(f"{name(path)}:{number}: {key} is empty, padded or not a text: {value!r}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", ALL_FILES, ids=name)
def test_no_text_occurs_under_two_labels(path):
    found = defaultdict(set)
    for record in records(path):
        found[normalise(record["text"])].add((record["label"], record["text"]))
    problems = [
        f"{name(path)}: the same text under two labels: {sorted(uses)}"
        for uses in found.values()
        if len({label for label, _ in uses}) > 1
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", ALL_FILES, ids=name)
def test_no_two_texts_of_a_language_are_near_duplicates(path):
    size = 2 if path.stem in UNSPACED else 3
    texts = [(number, record["text"]) for number, record in enumerate(records(path), start=1)]
    grams = [(number, text, ngrams(text, size)) for number, text in texts]
    problems = []
    for (number, text, left), (other_number, other_text, right) in itertools.combinations(grams, 2):
        similarity = jaccard(left, right)
        if similarity >= MAX_SIMILARITY:
            where = f"{name(path)} lines {number} and {other_number}"
            problems.append(f"{where} are too alike ({similarity:.2f}): {text!r} and {other_text!r}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", INTENT_FILES, ids=name)
def test_no_more_than_four_utterances_of_an_intent_open_alike(path):
    found = defaultdict(list)
    for record in records(path):
        found[record["label"], opening(record["text"], path.stem)].append(record["text"])
    problems = [
        f"{name(path)}: {len(texts)} of {label} open with {start!r}: {texts}"
        for (label, start), texts in found.items()
        if len(texts) > MAX_SAME_OPENING
    ]
    assert not problems, "\n".join(problems)
