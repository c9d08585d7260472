"""What is given to a classifier, checked, what a learner makes of it, and how examples are kept in a folder."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from nlpmeta.classifier.fitted import Examples, Fitted, checked_weights
from nlpmeta.classifier.several import (
    MOST_FOLDS,
    SeveralExamples,
    examples_from,
    known_embeddings,
    marks_json,
    several_given,
    several_learned,
)
from nlpmeta.classifier.streaming import LabelsFile
from nlpmeta.data import LabeledTexts
from nlpmeta.data.inputs import carried_class_prior, checked_class_prior, checked_texts, is_unicode, values_of
from nlpmeta.data.labels import checked_labels, like, plain
from nlpmeta.data.multilabel import gives_several, named_classes
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError
from nlpmeta.learners.abilities import Readapts, check_described, check_pairs, check_weighs, without_budget
from nlpmeta.learners.base import Embed, Learner, Support
from nlpmeta.storage.files import read_json, write_bytes, write_json
from nlpmeta.storage.tensors import read_tensors

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def at_least_two(classes: "NDArray[np.generic]") -> None:
    """Refuse a task with one class.

    Raises:
        DataError: names it.
    """
    if len(classes) < 2:
        raise DataError(f"A classifier needs at least two classes; y has one: {classes.tolist()[0]!r}.")


def checked_pairs(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
) -> "tuple[tuple[str, ...], NDArray[np.generic]]":
    """Texts and a label for each, checked.

    Raises:
        DataError: if a text or label cannot be used, or there are not as many of the one as of the other.
    """
    texts, labels = checked_texts(X, pairs=True), checked_labels(y)
    if len(texts) != len(labels):
        raise DataError(f"X has {len(texts)} texts but y has {len(labels)} labels.")
    return texts, labels


def pairs_and_classes(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
    classes: "ArrayLike | None",
) -> "tuple[tuple[str, ...], NDArray[np.generic], NDArray[np.generic] | None]":
    """``checked_pairs``, which may be none if ``classes`` names the classes, and the classes without an example.

    Raises:
        DataError: as ``checked_pairs``, if a class is empty or there twice, or a label in ``y`` is none of them.
    """
    if classes is None:
        return *checked_pairs(X, y), None
    every = named_classes(classes)
    known = set(every.tolist())
    texts, labels = values_of(X, name="X", what="texts"), values_of(y, name="y", what="labels")
    if not texts and not labels:
        return (), every[:0], every
    pairs = checked_pairs(cast("Sequence[str]", texts), cast("ArrayLike", labels))
    seen = dict.fromkeys(pairs[1].tolist())
    unknown = [label for label in seen if label not in known]
    if unknown:
        raise DataError(f"y holds the label {unknown[0]!r}, which is none of the classes; add it to classes.")
    return *pairs, every[[label not in seen for label in every.tolist()]]


def given_examples(
    X: "Sequence[str] | ArrayLike",  # noqa: N803
    y: "ArrayLike",
    classes: "ArrayLike | None",
    multilabel: bool | None,
) -> Examples:
    """The examples in ``X`` and ``y``, of one label per text or of several.

    Raises:
        DataError: as ``pairs_and_classes`` and ``several_given``.
    """
    if gives_several(y, multilabel):
        return SeveralExamples.marked(*several_given(X, y, classes))
    texts, labels, by_name = pairs_and_classes(X, y, classes)
    return Examples.of(texts, labels, by_name=by_name)


@torch.no_grad()
def learned(
    learner: Learner,
    examples: Examples,
    *,
    embed: Embed | None = None,
    names: Embed | None = None,
    before: Fitted | None = None,
) -> Fitted:
    """What ``learner`` makes of ``examples``.

    Args:
        learner: what adapts.
        examples: what it learns from.
        embed: where all embeddings come from, if not from the encoder.
        names: where those of class names come from, if ``embed`` is not given.
        before: what was learned from earlier examples, if anything; how often classes occur is kept.
    """
    at_least_two(examples.classes)
    of_texts = embed or learner.encoder.encode
    of_names = embed or names or learner.encoder.encode
    if isinstance(examples, SeveralExamples):
        return several_learned(learner, examples, of_texts, names=of_names)
    data = examples.data()
    if data.by_name or data.descriptions:
        check_pairs(learner, data)
        check_described(learner, data)
    if examples.weights is not None:
        check_weighs(learner)
    if learner.inputs == "embeddings":
        examples = examples.embedded(of_texts)
    if isinstance(learner, Readapts):  # the last bits of sums depend on the order, and on these what a solver finds
        ordered = examples.select(data.rows_in_order())
        support = _support(learner, ordered, ordered.data(), of_names)
        state = learner.adapt(support) if before is None else learner.readapt(support, before.state)
    else:
        state = learner.adapt(_support(learner, examples, data, of_names))
    return with_class_prior_of(before, Fitted.of(learner, state, examples))


def with_class_prior_of(before: Fitted | None, after: Fitted) -> Fitted:
    """``after``, for classes as frequent as they are said to be in ``before``, if anything is said there."""
    known = None if before is None else class_prior_of(before)
    return after if known is None else with_class_prior(after, carried_class_prior(known, after.classes.tolist()))


def class_prior_of(fitted: Fitted) -> dict[object, float] | None:
    """How often each class occurs, by its label, where that was said."""
    from nlpmeta.auto.heads import CLASS_PRIOR

    known = fitted.state.get(CLASS_PRIOR)
    shares = () if known is None else (round(share, 6) for share in known.tolist())  # float32 has no more digits
    return None if known is None else dict(zip(fitted.classes.tolist(), shares, strict=True))


def with_class_prior(fitted: Fitted, given: object) -> Fitted:
    """The same, for classes that occur so often; ``None`` for equally often.

    Raises:
        DataError: as ``checked_class_prior``.
        NLPMetaError: if it is of another method than ``auto``, or texts have several labels.
    """
    from nlpmeta.auto.answers import expecting
    from nlpmeta.auto.heads import CLASS_PRIOR

    state = {name: value for name, value in fitted.state.items() if name != CLASS_PRIOR}
    if given is not None:
        shares = checked_class_prior(given, fitted.classes.tolist())
        expecting(fitted.learner, shares)
        if fitted.gives_sets:
            raise NLPMetaError(
                "Where texts have several labels each has a threshold of its own: leave class_prior out."
            )
        state[CLASS_PRIOR] = torch.tensor(shares, device=fitted.learner.encoder.device)
    return replace(fitted, state=state)


def support_of(learner: Learner, examples: Examples, embed: Embed) -> Support:
    """The examples as ``learner`` reads them; ``embed`` gives the embeddings of what is not embedded yet."""
    return _support(learner, examples, examples.data(), embed)


def _support(learner: Learner, examples: Examples, data: LabeledTexts, embed: Embed) -> Support:
    support = learner.support(data, embed, features=examples.features)
    if examples.weights is None:
        return support
    weights = torch.ones(len(support), dtype=torch.float64, device=support.labels.device)
    weights[: len(examples.texts)] = torch.from_numpy(examples.weights).to(weights)
    return replace(support, weights=weights)


@torch.no_grad()
def held_out_probabilities(learner: Learner, examples: Examples) -> dict[int, torch.Tensor]:
    """For each example that can be held out, by its row, its class probabilities ``(n_way,)`` from the other folds.

    By the heads alone where ``learner`` has a budget for fine-tuning.
    """
    from nlpmeta.episodes.kshot import FoldSampler
    from nlpmeta.metrics.scores import score_episode

    learner = without_budget(learner)
    data, embed = examples.data(), known_embeddings(learner, examples)
    folds = FoldSampler.at_most(data, MOST_FOLDS, seed=0)
    found: dict[int, torch.Tensor] = {}
    if folds is None:
        return found
    for index in range(folds.n_folds):
        episode, rows = folds.episode(index), folds.held_out(index)
        weights = None if examples.weights is None else examples.weights[folds.learned_from(index)].tolist()
        scored = score_episode(learner, episode, embed, weights=weights)
        found |= dict(zip(rows, scored.probabilities, strict=True))
    return found


TEXTS_FILE, FEATURES_FILE = "support.json", "support.safetensors"
_LARGEST_FEATURE = 1e4  # embeddings are of unit length, or of some hundred where they are not scaled


def write_examples(folder: Path, examples: Examples) -> None:
    """Write texts and labels as JSON, embeddings as safetensors."""
    from safetensors.torch import save

    weights = {} if examples.weights is None else {"weights": examples.weights.tolist()}
    marks = marks_json(examples)
    labels = {"labels": plain(examples.labels)} if marks is None else {"marks": marks}
    write_json(folder / TEXTS_FILE, {"texts": list(examples.texts), **labels, **weights})
    if examples.features is not None:
        write_bytes(folder / FEATURES_FILE, save({"features": examples.features.cpu().contiguous()}))


def read_examples(folder: Path, kept: LabelsFile, device: torch.device, *, dim: int) -> Examples | None:
    """What ``write_examples`` wrote; ``None`` if it did not and there is more to know than the names of the classes.

    Args:
        folder: of the model.
        kept: its classes.
        device: where embeddings are put.
        dim: the width of those that its encoder makes now.

    Raises:
        ModelFolderError: if a file is damaged or does not fit the classes.
    """
    path = folder / TEXTS_FILE
    classes, alone = kept.classes, list[object]([] if kept.by_name is None else kept.by_name.tolist())
    if not path.is_file() and len(alone) < len(classes):
        return None
    try:
        found = cast("dict[str, list[object]]", read_json(path) if path.is_file() else {"texts": [], "marks": []})
        texts, several = tuple(map(str, found["texts"])), None
        if kept.several:
            several = examples_from(texts, found["marks"], classes, as_matrix=kept.as_matrix)
        labels = like(found.get("labels", []), classes)
        weights = checked_weights(found.get("weights"), len(texts))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, NLPMetaError):
            raise
        raise ModelFolderError(f"{path} is damaged ({error}). Save the model again.") from error
    has_features = (folder / FEATURES_FILE).is_file()
    features = read_tensors(folder / FEATURES_FILE).get("features") if has_features else None
    fits = (several is not None or labels.shape == (len(texts),)) and is_unicode("".join(texts))
    fits = fits and (features is None or _are_embeddings(features, len(texts)))
    named = set(several.by_name.tolist()) == set(alone) if several is not None else False
    if not fits or not (named or set(labels.tolist()) == set(classes.tolist()) - set(alone)):
        raise ModelFolderError(f"{path} does not fit the other files of the model. Save the model again.")
    # An older release saw fewer views: what it kept is computed again where it is needed.
    features = None if features is None or features.size(1) != dim else features.to(device)
    return (
        Examples(texts, labels, features, classes, weights) if several is None else replace(several, features=features)
    )


def _are_embeddings(features: torch.Tensor, n: int) -> bool:
    """Whether these can be embeddings ``(n, dim)``; heads cannot be solved with numbers that are far larger."""
    if features.ndim != 2 or len(features) != n or features.dtype != torch.float32:
        return False
    return bool((features.abs() <= _LARGEST_FEATURE).all())
