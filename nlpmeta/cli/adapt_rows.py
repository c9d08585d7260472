"""What ``nlpmeta adapt`` says of rows that are not simply examples: skipped, repeated, in the test data too."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nlpmeta.errors import DataWarning

if TYPE_CHECKING:
    from nlpmeta.files import Json
    from nlpmeta.sampling.accounts import Account


@contextmanager
def heard() -> Iterator[list[str]]:
    """Collect what is said of rows that are passed over while data is read; it is passed on when the block ends."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        try:
            yield said
        finally:
            found = list(caught)
            said.extend(str(each.message) for each in found if issubclass(each.category, DataWarning))
    for each in found:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def row_report(accounts: "list[Account]", notes: list[str]) -> "dict[str, Json]":
    """The same for the report: sentences, and counts with the line of the first row where they are known."""
    return {"rows": [account.json() for account in accounts], "notes": [*notes, *map(str, accounts)]}
