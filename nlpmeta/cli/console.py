"""What commands print: results to standard output, everything else to standard error.

``out_table`` is the one printer of tables and ``json_line`` the one writer of JSON; commands only say what is in them.
"""

import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import IO, TYPE_CHECKING

from nlpmeta.errors import escaped
from nlpmeta.progress import clear_status

if TYPE_CHECKING:
    from pathlib import Path

    from rich.table import Table

    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.classifier.explaining import ExampleEffect, Explanation
    from nlpmeta.evaluation.several import SeveralReport
    from nlpmeta.metrics.scores import Interval
    from nlpmeta.sources.file import Given
    from nlpmeta.sources.home_assistant import LanguageYield
    from nlpmeta.sources.inspection import DataReport

_NAME, _WORD = 40, 12  # names so long are not wrapped; a column of text has so many characters at least
_GAP = (0, 2, 0, 0)  # between columns
_NUMBER = re.compile(r"[-+]?\d(?:[-+\d.,±%() ]|of|to)*")


def say(message: str) -> None:
    """One line to standard error, where progress, notes and errors go."""
    clear_status()
    sys.stderr.write(f"{printable(message)}\n")


def out(line: str = "") -> None:
    """One line of result to standard output."""
    clear_status()
    sys.stdout.write(f"{line}\n")


def out_json(value: object) -> None:
    """One JSON document on one line of standard output."""
    clear_status()
    sys.stdout.write(json_line(value))


def out_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table to standard output: text to the left, columns of numbers to the right, as wide as the terminal or 80.

    Text is wrapped, numbers and the names in the first column never are: a table of too many of them is wider.
    """
    from rich.table import Table

    table = Table(box=None, padding=_GAP, pad_edge=False)
    needed = 0
    for header, *cells in zip(headers, *rows, strict=True):
        number, widest = _are_numbers(cells), max(map(len, cells), default=0)
        whole = number or (not table.columns and widest <= _NAME)
        needed += 2 + (max(widest, len(header)) if whole else _WORD)
        table.add_column(header, justify="right" if number else "left", no_wrap=whole, overflow="fold")
    _print(table, rows, needed)
    out()


def out_facts(facts: Mapping[str, str]) -> None:
    """A line a fact, its name first; a long one is wrapped below itself. A fact that is empty is left out."""
    from rich.table import Table

    rows = [(name, value) for name, value in facts.items() if value]
    table = Table.grid(padding=_GAP)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    _print(table, rows)


def says_how_to_type(stream: IO[str]) -> None:
    """Tell a person at a terminal that texts can be typed."""
    if stream.isatty():
        say("Type a text and press Enter; end with Ctrl-D.")


def json_line(value: object) -> str:
    """``value`` as JSON on one line; characters that could drive a terminal are escaped as JSON escapes them."""
    line = json.dumps(_plain(value), ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line) + "\n"


def printable(text: str) -> str:
    """``text`` with control characters and terminal escapes made visible, so that data cannot drive the terminal."""
    return "\n".join(map(escaped, text.split("\n")))


def percent(share: float) -> str:
    """``0.973`` as ``97.3``; a hyphen where it is not known."""
    return "-" if math.isnan(share) else f"{100 * share:.1f}"


def _are_numbers(cells: Sequence[str]) -> bool:
    """Whether a column holds numbers, with their intervals, or a sign that one is not known."""
    known = [cell for cell in cells if cell not in ("", "-", "?")]
    return bool(known) and all(map(_NUMBER.fullmatch, known))


def _print(table: "Table", rows: Sequence[Sequence[str]], needed: int = 0) -> None:
    from rich.console import Console
    from rich.text import Text

    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    clear_status()
    console = Console(file=sys.stdout, highlight=False)
    console.width = max(console.width, needed)
    with console.capture() as drawn:
        console.print(table)
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in drawn.get().splitlines()))


def _plain(value: object) -> object:
    """A dataclass by its fields; what JSON has no form for (dates, decimals, bytes) as text."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value != value:
        return None
    return value if value is None or isinstance(value, str | int | float) else str(value)


def show_several(found: "SeveralReport", folder: "Path") -> None:
    """What was measured of a model that gives several labels per text."""
    from nlpmeta.data.inputs import typed
    from nlpmeta.evaluation.results import FIGURES
    from nlpmeta.evaluation.several import BASELINE

    support, n_without = found.examples, int((~found.examples.marks.any(1)).sum())
    out(
        f"{len(support.classes)} labels, {len(support.texts)} support texts ({n_without} without a label), "
        f"scored on {found.scored_on}"
    )
    if found.scores:
        rows = [(found.request.method, *(_interval(found.mean(name)) for name in FIGURES))]
        if found.baseline:
            rows += [(f"baseline: {BASELINE}", *(_interval(found.mean(name, baseline=True)) for name in FIGURES))]
        out_table(("", *(f"{title}, %" for title in FIGURES.values())), rows)
        out(f"Scored: {found.scored}. Exact match: all labels of a text are right and none is missing.")
    out(printable("Support texts of each label: " + _counts(support.several().counts())))
    stages = ", ".join(f"{stage.replace('_', ' ')} {seconds:.1f} s" for stage, seconds in found.watch.seconds.items())
    out(f"Time: {stages}")
    which = "of all examples" if found.request.n_shot is None else "of the first draw"
    out(f"Saved: {folder} (the model {which if support.texts else 'of the names alone'})")
    example = printable(typed(support.texts[0])) if support.texts else "--file texts.txt"
    out(f"Next: nlpmeta predict {folder} {example}")


def _counts(found: "Mapping[str, int]", most: int = 30) -> str:
    shown = ", ".join(f"{name} {count}" for name, count in list(found.items())[:most])
    return shown + (f" and {len(found) - most} more" if len(found) > most else "")


