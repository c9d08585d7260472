"""AdapterStore with ten thousand users, and what a personal head gains on popquorn.

    python benchmarks/adapter_store.py --data-dir ../shared/data
    python benchmarks/adapter_store.py --part scale             # or --part popquorn

Writes results/adapter_store.json.

*scale*: 10,000 users with ten classes of random unit vectors each, float16 heads; file size; seconds to open it; 64
texts of 64 users against 64 texts of one user, medians of alternating runs on the packaged encoder with the shipped
checkpoint.

*popquorn*: offensiveness from 1 to 5 by 262 annotators. A head for everyone is trained on the ratings of the even
annotators; each odd annotator's head starts from it with half of that annotator's ratings (at random, seed 0) and is
scored on the other half, against the majority label of the very same text among all other annotators (which is not
available for a new text: the baseline knows more than the method). The interval is a bootstrap over annotators. The
penalty of personal heads was chosen on the even annotators.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nlpmeta import AdapterStore
from nlpmeta.encoder.table import EmbeddingTable, embeddings_folder
from nlpmeta.learners.base import Support
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.start import starting_learner
from nlpmeta.sources.loading import load_source
from nlpmeta.storage.files import write_json
from nlpmeta.users.heads import head_near, pack

SEED, N_USERS, N_WAY, BATCH, RUNS = 0, 10_000, 10, 64, 15
OUT = Path("results/adapter_store.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--part", choices=["scale", "popquorn"])
    asked = parser.parse_args()
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    if asked.part != "popquorn":
        found["scale"] = scale()
    if asked.part != "scale":
        found["popquorn"] = {which: popquorn(asked.data_dir, which) for which in ("none", "default")}
    write_json(OUT, found)
    print(json.dumps(found, indent=2))


def scale() -> dict[str, object]:
    generator = torch.Generator().manual_seed(SEED)
    learner = starting_learner("logistic")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "users.sqlite"
        store = AdapterStore(path, learner)
        start = time.perf_counter()
        for first in range(0, N_USERS, 1000):
            store._file.write({f"user {i}": head(learner, generator) for i in range(first, first + 1000)})
        filling = time.perf_counter() - start
        store.close()
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        opening = [seconds(lambda: AdapterStore(path, learner).close()) for _ in range(RUNS)]
        store = AdapterStore(path, learner)
        texts = list(load_source("starter").load("en").texts[:BATCH])
        one, many = ["user 5"] * BATCH, [f"user {157 * i}" for i in range(BATCH)]
        store.predict(many, texts)
        times = [
            (seconds(lambda: store.predict(one, texts)), seconds(lambda: store.predict(many, texts)))
            for _ in range(RUNS)
        ]
    single, mixed = (statistics.median(each) for each in zip(*times, strict=True))
    return {
        "users": N_USERS,
        "classes_of_a_user": N_WAY,
        "file_mb": round(size / 1e6, 1),
        "bytes_of_a_user": head(learner, generator).size("user 1"),
        "filling_s": round(filling, 1),
        "opening_s": round(statistics.median(opening), 4),
        "texts": BATCH,
        "one_user_s": round(single, 4),
        "as_many_users_s": round(mixed, 4),
        "ratio": round(statistics.median(b / a for a, b in times), 3),
    }


def head(learner: LogisticHead, generator: torch.Generator):  # noqa: ANN201
    state = {"weight": torch.randn(N_WAY, learner.encoder.dim, generator=generator), "bias": torch.zeros(N_WAY)}
    return pack("user", state, np.asarray([f"class {i}" for i in range(N_WAY)]))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def popquorn(data_dir: Path, checkpoint: str) -> dict[str, object]:
    folder = data_dir / "popquorn"
    items = {row["item_id"]: row["text"] for row in rows(folder / "items.jsonl")}
    ratings = [(row["user"], row["item_id"], int(row["label"])) for row in rows(folder / "annotations.jsonl")]
    encoder = starting_learner("logistic", checkpoint=checkpoint).encoder
    table = EmbeddingTable(encoder, embeddings_folder())
    table.prime(list(items.values()))
    learner = LogisticHead(encoder, inverse_penalty=1.0)
    even = [(item, label) for user, item, label in ratings if int(user) % 2 == 0]
    names = torch.tensor([label - 1 for _, label in even])
    texts = tuple(items[item] for item, _ in even)
    with torch.no_grad():
        everyone = learner.adapt(Support(texts, table(texts), names, 5))
    scores = defaultdict(list)
    rng = np.random.default_rng(SEED)
    for user in sorted({user for user, _, _ in ratings if int(user) % 2 == 1}, key=int):
        own = [(item, label) for rater, item, label in ratings if rater == user]
        order = rng.permutation(len(own))
        known, asked = ([own[i] for i in half] for half in np.array_split(order, 2))
        for name, right in of_one(user, known, asked, everyone, table, items, ratings).items():
            scores[name].append(right)
    return summary(scores)


def of_one(user, known, asked, everyone, table, items, ratings) -> dict[str, float]:  # noqa: ANN001
    labels = torch.tensor([label - 1 for _, label in known])
    near = head_near(table([items[item] for item, _ in known]), labels, everyone)
    queries, truth = table([items[item] for item, _ in asked]), np.array([label for _, label in asked])

    def predicted(state: dict[str, torch.Tensor]) -> np.ndarray:
        return (queries @ state["weight"].T + state["bias"]).argmax(1).numpy() + 1

    own = most_common([label for _, label in known])
    others = [most_common([x for rater, each, x in ratings if each == item and rater != user]) for item, _ in asked]
    guesses = {
        "personal_head": predicted(near),
        "head_of_everyone": predicted(everyone),
        "majority_of_the_others_on_the_text": np.array(others),
        "own_most_frequent_label": np.full(len(truth), own),
    }
    return {name: float((guess == truth).mean()) for name, guess in guesses.items()}


def summary(scores: dict[str, list[float]]) -> dict[str, object]:
    rng = np.random.default_rng(SEED)
    personal = np.array(scores["personal_head"])
    found: dict[str, object] = {"users": len(personal)}
    for name, values in scores.items():
        found[name] = {"accuracy": round(100 * float(np.mean(values)), 1)}
        if name != "personal_head":
            gaps = personal - np.array(values)
            drawn = gaps[rng.integers(len(gaps), size=(10_000, len(gaps)))].mean(1)
            found[name]["personal_minus_this"] = round(100 * float(gaps.mean()), 2)
            found[name]["interval_95"] = [round(100 * float(x), 2) for x in np.quantile(drawn, [0.025, 0.975])]
    return found


def most_common(labels: list[int]) -> int:
    """The most frequent label; the lowest of equals."""
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label), default=1)


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    main()
