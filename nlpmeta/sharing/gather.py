"""The facts of a model folder for its card: read from what was saved, never guessed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nlpmeta.data.languages import UnknownLanguageError, parse
from nlpmeta.errors import NLPMetaError
from nlpmeta.metrics.scores import says_little
from nlpmeta.sharing.card import CardFacts, DataFacts, Measurement, Score
from nlpmeta.sources.catalogue import catalogue, known_as
from nlpmeta.sources.loading import bundled
from nlpmeta.storage.files import Json
from nlpmeta.storage.manifest import optional_json, read_manifest, report_of

_EXAMPLE = re.compile(r"""[^"'`\\$!<>{}|]{1,200}""")  # as it stands in quotation marks, in a shell and in Python
OWN_DATA = "own-data"
"""The name of data that only the author has: that of a file may tell what nobody else should know."""


_BASELINES = {"logistic": "logistic regression", "prototypical": "the nearest class name"}
"""What the baseline of a report is called in words."""


def gather(
    folder: Path, *, licence: str | None = None, languages: Sequence[str] = (), include_support: bool = False
) -> CardFacts:
    """What is known of the model in ``folder``.

    Args:
        folder: an adapted model or a checkpoint.
        licence: the author's licence for the model, as the Hub spells it (``apache-2.0``).
        languages: the languages of the examples, where ``adapt`` was not told; any spelling.
        include_support: whether the examples are published with the model.

    Raises:
        ModelFolderError: if the folder is damaged.
        UnknownLanguageError: if a language is none.
    """
    manifest = read_manifest(folder)
    report = report_of(folder)
    labels = optional_json(folder / "labels.json").get("labels")
    training = _mapping(manifest.get("training"))
    files = tuple(sorted(_mapping(manifest["files"])))
    asked = languages or [lang for lang in (report.get("lang"),) if isinstance(lang, str)]
    data = data_facts(str(report["data"])) if "data" in report else None
    return CardFacts(
        kind=str(manifest.get("kind")),
        method=_method(manifest, report),
        encoder=str(_mapping(manifest["encoder"])["id"]),
        encoder_revision=_text(_mapping(manifest["encoder"]).get("revision")),
        version=str(manifest["nlpmeta"]),
        labels=tuple(str(label) for label in labels) if isinstance(labels, list) else (),
        languages=tuple(_codes(asked, strict=bool(languages))),
        licence=licence,
        n_support=_whole(report.get("n_support")),
        is_taught="taught" in report,
        support_is_published=include_support and "support.json" in files,
        data=data,
        trained_on=tuple(data_facts(name) for name in _names(training.get("sets"))),
        held_out_languages=tuple(_names(training.get("leave_out_langs"))),
        measured=None if data is None else _measured(report, data),
        mismatch=tuple(_cut(_mapping(report.get("cut"))) + _noticed(_mapping(report.get("task_report")))),
        bytes=sum((folder / name).stat().st_size for name in files),
        files=files,
        example=_example(folder, report, published=include_support and "support.json" in files),
    )


def _example(folder: Path, report: Mapping[str, Json], *, published: bool) -> str | None:
    """A text to try the model with, none that only the author has: one of those published, or of a bundled corpus."""
    if published:
        texts = _names(optional_json(folder / "support.json").get("texts"))
    else:
        own, lang = bundled(known_as(str(report.get("data")))), _text(report.get("lang"))
        try:
            texts = [] if own is None else list(own().load(lang).texts)
        except NLPMetaError:
            texts = []
    return next((text for text in texts if _EXAMPLE.fullmatch(text) and text.isprintable()), None)


def data_facts(name: str) -> DataFacts:
    """What is known of a data set by the name that it was loaded with; of a file no more than that it is one."""
    known = known_as(name)
    own = bundled(known)
    if own is not None:
        facts = own.facts
        return DataFacts(name=known, title=facts.title, licence=facts.licence, citation=facts.citation)
    if known in catalogue():
        entry = catalogue()[known]
        return DataFacts(
            name=known,
            title=entry.facts.title,
            licence=entry.facts.licence,
            citation=entry.facts.citation,
            hub_id=entry.hub.id if entry.hub else None,
            hub_revision=entry.hub.revision if entry.hub else None,
        )
    if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).suffix:
        return DataFacts(name=name, title=name, licence="see its page", citation="See its page.", hub_id=name)
    return DataFacts(name=OWN_DATA, title="the author's own data", licence="not stated", citation="Not published.")


