"""Every number of a training run."""

from typing import Literal

from pydantic import Field

from nlpmeta.settings import HIGHEST_RATE, HIGHEST_SEED, MOST_STEPS, Settings

Precision = Literal["no", "bf16", "fp16"]


class TrainSettings(Settings):
    """How long, how fast and towards what a learner is meta-trained."""

    steps: int = Field(1000, ge=1, le=MOST_STEPS, description="optimiser steps")
    episodes_per_step: int = Field(
        2, ge=1, le=4096, description="episodes that are encoded together, over all processes"
    )
    accumulate: int = Field(
        1, ge=1, le=4096, description="such groups of episodes whose gradients are averaged for one step"
    )
    seed: int = Field(0, ge=0, le=HIGHEST_SEED, description="decides episodes, adapter start and dropout")
    learning_rate: float = Field(3e-4, gt=0, le=HIGHEST_RATE, description="highest rate of the adapter's weights")
    head_learning_rate: float = Field(
        3e-3, gt=0, le=HIGHEST_RATE, description="highest rate of the learner's own weights"
    )
    weight_decay: float = Field(0.01, ge=0, le=10, description="AdamW's decay of the adapter's weights")
    warmup: int = Field(20, ge=0, le=MOST_STEPS, description="steps over which the rates rise from 0")
    final_rate: float = Field(0.05, ge=0, le=1, description="share of the rates that is left at the end of the cosine")
    max_grad_norm: float = Field(1.0, gt=0, le=1e6, description="gradients longer than this are shortened to it")
    ema: float = Field(0.98, ge=0, lt=1, description="decay of the moving average of weights that is kept; 0 for none")
    mixed_precision: Precision = Field("no", description="no, bf16 or fp16, through Accelerate")
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
        100, ge=1, le=MOST_STEPS, description="steps between two clusterings, where tasks are clusters of embeddings"
    )
    keep: Literal["best", "last"] = Field(
        "best", description="the weights that are left: best on the held-out tasks, or the last"
    )
    worst_group: float = Field(
        0.0,
        ge=0,
        le=100,
        description="how fast weight goes to the groups with the highest loss (group DRO); 0 for not at all",
    )
    group_by: Literal["lang", "domain"] = Field("lang", description="what makes a group, for worst_group")
    mix_share: float = Field(
        0.0, ge=0, le=1, description="share of the episodes whose classes become mixtures of two, in the embeddings"
    )
    eval_every: int = Field(50, ge=1, le=MOST_STEPS, description="steps between two measurements on held-out tasks")
    eval_episodes: int = Field(10, ge=1, le=100_000, description="episodes of each held-out set")
    control_episodes: int = Field(
        4, ge=0, le=100_000, description="label-shuffled control episodes at each measurement"
    )
    patience: int | None = Field(
        None, ge=1, le=MOST_STEPS, description="measurements without a better one before stopping"
    )
    checkpoint_every: int = Field(50, ge=1, le=MOST_STEPS, description="steps between two checkpoints for --resume")
    keep_checkpoints: int = Field(2, ge=1, le=10_000, description="how many of them are kept")
    trackers: tuple[str, ...] = Field((), description="tensorboard, trackio, wandb: those that Accelerate finds")
