"""Checked settings and registered names: what a command, a recipe or a saved file gives by name."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from nlpmeta.errors import NLPMetaError, UnknownNameError, visible

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
    from pydantic_core import ErrorDetails
else:
    ModelMetaclass = type(BaseModel)  # pydantic keeps its name private

MOST_STEPS, HIGHEST_SEED = 10_000_000, 2**32 - 1
HIGHEST_RATE, LARGEST_OPTION = 10.0, 10**6
SMALLEST_OPTION = 1e-6
"""Bounds that settings share: beyond them nothing is learned, and what is no number at all is beyond them too."""
_LISTED, _KNOWN = 20, 12  # mistakes and known names that a message lists


class SettingsError(NLPMetaError):
    """Some settings have unknown names or impossible values; the message has a line for each."""

    many_lines = True


class _Raising(ModelMetaclass):
    """Makes ``Settings(...)`` raise our error; parts nested in other settings are still collected by pydantic."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # the signature of every class
        try:
            return super().__call__(*args, **kwargs)
        except ValidationError as error:
            raise SettingsError(_said(cast("type[BaseModel]", cls), error)) from error


class Settings(BaseModel, metaclass=_Raising):
    """Base of everything that a recipe can set.

    Raises:
        SettingsError: on construction, listing every unknown name and every impossible value.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, str_max_length=4096)

    @classmethod
    def parse(cls, values: Mapping[str, object], *, where: str, saved: bool = False) -> Self:
        """Settings from plain values, as they stand in a file or on the command line.

        Args:
            values: by name.
            where: they stand; the message begins with it.
            saved: nobody wrote them by hand, so the message is one line instead of a list.

        Raises:
            SettingsError: as on construction.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            said = _said(cls, error, between=" " if saved else "\n  ")
            raise SettingsError(f"{where}: {said}") from error


