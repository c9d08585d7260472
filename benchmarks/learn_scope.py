"""Learns to detect out-of-scope texts from auxiliary tasks.

    python benchmarks/learn_scope.py --data-dir ../shared/data
    python benchmarks/learn_scope.py --measure         # the weights that are there, on the checkpoint that is there

Writes nlpmeta/auto/scope.json, in about 20 minutes on one core alongside other work. Tasks are drawn from the dev
splits of the languages in ``auto_tasks.AUXILIARY``; out-of-scope texts come from classes that are not in the task, and
from the sentences of nlpmeta/auto/small_talk.txt, each scored against the other sentences. It then evaluates, without
learning, on CLINC150's validation split: its own out-of-scope texts, and small-talk sentences that are not in the file.
"""

import argparse
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from auto_tasks import AUXILIARY, Family, Pools
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.mismatch import WEIGHTS_FILE, near_clues, scope_scores, small_talk, small_talk_likeness
from nlpmeta.data import Episode
from nlpmeta.encoder.table import EmbeddingTable, embeddings_folder
from nlpmeta.encoder.views import FROZEN, ScaledEncoder
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Embed, Texts
from nlpmeta.learners.start import starting_learner
from nlpmeta.sources.loading import load_source
from nlpmeta.storage.files import write_json

SHOTS = (2, 5, 10)
FEW = (
    "injongo/hau",
    "injongo/lin",
    "injongo/amh",
    "injongo/ewe",
    "massive/de-DE",
    "massive/id-ID",
    "sib200/eng_Latn",
    "sib200/amh_Ethi",
    "sib200/zho_Hans",
    "sib200/hau_Latn",
)
UNHEARD = (
    "hey",
    "how is it going",
    "yes please",
    "you too",
    "cool",
    "that's great",
    "lovely weather",
    "good afternoon",
    "have fun",
    "what's up",
    "I see",
    "one moment",
    "got it",
    "Habari za leo",
    "Sawa sawa",
    "Shikamoo",
    "Poa",
    "Asante, niko sawa",
    "Salama",
    "Bonsoir",
    "Tout va bien",
    "Alles klar",
    "Buenas noches",
    "Ciao",
)
"""Small talk that is not in the file."""


def small(family: Family) -> Family:
    """Few texts of each class: what is learned is five numbers."""
    ways = tuple(n for n in family.ways if n) or family.ways
    return replace(family, split="dev", query=None, per_class=14, n_query=60, ways=ways, n_tasks=2, max_shot=10)


def tasks_of(pool: Pools) -> list[Episode]:
    """Two tasks of each number of shots that the classes have texts for."""
    found = []
    for n_shot in SHOTS:
        for number in range(2):
            with suppress(NLPMetaError):  # too few texts
                found.append(pool.task(number, n_shot))
    return found


def clues_of(auto: AutoHead, episode: Episode, outside: Sequence[str], embed: Embed) -> tuple[Tensor, Tensor, Tensor]:
    """The clues to the query, to texts out of scope, and to small talk."""
    known = auto.known(auto.support(episode.support, embed))
    state = auto.adapt(known)
    talk_texts = small_talk()
    mixture = auto.predictor(state)
    n_views = mixture.n_views
    read = {text: mixture.read(Texts(("",), embed([text]))) for text in talk_texts}
    talk = torch.cat([read[text] for text in talk_texts])

    def clues(texts: Sequence[str], itself: bool = False) -> Tensor:
        queries = Texts(tuple(texts), embed(texts))
        features = mixture.read(queries)
        if itself:
            rest = [torch.cat([talk[:i], talk[i + 1 :]]) for i in range(len(talk))]
            parts = [small_talk_likeness(features[i : i + 1], rest[i], n_views=n_views) for i in range(len(talk))]
            near = torch.cat(parts)
        else:
            near = small_talk_likeness(features, talk, n_views=n_views)
        return near_clues(
            mixture.logits(queries).log_softmax(1),
            features,
            mixture.prototypes,
            near,
            usual=float(mixture.usual_likeness),
            n_views=n_views,
            n_shot=mixture.n_shot,
        )

    outer = clues(outside) if outside else torch.empty(0, 5)
    return clues(episode.query.texts), outer, clues(talk_texts, itself=True)


