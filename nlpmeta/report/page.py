"""One HTML page of pictures and tables that asks nobody for anything: no script, no font, no image from elsewhere."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from nlpmeta.bench.store import Store
from nlpmeta.bench.summary import Group
from nlpmeta.files import read_text
from nlpmeta.report.drawing import COLOURS, DARK, Picture

_HEADERS = (
    *("task", "shots", "method", "draws", "accuracy, %", "macro-F1, %", "calibration error, %", "adaptation, s"),
    *("predictions/s", "peak memory, MB", "to keep, MB"),
)


def page(store: Store, groups: Sequence[Group], pictures: Sequence[Picture], *, title: str) -> str:
    """The whole page."""
    links = "".join(f'<a href="#{_id(each)}">{escape(each.title)}</a>' for each in pictures)
    body = "\n".join(_figure(each) for each in pictures)
    table = f"<h2>All figures</h2>\n{_table(groups)}" if groups else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{_css()}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p>{escape(_said(store, groups))}</p>
<nav aria-label="Pictures">{links}</nav>
{body}
{table}
</main>
</body>
</html>
"""


def _said(store: Store, groups: Sequence[Group]) -> str:
    """In words: what was compared, and on what machine."""
    lines = store.lines()
    methods = len(dict.fromkeys(group.method for group in groups))
    tasks = len(dict.fromkeys((group.task.data, group.task.lang) for group in groups))
    cores = sorted({f"{line.setting['threads']} threads on {line.setting['cores']} cores" for line in lines})
    versions = sorted({f"{line.setting['package']} {line.setting['version']}" for line in lines})
    what = f"{methods} methods on {tasks} data sets, the same support sets, queries and encoder weights for all. "
    intro = what if groups else ""
    return f"{intro}{len(lines)} support sets were adapted to. Run with {', '.join(cores)}; {', '.join(versions)}."


def _figure(each: Picture) -> str:
    svg = (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(each.title, quote=True)}">{each.svg}</div>'
    )
    return (
        f'<section id="{_id(each)}"><h2>{escape(each.title)}</h2>\n<figure>{svg if each.wide else each.svg}'
        f"<figcaption>{escape(each.caption)}</figcaption></figure></section>"
    )


def _table(groups: Sequence[Group]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEADERS)
    rows = "\n".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in group.cells())}</tr>" for group in groups)
    return (
        '<div class="scroll" tabindex="0" role="group" aria-label="All figures"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
    )


def _css() -> str:
    style = read_text(Path(__file__).with_name("page.css"))
    for word, colours in (("LIGHT", COLOURS), ("DARK", DARK)):
        style = style.replace(word, " ".join(f"--c{i}: {colour};" for i, colour in enumerate(colours)))
    return style


def _id(each: Picture) -> str:
    return escape(f"picture-{each.name}", quote=True)
