"""Tasks for ``auto`` whose views of the encoder tell the classes apart as well as a test wants."""

import torch

from nlpmeta.learners.base import Support, Texts

WAYS = 4


def task(adapted_signal, frozen_signal, *, lower_signal=0.0, n_shot=6, dim=16, names=None, seed=0):
    """Support and query whose three views tell the classes apart as well as the signals are strong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(WAYS).repeat_interleave(n_shot + 10)

    def view(signal):
        noise = torch.randn(len(labels), dim, generator=generator)
        return torch.nn.functional.normalize(noise + signal * torch.eye(WAYS, dim)[labels], dim=1)

    features = torch.cat([view(signal) for signal in (adapted_signal, frozen_signal, lower_signal)], dim=1)
    in_support = torch.arange(len(labels)) % (n_shot + 10) < n_shot
    n = int(in_support.sum())
    support = Support(("",) * n, features[in_support], labels[in_support], WAYS, names)
    return support, Texts(("",) * (len(labels) - n), features[~in_support]), labels[~in_support]


def heads(auto, state):
    """The names of the heads in a state."""
    return [head.name for head in auto.predictor(state).heads]


def words(signal, dim=16):
    one = torch.nn.functional.normalize(torch.eye(WAYS, dim) * signal + 0.01, dim=1)
    return Texts(tuple("wxyz"), torch.cat([one, one, one], dim=1))


def few_of_the_first_class(support, n_shot):
    """The support with ``n_shot`` texts of class 0 and all of the others."""
    of_first = torch.cumsum(support.labels == 0, 0)
    kept = (support.labels != 0) | (of_first <= n_shot)
    return Support(("",) * int(kept.sum()), support.features[kept], support.labels[kept], WAYS, support.names)
