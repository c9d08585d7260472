"""Meta-training speed: episodes per second, memory, and the fraction of the machine's matrix-product ceiling.

python benchmarks/training_speed.py            # needs: pip install -e '.[offline]'; about 5 minutes on 2 idle cores

Every row is ``meta_train`` in its own process (so that the peak memory is its own), on the same episodes of the starter
corpus; the ceiling is measured in the same process, before and after. Work is counted on real tokens, without padding.
Rows with a cache are measured with a warm one. Prints a table, or one JSON object with --json.
"""

import argparse
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

RANK = 16


@dataclass(frozen=True)
class Case:
    """One row of the table; ``layers`` is how many from the top have adapters (12: all)."""

    name: str
    layers: int = 12
    cached: bool = False
    processes: int = 1
    n_shot: int = 3
    chunk_tokens: int = 8192
    mixed_precision: str = "no"


CASES = (
    Case("all layers"),
    Case("all layers, bf16", mixed_precision="bf16"),
    Case("top 6, lower cached", 6, True),
    Case("top 4", 4),
    Case("top 4, lower cached", 4, True),
    Case("top 2", 2),
    Case("top 2, lower cached", 2, True),
    Case("all layers, 2 processes", processes=2),
    Case("10 shots, all kept", n_shot=10, chunk_tokens=100_000),
    Case("10 shots, gradient cache", n_shot=10, chunk_tokens=1024),
)


def matrix_product_gflops() -> float:
    """The float32 ceiling of the threads of this process."""
    import torch

    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds) / 1e9


def step_gflop(tokens: int, length: float, case: Case, *, dim: int = 384, inner: int = 1536, depth: int = 12) -> float:
    """Floating-point work of one step: forward, gradients of activations above the lowest adapter, and of adapters."""
    linear, attention = 2 * (4 * dim**2 + 2 * dim * inner), 4 * length * dim
    adapters = 2 * RANK * (4 * 2 * dim + 2 * (dim + inner))
    forward = (case.layers if case.cached else depth) * (linear + attention) + case.layers * adapters
    backward = case.layers * (linear + 2 * attention + 2 * adapters) - 3 * 2 * dim**2
    return tokens * (forward + backward) / 1e9


def forward_utilisation(encoder: "object", texts: list[str]) -> float:
    """Work of embedding ``texts`` over time, as a share of the ceiling."""
    import torch

    tokens = encoder.tokenize(texts)
    n_tokens = sum(map(len, tokens))
    squares = sum(len(ids) ** 2 for ids in tokens)
    work = (n_tokens * 2 * (4 * 384**2 + 2 * 384 * 1536) + 4 * 384 * squares) * 12 / 1e9
    seconds = []
    with torch.inference_mode():
        for _ in range(4):
            start = time.perf_counter()
            encoder.embed_tokens(tokens)
            seconds.append(time.perf_counter() - start)
    return work / min(seconds) / matrix_product_gflops()


def run(case: Case, steps: int, threads: int) -> dict[str, float]:
    """Train in this process and return the figures of one row."""
    import torch

    torch.set_num_threads(threads)
    from nlpmeta import EpisodeSampler, PrototypicalNetwork, TextEncoder, load_source
    from nlpmeta.encoder.lora import AdapterSettings, add_adapter
    from nlpmeta.training import TrainSettings
    from nlpmeta.training.engine import meta_train

    source = load_source("starter")
    pools = [source.load(lang) for lang in source.languages()]
    sampler = EpisodeSampler(pools, n_way=12, n_shot=case.n_shot, n_query=2, seed=0)
    encoder = TextEncoder.from_pretrained()
    forward = forward_utilisation(encoder, [text for pool in pools[:3] for text in pool.texts])
    add_adapter(encoder, AdapterSettings(rank=RANK, layers=case.layers), seed=0)
    settings = TrainSettings(
        steps=steps,
        episodes_per_step=2,
        control_episodes=0,
        checkpoint_every=10_000,
        chunk_tokens=case.chunk_tokens,
        lower_states="float16" if case.cached else "off",
        mixed_precision=case.mixed_precision,
    )
    ceiling = [matrix_product_gflops()]
    for _ in range(2 if case.cached else 1):
        with tempfile.TemporaryDirectory() as out:
            meta_train(PrototypicalNetwork(encoder), sampler, settings=settings, out=Path(out))
            path = Path(out) / "metrics.jsonl"
            lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    ceiling.append(matrix_product_gflops())
    if not lines:
        return {}
    rates = []
    for line in lines[1:]:
        work = step_gflop(line["tokens"], line["tokens"] / line["texts"], case)
        rates.append(work / line["seconds"] / max(ceiling) / case.processes)
    return {
        "episodes_per_second": 2 / statistics.median(line["seconds"] for line in lines[1:]),
        "tokens_per_second": statistics.median(line["tokens"] / line["seconds"] for line in lines[1:]),
        "utilisation": statistics.median(rates),
        "forward_utilisation": forward,
        "ceiling_gflops": max(ceiling),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_processes(case: Case, steps: int, threads: int, cache: str) -> dict[str, float]:
    """``run`` in as many processes as the case asks for; the figures of the first."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    children = []
    for rank in range(case.processes):
        environment = {**os.environ, "NLPMETA_CACHE": cache, "OMP_WAIT_POLICY": "PASSIVE"}
        environment["OMP_NUM_THREADS"] = str(threads // case.processes or 1)
        if case.processes > 1:
            world = {"WORLD_SIZE": case.processes, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
            environment |= {name: str(value) for name, value in world.items()} | {"MASTER_ADDR": "127.0.0.1"}
        request = json.dumps({"case": asdict(case), "steps": steps, "threads": threads // case.processes or 1})
        command = [sys.executable, __file__, "--child", request]
        children.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [child.communicate()[0] for child in children]
    figures: dict[str, float] = json.loads(outputs[0].splitlines()[-1])
    return figures


def main() -> None:
    """Measure all rows and print them."""
    from nlpmeta.storage.files import user_cache

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        request = json.loads(arguments.child)
        print(json.dumps(run(Case(**request["case"]), request["steps"], request["threads"])))
        return
    rows = {}
    with tempfile.TemporaryDirectory() as cache:
        (user_cache() / "encoders").mkdir(parents=True, exist_ok=True)
        (Path(cache) / "encoders").symlink_to(user_cache() / "encoders")
        for case in (each for each in CASES if arguments.only in each.name):
            rows[case.name] = in_processes(case, arguments.steps, arguments.threads, cache)
            if not arguments.json:
                _print_row(case.name, rows[case.name], next(iter(rows.values())))
    if arguments.json:
        print(json.dumps({"threads": arguments.threads, "rows": rows}))


def _print_row(name: str, row: dict[str, float], first: dict[str, float]) -> None:
    rate = row["episodes_per_second"]
    speed = rate / first["episodes_per_second"]
    share = f"step {row['utilisation']:.2f}, forward {row['forward_utilisation']:.2f}"
    print(
        f"{name:26} {rate:6.2f} episodes/s ({speed:4.1f}x) {row['tokens_per_second']:7.0f} tokens/s",
        f"of the ceiling of {row['ceiling_gflops']:.0f} GFLOP/s: {share}  {row['peak_mb']:6.0f} MB",
        flush=True,
    )


if __name__ == "__main__":
    main()
