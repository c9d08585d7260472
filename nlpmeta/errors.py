"""Every error a user can cause. Each message says what was asked, what there is, and what to do."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches


class NLPMetaError(ValueError):
    """Base of all errors that a user can cause; the command line prints it as one line and exits with 2.

    ``exit_code`` is 2 where the request itself is wrong and 1 where the work failed (disk, network, damaged file).
    """

    exit_code = 2


class WorkFailedError(NLPMetaError):
    """The request was sound but could not be carried out: no space, no network, a damaged file."""

    exit_code = 1


class DataError(NLPMetaError):
    """A file or data set does not hold what was asked of it."""


class DataWarning(UserWarning):
    """Something in a user's data was passed over; the message says what and how much."""


class ModelFolderError(WorkFailedError):
    """A model or checkpoint folder is missing parts, damaged, or of a newer version."""


class NetworkError(WorkFailedError):
    """Something that is not on disk was asked for and the network did not bring it."""


def visible(text: str) -> str:
    """``text`` of a stranger on one line of a message: what does not print is escaped, what is long is cut."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text[:200])
    return shown + ("…" if len(text) > 200 else "")


class UnknownNameError(NLPMetaError):
    """A name that is in no table. The message lists the table and the nearest names."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(n) for n in close)}?" if close else ""
        super().__init__(f"There is no {kind} named {name!r}.{hint} Known: {', '.join(names) or 'none'}.")
        self.kind, self.name, self.known = kind, name, tuple(names)


class NotEnoughExamplesError(NLPMetaError):
    """Some classes have fewer examples than an episode needs."""

    def __init__(self, counts: Mapping[str, int], need: int, *, advice: str) -> None:
        shown = ", ".join(f"{name!r} has {have}" for name, have in sorted(counts.items())[:10])
        more = f" and {len(counts) - 10} more classes" if len(counts) > 10 else ""
        super().__init__(f"{need} examples of each class are needed, but {shown}{more}. {advice}")
        self.counts, self.need = dict(counts), need
