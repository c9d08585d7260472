"""Every error a user can cause. Each message says what was asked, what there is, and what to do."""

import errno
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches

_LONGEST = 4000  # characters of a message; what is asked comes first and what to do last, so the middle is left out
_END, _SHOWN = 800, 200
_LISTED = 40  # names of a table in a message
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another place",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another place",
    errno.EFBIG: "the file would be larger than allowed here",
    errno.EROFS: "that file system is read-only; choose another place",
    errno.EACCES: "you have no permission for that; choose another place",
    errno.EPERM: "you have no permission for that; choose another place",
    errno.ENOTDIR: "a part of that path is a file, not a folder",
    errno.EISDIR: "it is a folder; name a file",
    errno.EEXIST: "something with that name is in the way",
    errno.ENOTEMPTY: "that folder is not empty",
    errno.ENOENT: "there is no such file or folder",
    errno.ENAMETOOLONG: "a name in that path is too long",
    errno.ELOOP: "its links lead in a circle",
    errno.EMFILE: "too many files are open; close some, or raise the limit with: ulimit -n",
    errno.ENFILE: "too many files are open on this machine",
    errno.EIO: "the disk reports an error; try another one",
    errno.EBUSY: "it is in use by another program",
    errno.ETXTBSY: "it is in use by another program",
    errno.EXDEV: "the two places are on different disks",
    errno.ENOMEM: "there is not enough memory",
    errno.EBADF: "it is closed",
}


class NLPMetaError(ValueError):
    """Base of all errors that a user can cause; the command line prints it as one line and exits with 2.

    ``exit_code`` is 2 where the request itself is wrong and 1 where the work failed (disk, network, damaged file).
    Whatever a message repeats of a stranger's text, control characters are escaped in it and its length is bounded.
    """

    exit_code = 2
    many_lines = False  # whether a message may have several

    def __init__(self, message: str = "") -> None:
        """Keep ``message`` in a form that no terminal, log or reader suffers from."""
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST - _END]} … {message[-_END:]}"
        super().__init__("\n".join(map(escaped, message.split("\n"))) if self.many_lines else escaped(message))


class WorkFailedError(NLPMetaError):
    """The request was sound but could not be carried out: no space, no network, a damaged file."""

    exit_code = 1


class DataError(NLPMetaError):
    """A file or data set does not hold what was asked of it."""


class NotThereError(NLPMetaError, AttributeError):
    """What a model of this kind does not have; ``hasattr`` and tools that look at all attributes pass over it."""


class DataWarning(UserWarning):
    """Something in a user's data was skipped; the message says what and how much."""


class ModelFolderError(WorkFailedError):
    """A model or checkpoint folder is missing parts, damaged, or of a newer version."""


class NoModelFolderError(ModelFolderError):
    """What was named as a model folder is not there or is something else, so the request itself is wrong."""

    exit_code = 2


class NetworkError(WorkFailedError):
    """Something that is not on disk was requested and the network did not bring it."""


def escaped(text: str) -> str:
    """``text`` with everything that does not print (control characters, lone surrogates) as Python would write it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def visible(text: str, most: int = _SHOWN) -> str:
    """Untrusted ``text`` on one line of a message: unprintable characters are escaped, long text is truncated."""
    return escaped(text[:most]) + ("…" if len(text) > most else "")


def reason_of(error: OSError) -> str:
    """Why the operating system refused, in words that help; its own words where there are no better ones."""
    known = _REASONS.get(error.errno or 0)
    return known or visible(str(error.strerror or error or type(error).__name__)).rstrip(".").lower()


class UnknownNameError(NLPMetaError):
    """A name that is in no table. The message lists the nearest names and the table, of a long one its beginning."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = get_close_matches(name[:_SHOWN], names, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(repr(n) for n in close)}?" if close else ""
        more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
        listed = f"{', '.join(names[:_LISTED]) or 'none'}{more}"
        super().__init__(f"There is no {kind} named {visible(repr(name))}.{hint} Known: {listed}.")
        self.kind, self.name, self.known = kind, name, tuple(names)


class UnknownUserError(UnknownNameError):
    """A user of whom nothing is stored. Nobody else's name is in the message."""

    def __init__(self, user: str) -> None:
        """Say what to do for ``user``."""
        NLPMetaError.__init__(
            self, f"There is no user named {visible(repr(user), 60)}. Adapt to that user first, or name a fallback."
        )
        self.kind, self.name, self.known = "user", user, ()


class NotEnoughExamplesError(NLPMetaError):
    """Some classes have fewer examples than an episode needs."""

    def __init__(self, counts: Mapping[str, int], need: int, *, advice: str) -> None:
        shown = ", ".join(f"{name!r} has {have}" for name, have in sorted(counts.items())[:10])
        more = f" and {len(counts) - 10} more classes" if len(counts) > 10 else ""
        super().__init__(f"{need} examples of each class are needed, but {shown}{more}. {advice}")
        self.counts, self.need = dict(counts), need


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings about rows that are skipped while data is read; they are passed on when the block ends."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DataWarning)
        try:
            yield messages
        finally:
            found = list(caught)
            messages.extend(str(each.message) for each in found if issubclass(each.category, DataWarning))
    for each in found:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
