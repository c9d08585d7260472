"""A typed table from a short name to a class. Names exist only at the edges: the command line and saved files."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from nlpmeta.errors import UnknownNameError

T = TypeVar("T")
C = TypeVar("C")


class Registry(Mapping[str, type[T]]):
    """Fills itself by importing every module of ``package`` on first use."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self._package = kind, package
        self._classes: dict[str, type[T]] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[type[C]], type[C]]:
        """Enter the decorated class under ``name``.

        Raises:
            RuntimeError: if the name is taken by another class.
        """

        def add(cls: type[C]) -> type[C]:
            if name in self._classes:
                raise RuntimeError(f"Two {self.kind}s are named {name!r}.")
            self._classes[name] = cls  # type: ignore[assignment]  # the decorator keeps the precise class type
            return cls

        return add

    def name_of(self, cls: type[T]) -> str:
        """The name that ``cls`` was registered under."""
        return next(name for name, known in self._load().items() if known is cls)

    def _load(self) -> dict[str, type[T]]:
        if not self._loaded:
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            self._loaded = True
        return self._classes

    def __getitem__(self, name: str) -> type[T]:
        classes = self._load()
        if name not in classes:
            raise UnknownNameError(self.kind, name, classes)
        return classes[name]

    def __contains__(self, name: object) -> bool:
        return name in self._load()

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._load()))

    def __len__(self) -> int:
        return len(self._load())
