"""Where ``adapt`` puts a model when the user does not say, without ever losing what was there."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from nlpmeta.errors import NLPMetaError
from nlpmeta.files import Json, read_json
from nlpmeta.folders import check_new_folder, foreign_entry
from nlpmeta.manifest import mapping

HOME = Path("nlpmeta-models")


@dataclass(frozen=True)
class Place:
    """A folder for a model and whether what stands there may be replaced."""

    folder: Path
    replace: bool


def choose_place(out: Path | None, *, name: str, task: Mapping[str, object], overwrite: bool) -> Place:
    """The folder asked for, else ``nlpmeta-models/NAME``, numbered where another model has that name.

    A folder that was not asked for by name is replaced only if it holds the model of the very same ``task`` and nothing
    else: the same command makes the same model again.

    Raises:
        NLPMetaError: if no model can be written at ``out``, or what is there may not be replaced; raised before any
            work is done.
        WorkFailedError: if the operating system allows no folder there.
    """
    if out is not None:
        check_new_folder(out, overwrite=overwrite)
        return Place(out, overwrite)
    base = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    number = 1
    while True:
        folder = HOME / (base if number == 1 else f"{base}-{number}")
        if not os.path.lexists(folder):
            check_new_folder(folder)
            return Place(folder, replace=False)
        if _task_of(folder) == task and foreign_entry(folder) is None:
            return Place(folder, replace=True)
        number += 1


def _task_of(folder: Path) -> object:
    try:
        return mapping(cast("Json", read_json(folder / "report.json"))).get("task")
    except (NLPMetaError, TypeError):
        return None
