"""The cost of changing the classes of an adapted model, beyond the embedding of its new texts.

    python benchmarks/change_classes.py --data-dir ../shared/data          # a minute

Medians over five changes of an `auto` model on MASSIVE Afrikaans, five texts per class. Encoding is timed separately on
the same texts and subtracted.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

SHOTS, TIMES = 5, 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--method", default="auto")
    asked = parser.parse_args()

    from nlpmeta import FewShotClassifier
    from nlpmeta.sources.loading import load_source

    pool = load_source("massive", data_dir=asked.data_dir).load("af", "train")
    texts = defaultdict(list)
    for text, name in zip(pool.texts, pool.names(), strict=True):
        texts[name].append(text)
    names = sorted(name for name, found in texts.items() if len(found) >= 2 * SHOTS + TIMES)
    table = Table("ways", "fit, ms", "partial_fit", "add_class", "remove_class", "rename_class")
    for n_way in (5, 20, len(names) - 1):
        chosen, extra = names[:n_way], names[n_way]
        X = [text for name in chosen for text in texts[name][:SHOTS]]
        y = [name for name in chosen for _ in range(SHOTS)]
        classifier = FewShotClassifier(asked.method)
        fit = timed(lambda c=classifier, X=X, y=y: c.fit(X, y))
        found = defaultdict(list)
        for i in range(TIMES):
            one, several = texts[chosen[i % n_way]][SHOTS + i], texts[extra][:SHOTS]
            for name, new, change in (
                ("partial_fit", [one], lambda c=classifier, t=one, i=i, k=chosen: c.partial_fit([t], [k[i % len(k)]])),
                ("add_class", several, lambda c=classifier, t=several, e=extra: c.add_class(e, t)),
                ("rename_class", [f"name {i}"], lambda c=classifier, e=extra, i=i: c.rename_class(e, f"name {i}")),
                ("remove_class", [], lambda c=classifier, i=i: c.remove_class(f"name {i}")),
            ):
                took = timed(change)
                encoding = timed(lambda c=classifier, t=new: c.learner_.encoder.encode(t)) if new else 0.0
                found[name].append(took - encoding)
        medians = {name: 1e3 * statistics.median(values) for name, values in found.items()}
        order = ("partial_fit", "add_class", "remove_class", "rename_class")
        table.add_row(str(n_way), f"{1e3 * fit:,.0f}", *(f"{medians[name]:.0f}" for name in order))
    Console().print(table)
    return 0


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
