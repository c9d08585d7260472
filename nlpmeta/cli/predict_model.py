"""The model that ``nlpmeta predict`` asks: a compiled one, without PyTorch, where that can answer."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

from nlpmeta.progress import clear_status

if TYPE_CHECKING:
    from nlpmeta.classifier.classifier import FewShotClassifier
    from nlpmeta.classifier.light import LightClassifier
    from nlpmeta.encoder.engines import Engine

Predicts: TypeAlias = "FewShotClassifier | LightClassifier"


def load_model(model: str, revision: str | None, *, device: str, engine: str, probabilities_alone: bool) -> Predicts:
    """The model by its folder or name; compiled first where ``engine`` says so.

    Args:
        model: a folder, or a name on the Hub.
        revision: of the Hub.
        device: where it runs.
        engine: what embeds the texts.
        probabilities_alone: whether nothing but class probabilities will be asked of it.

    Raises:
        NLPMetaError: if it cannot be loaded, or the engine is unknown or not installed.
    """
    from nlpmeta.encoder.engines import check_engine

    chosen = check_engine(engine)
    folder = Path(model) if revision is None and Path(model).is_dir() else None
    if folder is not None and probabilities_alone and chosen != "torch" and _on_cpu(device, chosen):
        from nlpmeta.classifier.light import LightClassifier

        if (light := LightClassifier.of_folder(folder, chosen)) is not None:
            clear_status()
            return light
    from nlpmeta.classifier.classifier import FewShotClassifier

    classifier = FewShotClassifier.from_pretrained(model, revision=revision, device=device, engine=chosen)
    if folder is not None and chosen.startswith("onnx"):
        _compile(classifier, chosen, folder)
    clear_status()
    return classifier


def reads(classifier: Predicts) -> tuple[int, int | None]:
    """The tokens that are read of a text, and those that the encoder could read."""
    from nlpmeta.classifier.light import LightClassifier

    if isinstance(classifier, LightClassifier):
        reader = cast("LightClassifier", classifier)  # the other kind has bases of unknown type
        return reader.max_length, reader.most_tokens
    encoder = loaded(classifier).learner_.encoder
    return encoder.max_length, encoder.most_tokens


def loaded(classifier: Predicts) -> "FewShotClassifier":
    """The same model, which ``load_model`` loaded in full as more than probabilities was asked for."""
    return cast("FewShotClassifier", classifier)


def _compile(classifier: "FewShotClassifier", engine: "Engine", folder: Path) -> None:
    """Compile the model for this prediction and the next ones; a cache that cannot be written is mentioned."""
    from nlpmeta.cli.console import say
    from nlpmeta.errors import WorkFailedError
    from nlpmeta.export.head import compile_model

    try:
        compile_model(classifier, engine, folder)
    except WorkFailedError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        say(f"Note: {error} Predicting uncompiled.")
        classifier.engine = "torch"


def _on_cpu(device: str, engine: "Engine") -> bool:
    """Whether a compiled encoder may stand in for PyTorch: on the CPU, where ``auto`` does not mean a graphics card."""
    named = os.environ.get("NLPMETA_DEVICE", "auto") if device == "auto" else device
    return named == "cpu" or (named == "auto" and (engine != "auto" or not Path("/dev/nvidia0").exists()))
