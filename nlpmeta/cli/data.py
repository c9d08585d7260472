"""``nlpmeta data``: the data sets that have a name, and what is wrong with one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import (
    AsJson,
    DataFolder,
    Delimiter,
    Encoding,
    LabelColumn,
    LabelSeparator,
    NoHeader,
    TextColumn,
)

if TYPE_CHECKING:
    from nlpmeta.sources.inspection import DataReport, Part
    from nlpmeta.sources.loading import Count, Overview

EXAMPLES = """Examples:

  nlpmeta data list

  nlpmeta data show massive --lang sw

  nlpmeta data show home-assistant --json

  nlpmeta data export clinc150 --split oos_test --out oos.csv

  nlpmeta data check massive --lang sw --data-dir mirror

  nlpmeta data check train.csv test.csv

  nlpmeta data check train.csv --model my-model
"""

_app = typer.Typer(no_args_is_help=True, epilog=EXAMPLES, help="List, explain, export and check data sets.")

_WRAP = 12  # languages that a line of facts lists before it only counts them
_Config = Annotated[str | None, typer.Option(help="Configuration of a data set of the Hub.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(_app, name="data")


@_app.command("list", epilog=EXAMPLES)
def list_sets(*, data_dir: DataFolder = None, json: AsJson = False) -> None:
    """Print every named data set: its languages, classes, licence, and where it would be read from."""
    from nlpmeta.cli.console import out, out_json, out_table
    from nlpmeta.sources.loading import overviews

    found = overviews(data_dir)
    if json:
        out_json([each.as_json() for each in found])
        return
    rows = [
        (each.facts.name, _number(len(each.languages)), _number(each.n_labels), each.task, _short(each.read_from))
        for each in found
    ]
    out_table(("name", "langs", "classes", "what", "read from"), rows)
    out("Licence, citation and notes: nlpmeta data show NAME")


@_app.command("show", epilog=EXAMPLES)
def show(
    name: Annotated[str, typer.Argument(help="Name in the catalogue, file, or Hub id.")],
    *,
    lang: Annotated[str | None, typer.Option(help="Only this language, in any spelling.")] = None,
    data_dir: DataFolder = None,
    config: _Config = None,
    json: AsJson = False,
) -> None:
    """Print licence, citation, notes, languages, labels, and the number of texts of each split.

    Texts are counted where that needs no download: in a mirror folder, a file, or an installed package.
    """
    from nlpmeta.cli.console import out_json, show_yields
    from nlpmeta.progress import track
    from nlpmeta.sources.home_assistant import HomeAssistantIntents
    from nlpmeta.sources.loading import counted, open_if_possible, overview

    source = open_if_possible(name, data_dir=data_dir, config=config)
    facts, parts, yields = overview(name, source), [], []
    if isinstance(source, HomeAssistantIntents):
        langs = source.languages() if lang is None else (source.spelling(lang),)
        with track("Expanding templates", len(langs), show=not json) as advance:
            for each in langs:
                yields.append(source.yields(each))
                advance(1)
    elif source is not None and facts.is_local:
        parts = counted(source, lang)
    if json:
        out_json(facts.as_json() | {"counts": parts, "yields": yields})
        return
    _show_facts(facts)
    show_yields(yields)
    _show_counts(parts)


@_app.command("export", epilog=EXAMPLES)
def export(
    name: Annotated[str, typer.Argument(help="Name in the catalogue, file, or Hub id.")],
    *,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .tsv, .jsonl or .parquet.")],
    lang: Annotated[str | None, typer.Option(help="Only this language, in any spelling.")] = None,
    split: Annotated[str, typer.Option(help="The split to write.")] = "train",
    data_dir: DataFolder = None,
    config: _Config = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    json: AsJson = False,
) -> None:
    """Write one split as a table that every command reads: text, label, and all other columns.

    The licence of the data set holds for the file too; it is printed.
    """
    from nlpmeta.cli.console import out as print_line
    from nlpmeta.cli.console import out_json, say
    from nlpmeta.sources.loading import load_source
    from nlpmeta.sources.tables import check_target
    from nlpmeta.sources.tables import export as write

    check_target(out, overwrite=overwrite)
    source = load_source(name, data_dir=data_dir, config=config)
    texts = source.load(lang, split)
    write(texts, out, overwrite=overwrite)
    say(f"Licence: {source.facts.licence}. Cite: {source.facts.citation}")
    if json:
        out_json({"file": str(out), "texts": len(texts), "classes": texts.n_way, "licence": source.facts.licence})
    else:
        print_line(f"{out}: {len(texts)} texts in {texts.n_way} classes")


@_app.command("check", epilog=EXAMPLES)
def check(
    name: Annotated[str, typer.Argument(help="Name in the catalogue, file, or Hub id.")],
    others: Annotated[list[str] | None, typer.Argument(help="More of them, to compare with.")] = None,
    *,
    lang: Annotated[str | None, typer.Option(help="Only this language, in any spelling.")] = None,
    data_dir: DataFolder = None,
    config: _Config = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_separator: LabelSeparator = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    few: Annotated[int, typer.Option(help="List classes with fewer distinct texts than this.", min=1)] = 5,
    model: Annotated[str | None, typer.Option(help="Adapted model: rank labels that look wrong.")] = None,
    json: AsJson = False,
) -> None:
    """Count repeated texts within and across splits, texts under several labels, tiny classes, and split translations.

    Texts are compared as they stand (exact) and after normalisation of case, digits and white space. The first line of
    each kind is named (the first row, where the data has no lines), and rows that cannot be read are counted.

    With --model the examples of one file are ranked by how improbable their label is when they are held out, by the
    method of that model; examples with a wrong label tend to come first. --json lists all of them.
    """
    from dataclasses import asdict

    from nlpmeta.cli.console import out_json, out_suspects
    from nlpmeta.errors import collected_warnings
    from nlpmeta.sources.form import TableForm
    from nlpmeta.sources.inspection import inspect_parts, parts_of
    from nlpmeta.sources.loading import load_source, views_of

    parts, form = (
        [],
        TableForm(delimiter=delimiter, encoding=encoding, header=not no_header, label_separator=label_separator),
    )
    names = [name, *(others or ())]
    with collected_warnings() as notes:
        for each in names:
            source = load_source(
                each, data_dir=data_dir, config=config, text_column=text_column, label_column=label_column, form=form
            )
            wanted = lang if source.languages() else None
            parts += parts_of(source, lang=wanted, without=views_of(each), named=each if len(names) > 1 else "")
    report = inspect_parts(parts, few=few)
    suspects = None if model is None else _suspects(model, parts)
    if json:
        more = {} if suspects is None else {"suspects": suspects}
        out_json(asdict(report) | {"clean": report.is_clean, "notes": notes} | more)
        return
    _show_report(report)
    if suspects is not None:
        out_suspects(suspects, "line" if parts[0].texts.lines else "row")


def _suspects(model: str, parts: "Sequence[Part]") -> "list[dict[str, object]]":
    """The examples of one part as ``FewShotClassifier.suspects`` ranks them, with their lines.

    Raises:
        NLPMetaError: if there are several parts, texts have several labels, or nothing can be held out.
    """
    from dataclasses import asdict

    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.errors import NLPMetaError

    if len(parts) != 1:
        raise NLPMetaError(f"--model goes with one file, one language and one split; there are {len(parts)} parts.")
    texts = parts[0].texts
    if texts.several:
        raise NLPMetaError("--model needs one label per text; texts of this file have several.")
    found = FewShotClassifier.from_pretrained(model).suspects(list(texts.texts), texts.names())
    lines = range(1, len(texts) + 1) if texts.lines is None else [int(line) for line in texts.lines]
    return [asdict(each) | {"line": lines[each.row]} for each in found]


def _show_facts(facts: "Overview") -> None:
    """A title and a line a fact."""
    from nlpmeta.cli.console import out, out_facts, printable

    out(printable(facts.facts.title))
    langs = facts.languages
    listed = (
        f"{len(langs)}: {', '.join(langs[:_WRAP])}{', …' * (len(langs) > _WRAP)}" if langs else "only the data says"
    )
    labels = ", ".join(facts.labels) or "only the data says"
    out_facts(
        {
            "task": facts.task,
            "licence": facts.facts.licence,
            "citation": facts.facts.citation,
            "notes": facts.facts.notes,
            "read from": facts.read_from,
            "languages": listed,
            "splits": ", ".join(facts.splits),
            "labels": f"{facts.n_labels}: {labels}" if facts.n_labels else labels,
        }
    )


def _show_counts(parts: "Sequence[Count]") -> None:
    """Texts and classes of every split of every language."""
    from nlpmeta.cli.console import out_table

    if parts:
        rows = [(part.lang or "-", part.split, str(part.texts), str(part.classes)) for part in parts]
        out_table(("language", "split", "texts", "classes"), rows)


def _show_report(report: "DataReport") -> None:
    """Counts of every part, then what is in two parts, then what to make of it."""
    from nlpmeta.cli.console import first_rows, out, out_table, printable

    rows = [
        (
            part.name,
            *map(str, (part.texts, part.classes, part.exact, part.normalised, part.conflicting)),
            str(len(part.small_classes)),
        )
        for part in report.parts
    ]
    small = f"classes < {report.few}"
    out_table(("part", "texts", "classes", "repeats", "normalised", "several labels", small), rows)
    shared = [each for each in report.overlaps if each.normalised]
    if shared:
        rows_of_pairs = [
            (each.second, each.first, str(each.exact), str(each.normalised), str(each.label_differs)) for each in shared
        ]
        out_table(("texts of", "also in", "exact", "normalised", "other label"), rows_of_pairs)
    if report.split_ids is not None and report.split_ids.count:
        torn = report.split_ids
        out(f"Ids in different splits in different languages: {torn.count}, such as {', '.join(torn.examples)}.")
    for part in report.parts:
        if part.small_classes:
            listed = ", ".join(f"{name} ({count})" for name, count in list(part.small_classes.items())[:10])
            out(printable(f"{part.name}: fewer than {report.few} distinct texts: {listed}"))
        for said in part.one_but_for_case:
            out(printable(f"{part.name}: {said}"))
    for line in first_rows(report):
        out(printable(line))
    out(_verdict(report))


def _verdict(report: "DataReport") -> str:
    across = sum(each.normalised for each in report.overlaps)
    within = sum(part.normalised for part in report.parts)
    if report.is_clean:
        return "No text is repeated, in two parts, or under several labels."
    return f"{within} repeats within parts, {across} across parts (normalised)."


def _number(count: int | None) -> str:
    return str(count) if count else "?"


def _short(read_from: str) -> str:
    return read_from.removeprefix("the ").partition(" at ")[0].partition(" folder /")[0]
