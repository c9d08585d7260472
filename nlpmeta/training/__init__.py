"""Recipes: everything that a meta-training run depends on, checked."""

import hashlib
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from typing_extensions import Self

from nlpmeta.encoder.files import Pooling
from nlpmeta.encoder.lora import AdapterSettings, Storage
from nlpmeta.encoder.weights import DEFAULT_ENCODER, lasting_name
from nlpmeta.episodes import Range
from nlpmeta.settings import HIGHEST_RATE, HIGHEST_SEED, LARGEST_OPTION, MOST_STEPS, Settings
from nlpmeta.sources.catalogue import collections

MixedPrecision = Literal["no", "bf16", "fp16"]


class TrainSettings(Settings):
    """How long, how fast and towards what a learner is meta-trained."""

    steps: int = Field(1000, ge=1, le=MOST_STEPS, description="optimiser steps")
    episodes_per_step: int = Field(2, ge=1, le=4096, description="episodes encoded together, over all processes")
    accumulate: int = Field(
        1, ge=1, le=4096, description="gradient accumulation: groups of episodes averaged for one step"
    )
    seed: int = Field(0, ge=0, le=HIGHEST_SEED, description="random seed: episodes, adapter initialisation, dropout")
    learning_rate: float = Field(3e-4, gt=0, le=HIGHEST_RATE, description="peak learning rate of the adapter")
    head_learning_rate: float = Field(
        3e-3, gt=0, le=HIGHEST_RATE, description="peak learning rate of the learner's own weights"
    )
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW weight decay of the adapter")
    warmup: int = Field(20, ge=0, le=MOST_STEPS, description="warmup: steps over which the rates rise from 0")
    final_rate: float = Field(0.05, ge=0, le=1, description="fraction of the rates at the end of the cosine schedule")
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="gradient-norm clipping: the largest norm allowed")
    ema: float = Field(0.98, ge=0, lt=1, description="decay of the moving average of the weights; 0 for none")
    mixed_precision: MixedPrecision = Field("no", description="no, bf16 or fp16, through Accelerate")
    chunk_tokens: int = Field(
        8192, ge=64, le=2**31, description="tokens with activations kept; texts beyond are computed twice"
    )
    lower_states: Literal["off", "float16", "float32"] = Field(
        "off", description="cache the hidden states of the layers below the lowest adapter, in this precision"
    )
    contrastive_weight: float = Field(0.0, ge=0, le=1000, description="weight of the supervised contrastive loss")
    contrastive_temperature: float = Field(
        0.05, ge=1e-3, le=100, description="temperature of the supervised contrastive loss"
    )
    anchor_weight: float = Field(
        0.0, ge=0, le=1000, description="weight of the distance to the frozen encoder's embeddings"
    )
    renew_every: int = Field(
        100, ge=1, le=MOST_STEPS, description="steps between clusterings, where tasks are clusters of embeddings"
    )
    keep: Literal["best", "last"] = Field(
        "best", description="which weights are kept: the best on the held-out tasks, or the last"
    )
    worst_group: float = Field(
        0.0,
        ge=0,
        le=100,
        description="step size of group DRO, which upweights the groups with the highest loss; 0 turns it off",
    )
    group_by: Literal["lang", "domain"] = Field("lang", description="what defines a group, for worst_group")
    mix_share: float = Field(
        0.0, ge=0, le=1, description="share of the episodes whose classes are mixed in pairs, in embedding space"
    )
    eval_every: int = Field(50, ge=1, le=MOST_STEPS, description="steps between evaluations on held-out tasks")
    eval_episodes: int = Field(10, ge=1, le=100_000, description="episodes of each held-out set")
    control_episodes: int = Field(4, ge=0, le=100_000, description="label-shuffled control episodes at each evaluation")
    patience: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="early stopping: evaluations without an improvement"
    )
    checkpoint_every: int = Field(50, ge=1, le=MOST_STEPS, description="steps between checkpoints for --resume")
    keep_checkpoints: int = Field(2, ge=1, le=10_000, description="how many of them are kept")
    trackers: tuple[str, ...] = Field((), description="tensorboard, trackio, wandb: those that Accelerate finds")


_Count = Annotated[int, Field(ge=1, le=10_000)]
_Number = Annotated[float, Field(ge=-LARGEST_OPTION, le=LARGEST_OPTION)]
_Whole = Annotated[int, Field(ge=-LARGEST_OPTION, le=LARGEST_OPTION)]
Size = _Count | tuple[_Count, _Count]


RAW_KINDS = ("masked-words", "clusters", "views")
"""Kinds of tasks that read nothing but texts."""


