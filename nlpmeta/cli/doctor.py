"""``nlpmeta doctor``: what is installed, what is on disk, and whether it works."""

from typing import Annotated

import typer

from nlpmeta.cli.process import loads_encoder

EXAMPLES = """Examples:

  nlpmeta doctor

  nlpmeta doctor --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(loads_encoder(doctor))


def doctor(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look whether everything is there that is needed; nothing is changed and no network is asked."""
    from nlpmeta.cli.console import out, out_json, printable
    from nlpmeta.doctor import examine

    found = []
    for finding in examine():
        found.append(finding)
        if not json:
            out(printable(f"{finding.verdict:7} {finding.what:12} {finding.said}"))
    failed = [finding.what for finding in found if finding.verdict == "failed"]
    if json:
        out_json({"works": not failed, "findings": found})
    if failed:
        raise typer.Exit(1)
