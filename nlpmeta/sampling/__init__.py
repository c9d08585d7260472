"""Draw episodes. Episode ``i`` is a pure function of ``(pools, shape, seed, i)``: no global random state."""

from nlpmeta.sampling.base import Range, Sampler, generator, next_stream
from nlpmeta.sampling.crosslingual import CrossLingualSampler
from nlpmeta.sampling.domains import DomainSampler
from nlpmeta.sampling.episodes import EpisodeSampler
from nlpmeta.sampling.hard_classes import HardClassSampler
from nlpmeta.sampling.imbalanced import ImbalancedSampler, LongTail, MetaDatasetShots
from nlpmeta.sampling.kshot import FoldSampler, KShotSampler, keep_classes
from nlpmeta.sampling.leaks import fingerprint, leaked_texts
from nlpmeta.sampling.mixture import MixtureSampler, language_balanced, temperature_weights
from nlpmeta.sampling.out_of_scope import HeldOutClassSampler, OutOfScopeSampler
from nlpmeta.sampling.pools import leave_out, split_by
from nlpmeta.sampling.spam import SpamSampler
from nlpmeta.sampling.users import UserSampler

__all__ = [
    "CrossLingualSampler",
    "DomainSampler",
    "EpisodeSampler",
    "FoldSampler",
    "HardClassSampler",
    "HeldOutClassSampler",
    "ImbalancedSampler",
    "KShotSampler",
    "LongTail",
    "MetaDatasetShots",
    "MixtureSampler",
    "OutOfScopeSampler",
    "Range",
    "Sampler",
    "SpamSampler",
    "UserSampler",
    "fingerprint",
    "generator",
    "keep_classes",
    "language_balanced",
    "leaked_texts",
    "leave_out",
    "next_stream",
    "split_by",
    "temperature_weights",
]
