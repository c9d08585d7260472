"""``nlpmeta info``: what a model folder holds."""

from collections.abc import Mapping
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
    from nlpmeta.sharing import find_model
    from nlpmeta.storage.hub_download import Fetching
    from nlpmeta.storage.manifest import describe

    facts = describe(find_model(model, Fetching(revision)))
    if json:
        out_json(facts)
    else:
        shown = {name.replace("_", " "): _said(value) for name, value in facts.items() if value is not None}
        described = facts.get("descriptions")
        if isinstance(described, dict):
            shown["descriptions"] = "; ".join(f"{name}: {_listed(texts)}" for name, texts in described.items())
        if isinstance(taught := facts.get("taught"), dict):
            shown["taught"] = _taught(taught)
        out_facts(shown)


def _listed(texts: "Json") -> str:
    return " | ".join(map(str, texts)) if isinstance(texts, list) else str(texts)


def _taught(taught: "Mapping[str, Json]") -> str:
    """What a model was taught after it was made, and the accuracy since; figures from before hold no longer."""
    from nlpmeta.cli.console import percent

    n_new, held = taught["examples"], taught["cross_validation"]
    some = f"{n_new} {'example' if n_new == 1 else 'examples'}" if n_new else "descriptions of classes"
    said = f"{some} since the model was made and measured"
    accuracy = held.get("accuracy") if isinstance(held, dict) else None
    if not isinstance(held, dict) or not isinstance(accuracy, float):
        return f"{said}; what it reaches now: nlpmeta score"
    return f"{said}; cross-validated accuracy since: {percent(accuracy)} % ({held.get('right')} of {held.get('n')})"


def _said(value: "Json") -> str:
    """A list with its length, a measured share in percent, anything else as it is; nothing of an empty list."""
    if value == []:
        return ""
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
