"""Writes docs/cli.md from the commands themselves: what --help says of each.

python docs/make_cli.py            # make docs
python docs/make_cli.py --check    # exit code 1 if the file is not what it would write
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from nlpmeta.cli import app

PAGE = Path(__file__).parent / "cli.md"
HEAD = """# Command line

Written from the commands by `docs/make_cli.py`; `nlpmeta COMMAND --help` says the same. Exit codes: 0 done, 1 the work
failed, 2 bad usage. `nlpmeta --install-completion` sets up tab completion.
"""

SHARED = {
    "--data": "the data: a table, the name of a corpus or data set, or a Hub id; several for `bench`",
    "--test-data": "score on this instead",
    "--data-dir": "a folder with copies of public data sets",
    "--config": "the configuration of a data set of the Hub",
    "--split": "which split of a data set",
    "--lang": "languages, in any spelling: `sw`, `swa`, `swh_Latn`, Swahili; several where a command takes several",
    "--text-column": "column of a table, where it is not obvious",
    "--label-column": "column of a table, where it is not obvious",
    "--lang-column": "column of a table, where it is not obvious",
    "--label-separator": "separator between the labels of a text that has several",
    "--delimiter": "format of a table, where it is not detected",
    "--encoding": "format of a table, where it is not detected",
    "--no-header": "format of a table, where it is not detected",
    "--keep": "columns of the input table to keep in the output",
    "--descriptions": "a table of class descriptions",
    "--class-prior": "how often classes will occur ([what it changes](adaptation.md#how-often-classes-occur))",
    "--shots": "examples of each class; 0 for the names alone; `all` for `adapt`, several numbers for the others",
    "--ways": "how many classes: a number, `all` for `evaluate` too",
    "--draws": "how many support sets are drawn",
    "--seed": "random seed of all draws",
    "--max-query": "maximum number of query texts",
    "--method": "adaptation method",
    "--encoder": "a folder or Hub id ([another encoder](guides/other-encoder.md))",
    "--pooling": "`mean`, `cls` or `last`",
    "--prefix": "prefix of every text",
    "--checkpoint": "what adaptation starts from: `default`, `none`, or a folder",
    "--max-length": "maximum length of a text in tokens",
    "--device": "where the encoder runs",
    "--engine": "the runtime that computes embeddings: PyTorch or ONNX Runtime",
    "--revision": "a branch, tag or commit of the Hub",
    "--file": "texts to label, one per line or a column of a table",
    "--top": "number of labels per text",
    "--out": "where results go: a file or folder",
    "--overwrite": "replace an existing file or folder",
    "--include-support": "save or publish the examples with the model",
    "--json": "print one JSON object, or one per text where texts are labelled",
    "--quiet": "no notes and no progress",
}
"""What options mean that several commands have, the same in all of them."""


def main() -> int:
    """Write the page, or compare it with the file."""
    top = typer.main.get_command(app)
    every = list(commands(top, typer.Context(top, info_name="nlpmeta")))
    content = HEAD + shared(every) + "".join(map(entry, every))
    if "--check" in sys.argv[1:]:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == content
        if not same:
            sys.stdout.write("docs/cli.md is not what the commands say; write it again with: make docs\n")
        return 0 if same else 1
    PAGE.write_text(content, encoding="utf-8")
    return 0


def commands(command: TyperCommand | TyperGroup, context: typer.Context) -> Iterator[typer.Context]:
    """The context of every command that is not a group, in the order of ``--help``."""
    if not isinstance(command, TyperGroup):
        yield context
        return
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None and not found.hidden:
            yield from commands(found, typer.Context(found, info_name=name, parent=context))


def shared(every: list[typer.Context]) -> str:
    """The options that several commands have, what they mean, and which commands have them."""
    rows = []
    for name, meaning in SHARED.items():
        having = [each.command_path.removeprefix("nlpmeta ") for each in every if name in options(each)]
        rows.append(f"| `{name}` | {meaning} | {', '.join(having)} |")
    head = ["", "## Options that mean the same everywhere", "", "| option | what it is | commands |", "|---|---|---|"]
    return "\n".join([*head, *rows]) + "\n"


def options(context: typer.Context) -> set[str]:
    """The names of the options of a command."""
    return {name for each in context.command.params for name in (*each.opts, *each.secondary_opts) if name[:2] == "--"}


def entry(context: typer.Context) -> str:
    """One command: what it does, its arguments and options, and examples."""
    command = context.command
    usage = " ".join(["nlpmeta", *context.command_path.split()[1:], *command.collect_usage_pieces(context)])
    rows = [row for row in map(parameter, command.params) if row]
    parts = [f"\n## {context.command_path}\n", f"```text\n{usage}\n```\n", prose(command.help), table(rows)]
    if command.epilog:
        examples = [line for line in inspect.cleandoc(command.epilog).removeprefix("Examples:").splitlines() if line]
        parts.append("```text\n" + "\n".join(line.strip() for line in examples) + "\n```\n")
    return "\n".join(part for part in parts if part)


def prose(text: str | None) -> str:
    """Paragraphs, each on one line."""
    return "\n\n".join(" ".join(each.split()) for each in inspect.cleandoc(text or "").split("\n\n")) + "\n"


def parameter(given: TyperArgument | TyperOption) -> tuple[str, str, str] | None:
    """Name, what it is, and its default; ``None`` for what every command has."""
    if getattr(given, "hidden", False) or given.name == "help":
        return None
    help_text = " ".join((getattr(given, "help", None) or "").split())
    if isinstance(given, TyperArgument):
        name = (given.metavar or given.name or "").upper()
        return f"`{name}`", help_text, ""
    names = ", ".join(f"`{name}`" for name in given.opts)
    value = getattr(given.default, "value", given.default)  # of a choice
    plain = value if isinstance(value, str | int | float) and value is not False else ""
    return names, help_text, f"`{plain}`" if plain != "" else ""


def table(rows: list[tuple[str, str, str]]) -> str:
    """The rows as Markdown; nothing without rows."""
    if not rows:
        return ""
    cells = [tuple(cell.replace("|", "\\|").replace("<", "&lt;") for cell in row) for row in rows]
    return "\n".join(["| | | default |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in cells)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
