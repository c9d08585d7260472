"""The cost of a write, and that memory stays flat: 10,000 writes into the shipped network, next to the encoder's time.

python benchmarks/stream_writes.py
"""

import resource
import statistics
import time

import torch
import torch.nn.functional as F

from nlpmeta.learners.mann import MemoryAugmentedNetwork
from nlpmeta.learners.start import starting_learner

WRITES, CLASSES, SENTENCE = 10_000, 50, "ninaomba unikumbushe kesho asubuhi saa mbili"


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    learner = starting_learner("mann")
    if not isinstance(learner, MemoryAugmentedNetwork):
        raise TypeError(f"the shipped checkpoint holds {type(learner).__name__}")
    features = F.normalize(torch.randn(1000, learner.encoder.dim, generator=torch.Generator().manual_seed(0)), dim=1)
    state, seconds, cpu, sizes, peak = learner.empty(), [], [], [], []
    for i in range(WRITES):
        wall, used = time.perf_counter(), time.process_time()
        state = learner.write(state, features[i % 1000], min(i, i % CLASSES))
        seconds.append(time.perf_counter() - wall)
        cpu.append(time.process_time() - used)
        if i + 1 in (1000, WRITES):
            sizes.append(learner.footprint(state).n_bytes)
            peak.append(megabytes())
    forward = []
    for i in range(20):
        start = time.perf_counter()
        learner.encoder.encode([f"{SENTENCE} {i}"])
        forward.append(time.perf_counter() - start)
    wall, alone = (1000 * statistics.mean(each) for each in (seconds, cpu))
    print(f"a write: {wall:.1f} ms on average, of which the processor {alone:.1f} ms")
    print(f"the encoder's pass over one text: {1000 * statistics.median(forward):.1f} ms")
    print(f"the stream after 1,000 and {WRITES:,} writes: {sizes[0]:,} and {sizes[1]:,} bytes")
    print(f"the process, at its peak: {peak[0]:.0f} and {peak[1]:.0f} MB")
    print(learner.footprint(state))


if __name__ == "__main__":
    main()
