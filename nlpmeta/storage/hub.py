"""Calls to the Hub: a limit on the time to its first answer, each refusal in one sentence, and no token in any."""

import logging
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from nlpmeta.errors import NetworkError, NLPMetaError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import DatasetInfo, ModelInfo

HIDDEN = "hf_***"
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=Bearer )[^\s'\"]{8,}")
_LIBRARIES = ("huggingface_hub", "httpx2", "httpx", "httpcore2", "httpcore", "datasets")
_SHORTEST = 8  # characters of what can be a token; replacing less would spoil other words
T = TypeVar("T")
REQUEST_SECONDS = 3.0  # a wish: a silent host takes twice that, and name resolution knows no timeout
PROBE_SECONDS = 4.0  # in all
LOG_IN = "log in with: hf auth login"
COMMIT = re.compile(r"[0-9a-f]{40}")
WRONG_FORM = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, AssertionError)
"""What the Hub's library raises when an answer is not of the form that it expects: a page, a list, nothing."""


def in_time(work: Callable[[], T], seconds: float | None = None) -> T:
    """The result of ``work``, or TimeoutError after ``seconds``; a thread that hangs is left behind."""
    seconds = PROBE_SECONDS if seconds is None else seconds
    results: queue.Queue[T | BaseException] = queue.Queue(maxsize=1)

    def run() -> None:
        try:
            results.put(work())
        except BaseException as error:  # handed to the caller, who raises it
            results.put(error)

    threading.Thread(target=run, name="nlpmeta-hub-probe", daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:.0f} s") from None
    if isinstance(result, BaseException):
        raise result
    return result


def is_offline() -> bool:
    """Whether the user forbade the network (``HF_HUB_OFFLINE=1``)."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def checked_id(name: str) -> str:
    """``name``, if it can be the name of a repository: ``owner/model``.

    Raises:
        NLPMetaError: if it cannot.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not re-exported

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise NLPMetaError(f"{name!r} cannot be the name of a model on the Hub (such as 'owner/model').") from error
    return name


@contextmanager
def said_plainly(
    name: str, revision: str | None = None, *, doing: str = "fetched from", token: object = None
) -> Iterator[None]:
    """Turn every way in which the Hub or the way to it can fail into one sentence, with no token in it.

    Raises:
        NetworkError: if the Hub cannot be reached, refuses, is out of order, or answers in another form than its own.
        NLPMetaError: if it has no such model or revision.
    """
    from httpx2 import HTTPError, InvalidURL
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    try:
        with no_tokens_told(token), _bars_on_a_terminal_only():
            yield
    except NLPMetaError:
        raise
    except errors.HFValidationError as error:
        raise NLPMetaError(
            f"{name!r} is neither a folder nor a name that a model on the Hub can have (such as 'owner/model')."
        ) from error
    except errors.GatedRepoError as error:
        raise NetworkError(f"The model {name!r} is gated: accept its terms at {hub}/{name}, then {LOG_IN}") from error
    except errors.RevisionNotFoundError as error:
        raise NLPMetaError(
            f"The model {name!r} on the Hub has no revision {revision!r}. See {hub}/{name}/commits/main"
        ) from error
    except (errors.RepositoryNotFoundError, errors.DisabledRepoError) as error:
        raise NLPMetaError(
            f"There is no model named {name!r} at {hub}, or it is private. Check the spelling, give a folder, "
            f"or {LOG_IN}"
        ) from error
    except errors.HfHubHTTPError as error:
        raise NetworkError(_refused(name, error.response.status_code, doing)) from error
    except (HTTPError, InvalidURL, errors.XetDownloadError, OSError) as error:
        raise NetworkError(f"The model {name!r} could not be {doing} {hub}: {short(error)}.") from error
    except WRONG_FORM as error:
        raise NetworkError(f"The model {name!r} could not be {doing} {hub}: {wrong_form(error)}") from error


