"""The memory forecast before meta-training, compared with what its steps use; each case in its own process.

    python benchmarks/memory_forecast.py          # five minutes, or more where others work too

Episodes of the starter corpus, 2 per step, LoRA rank 16 in all layers; measured is the peak resident memory of three
steps minus that after the forecast, when the encoder is loaded and what was freed is given back. Linux only.
"""

import json
import subprocess
import sys

from rich.console import Console
from rich.table import Table

CASES = {
    "prototypical, 12 ways 3 shots": ("prototypical", {}, (12, 3)),
    "prototypical, 12 ways 10 shots": ("prototypical", {}, (12, 10)),
    "maml, 5 ways 1 shot, side by side": ("maml", {"inner_steps": 3, "task_batching": "vectorised"}, (5, 1)),
    "maml, 12 ways 3 shots, one by one": ("maml", {"inner_steps": 3, "task_batching": "loop"}, (12, 3)),
    "maml, second order, 1 step, 5 ways 5 shots": ("maml", {"inner_steps": 1, "first_order": False}, (5, 5)),
    "maml, second order, 5 steps, 5 ways 5 shots": ("maml", {"inner_steps": 5, "first_order": False}, (5, 5)),
    "the same, one by one": ("maml", {"inner_steps": 5, "first_order": False, "task_batching": "loop"}, (5, 5)),
}


def measure(name: str) -> None:
    """Print the forecast and what was taken, in bytes."""
    from nlpmeta.encoder.lora import AdapterSettings, add_adapter
    from nlpmeta.encoder.text_encoder import TextEncoder
    from nlpmeta.episodes.samplers import EpisodeSampler
    from nlpmeta.learners.base import learners
    from nlpmeta.progress import peak_bytes, start_watching
    from nlpmeta.sources.loading import load_source
    from nlpmeta.training import TrainSettings
    from nlpmeta.training.engine import make_accelerator
    from nlpmeta.training.forecast import forecast_memory
    from nlpmeta.training.run import Run

    method, options, (n_way, n_shot) = CASES[name]
    encoder = TextEncoder.from_pretrained()
    add_adapter(encoder, AdapterSettings(rank=16, alpha=32), seed=0)
    pool = load_source("starter").load("en")
    sampler = EpisodeSampler([pool], n_way=n_way, n_shot=n_shot, n_query=2, seed=0)
    settings = TrainSettings(steps=3, control_episodes=0)
    learner = learners[method](encoder, **options).train()
    run = Run(learner, sampler, settings, None, {}, make_accelerator(settings, None), None, False)
    forecast = forecast_memory(run.stepper, run.weights)
    encoder.encode(pool.texts[:64])  # every weight is in memory, not only mapped
    if not start_watching(trim=True):
        raise SystemExit("This system does not let us measure a peak of memory.")
    held = peak_bytes()
    for step in range(3):
        run.stepper.take(step)
    found = {"forecast": forecast.peak, "taken": peak_bytes() - held, "tokens": forecast.tokens, "held": forecast.held}
    print(json.dumps(found))


def main() -> int:
    if len(sys.argv) > 1:
        measure(sys.argv[1])
        return 0
    table = Table("case", "tokens at once", "held", "forecast, MB", "measured, MB", "ratio")
    for name in CASES:
        done = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        ratio = f"{found['forecast'] / found['taken']:.2f}"
        cells = (f"{found[key] / 1e6:,.0f}" for key in ("forecast", "taken"))
        table.add_row(name, f"{found['tokens']:,}", f"{found['held']:.2f}", *cells, ratio)
        print(name, found, file=sys.stderr, flush=True)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
