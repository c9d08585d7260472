"""Streams that need no encoder: every class is a random direction, and most of a text's embedding is noise.

What tells classes apart lies in half of the directions; the others are louder and mean nothing. To ignore them is what
meta-training has to find out.
"""

import torch
import torch.nn.functional as F

from nlpmeta.learners.base import Support

DIM, LOUDNESS = 16, 1.0  # of the small encoder of conftest; of the noise against the signal


def streams(n_streams, *, n_way, n_each, seed, noise=LOUDNESS):
    """Pairs of support and query that a stream learner runs together, classes new in every stream."""
    generator = torch.Generator().manual_seed(seed)
    return [_task(n_way, n_each, noise, generator) for _ in range(n_streams)]


def _task(n_way, n_each, noise, generator):
    classes = torch.randn(n_way, DIM // 2, generator=generator)
    labels = torch.arange(n_way).repeat(n_each)
    loud = noise * torch.randn(len(labels), DIM // 2, generator=generator)
    features = F.normalize(torch.cat([classes[labels], loud], dim=1), dim=1)
    half = n_way * (n_each // 2)
    parts = (slice(0, half), slice(half, None))
    return tuple(Support(("",) * len(labels[p]), features[p], labels[p], n_way) for p in parts)


def train(learner, *, steps, n_way, n_each, rate, seed=0, per_step=32, noise=LOUDNESS):
    """Meta-train a learner's own weights on such streams; leaves it in evaluation mode."""
    own = [weight for name, weight in learner.named_parameters() if not name.startswith("encoder.")]
    optimizer = torch.optim.Adam(own, rate)
    learner.train()
    for step in range(steps):
        tasks = streams(per_step, n_way=n_way, n_each=n_each, seed=seed + 1 + step, noise=noise)
        optimizer.zero_grad()
        learner.batch_loss(tasks).loss.backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
    return learner.eval()


@torch.no_grad()
def recall(learner, *, n_way, n_each, n_streams=100, seed=1_000_000, noise=LOUDNESS):
    """The share of texts that are classified right, of those whose class came up before."""
    return learner.eval().batch_loss(streams(n_streams, n_way=n_way, n_each=n_each, seed=seed, noise=noise)).accuracy
