"""Keeps access tokens out of messages, tracebacks and logs, also where a server sends one back."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

HIDDEN = "hf_***"
_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=Bearer )[^\s'\"]{8,}")
_LIBRARIES = ("huggingface_hub", "httpx2", "httpx", "httpcore2", "httpcore", "datasets")
_SHORTEST = 8  # characters of what can be a token; replacing less would spoil other words


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
