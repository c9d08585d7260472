"""What ``nlpmeta data`` prints for a person."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nlpmeta.cli.console import out, printable

if TYPE_CHECKING:
    from nlpmeta.sources.home_assistant import LanguageYield
    from nlpmeta.sources.inspection import DataReport
    from nlpmeta.sources.overview import Count, Overview

_WRAP = 12  # languages that a line of facts lists before it only counts them


def print_list(found: "Sequence[Overview]") -> None:
    """One line a data set."""
    rows = [
        (each.facts.name, _number(len(each.languages)), _number(each.n_labels), each.task, _short(each.read_from))
        for each in found
    ]
    _table(("name", "languages", "classes", "what", "read from"), rows)
    out("Licence, citation and notes: nlpmeta data show NAME")


def print_facts(facts: "Overview") -> None:
    """A title and a line a fact."""
    out(printable(facts.facts.title))
    langs = facts.languages
    listed = (
        f"{len(langs)}: {', '.join(langs[:_WRAP])}{', …' * (len(langs) > _WRAP)}" if langs else "only the data says"
    )
    labels = ", ".join(facts.labels) or "only the data says"
    lines = {
        "task": facts.task,
        "licence": facts.facts.licence,
        "citation": facts.facts.citation,
        "notes": facts.facts.notes,
        "read from": facts.read_from,
        "languages": listed,
        "splits": ", ".join(facts.splits),
        "labels": f"{facts.n_labels}: {labels}" if facts.n_labels else labels,
    }
    for name, value in lines.items():
        if value:
            out(printable(f"  {name:10} {value}"))


def print_counts(parts: "Sequence[Count]") -> None:
    """Texts and classes of every split of every language."""
    if parts:
        rows = [(part.lang or "-", part.split, str(part.texts), str(part.classes)) for part in parts]
        _table(("language", "split", "texts", "classes"), rows)


def print_yields(yields: "Sequence[LanguageYield]") -> None:
    """What each language gives when its templates are expanded."""
    if not yields:
        return
    from nlpmeta.languages import parse

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
    _table(("language", "", "intents used", "templates used", "sentences"), rows)
    out(f"Languages: {len(yields)}, sentences: {sum(each.sentences for each in yields)}")


def print_report(report: "DataReport") -> None:
    """Counts of every part, then what is in two parts, then what to make of it."""
    rows = [
        (
            part.name,
            *map(str, (part.texts, part.classes, part.exact, part.normalised, part.conflicting)),
            str(len(part.small_classes)),
        )
        for part in report.parts
    ]
    small = f"classes < {report.few}"
    _table(("part", "texts", "classes", "repeats", "normalised", "several labels", small), rows)
    shared = [each for each in report.overlaps if each.normalised]
    if shared:
        rows_of_pairs = [
            (each.second, each.first, str(each.exact), str(each.normalised), str(each.label_differs)) for each in shared
        ]
        _table(("texts of", "also in", "exact", "normalised", "other label"), rows_of_pairs)
    if report.split_ids is not None and report.split_ids.count:
        torn = report.split_ids
        out(f"Ids in different splits in different languages: {torn.count}, such as {', '.join(torn.examples)}.")
    for part in report.parts:
        if part.small_classes:
            listed = ", ".join(f"{name} ({count})" for name, count in list(part.small_classes.items())[:10])
            out(printable(f"{part.name}: fewer than {report.few} distinct texts: {listed}"))
    out(_verdict(report))


def _verdict(report: "DataReport") -> str:
    across = sum(each.normalised for each in report.overlaps)
    within = sum(part.normalised for part in report.parts)
    if report.is_clean:
        return "No text is repeated, in two parts, or under several labels."
    return f"{within} repeats within parts, {across} across parts (normalised)."


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their longest cell, numbers to the right; nothing is ever cut off, so that it can be piped."""
    lines = [tuple(headers), *(tuple(printable(cell) for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numeric = [all(cell[:1].isdigit() or cell in "?-" for cell in column) for column in zip(*lines[1:], strict=True)]
    for line in lines:
        cells = zip(line, widths, numeric, strict=True)
        padded = (cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells)
        out("  ".join(padded).rstrip())
    out()


def _number(count: int | None) -> str:
    return str(count) if count else "?"


def _short(read_from: str) -> str:
    return read_from.removeprefix("the ").partition(" at ")[0].partition(" folder /")[0]
