"""``nlpmeta info``: what an adapted model is and how good it was when it was made."""

from typing import TYPE_CHECKING, Annotated

import typer

from nlpmeta.cli.process import AsJson

if TYPE_CHECKING:
    from nlpmeta.storage.files import Json

EXAMPLES = """Examples:

  nlpmeta info my-model

  nlpmeta info my-model --json
"""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command(epilog=EXAMPLES)(info)


def info(
    model: Annotated[str, typer.Argument(help="Folder of an adapted model, or user/name on the Hub.")],
    *,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the Hub.")] = None,
    json: AsJson = False,
) -> None:
    """Print what a model folder holds, after checking that it is whole. The encoder is not loaded."""
    from nlpmeta.cli.console import out_facts, out_json
    from nlpmeta.sharing.share import find_model
    from nlpmeta.storage.hub_download import Fetching
    from nlpmeta.storage.manifest import describe

    facts = describe(find_model(model, Fetching(revision)))
    if json:
        out_json(facts)
    else:
        out_facts({name.replace("_", " "): _said(value) for name, value in facts.items() if value is not None})


def _said(value: "Json") -> str:
    """A list with its length, a measured share in percent, anything else as it is."""
    if isinstance(value, list):
        return f"{len(value)}: {', '.join(map(str, value))}"
    if isinstance(value, dict) and "n_bytes" in value:
        rows = f"{value['bytes_per_row']} bytes a row ({value['rows_in_use']} of {value['n_rows']} in use), "
        classes = f"{value['bytes_per_class']} bytes a class ({value['n_way']} of {value['max_way']})"
        return f"{value['n_bytes']:,} bytes: {rows if value['n_rows'] else ''}{classes}"
    if isinstance(value, dict):
        mean, half = value.get("mean"), value.get("ci95")
        if not isinstance(mean, float):
            return "not measured"
        low, high = value.get("low"), value.get("high")
        if isinstance(low, float) and isinstance(high, float):
            return f"{100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
        return f"{100 * mean:.1f} %" + (f" ± {100 * half:.1f}" if isinstance(half, float) else "")
    return f"{100 * value:.1f} %" if isinstance(value, float) else str(value)