def learn(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[float, ...]:
    """Logistic regression; tasks count alike, texts in scope as much as others, other classes as much as small talk."""
    from sklearn.linear_model import LogisticRegression

    rows: list[NDArray[np.float64]] = []
    inside, weights = [], []
    for query, outside, talk in parts:
        share = 0.5 if len(outside) else 1.0
        for some, is_inside, weight in ((query, True, 1.0), (outside, False, 0.5), (talk, False, share)):
            if len(some):
                rows.append(some.numpy())
                inside += [is_inside] * len(some)
                weights += [weight / len(some)] * len(some)
    model = LogisticRegression(C=100.0, fit_intercept=False, max_iter=5000)
    model.fit(np.concatenate(rows), inside, weights)
    return tuple(round(float(each), 3) for each in model.coef_[0])


def clinc(data_dir: Path) -> Pools:
    """CLINC150's validation split, which nothing is learned from."""
    family = Family("clinc150", split="train", query="dev", per_class=10, n_query=60, ways=(8, 20), n_tasks=4)
    return family.pools(data_dir)


def measured(name: str, parts: Sequence[tuple[Tensor, Tensor, Tensor]], weights: Sequence[float]) -> None:
    """How much is refused at the threshold of a half."""
    shares = [
        [float((scope_scores(each, weights) > 0.5).float().mean()) if len(each) else np.nan for each in part]
        for part in parts
    ]
    said = zip(("in scope", "other texts", "small talk"), np.nanmean(np.asarray(shares), axis=0), strict=True)
    print(f"  {name}: refused " + ", ".join(f"{what} {100 * share:.1f} %" for what, share in said), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--measure", action="store_true", help="learn nothing: measure the weights of the package")
    asked = parser.parse_args()
    shipped = json.loads(WEIGHTS_FILE.read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    auto = starting_learner("auto")
    frozen = starting_learner("auto", checkpoint="none")
    if (
        not isinstance(auto, AutoHead)
        or not isinstance(frozen, AutoHead)
        or not isinstance(auto.encoder, ScaledEncoder)
    ):
        raise SystemExit("A checkpoint with adapters is needed.")
    with threadpool_limits(limits=1), torch.no_grad():
        pools = [small(family).pools(asked.data_dir) for family in AUXILIARY if family.name in FEW]
        tests, oos = clinc(asked.data_dir), load_source("clinc150", data_dir=asked.data_dir).load(None, "oos_dev")
        table = EmbeddingTable(auto.encoder, embeddings_folder())
        table.prime([*small_talk(), *UNHEARD, *oos.texts[:60]])
        columns = auto.encoder.columns(FROZEN)
        embeds = {"two_views": table, "one_view": lambda texts: table(texts)[:, columns]}
        found = {}
        for name, learner in (("two_views", auto), ("one_view", frozen)):
            embed = embeds[name]
            parts = []
            for pool in pools:
                tasks = tasks_of(pool)
                some = [clues_of(learner, task, task.out_of_scope[:30], embed) for task in tasks]
                parts += some
                print(f"  {pool.family.name}", flush=True)
            found[name] = tuple(shipped[name]) if asked.measure else learn(parts)
            print(name, found[name], flush=True)
            measured("auxiliary", parts, found[name])
            held_out = [tests.task(number, n_shot) for n_shot in (2, 5) for number in range(4)]
            unheard = [clues_of(learner, t, (*oos.texts[:60],), embed)[:2] for t in held_out]
            talk = [clues_of(learner, t, UNHEARD, embed)[1] for t in held_out]
            both = [(*u, t) for u, t in zip(unheard, talk, strict=True)]
            measured("CLINC150, validation", both, found[name])
    if not asked.measure:
        write_json(WEIGHTS_FILE, {"command": "python benchmarks/learn_scope.py", **found})


if __name__ == "__main__":
    main()
