"""MAML's meta-gradient: tasks per second and memory, ours and other packages' on the same encoder and the same tasks.

    pip install --no-deps higher==0.2.1 torchopt==0.7.3 optree graphviz   # optional: missing peers are skipped
    python benchmarks/maml_speed.py                                           # make bench-maml; about 40 minutes

One run computes the gradient of the query loss for a batch of 5-way 5-shot tasks (25 support and 25 query texts each,
from the starter corpus) after the inner steps, in its own process. The methods of a row alternate, and ratios are
medians over the rounds; those of CPU seconds (all are listed) say more where the machine is shared. Memory is the
process's peak minus its memory with the encoder loaded. Rows of the same shape are replaced, others stay.

Peers adapt all weights, as they are usually used, or LoRA adapters. torchopt's optimisers always keep the graph, so it
has no first-order mode. learn2learn 0.2.0 does not build with a current Cython. Results: results/maml_speed.json.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RANK, INNER_RATE = 8, 0.01
OURS = ("ours", "ours, loop", "ours, top 4 cached", "ours, top 4 cached, loop", "LoRA, vmap")
PEERS = ("higher, all weights", "higher, LoRA", "torchopt, all weights", "torchopt, LoRA")


Run = Callable[[int], None]
"""Computes the gradient of so many of the tasks."""


@dataclass(frozen=True)
class Case:
    """What one process measures."""

    method: str
    first_order: bool
    inner_steps: int
    n_tasks: int


def tasks_of(n_tasks: int) -> list[Any]:
    """The first episodes of a sampler on the starter corpus."""
    from nlpmeta.episodes.samplers import EpisodeSampler
    from nlpmeta.sources.loading import load_source

    sampler = EpisodeSampler([load_source("starter").load("en")], n_way=5, n_shot=5, n_query=5, seed=0)
    return [sampler.episode(i) for i in range(n_tasks)]


def loaded_encoder() -> Any:
    """The packaged encoder after a first pass, so that its weights are in memory and not only mapped."""
    from nlpmeta.encoder.text_encoder import TextEncoder

    encoder = TextEncoder.from_pretrained()
    for weight in encoder.backbone.parameters():
        weight.data.sum()
    encoder.encode(["one text"])
    return encoder


def ours(case: Case) -> Run:
    """``MAML.losses_and_logits`` and its backward pass."""
    import contextlib

    import torch

    from nlpmeta.encoder.frozen_layers import frozen_layer_cache
    from nlpmeta.encoder.lora import AdapterSettings, add_adapter
    from nlpmeta.learners.base import Support
    from nlpmeta.learners.maml import MAML

    cached = "cached" in case.method
    encoder = loaded_encoder()
    add_adapter(encoder, AdapterSettings(rank=RANK, layers=4 if cached else None), seed=0)
    stack = contextlib.ExitStack()
    if cached:
        stack.enter_context(frozen_layer_cache(encoder, "float32"))
    learner = MAML(encoder, inner_steps=case.inner_steps, first_order=case.first_order, adapter_rate=INNER_RATE)
    episodes = tasks_of(case.n_tasks)
    tasks = [(learner.support(each.support), Support.of(each.query)) for each in episodes]

    def run(n_tasks: int) -> None:
        learner.zero_grad()
        for group in [[task] for task in tasks[:n_tasks]] if "loop" in case.method else [tasks[:n_tasks]]:
            found = learner.losses_and_logits(group)
            torch.stack([loss for loss, _ in found]).sum().backward()

    return run


def plain_model(case: Case) -> tuple[Any, list[tuple[Any, ...]]]:
    """An encoder with a linear head, and the tasks as padded tensors: what a user of the peers would write."""
    import torch

    from nlpmeta.encoder.lora import AdapterSettings, add_adapter

    encoder = loaded_encoder()
    encoder.backbone.requires_grad_("LoRA" not in case.method)
    if "vmap" in case.method:
        add_adapter(encoder, AdapterSettings(rank=RANK), seed=0)
    elif "LoRA" in case.method:
        plain_adapters(encoder.backbone)
    if not case.first_order:
        encoder.backbone.set_attn_implementation("eager")

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = encoder.backbone, torch.nn.Linear(encoder.dim, 5)

        def forward(self, ids: Any, mask: Any) -> Any:
            hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state
            share = mask.unsqueeze(2).to(hidden.dtype)
            return self.head((hidden * share).sum(1) / share.sum(1))

    tensors = []
    for episode in tasks_of(case.n_tasks):
        sides = []
        for part in (episode.support, episode.query):
            sides += [*encoder.pad(encoder.tokenize(part.texts)), torch.tensor(part.labels)]
        tensors.append(tuple(sides))
    return Plain().eval(), tensors


def plain_adapters(backbone: Any) -> None:
    """LoRA as a user would write it for a peer: higher cannot take peft's classes (their base classes clash)."""
    import torch

    class Adapted(torch.nn.Module):
        def __init__(self, linear: Any) -> None:
            super().__init__()
            self.linear = linear
            self.a = torch.nn.Parameter(torch.randn(RANK, linear.in_features) / linear.in_features**0.5)
            self.b = torch.nn.Parameter(torch.zeros(linear.out_features, RANK))

        def forward(self, states: Any) -> Any:
            return self.linear(states) + (32 / RANK) * (states @ self.a.T @ self.b.T)

    for parent in list(backbone.encoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(parent, name, Adapted(child))


def with_higher(case: Case) -> Run:
    """``higher.innerloop_ctx``, a task at a time."""
    import higher
    import torch
    import torch.nn.functional as F

    model, tasks = plain_model(case)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.SGD(weights, lr=INNER_RATE)

    def run(n_tasks: int) -> None:
        model.zero_grad()
        for ids, mask, labels, query_ids, query_mask, query_labels in tasks[:n_tasks]:
            options = {"copy_initial_weights": False, "track_higher_grads": not case.first_order}
            with higher.innerloop_ctx(model, optimiser, **options) as (fast, inner):
                for _ in range(case.inner_steps):
                    inner.step(F.cross_entropy(fast(ids, mask), labels))
                loss = F.cross_entropy(fast(query_ids, query_mask), query_labels)
                if not case.first_order:
                    loss.backward()
                    continue
                adapted = [weight for weight in fast.parameters() if weight.requires_grad]
                for weight, gradient in zip(weights, torch.autograd.grad(loss, adapted), strict=True):
                    weight.grad = gradient if weight.grad is None else weight.grad + gradient

    return run


def with_torchopt(case: Case) -> Run:
    """``torchopt.MetaSGD``, a task at a time."""
    import torch.nn.functional as F
    import torchopt

    if case.first_order:
        raise ValueError("torchopt has no first order")
    model, tasks = plain_model(case)

    def run(n_tasks: int) -> None:
        model.zero_grad()
        for ids, mask, labels, query_ids, query_mask, query_labels in tasks[:n_tasks]:
            start = torchopt.extract_state_dict(model, by="reference")
            inner = torchopt.MetaSGD(model, lr=INNER_RATE)
            for _ in range(case.inner_steps):
                inner.step(F.cross_entropy(model(ids, mask), labels))
            F.cross_entropy(model(query_ids, query_mask), query_labels).backward()
            torchopt.recover_state_dict(model, start)

    return run


def with_vmap(case: Case) -> Run:
    """``torch.func.vmap`` over the tasks: the other way to put them side by side, on one inner and one outer step."""
    import torch
    import torch.nn.functional as F
    from torch.func import functional_call, grad, vmap

    if not case.first_order:
        raise ValueError("measured in first order only")
    model, tasks = plain_model(case)
    width = max(max(task[0].size(1), task[3].size(1)) for task in tasks)
    columns = [torch.stack([_widened(task[i], width) for task in tasks]) for i in range(6)]
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    def loss(weights: Any, ids: Any, mask: Any, labels: Any) -> Any:
        additive = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)[:, None, None, :]
        hidden = functional_call(
            model.backbone,
            {name.removeprefix("backbone."): w for name, w in weights.items() if name.startswith("backbone.")},
            (),
            {"input_ids": ids, "attention_mask": additive.expand(-1, 1, mask.size(1), -1)},
        ).last_hidden_state
        share = mask.unsqueeze(2).to(hidden.dtype)
        scores = F.linear((hidden * share).sum(1) / share.sum(1), weights["head.weight"], weights["head.bias"])
        return F.cross_entropy(scores, labels)

    def run(_: int) -> None:
        model.zero_grad()
        fast = {name: weight.detach().expand(len(tasks), *weight.shape) for name, weight in trained.items()}
        for _ in range(case.inner_steps):
            found = vmap(grad(loss))(fast, *columns[:3])
            fast = {name: value - INNER_RATE * found[name] for name, value in fast.items()}
        found = vmap(grad(loss))(fast, *columns[3:])
        for name, weight in trained.items():
            weight.grad = found[name].sum(0)

    return run


