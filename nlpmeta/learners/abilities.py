"""What only some learners can do: small protocols, asked for where such an ability is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from nlpmeta.data import LabeledTexts, wordless
from nlpmeta.data.multilabel import MultiLabelTexts
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.learners.base import Embed, Learner, Support, TaskState, Texts, learners

SLOTS = "slots"
"""The tensor of a stream's state that holds the slot of each class ``(n_way,)``: the order in which they came up."""

THRESHOLDS = "several/thresholds"
"""The tensor of a state of ``GivesSeveral`` that holds the log-odds from which on each label is given, ``(n_labels,)``;
no other state has one."""


PLAIN = "logistic"
"""The method that is one-vs-rest logistic regression where texts have several labels, and is measured there alone."""


def is_several(state: TaskState) -> bool:
    """Whether a state is of a task with several labels per text."""
    return THRESHOLDS in state


@dataclass(frozen=True)
class Footprint:
    """The size of a stream's memory: the same after the first write and after the ten-thousandth but for its classes.

    ``n_rows`` is the number of examples that can be kept apart (0 where none are), ``rows_in_use`` how many are.
    """

    n_bytes: int
    n_way: int
    max_way: int
    bytes_per_class: int
    n_rows: int = 0
    rows_in_use: int = 0
    bytes_per_row: int = 0


@runtime_checkable
class ReadsStreams(Protocol):
    """Writes one labelled text after another into a memory of fixed size; new classes may come at any time."""

    max_way: int

    def empty(self) -> TaskState:
        """The state of a stream that has seen nothing."""

    def write(self, state: TaskState, features: Tensor, label: int) -> TaskState:
        """The state after one more example: its embedding ``(dim,)`` and its class."""

    def without(self, state: TaskState, label: int) -> TaskState:
        """The state without a class, which is never predicted again."""

    def footprint(self, state: TaskState) -> Footprint:
        """How large the memory of ``state`` is."""


@runtime_checkable
class Readapts(Protocol):
    """Learns a task again after examples came or went, and keeps what a few examples hardly change."""

    def readapt(self, support: Support, before: TaskState) -> TaskState:
        """What is known of ``support``; ``before`` is what was learned from the earlier examples."""


@runtime_checkable
class GivesSeveral(Protocol):
    """Learns a task whose texts have none, one or several labels; its scores are then log-odds of each label."""

    def adapt_several(self, data: MultiLabelTexts, embed: Embed, *, features: Tensor | None = None) -> TaskState:
        """What is known of ``data``; ``features`` are the embeddings of its texts where these are known."""


@runtime_checkable
class TakesSteps(Protocol):
    """Takes gradient steps on the support set."""

    def stepping(self, inner_steps: int) -> Learner:
        """The same learner with another number of steps."""


@runtime_checkable
class TakesBudget(Protocol):
    """Fine-tunes the encoder where there is time for it."""

    budget: float

    def within(self, budget: float) -> Learner:
        """The same learner with so many seconds."""


@runtime_checkable
class SumsOverSupport(Protocol):
    """Computes scores that are sums over the support, up to what is the same for every support text."""

    def contributions(self, state: TaskState, support: Support, queries: Texts) -> Tensor:
        """What each text of ``support`` and then, if it has names, the name of each class adds to the scores.

        Args:
            state: what was learned from ``support``.
            support: the support with its embeddings and those of its names.
            queries: texts with their embeddings.

        Returns:
            ``(n_query, n_support, n_way)``, or ``n_support + n_way`` rows with names: zeros if they are not read.
        """


@runtime_checkable
class ScoresForOwners(Protocol):
    """Scores the texts of many tasks together although each task has weights of its own."""

    def logits_of_owners(
        self, states: Sequence[TaskState], owners: Sequence[int], texts: Sequence[str]
    ) -> list[Tensor]:
        """As the function ``logits_of_owners``."""


def with_budget(learner: Learner, budget: float) -> Learner:
    """The learner with so many seconds for fine-tuning; itself if they are 0.

    Raises:
        NLPMetaError: if it takes none, or they are no number of seconds.
    """
    if not isinstance(budget, int | float) or isinstance(budget, bool):
        raise NLPMetaError(f"budget is a number of seconds; got {budget!r}.")
    if budget == 0:
        return learner
    if not isinstance(learner, TakesBudget):
        name = learners.name_of(type(learner))
        raise NLPMetaError(f"A budget for fine-tuning goes with the method auto; {name} takes none.")
    return learner.within(budget)


def without_budget(learner: Learner) -> Learner:
    """The learner without fine-tuning, where that would be done once for each of many folds."""
    return learner.within(0) if isinstance(learner, TakesBudget) and learner.budget else learner


def takes_pairs(kind: type[Learner]) -> bool:
    """Whether learners of this kind classify pairs of texts: those that need nothing but embeddings of any width."""
    reads_streams = hasattr(kind, "footprint")
    return kind.inputs == "embeddings" and not kind.needs_meta_training and not reads_streams


def check_pairs(learner: Learner, data: LabeledTexts) -> None:
    """See that ``learner`` can learn from ``data`` if its texts are pairs.

    Raises:
        NLPMetaError: if some class is to be known by its name or a description.
    """
    if learner.encoder.pairs and (data.by_name or any(data.descriptions or ())):
        raise NLPMetaError(
            "The name or the description of a class cannot be compared with a pair of texts. Give examples of each "
            "class, and no descriptions."
        )


