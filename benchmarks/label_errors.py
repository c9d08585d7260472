"""How many of the examples that ``suspects`` puts first have a label that was planted.

    python benchmarks/label_errors.py --data-dir ../shared/data

Ten examples of each class are drawn from the train split, and one in ten gets another label at random. The examples are
ranked by ``FewShotClassifier.suspects``; the share of planted ones among the first tenth is printed for each draw.
"""

import json
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from nlpmeta import KShotSampler, load_source
from nlpmeta.learners.base import Learner
from nlpmeta.learners.start import starting_learner
from nlpmeta.metrics.scores import Interval

RESULTS = Path("results/label_errors.json")
TASKS = (("massive", "sw-KE"), ("banking77", "en"))
SHARE, N_SHOT = 0.1, 10


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="Folder with copies of public data sets.")],
    draws: Annotated[int, typer.Option(help="Draws of each task.")] = 5,
    method: Annotated[str, typer.Option(help="The method that judges.")] = "auto",
    only: Annotated[str | None, typer.Option(help="Only this data set.")] = None,
    out: Annotated[Path, typer.Option(help="Where the rows are written.")] = RESULTS,
) -> None:
    """Plant errors, rank, count."""
    learner, rows = starting_learner(method), []
    for name, lang in TASKS:
        if only not in (None, name):
            continue
        pool = load_source(name, data_dir=data_dir).load(lang, "train")
        sampler = KShotSampler(pool, n_shot=N_SHOT, seed=0, max_query=1, rare="drop")
        found = []
        for draw in range(draws):
            support, rng, start = sampler.episode(draw).support, np.random.default_rng(draw), time.perf_counter()
            names, n = support.names(), len(support)
            planted = set(rng.choice(n, int(SHARE * n), replace=False).tolist())
            for row in sorted(planted):
                names[row] = str(rng.choice([each for each in support.label_names if each != names[row]]))
            ranked = _ranked(learner, list(support.texts), names)[: len(planted)]
            found.append(sum(row in planted for row in ranked) / len(planted))
            seconds = time.perf_counter() - start
            rows.append({"data": name, "lang": lang, "draw": draw, "n": n, "found": found[-1], "seconds": seconds})
            typer.echo(f"{name} {lang} draw {draw}: {100 * found[-1]:.1f} % of {len(planted)} ({seconds:.0f} s)")
            out.parent.mkdir(exist_ok=True)
            out.write_text(json.dumps({"method": method, "share": SHARE, "n_shot": N_SHOT, "rows": rows}, indent=1))
        typer.echo(f"{name} {lang}: {Interval.of(found).percent()} % of the first tenth are planted")


def _ranked(learner: Learner, texts: list[str], names: list[str]) -> list[int]:
    """The rows of the examples, the most suspicious first."""
    from nlpmeta.classifier.explaining import suspects
    from nlpmeta.classifier.fitted import Examples, Fitted
    from nlpmeta.data.labels import checked_labels

    examples = Examples.of(tuple(texts), checked_labels(names))
    return [each.row for each in suspects(Fitted(learner, {}, examples.classes), examples)]


if __name__ == "__main__":
    typer.run(main)
