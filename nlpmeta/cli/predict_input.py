"""How ``nlpmeta predict`` is spoken to, and the form of a line that it writes."""

from typing import IO, TYPE_CHECKING

from nlpmeta.cli.console import json_line, printable, say

if TYPE_CHECKING:
    from nlpmeta.trust.label_set import LabelSet


def format_line(text: str, label: object, probability: float, *, as_json: bool) -> str:
    """One prediction as a JSON object, or as label, probability and text between tabs."""
    value = getattr(label, "item", lambda: label)()
    if as_json:
        return json_line({"text": text, "label": value, "probability": round(probability, 6)})
    return f"{printable(str(value))}\t{probability:.3f}\t{printable(text)}\n"


def format_set(text: str, found: "LabelSet", *, as_json: bool) -> str:
    """One label set as a JSON object, or as its labels (or "unsure"), the probability of the first, and the text."""
    if as_json:
        facts: dict[str, object] = {"text": text, "labels": list(found.labels)}
        facts["probabilities"] = [round(each, 6) for each in found.probabilities]
        facts |= {"unsure": found.is_unsure, "coverage": found.coverage}
        return json_line(facts)
    return f"{printable(str(found))}\t{found.probabilities[0]:.3f}\t{printable(text)}\n"


def interactive(stream: IO[str]) -> bool:
    """Whether a person is typing; then each line is answered at once, and is told so."""
    if not stream.isatty():
        return False
    say("Type a text and press Enter; end with Ctrl-D.")
    return True
