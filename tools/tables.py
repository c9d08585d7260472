"""Writes the tables of the pages that come from rows in results/, or checks them: figures are copied by no hand.

python tools/tables.py              # write them all
python tools/tables.py wide curves  # some of them
python tools/tables.py --check      # exit code 1 if a page says something else

A table is found in its page by its heading, the first line. README.md's has its own tool (readme_table.py), and that of
other packages is written by ``nlpmeta report``.
"""

import argparse
import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import auto_summary  # noqa: E402  # the benchmarks are scripts beside one another, not a package
import class_prior  # noqa: E402
import curves_shown  # noqa: E402
import multilabel  # noqa: E402
import names  # noqa: E402
import table as meta  # noqa: E402
import wide  # noqa: E402

from nlpmeta.storage.files import read_text, write_text  # noqa: E402

RESULTS, DOCS = ROOT / "results", ROOT / "docs"


def printed(show: Callable[[], None]) -> list[str]:
    """The tables among what ``show`` prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        show()
    blocks = said.getvalue().split("\n\n")
    return [block.strip() for block in blocks if block.lstrip().startswith("|")]


def facts_of(name: str) -> dict[str, Any]:
    """What a benchmark has left."""
    found: dict[str, Any] = json.loads(read_text(RESULTS / f"{name}.json"))
    return found


def rows_of(name: str) -> list[dict[str, object]]:
    """The rows of what it has left."""
    found: list[dict[str, object]] = facts_of(name)["rows"]
    return found


TABLES: dict[str, tuple[tuple[str, ...], Callable[[], Sequence[str]]]] = {
    "meta": (("results.md", "evaluation.md", "evaluation.md"), lambda: printed(lambda: meta.show(rows_of("meta")))),
    "auto": (("adaptation.md", "adaptation.md"), lambda: printed(lambda: auto_summary.show(facts_of("auto")))),
    "class_prior": (("adaptation.md",), lambda: (class_prior.table(rows_of("class_prior")),)),
    "curves": (("guides/many-examples.md",) * 3, lambda: curves_shown.tables(rows_of("curves"))),
    "budgets": (("methods.md",), lambda: (curves_shown.budgets(rows_of("curves")),)),
    "names": (("results.md", "results.md"), lambda: names.tables(rows_of("names"))),
    "multilabel": (("evaluation.md",), lambda: (multilabel.table(rows_of("multilabel")),)),
    "wide": (("results.md",), lambda: (wide.by_kind(rows_of("wide")),)),
}
"""The pages that have the tables of a benchmark, and how these are made, in the order of the pages."""


def with_table(page: str, table: str) -> str:
    """``page`` with ``table`` in place of the one with the same heading.

    Raises:
        ValueError: if there is none, or more than one.
    """
    heading, lines = table.split("\n", 1)[0], page.split("\n")
    found = [i for i, line in enumerate(lines) if line == heading]
    if len(found) != 1:
        raise ValueError(f"{len(found)} tables begin with: {heading}")
    end = found[0]
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    return "\n".join([*lines[: found[0]], *table.split("\n"), *lines[end:]])


def differing(names: list[str]) -> Iterator[tuple[Path, str]]:
    """The pages that say something else than the rows do, and what they should say."""
    pages: dict[Path, str] = {}
    for name in names:
        places, make = TABLES[name]
        for place, table in zip(places, make(), strict=True):
            path = DOCS / place
            pages[path] = with_table(pages.get(path) or read_text(path), table)
    return ((path, text) for path, text in pages.items() if text != read_text(path))


def main() -> int:
    """Write or check; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *TABLES], help=f"{', '.join(TABLES)}; all by default")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    wrong = list(differing(asked.names or list(TABLES)))
    for path, text in wrong:
        print(f"{path.relative_to(ROOT)} {'differs' if asked.check else 'written'}")
        if not asked.check:
            write_text(path, text)
    return 1 if asked.check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
