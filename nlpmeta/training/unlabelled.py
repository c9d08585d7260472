"""Learn from unlabelled texts of a language or domain before adapting, and keep that only if it helps."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from nlpmeta.auto.judging import held_out_scores, n_folds
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.device import Device
from nlpmeta.encoder.lora import AdapterSettings, add_adapter, has_adapter
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.episodes import Range, Sampler, fingerprint
from nlpmeta.episodes.clusters import ClusterSampler
from nlpmeta.episodes.raw_texts import MaskedWordSampler, SentenceViewSampler
from nlpmeta.episodes.wrappers import MixtureSampler
from nlpmeta.errors import DataError, NLPMetaError
from nlpmeta.learners.base import Learner, Support, learners
from nlpmeta.learners.checkpoint import load_checkpoint, own_encoder
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.start import find_checkpoint, starting_learner
from nlpmeta.storage.files import Json
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import meta_train

FEWEST = 50
"""Distinct texts below which nothing is learned."""
STEPS = 60
_TEXTS_A_CLUSTER = 12
_TEMPERATURE = 0.05


@dataclass(frozen=True)
class FromTexts:
    """What learning from unlabelled texts came to.

    ``before`` and ``after`` are the mean log probabilities of the right class of support texts that were held out, or,
    with one text a class, that are classified by the names of the classes; ``None`` where neither can be measured.
    """

    n_texts: int
    steps: int
    before: float | None
    after: float | None
    standard_error: float | None
    kept: bool

    def __str__(self) -> str:
        if self.before is None or self.after is None:
            return (
                "Unlabelled texts: not used. With one text a class and names that say nothing, it cannot be seen "
                "whether they help."
            )
        gain = f"{self.after - self.before:+.3f} (standard error {self.standard_error:.3f})"
        verdict = "kept" if self.kept else "not kept; the model starts from what it would have without them"
        return (
            f"Unlabelled texts: {self.steps} steps on {self.n_texts:,}; mean log probability of held-out support texts "
            f"{gain}: {verdict}."
        )

    def json(self) -> dict[str, Json]:
        """For reports."""
        return {name: value for name, value in asdict(self).items()}


def learn_from_texts(
    method: str,
    texts: Sequence[str],
    support: LabeledTexts,
    *,
    encoder: str = DEFAULT_ENCODER,
    checkpoint: str = "default",
    max_length: int | None = None,
    device: Device = "auto",
    steps: int = STEPS,
    seed: int = 0,
    show_progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> tuple[Learner, FromTexts]:
    """The learner called ``method``, its adapters trained further on tasks from ``texts`` if ``support`` gains by it.

    The tasks are clusters of the texts, masked words and views of a sentence. The gain is measured on support texts
    that are held out; it is kept if its mean is larger than its standard error.

    Args:
        method: as for ``starting_learner``; one that works on embeddings.
        texts: without labels; those of the support set are skipped.
        support: the labelled texts that are adapted to.
        encoder: what is started from.
        checkpoint: the same.
        max_length: tokens that are read of a text.
        device: where all of it runs.
        steps: of two tasks each.
        seed: decides tasks and the start of adapters that are new.
        show_progress: a bar, if standard error is a terminal.
        say: called with each note before the first step.

    Raises:
        DataError: if there are fewer than 50 distinct texts.
        NLPMetaError: if the method does not work on embeddings, or its checkpoint has no adapters to train.
    """
    distinct = _distinct(texts, support)
    before = starting_learner(method, encoder=encoder, checkpoint=checkpoint, max_length=max_length, device=device)
    if before.inputs != "embeddings":
        raise NLPMetaError(f"{method} embeds its texts itself; unlabelled texts go with methods such as auto.")
    likely_before = likelihoods(before, support)
    if likely_before is None:
        return before, FromTexts(len(distinct), 0, None, None, None, kept=False)
    after = trained_on_texts(
        method, distinct, encoder=encoder, checkpoint=checkpoint, max_length=max_length, device=device, steps=steps,
        seed=seed, show_progress=show_progress, say=say,
    )  # fmt: skip
    likely_after = likelihoods(after, support)
    return kept_if_better(before, after, likely_before, likely_after, n_texts=len(distinct), steps=steps)


def _distinct(texts: Sequence[str], support: LabeledTexts) -> list[str]:
    known = {fingerprint(text) for text in support.texts}
    distinct = list({fingerprint(text): text for text in texts if fingerprint(text) not in known}.values())
    if len(distinct) < FEWEST:
        raise DataError(
            f"Learning from unlabelled texts takes {FEWEST} or more distinct ones; there are {len(distinct)}."
        )
    return distinct


def trained_on_texts(
    method: str,
    texts: Sequence[str],
    *,
    encoder: str = DEFAULT_ENCODER,
    checkpoint: str = "default",
    max_length: int | None = None,
    device: Device = "auto",
    steps: int = STEPS,
    seed: int = 0,
    show_progress: bool = False,
    say: Callable[[str], None] | None = None,
) -> Learner:
    """The learner called ``method``, its adapters trained further on tasks from ``texts``, which are distinct.

    Raises:
        NLPMetaError: if the checkpoint has no adapters to train.
    """
    folder = find_checkpoint(checkpoint, encoder=encoder, method=method)
    trained = _trainable(encoder, folder, seed, max_length=max_length, device=device)
    learner = PrototypicalNetwork(trained.encoder, metric="cosine", temperature=_TEMPERATURE)
    settings = TrainSettings(steps=steps, seed=seed, learning_rate=1e-4, warmup=5, ema=0.9, renew_every=steps)
    sampler = tasks_from(texts, mask=trained.encoder.mask_token, seed=seed)
    meta_train(learner, sampler, settings=settings, device=device, show_progress=show_progress, say=say)
    trained.requires_grad_(False).eval()
    learned = {"unlabelled_texts": len(texts), "unlabelled_steps": steps}
    trained.encoder.trained = {**(trained.encoder.trained or {}), **learned}
    return trained if type(trained) is learners[method] else learners[method].on(trained).eval()


def kept_if_better(
    before: Learner, after: Learner, likely_before: Tensor, likely_after: Tensor | None, *, n_texts: int, steps: int
) -> tuple[Learner, FromTexts]:
    """The learner to keep: ``after`` only if held-out support texts are likelier by more than the standard error."""
    if likely_after is None:
        raise NLPMetaError("The support set could be judged before and not after: this is a defect of nlpmeta.")
    gains = (likely_after - likely_before).double()
    gain, error = float(gains.mean()), float(gains.std(correction=1) / len(gains) ** 0.5)
    kept = gain > error
    means = float(likely_before.mean()), float(likely_after.mean())
    return (after if kept else before), FromTexts(n_texts, steps, *means, error, kept)


def tasks_from(texts: Sequence[str], *, mask: str | None, seed: int) -> Sampler:
    """Clusters, masked words and views of sentences, those kinds that the texts are enough for."""
    ways, one = Range(5, 20), Range(1, 2)
    n_clusters = max(ways.low, len(texts) // _TEXTS_A_CLUSTER)
    samplers: list[Sampler] = [
        ClusterSampler(texts, n_way=ways, n_shot=one, n_query=1, seed=seed, n_clusters=n_clusters, n_partitions=4)
    ]
    for kind in (SentenceViewSampler, MaskedWordSampler) if mask is not None else ():
        try:
            samplers.append(kind(texts, n_way=ways, n_shot=one, n_query=1, seed=seed, mask=str(mask)))
        except NLPMetaError:
            continue  # too few words that repeat, or too short
    return MixtureSampler(samplers, weights=[2.0, 1.0, 1.0][: len(samplers)], seed=seed)


def _trainable(encoder: str, folder: Path | None, seed: int, *, max_length: int | None, device: Device) -> Learner:
    """What is started from, on an encoder of its own whose adapters train."""
    if folder is None:
        own = own_encoder(encoder, max_length=max_length, device=device)
        add_adapter(own, AdapterSettings(), seed=seed)
        return PrototypicalNetwork(own, metric="cosine", temperature=_TEMPERATURE)
    found = load_checkpoint(folder, max_length=max_length, device=device)
    if not has_adapter(found.encoder):
        raise NLPMetaError(f"The checkpoint {folder.name} has no adapters that could learn from unlabelled texts.")
    return found


@torch.no_grad()
def likelihoods(learner: Learner, support: LabeledTexts) -> Tensor | None:
    """The log probability of the right class of each support text when it is held out, ``(n,)``.

    With one text of some class, the class names take the place of the other texts; ``None`` if they say nothing.
    """
    learner = learner.eval()
    known = learner.support(support, learner.encoder.encode)
    if n_folds(known) > 1:
        scores = held_out_scores(learner, known, n_folds(known))
    else:
        head = PrototypicalNetwork(learner.encoder, metric="cosine", temperature=_TEMPERATURE, names=True)
        names = head.support(support, learner.encoder.encode).names
        if names is None:
            return None
        named = Support(names.texts, names.features, torch.arange(known.n_way, device=known.labels.device), known.n_way)
        scores = head.logits(head.adapt(named), known)
    return scores.float().log_softmax(1)[torch.arange(len(known), device=scores.device), known.labels].cpu()