class EpisodeTasks(Settings):
    """Tasks drawn from one data set: which of its texts, and the shape of the episodes."""

    source: str = Field(description="a data set: a name of the catalogue, a file, or a Hub id")
    file: str | None = Field(
        None, description="kinds without labels: a file of texts, one a line or a column of a table, read in its place"
    )
    split: str = Field("train", description="the split the texts come from")
    langs: tuple[str, ...] | None = Field(None, description="only these languages, in any spelling; null for all")
    leave_out_langs: tuple[str, ...] = Field((), description="languages that must not be read")
    labels: tuple[str, ...] | None = Field(None, description="only these classes; null for all")
    leave_out_labels: tuple[str, ...] = Field((), description="classes that must not be used")
    leave_out_labels_of: tuple[str, ...] = Field((), description="data sets whose class names must not be used")
    fold: int | None = Field(None, ge=0, le=10_000, description="a published fold with disjoint classes; null for none")
    part: Literal["train", "valid", "test"] = Field("train", description="the part of the fold")
    kind: Literal["nway", "crosslingual", "users", "spam-windows", "masked-words", "clusters", "views"] = Field(
        "nway",
        description=(
            "nway: one language an episode; crosslingual: support in one, query in another; users: one user each; "
            "spam-windows: two classes, the query later than the support; without labels: masked-words (which word is "
            "missing), clusters (of the embeddings), views (which text is it a part of)"
        ),
    )
    n_way: Size = Field(10, description="classes of an episode: a number, or [lowest, highest]")
    n_shot: Size = Field((1, 3), description="support texts of each class: a number, or [lowest, highest]")
    n_query: int = Field(2, ge=1, le=10_000, description="query texts of each class")
    support_langs: tuple[str, ...] | None = Field(
        None, description="crosslingual: languages of the support; null for all"
    )
    query_langs: tuple[str, ...] | None = Field(None, description="crosslingual: languages of the query; null for all")
    n_windows: int = Field(4, ge=2, le=10_000, description="spam-windows: time windows that the texts are divided into")
    language_temperature: float = Field(
        3.33, ge=0.01, le=1000, description="1 draws languages by their number of texts, more makes them more equal"
    )
    n_texts: int = Field(
        20_000, ge=2, le=10_000_000, description="kinds without labels: maximum number of texts, sampled with the seed"
    )
    n_clusters: int = Field(200, ge=2, le=1_000_000, description="clusters: how many in each partition")
    n_partitions: int = Field(4, ge=1, le=1000, description="clusters: partitions that episodes are drawn from")
    letter_groups: int = Field(
        1,
        ge=1,
        le=10_000,
        description="clusters: groups of texts by letters (roughly languages) whose mean embeddings are subtracted",
    )
    telling_names: bool = Field(
        False, description="clusters: name them by the words that tell most of them (class-based TF-IDF)"
    )
    hard_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the episodes that are the hardest of four, judged by letters alone",
    )
    split_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="nway: share of the episodes whose classes are split by a distinguishing word",
    )
    merge_share: float = Field(0.0, ge=0, le=1, description="share of the episodes whose classes are merged in pairs")
    imbalanced_share: float = Field(
        0.0, ge=0, le=1, description="share of the episodes with an imbalanced support (Zipf's law)"
    )
    names_only_share: float = Field(
        0.0, ge=0, le=1, description="share of the episodes in which class names replace all examples"
    )
    missing_share: float = Field(
        0.0, ge=0, le=1, description="share of the episodes in which class names replace the examples of some classes"
    )
    withheld_share: float = Field(
        0.0, ge=0, le=1, description="share of the episodes whose classes have numbers for names"
    )
    replaced_share: float = Field(
        0.0, ge=0, le=1, description="share of the episodes whose classes carry the names of other classes"
    )
    kinds: tuple[str, ...] | None = Field(
        None, description="collections (wide): only sets of these kinds, such as sentiment; null for all"
    )
    leave_out: tuple[str, ...] = Field(
        (), description="collections: sets or kinds that must not be read; their texts are not read elsewhere either"
    )
    kind_temperature: float = Field(
        3.33, ge=0.01, le=1000, description="collections: as language_temperature, for kinds"
    )
    set_temperature: float = Field(
        3.33, ge=0.01, le=1000, description="collections: as language_temperature, for the sets of a kind"
    )
    cross_share: float = Field(
        0.3, ge=0, le=1, description="collections: share of the episodes with support and query from different sets"
    )
    most_chars: int = Field(
        6000,
        ge=200,
        le=10**6,
        description="collections: approximate characters of an episode; bounds shots and ways",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("n_way", "n_shot"):
            size = getattr(self, name)
            if isinstance(size, tuple) and size[0] > size[1]:
                raise ValueError(f"{name} must be [lowest, highest], got {list(size)}")
        by_label = ("labels", "leave_out_labels", "leave_out_labels_of", "fold")
        given = [name for name in by_label if getattr(self, name) not in (None, ())]
        if self.reads_labels and self.file is not None:
            raise ValueError(f"file is for the kinds {', '.join(RAW_KINDS)}; for others name the file as the source")
        if self.split_share and self.kind != "nway":
            raise ValueError(f"split_share is for the kind nway, whose texts are of one language; not for {self.kind}")
        if self.kind == "spam-windows" and self.n_way != 2:
            raise ValueError(f"tasks of the kind spam-windows have two classes; write n_way: 2, not {self.n_way}")
        for problem in collection_problems(self) if self.source in collections() else ():
            raise ValueError(problem)
        if self.source not in collections() and (self.kinds is not None or self.leave_out):
            raise ValueError(f"kinds and leave_out are for the collections {', '.join(collections())}")
        if self.telling_names and self.kind != "clusters":
            raise ValueError(f"telling_names is for the kind clusters, not for {self.kind}")
        if not self.reads_labels and given:
            raise ValueError(f"tasks of the kind {self.kind} read no labels, so {', '.join(given)} cannot be used")
        return self

    @property
    def reads_labels(self) -> bool:
        """Whether the tasks are made from labels, or from texts alone."""
        return self.kind not in RAW_KINDS

    def range_of(self, name: Literal["n_way", "n_shot"]) -> Range:
        """A size as a range."""
        size: int | tuple[int, int] = getattr(self, name)
        return Range(*size) if isinstance(size, tuple) else Range(size, size)


def collection_problems(part: EpisodeTasks) -> list[str]:
    """What a part says that makes no sense for many data sets at once."""
    named = ("file", "langs", "labels", "fold", "support_langs", "query_langs")
    given = [name for name in named if getattr(part, name) is not None]
    given += [name for name in ("leave_out_labels", "leave_out_labels_of") if getattr(part, name)]
    given += [name for name in ("split_share",) if getattr(part, name)]
    problems = [f"{', '.join(given)} cannot be used with the collection {part.source}"] if given else []
    fits = part.kind == "nway" or not part.reads_labels
    return problems + ([] if fits else [f"the collection {part.source} is for the kind nway and kinds without labels"])


class TrainTasks(EpisodeTasks):
    """Tasks to train on."""

    weight: float = Field(1.0, ge=1e-6, le=1e6, description="share of the episodes, relative to the other parts")


class HeldOutTasks(EpisodeTasks):
    """Held-out tasks for model selection: their languages or classes are in no training part."""

    name: str = Field(description="name of the set in metrics.jsonl")


class EncoderChoice(Settings):
    """The encoder that everything starts from."""

    name: Annotated[str, AfterValidator(lasting_name)] = Field(
        DEFAULT_ENCODER, description="a folder, or the name of a model on the Hub"
    )
    revision: str | None = Field(None, description="a commit of the Hub; null for what is on this machine")
    max_length: int = Field(128, ge=4, le=100_000, description="tokens kept of each text")
    pooling: Pooling | None = Field(None, description="mean, cls or last; null for the model's own")
    prefix: str | None = Field(None, max_length=1000, description="prefix of every text; null for the model's own")


class Recipe(TrainSettings):
    """A whole meta-training run; the keys of ``TrainSettings`` stand beside these."""

    learner: str = Field("prototypical", description="the learner to meta-train")
    learner_options: dict[str, bool | _Whole | _Number | str | None] = Field(
        default_factory=dict, description="arguments of the method"
    )
    encoder: EncoderChoice = Field(default_factory=EncoderChoice, description="the encoder that training starts from")
    adapter: AdapterSettings | None = Field(
        default_factory=AdapterSettings,
        description="the LoRA adapters; null trains the learner's own weights alone, on cached embeddings",
    )
    start: str | None = Field(
        None,
        description="a checkpoint whose adapter is trained further, or stays as it is where adapter is null",
    )
    data: tuple[TrainTasks, ...] = Field(min_length=1, description="the parts of the training data")
    heldout: tuple[HeldOutTasks, ...] = Field((), description="the held-out tasks")
    storage: Storage = Field("exact", description="exact, or float16 for an adapter of half the size")
    out: str = Field("runs/recipe", description="folder of the finished checkpoint, metrics.jsonl and checkpoints/")

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [part.name for part in self.heldout]
        if len(set(names)) != len(names):
            raise ValueError(f"the names of heldout sets must differ, got {names}")
        return self

    def settings(self) -> TrainSettings:
        """The part that the training loop reads."""
        return TrainSettings(**{name: getattr(self, name) for name in TrainSettings.model_fields})

    def digest(self) -> str:
        """SHA-256 of all settings, in hexadecimal; the same for recipes that train alike."""
        unsaid = {name for name in ("pooling", "prefix") if getattr(self.encoder, name) is None}
        found = self.model_dump_json(exclude={"out": True, "encoder": unsaid})
        return hashlib.sha256(found.encode()).hexdigest()
