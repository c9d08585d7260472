"""From a folder of results to pictures and the page."""

import re
from pathlib import Path

from nlpmeta.bench.scaling import series_of
from nlpmeta.bench.store import Store
from nlpmeta.bench.summary import Group, groups_of
from nlpmeta.errors import DataError
from nlpmeta.files import write_text
from nlpmeta.report.comparison import accuracy_against_time, languages, learning_curves, reliability
from nlpmeta.report.confusion import confusion
from nlpmeta.report.drawing import Picture, check_matplotlib
from nlpmeta.report.page import page
from nlpmeta.report.spaces import embedding_map, scaling

PAGE_FILE, PICTURES_FOLDER = "report.html", "pictures"


def make_report(folder: Path, *, title: str = "Benchmark") -> Path:
    """Write ``report.html`` and ``pictures/*.png`` into a folder of results; the path of the page.

    Raises:
        NLPMetaError: if matplotlib is not installed.
        DataError: if the folder holds no results.
        WorkFailedError: if the disk does not allow the write.
    """
    check_matplotlib()
    store = Store(folder)
    if not store.lines():
        raise DataError(f"There are no results in {folder}; make some: nlpmeta bench --out {folder}.")
    groups = groups_of(store.lines())
    pictures = pictures_of(store, groups)
    for each in pictures:
        each.write(folder / PICTURES_FOLDER)
    write_text(folder / PAGE_FILE, page(store, groups, pictures, title=title))
    return folder / PAGE_FILE


def pictures_of(store: Store, groups: list[Group]) -> list[Picture]:
    """Every picture that the results give; those that they do not give are left out."""
    found: list[Picture | None] = []
    if groups:
        found += [learning_curves(groups), accuracy_against_time(groups), *languages(groups), reliability(groups)]
    found += [embedding_map(each, name=_name("map", each.title, each.method)) for each in store.maps()]
    found.append(scaling(series_of(store.lines())))
    queries = store.query_sets()
    for group in _most_shots(groups):
        found.append(confusion(group, queries, name=_name("confusion", group.task.title, group.method.name)))
    return [each for each in found if each is not None]


def _most_shots(groups: list[Group]) -> list[Group]:
    """For each set the first method at its largest number of shots; a page with every method's would be too long."""
    best: dict[str, Group] = {}
    first = groups[0].method if groups else None
    for group in groups:
        known = best.get(group.task.title)
        if group.method == first and (known is None or group.task.n_shot > known.task.n_shot):
            best[group.task.title] = group
    return list(best.values())


def _name(*parts: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