def check_described(learner: Learner, data: LabeledTexts) -> None:
    """See that the descriptions of the classes of ``data``, if there are any, are read.

    Raises:
        NLPMetaError: if the learner reads none.
        DataError: if none is read, as nothing says what some class is.
    """
    said = data.descriptions or ()
    if not any(said[label] for label in (set(data.labels) if said else ())):  # in place of examples all are read
        return
    if not learner.reads_names:
        raise reads_no_names(learner)
    unsaid = wordless(data.label_names, data.descriptions)
    if unsaid:
        raise DataError(
            f"The label {unsaid[0]!r} says nothing about its class and has no description, so the other descriptions "
            "cannot be read either; describe it too, or give it a name."
        )


def check_several(kinds: Mapping[str, type[Learner]], n_shots: Sequence[int], *, data: str) -> None:
    """See that methods can be measured on data with several labels per text.

    Args:
        kinds: the classes of the methods by their names.
        n_shots: positives of each label; without any, one method at least must do with the names of the labels.
        data: what to call the data.

    Raises:
        NLPMetaError: names those that cannot, and those that can.
    """
    able = [name for name in learners if issubclass(learners[name], GivesSeveral)]
    plain = learners[PLAIN]
    wrong = [name for name, kind in kinds.items() if not issubclass(kind, GivesSeveral) and kind is not plain]
    if wrong:
        raise NLPMetaError(
            f"{data} has several labels per text, and {', '.join(wrong)} {'give' if len(wrong) > 1 else 'gives'} one; "
            f"these methods can be measured: {', '.join([*able, PLAIN])} (one-vs-rest), also METHOD@CHECKPOINT."
        )
    if 0 in n_shots and not any(issubclass(kind, GivesSeveral) for kind in kinds.values()):
        raise NLPMetaError(
            f"{', '.join(kinds)} needs examples of each label, and there are none with --shots 0; "
            f"{', '.join(able)} can do with the names of the labels."
        )


def check_weighs(learner: Learner) -> None:
    """See that ``learner`` uses the weights of examples.

    Raises:
        NLPMetaError: if it does not.
    """
    if not learner.weighs:
        able = ", ".join(name for name in learners if learners[name].weighs)
        raise NLPMetaError(f"{learners.name_of(type(learner))} does not use sample_weight; these methods do: {able}.")


def without_names(learners: Mapping[str, Learner]) -> list[str]:
    """The names of the learners that ignore descriptions.

    Raises:
        NLPMetaError: if all of them do.
    """
    found = [name for name, learner in learners.items() if not learner.reads_names]
    if len(found) == len(learners):
        raise reads_no_names(learners[found[0]])
    return found


def check_names_alone(learners_by_name: Mapping[str, Learner]) -> None:
    """See that all of them can do without examples.

    Raises:
        NLPMetaError: names those that cannot.
    """
    need = [name for name, learner in learners_by_name.items() if not learner.learns_from_names]
    if need:
        raise needs_examples(need)


def needs_examples(methods: Sequence[str]) -> NLPMetaError:
    """The error for methods that cannot do without examples."""
    able = ", ".join(name for name in learners if learners[name].learns_from_names)
    return NLPMetaError(
        f"{', '.join(methods)} {'need' if len(methods) > 1 else 'needs'} examples of each class, and there are none "
        f"with --shots 0. These methods can do with the names of the classes: {able}."
    )


def reads_no_names(learner: Learner) -> NLPMetaError:
    """The error for descriptions that ``learner`` would ignore."""
    return NLPMetaError(
        f"{learners.name_of(type(learner))} does not read the names of classes here, so it cannot use descriptions. "
        "auto does; so do prototypical and maml on a checkpoint that was trained with names, such as the default one."
    )


def with_rows(parts: Tensor, support: Support) -> Tensor:
    """Parts of scores ``(n_query, n, n_way)`` with rows of zeros for the names of ``support`` if they have none."""
    missing = len(support) + (0 if support.names is None else support.n_way) - parts.size(1)
    return torch.cat([parts, parts.new_zeros(len(parts), missing, parts.size(2))], dim=1)


def logits_of_owners(
    learner: Learner, states: Sequence[TaskState], owners: Sequence[int], texts: Sequence[str]
) -> list[Tensor]:
    """The scores of each text by the state that it belongs to; all texts go through the encoder together.

    Args:
        learner: what made the states.
        states: what was learned about several tasks.
        owners: for each text, the number of its state.
        texts: the texts.

    Returns:
        Scores ``(n_way,)`` of each text, with the classes of its state.
    """
    if isinstance(learner, ScoresForOwners):
        return learner.logits_of_owners(states, owners, texts)
    features = learner.encoder.encode(texts) if learner.inputs == "embeddings" else None
    scores: dict[int, Tensor] = {}
    for number in dict.fromkeys(owners):
        rows = [row for row, owner in enumerate(owners) if owner == number]
        own = Texts(tuple(texts[row] for row in rows), None if features is None else features[rows])
        scores |= dict(zip(rows, learner.logits(states[number], own), strict=True))
    return [scores[row] for row in range(len(texts))]
