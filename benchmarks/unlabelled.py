"""Does unlabelled text of the target language help before adapting? In results/frontier.json; it does not.

    python benchmarks/unlabelled.py --part language --draws 3 --steps 30     # Swahili; 10 minutes
    python benchmarks/unlabelled.py --part unseen-language --draws 3         # Kazakh and Batak; 25 minutes of one core

The adapters of the shipped checkpoint are trained further on clusters of the texts, masked words and views of a
sentence. A guard keeps that if the log probability of held-out support texts rises by more than its standard error;
with one example per class the names of the classes stand in for the others. It was an option of ``nlpmeta adapt``;
docs/what-did-not-work.md has what came of it. Rows of a language are replaced, the others stay.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nlpmeta.auto.judging import held_out_scores, n_folds
from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.episodes import Known, Range, Sampler, generator
from nlpmeta.episodes.clusters import ClusterSampler
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.episodes.raw_texts import MaskedWordSampler, SentenceViewSampler
from nlpmeta.episodes.wrappers import MixtureSampler
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner, Support, learners
from nlpmeta.learners.checkpoint import load_checkpoint
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.learners.start import find_checkpoint, starting_learner
from nlpmeta.metrics.scores import score_episode
from nlpmeta.sources.loading import load_source
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import meta_train

OUT = Path("results/frontier.json")
UNSEEN = {
    "Kazakh, 5000": ("kk", ("kazsandra-domain", "kazsandra-stars", "kazsandra-sentiment"), "kazsandra-sentiment", 5000),
    "Batak, 500": ("btk", ("nusawrites-emotion", "nusawrites-rhetoric", "nusawrites-topic"), "nusawrites-topic", 500),
    "Batak, all": ("btk", ("nusawrites-emotion", "nusawrites-rhetoric", "nusawrites-topic"), "nusawrites-topic", 5000),
    "Kazakh, 500": ("kk", ("kazsandra-domain", "kazsandra-stars", "kazsandra-sentiment"), "kazsandra-sentiment", 500),
}
"""Language, sets whose train texts are read without labels, set that is measured on, and the most texts."""
MOST_TOKENS, SHOTS = 48, (1, 5)
_TEXTS_A_CLUSTER, _TEMPERATURE = 12, 0.05


def trained_on_texts(texts: Sequence[str], *, max_length: int | None, steps: int, seed: int = 0) -> Learner:
    """``auto``, the adapters of the shipped checkpoint trained further on tasks from ``texts``."""
    folder = find_checkpoint("default", encoder="intfloat/multilingual-e5-small", method="auto")
    trained = load_checkpoint(folder, max_length=max_length)
    learner = PrototypicalNetwork(trained.encoder, metric="cosine", temperature=_TEMPERATURE)
    settings = TrainSettings(steps=steps, seed=seed, learning_rate=1e-4, warmup=5, ema=0.9, renew_every=steps)
    meta_train(learner, tasks_from(texts, mask=trained.encoder.mask_token, seed=seed), settings=settings)
    return learners["auto"].on(trained.requires_grad_(False).eval()).eval()


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


def kept(before: Tensor, after: Tensor) -> tuple[bool, float]:
    """Whether the guard keeps it, and the mean gain in log probability that it sees."""
    gains = (after - before).double()
    gain, error = float(gains.mean()), float(gains.std(correction=1) / len(gains) ** 0.5)
    return gain > error, gain


def swahili(data_dir: Path) -> tuple[list[str], LabeledTexts, LabeledTexts]:
    """At most 500 Swahili sentences of the starter corpora, and Injongo's train and test texts."""
    every = sorted({text for name in ("starter", "starter-spam") for text in load_source(name).load("sw").texts})
    picked = generator(0, 0, stream=3).choice(len(every), min(500, len(every)), replace=False)
    source = load_source("injongo", data_dir=data_dir)
    return [every[i] for i in sorted(picked.tolist())], source.load("swa", "train"), source.load("swa", "test")


