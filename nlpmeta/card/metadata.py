"""The part of a card that the Hub reads: the YAML block of README.md, and the results in ``.eval_results/``."""

import re
from typing import TYPE_CHECKING

from nlpmeta.card.facts import CardFacts, Measurement, Score

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData
    from huggingface_hub.repocard_data import EvalResult

LIBRARY, TASK = "nlpmeta", "text-classification"
_DATA_NAME = re.compile(r"[\w.-]+/[\w.-]+|[\w.-]+")


def metadata(facts: CardFacts, name: str) -> "ModelCardData":
    """What the Hub filters and lists by; ``name`` is the repository's, ``user/model``."""
    from huggingface_hub import ModelCardData

    sets = [facts.data, *facts.trained_on]
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=TASK,
        base_model=facts.encoder,
        language=list(facts.languages) or None,
        license=facts.licence,
        tags=["few-shot", "meta-learning", *(["peft", "lora"] if "adapter_config.json" in facts.files else [])],
        datasets=list(dict.fromkeys(each.hub_id for each in sets if each and each.hub_id)) or None,
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
