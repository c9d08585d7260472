"""Names of splits: ours are ``train``, ``dev`` and ``test``; other people's names for them are understood."""

from collections.abc import Iterable

_SAME = (("dev", "validation", "valid", "val"), ("train", "training"), ("test", "testing"))


class SplitNames(tuple[str, ...]):
    """The splits of a data set; ``"validation" in splits`` also holds where the data set says ``dev``, and so on."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.spelled(name) is not None

    def spelled(self, asked: str) -> str | None:
        """The data set's own name for the split ``asked``, ``None`` if it has none."""
        return next((each for each in _names(asked) if tuple.__contains__(self, each)), None)


def _names(asked: str) -> Iterable[str]:
    """``asked`` itself, then what others call the same split; a prefix such as ``oos_`` is kept."""
    yield asked
    prefix, underscore, last = asked.rpartition("_")
    for group in _SAME:
        if last in group:
            yield from (f"{prefix}{underscore}{other}" for other in group if other != last)