def _measured(report: Mapping[str, Json], data: DataFacts) -> Measurement | None:
    accuracy = _score(report.get("accuracy"))
    if accuracy is None:
        return None
    baseline, where = _mapping(report.get("baseline")), str(report.get("scored_on", ""))
    return Measurement(
        data=data,
        split="test" if "test" in where else "train",
        scored_on=where,
        accuracy=accuracy,
        macro_f1=_score(report.get("macro_f1")),
        n_shot=_whole(report.get("n_shot")),
        scored=_scored(report),
        few=None if (n_texts := _n_texts(report)) is None else says_little(n_texts),
        chance=_number(report.get("chance")),
        baseline=_score(baseline.get("accuracy")),
        baseline_name=_BASELINES.get(str(baseline.get("method")), _text(baseline.get("method"))),
        calibration_error=_number(report.get("calibration_error")),
        confused=tuple(_confused(report.get("confused"))),
        curve=tuple(_curve(report.get("curve"))),
    )


def _scored(report: Mapping[str, Json]) -> str:
    """How many draws or folds and texts; a report of an older release called folds draws and counted predictions."""
    if isinstance(said := report.get("scored"), str):
        return said
    runs, n_query = _whole(report.get("draws")) or 1, _whole(report.get("n_query"))
    if "fold" in str(report.get("scored_on", "")):
        return f"{runs} folds" + (f", {n_query} texts" if n_query else "")
    what = "one run" if runs == 1 else f"{runs} draws"
    return what + (f", {n_query} {'texts' if runs == 1 else 'predictions'}" if n_query else "")


def _n_texts(report: Mapping[str, Json]) -> int | None:
    """The number of different texts that were scored, where the report tells."""
    found = _whole(report.get("n_texts"))
    once = _whole(report.get("draws")) == 1 or "fold" in str(report.get("scored_on", ""))
    return found if found is not None else _whole(report.get("n_query")) if once else None


def _method(manifest: Mapping[str, Json], report: Mapping[str, Json]) -> str:
    name = str(_mapping(manifest["learner"])["name"])
    chosen = _names(report.get("chosen"))
    return f"{name}: {', '.join(chosen)}" if chosen else name


def _codes(asked: Sequence[str], *, strict: bool) -> list[str]:
    codes = []
    for each in asked:
        try:
            codes.append(parse(each).code)
        except UnknownLanguageError:
            if strict:
                raise
    return codes


def _score(value: Json) -> Score | None:
    found = _mapping(value)
    mean, low, high = (_number(found.get(name)) for name in ("mean", "low", "high"))
    ends = None if low is None or high is None else (low, high)
    try:
        return None if mean is None else Score(mean, _number(found.get("ci95")), ends)
    except NLPMetaError:
        return None


def _curve(value: Json) -> list[tuple[int, Score]]:
    points = value if isinstance(value, list) else []
    found = [(_whole(_mapping(point).get("n_shot")), _score(_mapping(point).get("accuracy"))) for point in points]
    return [(shots, score) for shots, score in found if shots is not None and score is not None]


def _confused(value: Json) -> list[tuple[str, str, int]]:
    rows = [row for row in value if isinstance(row, list) and len(row) == 3] if isinstance(value, list) else []
    return [(str(true), str(guess), _whole(times) or 0) for true, guess, times in rows]


def _noticed(found: Mapping[str, Json]) -> list[str]:
    """What adapt noticed about the task, without the examples that it quotes."""
    lines, expected = _names(found.get("warnings")), _mapping(found.get("expected_accuracy"))
    low, high = _number(expected.get("low")), _number(expected.get("high"))
    if low is not None and high is not None:
        lines.append(f"On tasks of this size and kind, {100 * low:.0f} to {100 * high:.0f} % are usual")
    alike = found.get("alike")
    pairs = [_names(pair) for pair in alike] if isinstance(alike, list) else []
    return lines + [f"Often confused: {' and '.join(pair)}" for pair in pairs[:5]]


def _cut(found: Mapping[str, Json]) -> list[str]:
    n_cut, n_texts, most = (_whole(found.get(name)) for name in ("texts", "of", "max_length"))
    if not n_cut or n_texts is None or most is None:
        return []
    return [
        f"{n_cut} of {n_texts} texts were longer than the {most} tokens that the model reads; their rest was cut off"
    ]


def _names(value: Json) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else []


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, Mapping) else {}


def _number(value: Json) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Json) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
