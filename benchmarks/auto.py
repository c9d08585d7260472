"""How ``auto`` does on held-out tasks compared with each single head, and whether its self-assessment is correct.

    python benchmarks/auto.py --data-dir ../shared/data     # make bench-auto; about 40 minutes on 2 cores
    python benchmarks/auto.py --table                       # reprint the tables from results/auto.json

More than 200 tasks of Injongo, SIB-200, BANKING77, CLINC150 and SMS spam (``auto_tasks.HELD_OUT``), 1, 5 and 10 shots.
Each is written to results/auto.json as soon as it is done, so that a killed run resumes. CLINC150 was in meta-training
with all its classes (other texts), Injongo and SIB-200 in other languages, the rest not at all.
"""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from auto_summary import show, summary
from auto_tasks import HELD_OUT, SHOTS_HELD_OUT, Pools, table_of
from threadpoolctl import threadpool_limits
from torch import Tensor

from nlpmeta.auto.answers import label_sets, out_of_scope_scores
from nlpmeta.auto.diagnosis import diagnose
from nlpmeta.auto.heads import Candidate, columns_of, seen
from nlpmeta.auto.judging import CrossValidation
from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.priors import FILE
from nlpmeta.data import Episode, LabeledTexts
from nlpmeta.encoder.table import EmbeddingTable
from nlpmeta.encoder.views import FROZEN
from nlpmeta.episodes import generator
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.episodes.pools import WithOutOfScope
from nlpmeta.learners.base import Texts
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.start import starting_learner
from nlpmeta.metrics import calibration_bins
from nlpmeta.sources.loading import load_source
from nlpmeta.storage.files import write_json

RESULTS = Path("results/auto.json")
BASELINE = "frozen logistic regression"
COVERAGES = (0.8, 0.9, 0.95)
MOST_TO_SHUFFLE = 210  # support texts; larger tasks cost much and are the easy ones to tell from random labels
SCOPE_DRAWS = 3
Row = dict[str, object]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--table", action="store_true", help="print the tables of the existing results")
    asked = parser.parse_args()
    if not asked.table:
        torch.set_num_threads(1)
        with threadpool_limits(limits=1), torch.no_grad():
            measure(asked.data_dir)
    show(json.loads(RESULTS.read_text(encoding="utf-8")))
    return 0


def measure(data_dir: Path) -> None:
    """Every task that is not in the results yet, or was measured with another checkpoint or other priors."""
    auto = starting_learner("auto")
    if not isinstance(auto, AutoHead):
        raise SystemExit("The method 'auto' is another one than this measures.")
    state = hashlib.sha256(FILE.read_bytes() + _adapter(auto)).hexdigest()[:16]
    rows = {str(row["task"]): row for row in _known(state)}

    def keep(name: str, work: Callable[[], Row]) -> None:
        if name not in rows:
            start = time.perf_counter()
            rows[name] = {"task": name, **work()}
            facts = {"command": "python benchmarks/auto.py", "seed": 0, "state": state}
            write_json(RESULTS, facts | {"summary": summary(list(rows.values())), "tasks": list(rows.values())})
            print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)

    for family in HELD_OUT:
        pools = family.pools(data_dir)
        table = table_of(auto, [pools])
        for number, n_shot in ((number, shot) for number in range(family.n_tasks) for shot in SHOTS_HELD_OUT):
            keep(f"{family.name}/{number}/{n_shot}", lambda: one_task(auto, table, pools, number, n_shot))  # noqa: B023
    for index, (episode, table) in enumerate(scope_episodes(auto, data_dir)):
        keep(f"clinc150-oos/{index}/10", lambda: scope_task(auto, table, episode))  # noqa: B023


def one_task(auto: AutoHead, table: EmbeddingTable, pools: Pools, number: int, n_shot: int) -> Row:
    """Accuracy of auto and of each head, calibration, coverage of label sets, warnings of clean and of bad tasks."""
    episode = pools.task(number, n_shot)
    labels = torch.tensor(episode.query.labels)
    row: Row = {"set": pools.family.data, "lang": pools.family.lang, "n_way": episode.n_way, "n_shot": n_shot}
    row["n_query"] = len(labels)
    alone = {name: _accuracy(scores, labels) for name, scores in singles(auto, table, episode)}
    start = time.perf_counter()
    known = auto.known(auto.support(episode.support, table))
    judged = auto.judge(known)
    state = auto.adapt_to(known, judged)
    row["adapt_seconds"] = time.perf_counter() - start
    logits = auto.logits(state, Texts(episode.query.texts, table(episode.query.texts)))
    probabilities = logits.softmax(1).double().numpy()
    row["accuracy"] = {"auto": _accuracy(logits, labels)} | alone
    row["bins"] = calibration_bins(episode.query.labels, probabilities).tolist()
    row["sets"] = {str(level): _sets(auto, state, logits, labels, level) for level in COVERAGES}
    row["heads"] = {head.name: float(head.share) for head in auto.predictor(state).heads}
    row["report"] = _report(auto, table, episode.support, judged)
    if n_shot > 1 and number < 4 and len(episode.support) <= MOST_TO_SHUFFLE:
        row["random_labels"] = _report(auto, table, _shuffled(episode.support, number))["warns"]
    if n_shot == 5 and number < 2 and len(episode.support) <= MOST_TO_SHUFFLE:
        row["unknown_script"] = _report(auto, table, _unwritten(episode.support))["warns"]
    return row


