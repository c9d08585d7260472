"""Draw episodes. Episode ``i`` is a pure function of ``(pools, shape, seed, i)``: no global random state."""

from nlpmeta.sampling.base import Range, Sampler, generator, next_stream
from nlpmeta.sampling.episodes import CrossLingualSampler, EpisodeSampler, SpamSampler, UserSampler
from nlpmeta.sampling.kshot import FoldSampler, KShotSampler, keep_classes
from nlpmeta.sampling.leaks import fingerprint, leaked_texts
from nlpmeta.sampling.pools import leave_out, split_by
from nlpmeta.sampling.wrappers import ImbalancedSampler, LongTail, MetaDatasetShots, MixtureSampler, temperature_weights

__all__ = [
    "CrossLingualSampler",
    "EpisodeSampler",
    "FoldSampler",
    "ImbalancedSampler",
    "KShotSampler",
    "LongTail",
    "MetaDatasetShots",
    "MixtureSampler",
    "Range",
    "Sampler",
    "SpamSampler",
    "UserSampler",
    "fingerprint",
    "generator",
    "keep_classes",
    "leaked_texts",
    "leave_out",
    "next_stream",
    "split_by",
    "temperature_weights",
]
