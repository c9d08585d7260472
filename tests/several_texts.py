"""Small texts with none, one or two labels, and files of them."""

import json

from conftest import TOPICS

WORDS = {topic: words.split() for topic, words in TOPICS.items()}
TOPIC_NAMES = sorted(WORDS)


def examples(turn=0):
    """Texts of one topic, of two and of none; another ``turn`` pairs other words."""
    rows = []
    for i, first in enumerate(TOPIC_NAMES):
        second = TOPIC_NAMES[(i + 1) % 3]
        for j, word in enumerate(WORDS[first]):
            other = WORDS[second][(j + turn) % 4]
            rows += [(f"{word} {WORDS[first][(j + turn) % 4]}", [first]), (f"{word} {other}", sorted([first, second]))]
    return [*rows, *((f"{word} unheard of", []) for word in ("rain", "snow", "wind")[turn % 3 :])]


def write_lines(path, rows, **more):
    lines = [json.dumps({"text": text, "labels": labels, **more}) for text, labels in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