def singles(auto: AutoHead, table: EmbeddingTable, episode: Episode) -> Iterator[tuple[str, Tensor]]:
    """The scores of each head alone on the query, and of the plain baseline with its own choice of a penalty."""
    known = auto.known(auto.support(episode.support, table))
    queries = Texts(episode.query.texts, table(episode.query.texts))
    for name, candidate in auto.heads_for(known).items():
        state = candidate.head.adapt(seen(auto.encoder, known, candidate))
        features = columns_of(auto.encoder, queries.features, candidate.scales)
        yield name, candidate.head.logits(state, Texts(queries.texts, features))
    plain = LogisticHead(auto.encoder)
    support = seen(auto.encoder, known, Candidate(plain, (FROZEN,)))
    frozen = queries.features[:, auto.encoder.columns(FROZEN)]
    yield BASELINE, plain.logits(plain.adapt(support), Texts(queries.texts, frozen))


def scope_episodes(auto: AutoHead, data_dir: Path) -> Iterator[tuple[Episode, EmbeddingTable]]:
    """All 150 intents with 10 support texts each, 1,500 test texts in scope and the 1,000 out of scope."""
    from auto_tasks import some_of

    source, table = load_source("clinc150", data_dir=data_dir), table_of(auto, [])
    test, outside = some_of(source.load(None, "test"), 1500, 0), source.load(None, "oos_test").texts
    family = next(family for family in HELD_OUT if family.data == "clinc150")
    sampler = KShotSampler(family.pools(data_dir).pool, n_shot=10, seed=0, test=test, rare="keep")
    for index in range(SCOPE_DRAWS):
        episode = WithOutOfScope(sampler, outside).episode(index)
        table.prime(episode.texts(), show_progress=True)
        yield episode, table


def scope_task(auto: AutoHead, table: EmbeddingTable, episode: Episode) -> Row:
    """How well the out-of-scope score, and the largest probability, tell texts out of scope."""
    from sklearn.metrics import roc_auc_score

    state = auto.adapt(auto.support(episode.support, table))
    queries = Texts(episode.query.texts + episode.out_of_scope, table(episode.query.texts + episode.out_of_scope))
    logits = auto.logits(state, queries)
    n = len(episode.query)
    right = (logits[:n].argmax(1) == torch.tensor(episode.query.labels)).numpy()
    outside = np.arange(len(logits)) >= n
    row: Row = {"set": "clinc150-oos", "n_way": episode.n_way, "n_shot": 10, "in_scope_accuracy": float(right.mean())}
    scores = {
        "score": out_of_scope_scores(auto.predictor(state), queries),
        "probability": -logits.softmax(1).max(1).values,
    }
    for name, each in scores.items():
        values = each.double().numpy()
        row[f"auroc_{name}"] = float(roc_auc_score(outside, values))
        row[f"recall_{name}"] = recall_where_kept(values, right, outside, kept=0.96)
    return row


def recall_where_kept(scores: "np.ndarray", right: "np.ndarray", outside: "np.ndarray", *, kept: float) -> float:
    """The share of texts out of scope refused at the threshold that keeps this share of the in-scope accuracy."""
    in_scope = np.sort(scores[~outside][right])
    threshold = in_scope[int(np.ceil(kept * len(in_scope))) - 1]
    return float((scores[outside] > threshold).mean())


def _accuracy(scores: Tensor, labels: Tensor) -> float:
    return float((scores.argmax(1) == labels).float().mean())


def _sets(auto: AutoHead, state: dict[str, Tensor], logits: Tensor, labels: Tensor, level: float) -> Row:
    sets = label_sets(auto.predictor(state), logits, range(logits.size(1)), coverage=level)
    held = [int(label) in each.labels for each, label in zip(sets, labels, strict=True)]
    return {
        "covered": float(np.mean(held)),
        "size": float(np.mean([len(each.labels) for each in sets])),
        "one_label": float(np.mean([each.label is not None for each in sets])),
        "unsure": float(np.mean([each.is_unsure for each in sets])),
    }


def _report(auto: AutoHead, table: EmbeddingTable, support: LabeledTexts, judged: CrossValidation | None = None) -> Row:
    report = diagnose(auto, support, embed=table, judged=judged)
    low, middle, high = report.expected
    found: Row = {"warns": report.warns, "low": low, "expected": middle, "high": high, "nearest": report.nearest}
    return found | {"alike": len(report.alike), "doubtful": len(report.doubtful), "farther": report.farther}


def _shuffled(support: LabeledTexts, number: int) -> LabeledTexts:
    order = generator(number, 0, stream=9).permutation(len(support)).tolist()
    return LabeledTexts(support.texts, tuple(support.labels[row] for row in order), support.label_names)


def _unwritten(support: LabeledTexts) -> LabeledTexts:
    """The same in the Cherokee syllabary, letter for letter, which the encoder has never seen."""
    first = 0x13A0
    texts = tuple(
        "".join(chr(first + ord(letter.casefold()[0]) % 80) if letter.isalpha() else letter for letter in text)
        for text in support.texts
    )
    return LabeledTexts(texts, support.labels, support.label_names)


def _known(state: str) -> list[Row]:
    if not RESULTS.exists():
        return []
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows: list[Row] = found["tasks"] if found["state"] == state else []
    return rows


def _adapter(auto: AutoHead) -> bytes:
    from nlpmeta.encoder.lora import adapter_weights

    weights = adapter_weights(auto.encoder)
    return b"".join(weight.detach().numpy().tobytes() for _, weight in sorted(weights.items()))


if __name__ == "__main__":
    sys.exit(main())