def _interval(found: "Interval | None") -> str:
    return "" if found is None else found.percent()


_WORDS, _EXAMPLES, _LONGEST = 5, 3, 70
_WORTH_SAYING = 0.0005
"""A drop that is printed as 0.1 points; smaller ones are noise."""


def out_reasons(
    classifier: "FewShotClassifier", batches: "Iterable[list[Given]]", *, as_json: bool, quiet: bool
) -> None:
    """Texts, their labels, and what each label hangs on; with colours on a terminal."""
    from nlpmeta.data.inputs import shown

    noted: set[str] = set()
    for given in (each for batch in batches for each in batch):
        found = classifier.explain(given.text) if given.text.strip() else None
        if as_json:
            answer: dict[str, object] = {"label": None, "probability": None, "why": None}
            if found is not None:
                answer = {"label": found.label, "probability": found.probability, "why": found.json()}
            out_json({"text": shown(given.text), **answer})
        elif found is not None:
            _show_reasons(found, colours=sys.stdout.isatty())
            if found.note and found.note not in noted and not quiet:
                say(f"Note: {found.note}")
                noted.add(found.note)


def _show_reasons(found: "Explanation", *, colours: bool) -> None:
    out(f"{printable(found.label)}\t{found.probability:.3f}\t{_marked(found) if colours else _one_line(found.text)}")
    drops = [each for each in found.words if each.drop >= _WORTH_SAYING][:_WORDS]
    rises = [each for each in found.words[::-1] if each.drop <= -_WORTH_SAYING][:_WORDS]
    for said, words in (("less probable without", drops), ("more probable without", rises)):
        if words:
            named = ", ".join(f"{printable(each.word)} ({-100 * each.drop:+.1f})" for each in words)
            out(f"  {said}: {named}")
    if found.words and not drops and not rises:
        out("  no single word matters")
    for said, examples in (
        (f"for {found.label}", found.speak_for(_EXAMPLES)),
        (f"for {found.rather} instead", found.speak_against(_EXAMPLES)),
    ):
        for each in examples:
            out(f"  {printable(said)}: {abs(each.log_odds):.2f} {_example(each)}")
    out()


def _example(each: "ExampleEffect") -> str:
    text = each.text if len(each.text) <= _LONGEST else f"{each.text[: _LONGEST - 1].rstrip()}…"
    return f'{"the name " if each.is_name else ""}"{_one_line(text)}" [{printable(each.label)}]'


def _marked(found: "Explanation") -> str:
    """The text with the words that speak for the label in green and those against it in red."""
    strongest = max((abs(each.drop) for each in found.words), default=0.0)
    colour = {
        span: "32" if each.drop > 0 else "31"
        for each in found.words
        if abs(each.drop) >= max(_WORTH_SAYING, strongest / 4)
        for span in each.spans
    }
    parts, place = [], 0
    for (start, end), code in sorted(colour.items()):
        parts += [_one_line(found.text[place:start]), f"\x1b[1;{code}m{_one_line(found.text[start:end])}\x1b[0m"]
        place = end
    return "".join([*parts, _one_line(found.text[place:])])


def _one_line(text: str) -> str:
    from nlpmeta.data.inputs import shown

    return printable(shown(text)).replace("\n", "\\n")


def show_yields(yields: "Sequence[LanguageYield]") -> None:
    """What each language gives when its templates are expanded."""
    if not yields:
        return
    from nlpmeta.data.languages import parse

    rows = [
        (
            each.lang,
            parse(each.lang).name,
            f"{each.usable_intents} of {each.intents}",
            f"{each.usable_templates} of {each.templates}",
            str(each.sentences),
        )
        for each in yields
    ]
    out_table(("language", "", "intents used", "templates used", "sentences"), rows)
    out(f"Languages: {len(yields)}, sentences: {sum(each.sentences for each in yields)}")


def out_suspects(suspects: "Sequence[Mapping[str, object]]", unit: str, most: int = 20) -> None:
    """The examples whose labels are the least probable: at most a tenth of them, and no more than ``most``."""
    judged = [each for each in suspects if each["probability"] is not None]
    shown = judged[: max(1, min(most, len(suspects) // 10))]
    rows = []
    for each in shown:
        line, share, label, rather, text = (str(each[k]) for k in ("line", "probability", "label", "rather", "text"))
        rows.append((line, f"{100 * float(share):.1f}", label, rather if rather != label else "", text))
    out_table((unit, "label, %", "label", "rather", "text"), rows)
    out(f"The {len(shown)} least probable labels of {len(judged)} that were held out; --json has all.")


def first_rows(report: "DataReport") -> "Iterator[str]":
    """Where to look first: a line a part, and a line a pair of parts."""
    unit = {part.name: part.counted_in.removesuffix("s") for part in report.parts}
    words = {"exact": "repeat", "normalised": "normalised repeat", "conflicting": "text with another label"}
    for part in report.parts:
        here, first = unit[part.name], part.first
        kinds = [kind for kind in first if kind != "normalised" or first[kind] != first.get("exact")]
        said = [f"first {words[kind]}: {here} {first[kind].line} (see {here} {first[kind].other})" for kind in kinds]
        if said:
            yield f"{part.name}: {'; '.join(said)}"
    for each in report.overlaps:
        here, there = unit[each.second], unit[each.first]
        found = {"": each.first_rows.get("normalised"), ", with another label": each.first_rows.get("label_differs")}
        said = [f"{here} {row.line} ({there} {row.other} there){how}" for how, row in found.items() if row is not None]
        if said:
            yield f"{each.second}: first text also in {each.first}: {'; '.join(said)}"