def _widened(tensor: Any, width: int) -> Any:
    import torch.nn.functional as F

    return F.pad(tensor, (0, width - tensor.size(1))) if tensor.dim() == 2 else tensor


def worker(case: Case) -> None:
    """Print seconds and megabytes of one case; one task goes before, to warm up."""
    import torch

    torch.manual_seed(0)
    build = {"higher": with_higher, "torchopt": with_torchopt}.get(case.method.split(",")[0], ours)
    run = with_vmap(case) if "vmap" in case.method else build(case)
    before = current_megabytes()
    run(1)
    start, worked = time.perf_counter(), time.process_time()
    run(case.n_tasks)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "megabytes": peak - before}))


def current_megabytes() -> float:
    """What the process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(case: Case) -> dict[str, Any]:
    """A case in a process of its own; what it says, or why it could not."""
    command = [sys.executable, __file__, "--worker", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["killed: out of memory"])[-1][:200]}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row(first_order: bool, inner_steps: int, n_tasks: int, rounds: int, methods: Sequence[str]) -> list[dict[str, Any]]:
    """All methods on one shape, taking turns."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, runs in found.items():
            if not (runs and "failed" in runs[-1]):
                runs.append(measure(Case(name, first_order, inner_steps, n_tasks)))
    lines = []
    for name, runs in found.items():
        line = {"method": name, "first_order": first_order, "inner_steps": inner_steps, "n_tasks": n_tasks}
        if "failed" in runs[-1]:
            line |= runs[-1]
        else:
            ours_first = [a["seconds"] / b["seconds"] for a, b in zip(runs, found[OURS[0]], strict=True)]
            line["tasks_per_second"] = round(statistics.median(n_tasks / run["seconds"] for run in runs), 3)
            line["megabytes"] = round(statistics.median(run["megabytes"] for run in runs))
            line["ours_faster"] = round(statistics.median(ours_first), 2)
            line["cpu_seconds_a_task"] = round(statistics.median(run["cpu_seconds"] / n_tasks for run in runs), 3)
            by_cpu = [a["cpu_seconds"] / b["cpu_seconds"] for a, b in zip(runs, found[OURS[0]], strict=True)]
            line["ours_faster_by_cpu"] = [round(each, 2) for each in sorted(by_cpu)]
        lines.append(line)
        print(json.dumps(line), flush=True)
    return lines