def language(data_dir: Path, *, draws: int, steps: int) -> dict[str, Any]:
    """Swahili, which the shipped checkpoint knows many tasks of: trained anew for each draw."""
    texts, train, test = swahili(data_dir)
    before, rows = starting_learner("auto"), []
    for shots in SHOTS:
        sampler, found = KShotSampler(train, n_shot=shots, seed=0, test=test), []
        for draw in range(draws):
            after = trained_on_texts(texts, max_length=None, steps=steps, seed=draw)
            found.append(judged(before, after, sampler.episode(draw)))
            print(f"{shots} shots, draw {draw}: {found[-1]}", flush=True)
        facts = {"shots": shots, "n_texts": len(texts), "steps": steps, "draws": draws}
        columns = {"before": [row["without"] for row in found], "guarded": [row["guarded"] for row in found]}
        rows.append(facts | {"kept": sum(row["kept"] for row in found)} | columns)
    return {"language": rows}


def unseen_language(data_dir: Path, *, draws: int, steps: int, only: str) -> dict[str, Any]:
    """Languages that labelled training never saw: trained once per language and size, judged and scored per draw."""
    before, rows = starting_learner("auto", max_length=MOST_TOKENS), []
    for about in (name for name in UNSEEN if only in name):
        lang, sets, measured, most = UNSEEN[about]
        source = load_source(measured, data_dir=data_dir)
        train, test = source.load(lang, "train"), source.load(lang, "test")
        samplers = {shots: KShotSampler(train, n_shot=shots, seed=0, test=test) for shots in SHOTS}
        episodes = [(shots, draw, each.episode(draw)) for shots, each in samplers.items() for draw in range(draws)]
        every = [load_source(name, data_dir=data_dir).load(lang, "train") for name in sets]
        texts = sorted(others(every, [test, *(episode.support for *_, episode in episodes)]))
        picked = generator(0, 0, stream=3).choice(len(texts), min(most, len(texts)), replace=False)
        texts = [texts[i] for i in sorted(picked.tolist())]
        start = time.perf_counter()
        after = trained_on_texts(texts, max_length=MOST_TOKENS, steps=steps)
        facts = {"n_texts": len(texts), "steps": steps, "seconds": round(time.perf_counter() - start)}
        for shots, draw, episode in episodes:
            row = {"language": about, "data": measured, "shots": shots, "draw": draw} | facts
            rows.append(row | judged(before, after, episode))
            print(json.dumps(rows[-1]), flush=True)
    return {"unseen_language": rows}


def others(pools: Sequence[LabeledTexts], parts: Sequence[LabeledTexts]) -> Iterator[str]:
    """The texts of ``pools`` that are in none of ``parts``."""
    known = [Known(part) for part in parts]
    for pool in pools:
        for text, *found in zip(pool.texts, *(each.has_rows(pool) for each in known), strict=True):
            if not any(found):
                yield text


def judged(before: Learner, after: Learner, episode: Episode) -> dict[str, Any]:
    """What the guard says of one draw, and the accuracies without the texts, with them, and as the guard has it."""
    likely = [likelihoods(learner, episode.support) for learner in (before, after)]
    keep, gain = kept(*likely)
    without, trained = (score_episode(learner, episode).accuracy for learner in (before, after))
    row = {"kept": keep, "gain_seen_by_the_guard": gain, "without": without, "with": trained}
    return row | {"guarded": trained if keep else without}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("language", "unseen-language"), required=True)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="optimiser steps")
    parser.add_argument("--only", default="", help="unseen-language: only those whose name holds this")
    asked = parser.parse_args()
    earlier = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    if asked.part == "language":
        found = language(asked.data_dir, draws=asked.draws, steps=asked.steps)
    else:
        found = unseen_language(asked.data_dir, draws=asked.draws, steps=asked.steps, only=asked.only)
        again = {row["language"] for row in found["unseen_language"]}
        found["unseen_language"] += [row for row in earlier.get("unseen_language", []) if row["language"] not in again]
    OUT.write_text(json.dumps({**earlier, **found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
