"""The page that people read, from a template that knows only facts."""

from pathlib import Path

from nlpmeta.card.facts import CardFacts, DataFacts, Measurement
from nlpmeta.card.metadata import metadata
from nlpmeta.files import read_text

TEMPLATE = Path(__file__).parent / "template.md"
_MANY_LABELS = 200


def card(facts: CardFacts, name: str) -> str:
    """The content of ``README.md`` for the repository ``name``. Words of others are shown as text, never as markup."""
    from huggingface_hub import ModelCard

    measured = facts.measured
    page = ModelCard.from_template(
        metadata(facts, name),
        template_str=read_text(TEMPLATE),
        name=name,
        version=facts.version,
        method=facts.method,
        encoder=facts.encoder,
        labels=facts.labels,
        labels_said=_labels(facts.labels),
        n_support=facts.n_support,
        size=f"{facts.bytes / 1e6:.1f} MB" if facts.bytes >= 100_000 else f"{facts.bytes / 1e3:.0f} kB",
        has_adapter="adapter_config.json" in facts.files,
        has_picture=facts.has_picture,
        measured=measured,
        how_measured="" if measured is None else _how(measured),
        calibration=None if measured is None else _calibration(measured),
        confused="" if measured is None else _confused(measured),
        curve_table="" if measured is None else _curve_table(measured),
        support_said=_support(facts),
        start_said=_start(facts),
        not_tested=_not_tested(facts),
        mismatch=[plain(line) for line in facts.mismatch],
        licence_said=_licence(facts),
        data_sets=[_data(each) for each in dict.fromkeys((facts.data, *facts.trained_on)) if each is not None],
    )
    return str(page)


def plain(text: str) -> str:
    """``text`` on one line such that Markdown and HTML show it as it is, control characters made visible."""
    visible = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|~!$" else c for c in visible.replace("&", "&amp;"))


def _labels(labels: tuple[str, ...]) -> str:
    shown = ", ".join(plain(label) for label in labels[:_MANY_LABELS])
    return shown + (f" and {len(labels) - _MANY_LABELS} more" if len(labels) > _MANY_LABELS else "")


def _how(measured: Measurement) -> str:
    shots = f"with {measured.n_shot or 'all'} examples of each class"
    return f"{shots} of {plain(measured.data.title)}, scored on {plain(measured.scored_on)} ({plain(measured.scored)})"


def _calibration(measured: Measurement) -> str | None:
    if measured.calibration_error is None:
        return None
    points = 100 * measured.calibration_error
    return f"confidence and accuracy are {points:.1f} points apart on average (expected calibration error, 15 bins)."


def _curve_table(measured: Measurement) -> str:
    rows = [("shots", [str(shots) for shots, _ in measured.curve])]
    rows.append(("accuracy, %", [score.said() for _, score in measured.curve]))
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join([lines[0], "|---" * (len(measured.curve) + 1) + "|", lines[1]])


def _confused(measured: Measurement) -> str:
    return ", ".join(f"{plain(true)} → {plain(guess)} ({times})" for true, guess, times in measured.confused)


def _support(facts: CardFacts) -> str:
    where = f"of {plain(facts.data.title)}" if facts.data else "of the author's own data"
    count = f"{facts.n_support} texts " if facts.n_support else "texts "
    return f"{count}{where}; they are {'part of this repository' if facts.support_is_published else 'not published'}."


def _start(facts: CardFacts) -> str:
    if not facts.trained_on:
        return "The encoder was not meta-trained for it: it is used as it was pretrained."
    sets = ", ".join(plain(each.title) for each in facts.trained_on)
    out = f" (without the languages {', '.join(facts.held_out_languages)})" if facts.held_out_languages else ""
    return f"The adapters of the encoder were meta-trained on {sets}{out}."


def _not_tested(facts: CardFacts) -> str:
    if facts.measured is None:
        return "on anything."
    langs = f"languages other than {', '.join(facts.languages)}" if facts.languages else "texts in any one language"
    return (
        f"{langs}; topics and kinds of texts other than those of {plain(facts.measured.data.title)}; "
        "texts that belong to none of the classes (one of the classes is always given)."
    )


def _licence(facts: CardFacts) -> str:
    if facts.licence is None:
        return "The author stated none for the model. The data behind it has licences of its own:"
    return f"The model: {facts.licence}. The data behind it has licences of its own:"


def _data(data: DataFacts) -> str:
    place = f" ([{plain(data.hub_id)}](https://huggingface.co/datasets/{data.hub_id}))" if data.hub_id else ""
    return f"{plain(data.title)}{place}: {plain(data.licence)}. {plain(data.citation)}"
