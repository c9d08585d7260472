"""Learns the priors and the calibration of ``auto`` from auxiliary tasks.

    python benchmarks/learn_auto.py --data-dir ../shared/data     # make learn-auto
    python benchmarks/learn_auto.py --only two_views              # after a new checkpoint; the rest stays

Writes nlpmeta/auto/priors.json and nlpmeta/auto/families.safetensors, in about 35 minutes of one core. Run it again
whenever the shipped checkpoint changes; one view and the families are those of the frozen encoder and stay the same.
The tasks are ``auto_tasks.AUXILIARY``; the datasets and languages of the reported results are never read. Embeddings
are cached on disk: a second run is faster.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from auto_study import LEVELS, SHOTS, Mixture, Seen, Study, blank, collect, prior, suiting
from auto_tasks import AUXILIARY, Pools, table_of
from fit_priors import Observed, fit_mean, fit_quantiles, surface, weighted_quantile
from threadpoolctl import threadpool_limits

from nlpmeta.auto.diagnosis import FILE as FAMILIES_FILE
from nlpmeta.auto.diagnosis import Families, centres_of, log_odds, write_families
from nlpmeta.auto.heads import features_of
from nlpmeta.auto.judging import TEMPERATURES
from nlpmeta.auto.method import AutoHead
from nlpmeta.auto.mismatch import NEAR_GUESSING
from nlpmeta.auto.priors import FILE, Profile, Surface, held_out_quantiles, shipped_priors
from nlpmeta.encoder.views import FROZEN, ScaledEncoder
from nlpmeta.learners.base import Embed
from nlpmeta.learners.start import starting_learner
from nlpmeta.metrics import calibration_bins, error_of_bins
from nlpmeta.storage.files import write_json

STRENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
HELD_ON = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
TAILS = (0.05, 0.95)  # of the accuracies of tasks lie below and above the band
POOR = 0.1  # above guessing
CLEAN = 0.02  # of clean tasks may look as if their labels were random


def losses(mixtures: Sequence[Mixture]) -> list[float]:
    """Mean negative log-likelihood of the query of each task."""
    return [-float(each.true_query().mean()) for each in mixtures]


def mean_loss(mixtures: Sequence[Mixture]) -> float:
    """The mean of ``losses`` over the tasks of each family, and of these over the families."""
    families = np.asarray([each.seen.size.family for each in mixtures])
    found = np.asarray(losses(mixtures))
    return float(np.mean([found[families == family].mean() for family in sorted(set(families.tolist()))]))


def temperature(mixtures: Sequence[Mixture]) -> Surface:
    """The temperature under which the query texts of tasks of each size are most likely, where it is usual."""
    table = np.asarray(
        [
            [
                float(torch.nn.functional.cross_entropy(each.query[: each.seen.n_query] / t, each.seen.labels))
                for t in TEMPERATURES
            ]
            for each in mixtures
        ]
    )
    sizes = [each.seen.size for each in mixtures]
    return surface(sizes, lambda near: np.asarray(float(TEMPERATURES[int((near @ table).argmin())])))


def observed_accuracy(mixtures: Sequence[Mixture]) -> list[Observed]:
    """Log odds of a right answer on held-out texts and on the query of each task."""
    found = []
    for each in mixtures:
        labels, held_out = each.seen.support.labels, each.held_out
        known = (
            None
            if held_out is None
            else np.asarray([log_odds(float((held_out.argmax(1) == labels).sum()), len(labels))])
        )
        right = float((each.query[: each.seen.n_query].argmax(1) == each.seen.labels).sum())
        found.append(Observed(each.seen.size, known, np.asarray([log_odds(right, each.seen.n_query)])))
    return found


def observed_likelihood(mixtures: Sequence[Mixture], usual: Surface) -> list[Observed]:
    """Quantiles of the log probability of the true class on held-out texts, and its values on the query."""
    found = []
    for each in mixtures:
        t, known = each.over(usual), None
        if each.held_out is not None:
            scores = (each.held_out / t).log_softmax(1)
            likely = scores[torch.arange(len(scores)), each.seen.support.labels]
            known = held_out_quantiles(likely.sort().values, LEVELS)
        found.append(Observed(each.seen.size, known, each.true_query(t).double().numpy()))
    return found


def scope_weights(mixtures: Sequence[Mixture], views: ScaledEncoder | None, usual: Surface) -> tuple[float, ...]:
    """Logistic regression from the clues to whether a text is in scope; tasks and both kinds of texts count alike."""
    from sklearn.linear_model import LogisticRegression

    rows, inside, counts = [], [], []
    for each in mixtures:
        clues = each.clues(views, usual)
        n, outside = each.seen.n_query, len(clues) - each.seen.n_query
        if outside >= 20:
            rows.append(clues.numpy())
            inside.append(np.arange(len(clues)) < n)
            counts.append(np.where(inside[-1], 1 / n, 1 / outside))
    model = LogisticRegression(C=100.0, fit_intercept=False, max_iter=2000)
    model.fit(np.concatenate(rows), np.concatenate(inside), np.concatenate(counts))
    return tuple(float(each) for each in model.coef_[0])


def was_learned(task: Observed) -> bool:
    """Whether the task ended at least halfway from guessing to always right."""
    return float(1 / (1 + np.exp(-task.truth[0]))) >= (1 / task.size.n_way + 1) / 2


def profile(auto: AutoHead, tasks: list[Seen]) -> tuple[Profile, list[Mixture]]:
    """All that is learned, and the mixtures that it was learned from."""
    powers = suiting(tasks)
    studies = [Study.of(auto, tasks, powers, held_on) for held_on in HELD_ON]
    study = min(studies, key=lambda each: mean_loss(each.mixtures(STRENGTHS[1])))
    strength = min(STRENGTHS, key=lambda s: mean_loss(study.mixtures(s)))
    mixtures = study.mixtures(strength)
    usual = temperature(mixtures)
    accuracy, band = fit_mean(observed_accuracy(mixtures), tails=TAILS)
    # Labels look random where held-out texts are classified worse than in nearly all tasks that were learned.
    held_out = [each for each in observed_accuracy(mixtures) if each.estimate is not None and was_learned(each)]
    known = np.asarray([float(each.estimate[0]) for each in held_out if each.estimate is not None])
    heads = list(auto.candidates)
    learned = replace(
        blank(heads, prior(tasks, study.parts, heads), strength, study.temperatures, study.held_on),
        temperature=usual,
        quantiles=fit_quantiles(observed_likelihood(mixtures, usual), LEVELS),
        accuracy=accuracy,
        band=band,
        clean=surface([each.size for each in held_out], lambda near: np.asarray(weighted_quantile(known, near, CLEAN))),
        scope=scope_weights(mixtures, auto.encoder if isinstance(auto.encoder, ScaledEncoder) else None, usual),
    )
    return learned, mixtures


@dataclass(frozen=True)
class UnseenKind:
    """How well tasks of one kind are judged by what was learned on the others alone; shares are fractions of 1.

    ``poor`` are the tasks that end within ten points of guessing; ``poor_named`` and ``others_named`` how many of these
    and of the others are said to be near guessing.
    """

    kind: str
    n_tasks: int
    accuracy: float
    calibration_error: float
    in_band: float
    band_width: float
    poor: int
    poor_named: int
    others_named: int


def unseen_kinds(mixtures: Sequence[Mixture], n_shot: int) -> list[UnseenKind]:
    """Calibration and forecast of the tasks of each kind with ``n_shot`` examples a class, learned on the others."""
    found = []
    for kind in sorted({each.seen.size.kind for each in mixtures}):
        others = [each for each in mixtures if each.seen.size.kind != kind]
        own = [e for e in mixtures if e.seen.size.kind == kind and round(e.seen.size.n_shot) == n_shot]
        if own:
            found.append(_unseen_kind(kind, own, others))
    return found


def _unseen_kind(kind: str, own: Sequence[Mixture], others: Sequence[Mixture]) -> UnseenKind:
    usual = temperature(others)
    forecast, band = fit_mean(observed_accuracy(others), tails=TAILS)
    bins, right, inside, widths, named = [], [], [], [], []
    for each, seen in zip(own, observed_accuracy(own), strict=True):
        size, labels = each.seen.size, each.seen.labels
        scores = each.query[: each.seen.n_query] / each.over(usual)
        bins.append(calibration_bins(labels.tolist(), scores.softmax(1).double().numpy()))
        right.append(float((scores.argmax(1) == labels).float().mean()))
        middle = forecast.at(seen.estimate, n_texts=size.n_texts, n_shot=size.n_shot, n_way=size.n_way)[0]
        low, high = 1 / (1 + np.exp(-(middle + band.at(size.n_shot, size.n_way))))
        inside.append(low <= right[-1] <= high)
        widths.append(high - low)
        named.append(low < 1 / size.n_way + NEAR_GUESSING)
    error = float(error_of_bins(np.sum(bins, axis=0)))
    poor = [share < 1 / each.seen.size.n_way + POOR for share, each in zip(right, own, strict=True)]
    return UnseenKind(
        kind=kind,
        n_tasks=len(own),
        accuracy=float(np.mean(right)),
        calibration_error=error,
        in_band=float(np.mean(inside)),
        band_width=float(np.mean(widths)),
        poor=sum(poor),
        poor_named=sum(each for each, is_poor in zip(named, poor, strict=True) if is_poor),
        others_named=sum(each for each, is_poor in zip(named, poor, strict=True) if not is_poor),
    )


def families(frozen: AutoHead, pools: Sequence[Pools], tasks: Sequence[Seen], embed: Embed) -> Families:
    """The centres of the families, and how far each task was from the families that are not its own."""
    names = tuple(each.family.name for each in pools)
    digest = "" if frozen.encoder.files is None else frozen.encoder.files.digest
    known = Families(digest, names, centres_of([embed(each.pool.texts) for each in pools]), torch.empty(0))
    far = [known.distance(features_of(task.support), but=task.name)[0] for task in tasks]
    return replace(known, distances=torch.tensor(far).sort().values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("../shared/data"))
    parser.add_argument("--checkpoint", default="default", help="as in nlpmeta adapt")
    parser.add_argument("--only", choices=("two_views", "one_view"), help="learn one part; the other stays as it is")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    auto = starting_learner("auto", checkpoint=asked.checkpoint)
    frozen = starting_learner("auto", checkpoint="none")
    if (
        not isinstance(auto, AutoHead)
        or not isinstance(frozen, AutoHead)
        or not isinstance(auto.encoder, ScaledEncoder)
    ):
        raise SystemExit("A checkpoint with adapters is needed.")
    with threadpool_limits(limits=1), torch.no_grad():
        pools = [family.pools(asked.data_dir) for family in AUXILIARY]
        table = table_of(auto, pools)
        profiles = {"two_views": shipped_priors().two_views, "one_view": shipped_priors().one_view}
        for name, learner, columns in (
            ("two_views", auto, slice(None)),
            ("one_view", frozen, auto.encoder.columns(FROZEN)),
        ):
            if asked.only not in (None, name):
                continue
            tasks = collect(learner, pools, table, columns)
            profiles[name], mixtures = profile(learner, tasks)
            report(name, profiles[name], mixtures)
            if learner is frozen:
                known = families(frozen, pools, tasks, lambda texts, frozen=columns: table(texts)[:, frozen])
                write_families(FAMILIES_FILE, known)
    files = auto.encoder.files
    facts = {"command": "python benchmarks/learn_auto.py", "families": [f.name for f in AUXILIARY]}
    facts |= {"encoder": files and files.digest, "seed": 0}
    write_json(FILE, facts | {name: each.json() for name, each in profiles.items()})
    print(f"{FILE.name}: {FILE.stat().st_size / 1000:.0f} kB")


def report(name: str, learned: Profile, mixtures: Sequence[Mixture]) -> None:
    """How the mixture did on kinds of tasks that its prior had left out."""
    print(
        f"{name}: {len(mixtures)} tasks, strength {learned.strength}, temperatures held on to by "
        f"{learned.temperature_strength}, scope {[round(w, 2) for w in learned.scope]}"
    )
    for n_shot in SHOTS:
        some = [each for each in mixtures if round(each.seen.size.n_shot) == n_shot]
        if some:
            right = [float((e.query[: e.seen.n_query].argmax(1) == e.seen.labels).float().mean()) for e in some]
            weights = dict(zip(learned.heads, learned.prior.at(n_shot, 7).round(2).tolist(), strict=True))
            print(
                f"  {n_shot} shots: {len(some)} tasks, {100 * np.mean(right):.1f} %, "
                f"loss {np.mean(losses(some)):.3f}, {weights}"
            )
    for each in unseen_kinds(mixtures, 5):
        print(
            f"  {each.kind}, learned without: {each.n_tasks} tasks of 5 shots, {100 * each.accuracy:.1f} %, "
            f"calibration error {100 * each.calibration_error:.1f} %, {100 * each.in_band:.0f} % in a band of "
            f"{100 * each.band_width:.0f} points; called near guessing: {each.poor_named} of {each.poor} that are, "
            f"{each.others_named} of the others"
        )


if __name__ == "__main__":
    main()
