"""Adapt a text classifier to a new language, a new set of intents or a new user from a handful of examples.

Each public name (``__init__.pyi`` lists them) is imported on first use: ``import nlpmeta`` does not wait for torch.
"""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
