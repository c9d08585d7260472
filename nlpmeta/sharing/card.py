"""The model card: what it says, as values, and the page that is made of them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from nlpmeta.errors import NLPMetaError
from nlpmeta.storage.files import read_text, write_bytes

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard_data import EvalResult


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """A data set: ``hub_id`` is its name on the Hub, if it is there."""

    name: str
    title: str
    licence: str
    citation: str
    hub_id: str | None = None
    hub_revision: str | None = None


@dataclass(frozen=True)
class Score:
    """A share (fraction of 1) with its 95 % interval: the half-width over draws, or the ends of a share of texts."""

    mean: float
    ci95: float | None = None
    ends: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.mean <= 1:
            raise NLPMetaError(f"A score is a fraction of 1; got {self.mean}.")

    def text(self) -> str:
        """In percent, with the interval."""
        if self.ends is not None:
            return f"{100 * self.mean:.1f} ({100 * self.ends[0]:.1f} to {100 * self.ends[1]:.1f})"
        return f"{100 * self.mean:.1f}" + (f" ± {100 * self.ci95:.1f}" if self.ci95 is not None else "")


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How good the model was on one data set when it was made. ``curve`` has a score for each number of shots.

    ``scored`` says in words how many draws or folds and texts the figures are of; ``few`` that these texts are few.
    """

    data: DataFacts
    split: str | None
    scored_on: str
    accuracy: Score
    macro_f1: Score | None
    n_shot: int | None
    scored: str
    few: str | None
    chance: float | None
    baseline: Score | None
    baseline_name: str | None
    calibration_error: float | None
    confused: tuple[tuple[str, str, int], ...] = ()
    curve: tuple[tuple[int, Score], ...] = ()


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """All that a card says about a model. Languages are the shortest ISO 639 codes; ``example`` is a text to try."""

    kind: str
    method: str
    encoder: str
    encoder_revision: str | None
    version: str
    labels: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    licence: str | None = None
    n_support: int | None = None
    support_is_published: bool = False
    is_taught: bool = False
    data: DataFacts | None = None
    trained_on: tuple[DataFacts, ...] = ()
    held_out_languages: tuple[str, ...] = ()
    measured: Measurement | None = None
    mismatch: tuple[str, ...] = ()
    has_picture: bool = False
    bytes: int = 0
    files: tuple[str, ...] = ()
    example: str | None = None


TEMPLATE = Path(__file__).parent / "template.md"
LIBRARY, TASK = "nlpmeta", "text-classification"
_DATA_NAME = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")
_FEWEST_POINTS, _MANY_LABELS = 2, 200


def card(facts: CardFacts, name: str) -> str:
    """The content of ``README.md`` for the repository ``name``. Words of others are shown as text, never as markup."""
    from huggingface_hub import ModelCard

    measured = facts.measured
    page = ModelCard.from_template(
        metadata(facts, name),
        template_str=read_text(TEMPLATE),
        name=name,
        example=facts.example or "...",
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
        is_taught=facts.is_taught,
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
    shots = f"with {'no' if measured.n_shot == 0 else measured.n_shot or 'all'} examples of each class"
    return f"{shots} of {plain(measured.data.title)}, scored on {plain(measured.scored_on)} ({plain(measured.scored)})"


def _calibration(measured: Measurement) -> str | None:
    if measured.calibration_error is None:
        return None
    points = 100 * measured.calibration_error
    return f"confidence and accuracy are {points:.1f} points apart on average (expected calibration error, 15 bins)."


def _curve_table(measured: Measurement) -> str:
    rows = (("shots", [str(n) for n, _ in measured.curve]), ("accuracy, %", [s.text() for _, s in measured.curve]))
    first, second = (f"| {name} | {' | '.join(cells)} |" for name, cells in rows)
    return f"{first}\n{'|---' * (len(measured.curve) + 1)}|\n{second}"


def _confused(measured: Measurement) -> str:
    return ", ".join(f"{plain(true)} → {plain(guess)} ({times})" for true, guess, times in measured.confused)


def _support(facts: CardFacts) -> str:
    where = plain(facts.data.title) if facts.data else "the author's own data"
    later = ", and what the model was taught later" if facts.is_taught else ""
    published = "they are part of this repository" if facts.support_is_published else "they are not published"
    return f"{facts.n_support or ''} texts of {where}{later}; {published}.".lstrip()


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
    none = "texts that belong to none of the classes (one of the classes is always given)"
    if facts.method.endswith("one-vs-rest"):  # of several labels per text none need be given
        none = "texts with other labels than these"
    return f"{langs}; topics and kinds of texts other than those of {plain(facts.measured.data.title)}; {none}."


def _licence(facts: CardFacts) -> str:
    said = "The author stated none for the model" if facts.licence is None else f"The model: {facts.licence}"
    return f"{said}. The data behind it has licences of its own:"


def _data(data: DataFacts) -> str:
    place = f" ([{plain(data.hub_id)}](https://huggingface.co/datasets/{data.hub_id}))" if data.hub_id else ""
    return f"{plain(data.title)}{place}: {plain(data.licence)}. {plain(data.citation)}"


def metadata(facts: CardFacts, name: str) -> "ModelCardData":
    """What the Hub filters and lists by; ``name`` is the repository's, ``user/model``."""
    from huggingface_hub import ModelCardData

    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        base_model=facts.encoder,
        language=list(facts.languages) or None,
        license=facts.licence,
        tags=["few-shot", "meta-learning", *(["peft", "lora"] if "adapter_config.json" in facts.files else [])],
        datasets=list({each.hub_id: None for each in (facts.data, *facts.trained_on) if each and each.hub_id}) or None,
        metrics=["accuracy", "f1"] if facts.measured else None,
        model_name=name.rpartition("/")[2],
        eval_results=None if facts.measured is None else _results(facts, facts.measured),
    )


