"""Settings that check themselves: frozen, every key documented, and all that is wrong with them said at once."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from typing_extensions import Self

from nlpmeta.errors import NLPMetaError

if TYPE_CHECKING:
    from pydantic._internal._model_construction import ModelMetaclass
    from pydantic_core import ErrorDetails
else:
    ModelMetaclass = type(BaseModel)  # pydantic keeps its name private


class SettingsError(NLPMetaError):
    """Some settings have unknown names or impossible values; the message has a line for each."""


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

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def parse(cls, values: Mapping[str, object], *, where: str) -> Self:
        """Settings from plain values, as they stand in a file or on the command line.

        Raises:
            SettingsError: as on construction; the message begins with ``where``.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(f"{where}: {_said(cls, error)}") from error


def _said(cls: type[BaseModel], error: ValidationError) -> str:
    lines = [_line(cls, each) for each in error.errors()]
    return lines[0] if len(lines) == 1 else f"{len(lines)} settings are wrong:\n" + "\n".join(f"  {x}" for x in lines)


def _line(cls: type[BaseModel], error: "ErrorDetails") -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys_at(cls, error["loc"][:-1])
        close = get_close_matches(str(error["loc"][-1]), known, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(close)}?" if close else f" Known: {', '.join(known)}."
        return f"{path} is not a setting.{hint}"
    if error["type"] == "missing":
        return f"{path} is missing."
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    got = "" if isinstance(error["input"], dict) else f" (got {error['input']!r})"
    return f"{path}: {message}{got}." if path else message


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
