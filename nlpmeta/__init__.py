"""Adapt a text classifier to a new language, a new set of intents or a new user from a handful of examples."""

from importlib import import_module
from typing import TYPE_CHECKING

from nlpmeta._version import __version__ as __version__

if TYPE_CHECKING:
    from nlpmeta.adaptation.adapt_report import AdaptReport as AdaptReport
    from nlpmeta.adaptation.adapt_report import adapt_and_measure as adapt_and_measure
    from nlpmeta.adaptation.meta_online import OnlineMetaLearner as OnlineMetaLearner
    from nlpmeta.adaptation.online import OnlineClassifier as OnlineClassifier
    from nlpmeta.adaptation.request import AdaptRequest as AdaptRequest
    from nlpmeta.adaptation.store import AdapterStore as AdapterStore
    from nlpmeta.classifier import FewShotClassifier as FewShotClassifier
    from nlpmeta.data import Episode as Episode
    from nlpmeta.data import LabeledTexts as LabeledTexts
    from nlpmeta.encoder.text_encoder import TextEncoder as TextEncoder
    from nlpmeta.errors import NLPMetaError as NLPMetaError
    from nlpmeta.learners.base import Learner as Learner
    from nlpmeta.learners.logistic import LogisticHead as LogisticHead
    from nlpmeta.learners.maml import MAML as MAML
    from nlpmeta.learners.mann import MemoryAugmentedNetwork as MemoryAugmentedNetwork
    from nlpmeta.learners.matching import MatchingNetwork as MatchingNetwork
    from nlpmeta.learners.prototypical import PrototypicalNetwork as PrototypicalNetwork
    from nlpmeta.learners.recurrent import RecurrentMetaLearner as RecurrentMetaLearner
    from nlpmeta.learners.ridge import RidgeHead as RidgeHead
    from nlpmeta.learners.siamese import SiameseNetwork as SiameseNetwork
    from nlpmeta.protocols import evaluate as evaluate
    from nlpmeta.recipes import Recipe as Recipe
    from nlpmeta.sampling import EpisodeSampler as EpisodeSampler
    from nlpmeta.sources.base import Source as Source
    from nlpmeta.sources.loading import load_source as load_source
    from nlpmeta.training import meta_train as meta_train

_HOMES = {
    "AdaptReport": "nlpmeta.adaptation.adapt_report",
    "AdaptRequest": "nlpmeta.adaptation.request",
    "AdapterStore": "nlpmeta.adaptation.store",
    "Episode": "nlpmeta.data",
    "EpisodeSampler": "nlpmeta.sampling",
    "FewShotClassifier": "nlpmeta.classifier",
    "LabeledTexts": "nlpmeta.data",
    "Learner": "nlpmeta.learners.base",
    "LogisticHead": "nlpmeta.learners.logistic",
    "MAML": "nlpmeta.learners.maml",
    "MatchingNetwork": "nlpmeta.learners.matching",
    "MemoryAugmentedNetwork": "nlpmeta.learners.mann",
    "NLPMetaError": "nlpmeta.errors",
    "OnlineClassifier": "nlpmeta.adaptation.online",
    "OnlineMetaLearner": "nlpmeta.adaptation.meta_online",
    "PrototypicalNetwork": "nlpmeta.learners.prototypical",
    "Recipe": "nlpmeta.recipes",
    "RecurrentMetaLearner": "nlpmeta.learners.recurrent",
    "RidgeHead": "nlpmeta.learners.ridge",
    "SiameseNetwork": "nlpmeta.learners.siamese",
    "Source": "nlpmeta.sources.base",
    "TextEncoder": "nlpmeta.encoder.text_encoder",
    "adapt_and_measure": "nlpmeta.adaptation.adapt_report",
    "evaluate": "nlpmeta.protocols",
    "load_source": "nlpmeta.sources.loading",
    "meta_train": "nlpmeta.training",
}
__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that ``import nlpmeta`` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'nlpmeta' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