def _said(cls: type[BaseModel], error: ValidationError, *, between: str = "\n  ") -> str:
    found: dict[str, ErrorDetails] = {}
    for each in error.errors():
        path = _path(cls, each["loc"])
        if path not in found or each["type"] in _BOUNDS:  # of the forms that a value may have, the one that it has
            found[path] = each
    inner = {path for path in found if not any(other.startswith(f"{path}.") for other in found)}
    lines = [_line(cls, path, each) for path, each in found.items() if path in inner]
    if len(lines) == 1:
        return lines[0]
    more = [f"and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return between.join([f"{len(lines)} settings are wrong:", *lines[:_LISTED], *more])


def _path(cls: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """Where a mistake is, without the names of the forms that pydantic tried there."""
    parts: list[str] = []
    model: type[BaseModel] | None = cls
    for part in loc:
        if model is None:  # inside a value: a list's places and a dictionary's keys count, forms do not
            if isinstance(part, int) or (len(parts) == 1 and str(part).partition("[")[0] not in _FORMS):
                parts.append(str(part))
            continue
        parts.append(str(part))
        if isinstance(part, str):
            field = model.model_fields.get(part)
            model = model_in(field.annotation) if field is not None else None
    return visible(".".join(parts))


def _line(cls: type[BaseModel], path: str, error: "ErrorDetails") -> str:
    if error["type"] == "extra_forbidden":
        known = _keys_at(cls, error["loc"][:-1])
        close = get_close_matches(str(error["loc"][-1])[:100], known, n=3, cutoff=0.5)
        if close:
            return f"{path} is not a setting. Did you mean {' or '.join(close)}?"
        some = f" Known: {', '.join(known)}." if len(known) <= _KNOWN else " List them with: nlpmeta recipes keys"
        return f"{path} is not a setting.{some}"
    if error["type"] == "missing":
        return f"{path} is missing."
    message = _BOUNDS.get(error["type"], "").format(**error.get("ctx", {}))
    message = message or visible(error["msg"].removeprefix("Value error, ").removeprefix("Input "), 400)
    if error["type"].startswith(("int_", "float_")) and error["type"] not in _BOUNDS:
        message += _limits(cls, error["loc"])
    return f"{path}: {message}{_got(error['input'])}." if path else message


_BOUNDS = {
    "greater_than": "should be greater than {gt:g}",
    "greater_than_equal": "should be greater than or equal to {ge:g}",
    "less_than": "should be less than {lt:g}",
    "less_than_equal": "should be a finite number less than or equal to {le:.10g}",
    "finite_number": "should be a finite number",
    "int_parsing_size": "should be a finite number of ordinary size",
}
_FORMS = {"bool", "int", "float", "str", "constrained-int", "constrained-float", "constrained-str", "tuple", "none"}


def _limits(cls: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """The bounds of the number at a place inside ``cls``."""
    model, found = cls, None
    for part in loc:
        field = model.model_fields.get(str(part))
        if field is not None:
            found, model = field, model_in(field.annotation) or model
    limits = {
        name: getattr(each, name)
        for each in (found.metadata if found else ())
        for name in _SIGNS
        if hasattr(each, name)
    }
    return f", {' and '.join(f'{_SIGNS[name]} {value}' for name, value in limits.items())}" if limits else ""


_SIGNS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _got(value: object) -> str:
    """The value that was given, if it is one; lists and groups are not repeated."""
    if isinstance(value, list | tuple | dict | BaseModel):
        return "" if isinstance(value, dict | BaseModel) else f" (got {len(value)} values)"
    try:
        return f" (got {visible(repr(value), 60)})"
    except ValueError:  # Python does not write numbers of many thousand digits
        return " (got a number of thousands of digits)"


def _keys_at(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The names of the settings at a place inside ``cls``."""
    for part in path:
        field = cls.model_fields.get(str(part))
        nested = model_in(field.annotation) if field is not None else None
        cls = nested or cls
    return sorted(cls.model_fields)


def model_in(annotation: object) -> type[BaseModel] | None:
    """The settings class inside ``X``, ``X | None``, ``tuple[X, ...]``."""
    from typing import get_args

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := model_in(part))), None)


def check_positive(**numbers: float | None) -> None:
    """See that rates, temperatures and weights are finite and above zero; ``None`` is left to the method.

    Raises:
        NLPMetaError: names the first that is not.
    """
    for name, value in numbers.items():
        known = value is None or (isinstance(value, Real) and SMALLEST_OPTION <= value <= LARGEST_OPTION)
        if not known:  # nor is "not a number"
            raise NLPMetaError(
                f"{name} must be positive, a finite number from {SMALLEST_OPTION:g} to {LARGEST_OPTION}; got {value!r}."
            )


def seconds_of(asked: str, option: str) -> float:
    """A time such as ``60``, ``60s``, ``2min`` or ``1h`` in seconds.

    Raises:
        NLPMetaError: names the option if it is none.
    """
    found = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]+)?) ?(s|min|h)?", asked.strip())
    if found is None:
        raise NLPMetaError(f"{option} takes a time such as 60, 60s, 2min or 1h; got {asked!r}.")
    return float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2] or "s"]


def check_share(**numbers: float) -> None:
    """See that shares are from 0 to 1.

    Raises:
        NLPMetaError: names the first that is not.
    """
    for name, value in numbers.items():
        if not 0 <= value <= 1:
            raise NLPMetaError(f"{name} is a share from 0 to 1; got {value!r}.")


T = TypeVar("T")
C = TypeVar("C")


class Registry(Mapping[str, type[T]]):
    """Fills itself on first use by importing ``homes``: modules, and packages with every module in them."""

    def __init__(self, kind: str, *homes: str) -> None:
        self.kind, self._homes = kind, homes
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
            for home in self._homes:
                for module in pkgutil.iter_modules(getattr(importlib.import_module(home), "__path__", [])):
                    importlib.import_module(f"{home}.{module.name}")
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
