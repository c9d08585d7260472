"""``nlpmeta data``: the data sets that have a name, and what is wrong with one's own."""

from pathlib import Path
from typing import Annotated

import typer

from nlpmeta.cli.options import Delimiter, Encoding, LabelColumn, NoHeader, TextColumn

EXAMPLES = """Examples:

  nlpmeta data list

  nlpmeta data show massive --lang sw

  nlpmeta data show home-assistant --json

  nlpmeta data export clinc150 --split oos_test --out oos.csv

  nlpmeta data check massive --lang sw --data-dir mirror

  nlpmeta data check train.csv test.csv
"""

_app = typer.Typer(no_args_is_help=True, epilog=EXAMPLES, help="List, explain, export and check data sets.")

_DataDir = Annotated[
    Path | None,
    typer.Option(help="Mirror folder with copies of public data sets; NLPMETA_DATA_DIR by default."),
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Config = Annotated[str | None, typer.Option(help="Configuration of a data set of the Hub.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(_app, name="data")


@_app.command("list", epilog=EXAMPLES)
def list_sets(*, data_dir: _DataDir = None, json: _Json = False) -> None:
    """Print every data set that has a name: its languages, classes, licence, and where it would be read from."""
    from nlpmeta.cli.console import out_json
    from nlpmeta.cli.data_output import print_list
    from nlpmeta.sources.overview import overviews

    found = overviews(data_dir)
    if json:
        out_json([each.as_json() for each in found])
    else:
        print_list(found)


@_app.command("show", epilog=EXAMPLES)
def show(
    name: Annotated[str, typer.Argument(help="Name in the catalogue, file, or Hub id.")],
    *,
    lang: Annotated[str | None, typer.Option(help="Only this language, in any spelling.")] = None,
    data_dir: _DataDir = None,
    config: _Config = None,
    json: _Json = False,
) -> None:
    """Print licence, citation, notes, languages, labels, and the number of texts of each split.

    Texts are counted where that needs no download: in a mirror folder, a file, or an installed package.
    """
    from dataclasses import asdict

    from nlpmeta.cli.console import out_json
    from nlpmeta.cli.data_output import print_counts, print_facts, print_yields
    from nlpmeta.progress import track
    from nlpmeta.sources.home_assistant import HomeAssistantIntents
    from nlpmeta.sources.overview import counted, open_if_possible, overview

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
        out_json(facts.as_json() | {"counts": [asdict(p) for p in parts], "yields": [asdict(y) for y in yields]})
        return
    print_facts(facts)
    print_yields(yields)
    print_counts(parts)


@_app.command("export", epilog=EXAMPLES)
def export(
    name: Annotated[str, typer.Argument(help="Name in the catalogue, file, or Hub id.")],
    *,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .tsv, .jsonl or .parquet.")],
    lang: Annotated[str | None, typer.Option(help="Only this language, in any spelling.")] = None,
    split: Annotated[str, typer.Option(help="The split to write.")] = "train",
    data_dir: _DataDir = None,
    config: _Config = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    json: _Json = False,
) -> None:
    """Write one split as a table that every command can read again: text, label, and what else there is.

    The licence of the data set holds for the file too; it is printed.
    """
    from nlpmeta.cli.console import out as print_line
    from nlpmeta.cli.console import out_json, say
    from nlpmeta.sources.export import check_target
    from nlpmeta.sources.export import export as write
    from nlpmeta.sources.loading import load_source

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
    data_dir: _DataDir = None,
    config: _Config = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    no_header: NoHeader = False,
    few: Annotated[int, typer.Option(help="List classes with fewer distinct texts than this.", min=1)] = 5,
    json: _Json = False,
) -> None:
    """Count repeated texts within and across splits, texts under several labels, tiny classes, and split translations.

    Texts are compared as they stand (exact) and after normalisation of case, digits and white space.
    """
    from dataclasses import asdict

    from nlpmeta.cli.console import out_json
    from nlpmeta.cli.data_output import print_report
    from nlpmeta.sources.form import TableForm
    from nlpmeta.sources.inspection import inspect_parts, parts_of
    from nlpmeta.sources.loading import load_source
    from nlpmeta.sources.overview import views_of

    parts, form = [], TableForm(delimiter=delimiter, encoding=encoding, header=not no_header)
    names = [name, *(others or ())]
    for each in names:
        source = load_source(
            each, data_dir=data_dir, config=config, text_column=text_column, label_column=label_column, form=form
        )
        wanted = lang if source.languages() else None
        parts += parts_of(source, lang=wanted, without=views_of(each), named=each if len(names) > 1 else "")
    report = inspect_parts(parts, few=few)
    if json:
        out_json(asdict(report) | {"clean": report.is_clean})
    else:
        print_report(report)
