"""The published folds with disjoint classes, on which few-shot intent detection is compared.

Source: Dopierre, Gravier and Logerais, ProtAugment, ACL 2021 (arXiv:2105.12995), section 4: five random partitions of
the classes of each data set into training, validation and test classes.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from nlpmeta.errors import DataError
from nlpmeta.files import inside, read_text
from nlpmeta.sources.catalogue import DATA_DIR, catalogue, catalogue_entry, mirror_folder

POOL_SPLIT = "protaugment"
"""The split that holds all texts of the classes of a fold, in every data set that has folds."""


@dataclass(frozen=True)
class LabelFold:
    """One partition of the classes: label names to train on, to choose by, and to score on.

    Raises:
        DataError: if a part is empty or a class is in two of them.
    """

    name: str
    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self) -> None:
        every = [*self.train, *self.valid, *self.test]
        if not (self.train and self.valid and self.test) or len(set(every)) != len(every):
            raise DataError(f"Fold {self.name}: train, valid and test must each have classes and share none.")


def folds(name: str, data_dir: Path | str | None = None) -> tuple[LabelFold, ...]:
    """The published folds of banking77, clinc150, hwu64 or liu; their texts are the split ``POOL_SPLIT``.

    Raises:
        UnknownNameError: if the catalogue has no such data set.
        DataError: if it has no folds, or the mirror folder is missing or does not hold them.
    """
    place = catalogue_entry(name).mirror
    if place is None or place.folds is None:
        having = sorted(each for each, entry in catalogue().items() if entry.mirror and entry.mirror.folds)
        raise DataError(f"{name} has no published folds; these have: {', '.join(having)}.")
    folder = mirror_folder(data_dir)
    if folder is None:
        raise DataError(f"The folds of {name} are read from a mirror folder; name it with --data-dir or {DATA_DIR}.")
    path = inside(folder, place.folds)
    if not path.is_file():
        raise DataError(f"The mirror folder {folder} does not hold the folds of {name}; they would be {path}.")
    try:
        parts = json.loads(read_text(path))
        return tuple(
            LabelFold(key, *(tuple(each[part]) for part in ("train", "valid", "test"))) for key, each in parts.items()
        )
    except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is not a table of folds with train, valid and test classes ({error!r}).") from error
