"""Learning curves, from the names of the classes alone to all examples: results/curves.json and docs/curves.png.

    python benchmarks/curves.py --data-dir ../shared/data              # make bench-curves; what is done is not repeated
    python benchmarks/curves.py --shots 0,1,5 --only massive           # some of it
    python benchmarks/curves.py --methods auto,logistic                # without the peers, half an hour each
    python benchmarks/curves.py --methods budget,budget5 --shots 50    # auto with a minute or five for fine-tuning
    python benchmarks/curves.py --methods tuned --shots 100,all        # adds the method tuned
    python benchmarks/curves.py --methods maml --shots 10,20           # adds MAML from its checkpoint
    python benchmarks/curves.py --prime                                # embeds all texts beforehand and stops
    python benchmarks/curves.py --show                                 # table and picture again

Every method gets the same supports, and a larger support of a draw holds the smaller ones. Scored are 500 texts of the
test split, or of the train split, from whose supports they are then kept out; of the wide sets the test split stays
unread. Supports of up to ten texts a class are drawn three times. Seconds are those of one core beyond the embedding.

Peers (LoRA, full fine-tuning, SetFit), tuned and auto with a budget have one draw. Peers may train ten times as long as
auto took for the same support, but no longer than --most-seconds, or than auto where that is longer; and in any case 25
steps (SetFit) or 100, as fewer leave the head of 150 classes where it began. What a step takes is measured beforehand.
SetFit's seconds have its head's embeddings in them.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import torch
import typer
from curves_shown import METHODS, SETS, SHOTS, Row, draw_curves, tables
from names import known_by_words, seen, texts_of

from nlpmeta import Episode, KShotSampler, LabeledTexts
from nlpmeta.bench.contender import Adapted, Contender, peer
from nlpmeta.encoder.weights import DEFAULT_ENCODER
from nlpmeta.episodes.kshot import NamesAlone
from nlpmeta.learners.base import Embed, Learner
from nlpmeta.learners.start import starting_learner
from nlpmeta.learners.tuned import are_enough
from nlpmeta.metrics import accuracy, macro_f1
from nlpmeta.metrics.scores import score_episode
from nlpmeta.storage.files import write_json

if TYPE_CHECKING:
    from nlpmeta.auto.method import AutoHead

RESULTS, PICTURE = Path("results/curves.json"), Path("docs/curves.png")
MOST_QUERY, MOST_SHOTS, DRAWN_OFTEN, DRAWS = 500, 100, 10, 3
PEERS = {"lora": 100, "fine-tuning": 100, "setfit": 25}
"""The steps that each takes at least, if it wants so many."""
BUDGETS = {"budget": 60.0, "budget5": 300.0}
"""The seconds that auto may fine-tune for, by its forecast for two cores; more are only measured if they are used."""
ONCE = {*PEERS, *BUDGETS, "tuned"}
"""What is measured on the first draw alone."""
TIMES, MOST_SECONDS = 10, 60.0
TIMED_TEXTS, TIMED_STEPS = 64, (2, 6)
"""How the seconds of a training step are measured: on so many texts, as the difference between so many steps."""


@dataclass
class Contenders:
    """What is compared: ``auto`` on the shipped checkpoint, logistic regression on the frozen encoder, and peers."""

    learners: Mapping[str, tuple[Learner, Embed]]
    encoder: str = DEFAULT_ENCODER
    most_seconds: float = MOST_SECONDS
    least_steps: Mapping[str, int] = field(default_factory=lambda: PEERS)
    step_seconds: dict[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def shipped(cls, methods: Sequence[str], maml: str, most_seconds: float) -> "Contenders":
        """Those on the packaged encoder, all but ``tuned``, MAML and the peers with embeddings of one table."""
        views = seen()
        auto, frozen = views["auto@default"], views["frozen"][1]
        learners = {"auto": auto, "logistic": (starting_learner("logistic", checkpoint="none"), frozen)}
        learners |= {name: (auto[0].within(seconds), auto[1]) for name, seconds in BUDGETS.items()}
        for method, checkpoint in {"tuned": "default", "maml": maml}.items():
            if method in methods:
                learners[method] = (starting_learner(method, checkpoint=checkpoint), views["auto@default"][1])
        return cls(learners, most_seconds=most_seconds)

    def measured(self, method: str, name: str, episode: Episode, ours: float) -> Row:
        """Accuracy, macro-F1 and the seconds of adaptation; ``ours`` are those of ``auto`` on the same support."""
        if method in PEERS:
            return self._trained(method, name, episode, max(ours, min(TIMES * ours, self.most_seconds)))
        learner, embed = self.learners[method]
        if learner.inputs == "tokens":
            start = time.process_time()
            score = score_episode(learner, episode)
            return _row(episode, score.predictions, time.process_time() - start)
        embed(learner.texts_of(episode.support) + episode.query.texts)
        start = time.process_time()
        score = score_episode(learner, episode, embed)
        steps = {"steps": self.tuning_steps(method, episode)} if method in BUDGETS else {}
        return _row(episode, score.predictions, time.process_time() - start) | {"chosen": score.chosen} | steps

    def tuning_steps(self, method: str, episode: Episode) -> int:
        """How many steps of fine-tuning there is time for; 0 if too few to begin."""
        auto = cast("AutoHead", self.learners[method][0])
        enough = are_enough(episode.support.counts().values())
        return auto.tuned.steps_within(BUDGETS[method], episode.support.texts) if enough else 0

    def _trained(self, method: str, name: str, episode: Episode, most: float) -> Row:
        kind = peer(method)
        a_step = self.step_seconds.get((method, name)) or self._timed(kind, episode.support)
        if a_step is not None:
            self.step_seconds[method, name] = a_step
        steps = max(self.least_steps[method], 0 if a_step is None else int(most / a_step))
        model, seconds = _adapted(kind, self.encoder, episode.support, steps)
        found = model.probabilities(episode.query.texts).argmax(1).tolist()
        return _row(episode, found, seconds) | model.facts() | {"most_seconds": round(most, 1)}

    def _timed(self, kind: type[Contender], support: LabeledTexts) -> float | None:
        """The seconds of one step; ``None`` where the peer wants too few steps for that."""
        some = support.select(list(range(0, len(support), -(-len(support) // TIMED_TEXTS))))
        found = [_adapted(kind, self.encoder, some, steps) for steps in TIMED_STEPS]
        if any(model.facts()["steps"] != steps for (model, _), steps in zip(found, TIMED_STEPS, strict=True)):
            return None
        return max((found[1][1] - found[0][1]) / (TIMED_STEPS[1] - TIMED_STEPS[0]), 0.001)


def _adapted(kind: type[Contender], encoder: str, support: LabeledTexts, steps: int) -> tuple[Adapted, float]:
    """A peer after at most so many steps, and the seconds that these took."""
    made = kind(encoder, steps)
    made.prepare(0)
    start = time.process_time()
    with torch.enable_grad():
        model = made.adapt(support)
    return model, time.process_time() - start


def _row(episode: Episode, predictions: Sequence[int], seconds: float) -> Row:
    right, found = list(episode.query.labels), list(predictions)
    sizes = {"n_way": episode.n_way, "n_support": len(episode.support), "n_query": len(right)}
    return {**sizes, "accuracy": accuracy(right, found), "macro_f1": macro_f1(right, found), "seconds": seconds}


def material(name: str, data_dir: Path) -> tuple[LabeledTexts, LabeledTexts]:
    """Where supports are drawn from, and what is scored."""
    pool, scored = texts_of(name, data_dir)
    step = max(1, len(scored) // MOST_QUERY)
    return pool, scored.select(list(range(0, len(scored), step))[:MOST_QUERY])


def episodes(pool: LabeledTexts, scored: LabeledTexts, shots: str, draws: int = DRAWS) -> Iterable[Episode]:
    """The draws with so many examples a class; the first of a draw are those of its smaller supports."""
    if shots == "0":
        yield NamesAlone(known_by_words(pool)[0], test=scored).episode(0)
    elif shots == "all":
        yield KShotSampler(pool, n_shot=None, seed=0, test=scored, rare="keep").episode(0)
    else:
        sampler = KShotSampler(pool, n_shot=MOST_SHOTS, seed=0, test=scored, rare="keep")
        for draw in range(draws if int(shots) <= DRAWN_OFTEN else 1):
            whole = sampler.episode(draw)
            yield Episode(first(whole.support, int(shots)), whole.query)


def first(support: LabeledTexts, n_shot: int) -> LabeledTexts:
    """The first so many texts of each class."""
    met = [0] * support.n_way
    rows: list[int] = []
    for row, label in enumerate(support.labels):
        met[label] += 1
        rows += [row] if met[label] <= n_shot else []
    return support.select(rows)


def measure(
    contenders: Contenders,
    sets: Mapping[str, tuple[LabeledTexts, LabeledTexts]],
    shots: Sequence[str],
    methods: Sequence[str],
    rows: list[Row],
    out: Path,
    draws: int = DRAWS,
) -> None:
    """Add what is missing to ``rows`` and ``out``, few shots first; peers only where ``auto`` is there."""
    done = {(row["set"], row["shots"], row["draw"], row["method"]): float(str(row["seconds"])) for row in rows}
    for n_shot in shots:
        for name, (pool, scored) in sets.items():
            for draw, episode in enumerate(episodes(pool, scored, n_shot, draws)):
                for method in methods:
                    key = {"set": name, "shots": n_shot, "draw": draw, "method": method}
                    beyond = n_shot == "0" and method != "auto" or draw > 0 and method in ONCE
                    if method == "budget5" and not beyond:
                        less, more = (contenders.tuning_steps(each, episode) for each in BUDGETS)
                        beyond = less == more
                    if tuple(key.values()) in done or beyond:
                        continue
                    if method in PEERS and (*list(key.values())[:3], "auto") not in done:
                        raise typer.BadParameter(f"{name} with {n_shot} shots: peers are timed by auto; run it first.")
                    ours = done.get((name, n_shot, draw, "auto"), 0.0)
                    found = contenders.measured(method, name, episode, ours)
                    rows.append(key | found)
                    done[name, n_shot, draw, method] = float(str(found["seconds"]))
                    write_json(out, {"rows": rows})
                    said = f"{100 * float(str(found['accuracy'])):.1f} %, {float(str(found['seconds'])):.1f} s"
                    print(f"{name}, {n_shot} shots, draw {draw}, {method}: {said}", flush=True)


def main(
    *,
    data_dir: Annotated[Path, typer.Option(help="Folder with copies of public data sets.")] = Path("../shared/data"),
    only: Annotated[str, typer.Option(help="Only sets whose name contains one of these words.")] = "",
    shots: Annotated[str, typer.Option(help="Examples of each class, comma-separated.")] = ",".join(SHOTS),
    methods: Annotated[str, typer.Option(help=f"{', '.join(METHODS)}.")] = f"auto,logistic,{','.join(PEERS)}",
    most_seconds: Annotated[
        float, typer.Option(help="The most that a peer trains, or as long as auto.")
    ] = MOST_SECONDS,
    maml: Annotated[str, typer.Option(help="Checkpoint of MAML.")] = "default",
    draws: Annotated[int, typer.Option(help="Supports of up to ten texts a class.")] = DRAWS,
    prime: Annotated[bool, typer.Option("--prime", help="Embed the texts and stop.")] = False,
    show_only: Annotated[bool, typer.Option("--show", help="Table and picture of what there is.")] = False,
    out: Annotated[Path, typer.Option(help="Where the rows are written.")] = RESULTS,
    png: Annotated[Path, typer.Option(help="Where the picture is drawn.")] = PICTURE,
) -> None:
    """Measure what is missing, a row at a time; then table and picture."""
    rows: list[Row] = json.loads(out.read_text(encoding="utf-8"))["rows"] if out.exists() else []
    if not show_only:
        names = [name for name in SETS if any(word in name for word in only.split(","))]
        sets = {name: material(name, data_dir) for name in names}
        which = methods.split(",")
        for method in () if prime else sorted({*PEERS} & {*which}):
            peer(method)  # one that is not installed is named before any work
        contenders = Contenders.shipped(which, maml, most_seconds)
        if prime:
            for n_shot in shots.split(","):
                for name, (pool, scored) in sets.items():
                    for episode in episodes(pool, scored, n_shot, draws):
                        contenders.learners["auto"][1](episode.texts())
                    print(f"{name}, {n_shot} shots: embedded", flush=True)
            return
        measure(contenders, sets, shots.split(","), which, rows, out, draws)
    print("\n\n".join(tables(rows)))
    draw_curves(rows, png)


if __name__ == "__main__":
    with torch.no_grad():
        typer.run(main)