def eval_results_yaml(facts: CardFacts) -> str | None:
    """The content of ``.eval_results/nlpmeta.yaml``; ``None`` without a result on a data set of the Hub."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]  # documented, but not re-exported

    measured = facts.measured
    if measured is None or measured.data.hub_id is None:
        return None
    entry = EvalResultEntry(
        dataset_id=measured.data.hub_id,
        task_id=facts.languages[0] if len(facts.languages) == 1 else "default",
        value=round(100 * measured.accuracy.mean, 2),
        dataset_revision=measured.data.hub_revision,
        notes=_notes(measured, measured.accuracy),
    )
    return str(yaml_dump(eval_result_entries_to_yaml([entry]), sort_keys=False))


def _results(facts: CardFacts, measured: Measurement) -> "list[EvalResult]":
    from huggingface_hub.repocard_data import EvalResult

    known = measured.data.hub_id or measured.data.name
    scores = [("accuracy", "Accuracy", measured.accuracy), ("f1", "Macro-F1", measured.macro_f1)]
    return [
        EvalResult(
            task_type=TASK,
            task_name="Text Classification",
            dataset_type=known if _DATA_NAME.fullmatch(known) else "custom",
            dataset_name=measured.data.title,
            dataset_config=facts.languages[0] if len(facts.languages) == 1 else None,
            dataset_split=measured.split,
            dataset_revision=measured.data.hub_revision,
            metric_type=metric,
            metric_name=f"{title} ({_notes(measured, score)})",
            metric_value=round(score.mean, 4),
        )
        for metric, title, score in scores
        if score is not None
    ]


def _notes(measured: Measurement, score: Score) -> str:
    shots = "all examples" if measured.n_shot is None else f"{measured.n_shot} shots"
    interval = ""
    if score.ends is not None:
        interval = f", 95 % interval {100 * score.ends[0]:.1f} to {100 * score.ends[1]:.1f}"
    elif score.ci95:
        interval = f", 95 % interval ± {100 * score.ci95:.1f} points"
    return f"{shots}, {measured.scored}{interval}"


def draw_curve(curve: Sequence[tuple[int, Score]], path: Path) -> bool:
    """Draw ``curve`` with its band to a PNG file; ``False`` if there is nothing to draw, or matplotlib is missing."""
    if len(curve) < _FEWEST_POINTS or find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shots, means = [each for each, _ in curve], [100 * score.mean for _, score in curve]
    figure = Figure(figsize=(5, 3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    low, high = ([100 * _ends(score)[i] for _, score in curve] for i in (0, 1))
    axes.fill_between(shots, low, high, alpha=0.2, linewidth=0)
    axes.plot(shots, means, marker="o")
    axes.set(xticks=shots, xlabel="examples of each class", ylabel="accuracy, %")
    axes.grid(alpha=0.3)
    content = BytesIO()
    figure.savefig(content, metadata={"Software": None})  # the same bytes for the same curve: a push changes nothing
    write_bytes(path, content.getvalue())
    return True


def _ends(score: Score) -> tuple[float, float]:
    return score.ends or (score.mean - (score.ci95 or 0.0), score.mean + (score.ci95 or 0.0))