@contextmanager
def _bars_on_a_terminal_only() -> Iterator[None]:
    """Keep the progress bars of the Hub's library, which end in carriage returns, out of logs."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    decided = constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled()
    if decided or sys.stderr.isatty():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def wrong_form(error: BaseException) -> str:
    """What to say of an answer that the Hub does not give."""
    return (
        f"it answered in a form that is not the Hub's ({type(error).__name__}). If this network has a page to log in "
        "to, do that first; else check HF_ENDPOINT."
    )


Info = TypeVar("Info", "ModelInfo", "DatasetInfo")


def checked_info(info: Info) -> Info:
    """What the Hub says of a repository, if it names a commit and its files; else a library would try it for long.

    Raises:
        ValueError: if it does not.
    """
    if not isinstance(info.sha, str) or not COMMIT.fullmatch(info.sha):
        raise ValueError("the answer names no commit")
    for file in info.siblings or []:
        if not isinstance(file.rfilename, str) or not isinstance(file.size or 0, int):
            raise ValueError("the answer lists files without names or sizes")
    return info


def status_of(error: BaseException | None) -> int | None:
    """The HTTP status behind an error, also where a library wrapped it; ``None`` if none came."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None:
            return int(response.status_code)
        error = error.__cause__
    return None


def short(error: BaseException) -> str:
    """The first words of an error message, on one line and without tokens."""
    words = without_tokens(" ".join(str(error).split()))
    return words[:160].rstrip(".") or type(error).__name__


def _refused(name: str, status: int, doing: str) -> str:
    from huggingface_hub import constants

    what = "asked for" if doing == "fetched from" else "sent"
    advice = {
        401: "log in again with: hf auth login",
        403: "log in again with: hf auth login (the token needs the right to write, if you push)",
        409: "another change is under way there; try again",
        412: "somebody else changed it at the same moment; try again",
        429: "it wants fewer requests; wait some minutes and try again",
    }.get(status, "try again later, or give a folder" if doing == "fetched from" else "try again later")
    return f"{constants.ENDPOINT} answered {status} when {what} the model {name!r}; {advice}."


def without_tokens(text: str, token: object = None) -> str:
    """``text`` with ``token``, the token of this user, and whatever looks like one, hidden."""
    for known in (token, _own_token()):
        if isinstance(known, str) and len(known) >= _SHORTEST:
            text = text.replace(known, HIDDEN)
    return _TOKEN.sub(HIDDEN, text)


@contextmanager
def no_tokens_told(token: object = None) -> Iterator[None]:
    """For a block, what the libraries of the Hub log and raise has no token in it, however deep the cause lies."""
    hider = _Hider(token)
    loggers = [logging.getLogger(name) for name in _known_loggers()]
    for logger in loggers:
        logger.addFilter(hider)
    try:
        yield
    except BaseException as error:
        _clean(error, token)
        raise
    finally:
        for logger in loggers:
            logger.removeFilter(hider)


class _Hider(logging.Filter):
    """Rewrites records of a log before any handler sees them."""

    def __init__(self, token: object) -> None:
        super().__init__()
        self._token = token

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_tokens(record.getMessage(), self._token), ()
        return True


def _clean(error: BaseException, token: object) -> None:
    """Hide tokens in the texts of an error and of everything that led to it."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.args = tuple(without_tokens(part, token) if isinstance(part, str) else part for part in each.args)
        for name, value in list(vars(each).items()):
            if isinstance(value, str):
                setattr(each, name, without_tokens(value, token))
        waiting += [each.__cause__, each.__context__]


def _known_loggers() -> list[str]:
    found = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _LIBRARIES]
    return list(dict.fromkeys([*_LIBRARIES, *found]))


def _own_token() -> str | None:
    from huggingface_hub import get_token

    return get_token()


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Progress bars for a person at a terminal only, and no warnings about which cache was used."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, logging

    verbosity, disabled = logging.get_verbosity(), are_progress_bars_disabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if not disabled:
            enable_progress_bars()