def main() -> None:
    """Every shape, or one worker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", default="1,4", help="task batches")
    parser.add_argument("--steps", default="1,5", help="inner steps")
    parser.add_argument("--orders", default="1,2")
    parser.add_argument("--methods", default=";".join((*OURS, *PEERS)), help="semicolon-separated; 'ours' is required")
    parser.add_argument("--out", type=Path, default=Path("results/maml_speed.json"))
    asked = parser.parse_args()
    if asked.worker:
        return worker(Case(**json.loads(asked.worker)))
    import torch

    lines = []
    for order in asked.orders.split(","):
        for n_steps in asked.steps.split(","):
            for n_tasks in asked.tasks.split(","):
                lines += row(order == "1", int(n_steps), int(n_tasks), asked.rounds, asked.methods.split(";"))
    earlier = json.loads(asked.out.read_text(encoding="utf-8"))["rows"] if asked.out.exists() else []
    shape = ("method", "first_order", "inner_steps", "n_tasks")
    again = {tuple(line[key] for key in shape) for line in lines}
    rows = [line for line in earlier if tuple(line[key] for key in shape) not in again]
    rows += [{**line, "threads": torch.get_num_threads(), "rounds": asked.rounds} for line in lines]
    found = {"torch": torch.__version__, "rank": RANK, "rows": rows}
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return None


if __name__ == "__main__":
    main()
