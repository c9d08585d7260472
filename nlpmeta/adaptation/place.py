"""Where ``adapt`` puts a model when the user does not say, without ever losing what was there."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nlpmeta.errors import NLPMetaError

HOME = Path("nlpmeta-models")


@dataclass(frozen=True)
class Place:
    """A folder for a model and whether what stands there may be replaced."""

    folder: Path
    replace: bool


def choose_place(out: Path | None, *, name: str, task: Mapping[str, object], overwrite: bool) -> Place:
    """The folder asked for, else ``nlpmeta-models/NAME``, numbered where another model has that name.

    A folder that was not asked for by name is replaced only if it holds the model of the very same ``task``: the same
    command makes the same model again.

    Raises:
        NLPMetaError: if ``out`` exists and ``overwrite`` is off; raised before any work is done.
    """
    if out is not None:
        if out.exists() and not overwrite and (out.is_file() or any(out.iterdir())):
            advice = "Pass --overwrite to replace it, or choose another --out."
            raise NLPMetaError(f"{out} exists and was kept as it is. {advice}")
        return Place(out, overwrite)
    base = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    number = 1
    while True:
        folder = HOME / (base if number == 1 else f"{base}-{number}")
        if not folder.exists():
            return Place(folder, replace=False)
        if _task_of(folder) == task:
            return Place(folder, replace=True)
        number += 1


def _task_of(folder: Path) -> object:
    try:
        return json.loads((folder / "report.json").read_text(encoding="utf-8"))["task"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
