"""Texts to token ids, at a cost that does not grow with what is beyond the cut; which were cut; groups of like length.

Any number of threads may do it; that a text is longer than the encoder reads is found on the way, at no further cost.
"""

import os
import sys
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from nlpmeta.errors import DataWarning

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

WIDTH = 8192
"""Characters of a text that are tokenized at first; twice as many, and so on, while they do not make enough tokens."""
MOST = 1 << 20
"""Characters that are read of a text at most: so far come only texts whose first million makes fewer tokens than fit in
the encoder, such as a million line breaks."""
MOST_READ = 8192
"""Tokens that are read of a text at most: a dozen pages."""
BATCH_TOKENS = 1024
"""Padded tokens of one forward pass. On two CPU cores 512 to 1,024 came closest to the matrix-product ceiling."""
PASS_COST = 24
"""What one more pass costs on a core, in tokens of the same encoder: about 25 with a gradient, whatever the length."""
BEYOND = 256
"""Tokens that must follow those that are kept before what comes after them is left out: more than a word can have."""
_PASSED = {"nlpmeta", "contextlib", "torch"}
_cut_texts: ContextVar[set[str] | None] = ContextVar("cut_texts", default=None)


class Guard:
    """A re-entrant lock, for ``with``; it can be copied and pickled, and is free in a process that was forked."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _every.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> "tuple[type[Guard], tuple[()]]":
        return Guard, ()

    def renew(self) -> None:
        """A free lock in the place of one that a thread of the parent process held while it forked."""
        self._lock = threading.RLock()


_every: WeakSet[Guard] = WeakSet()


def _after_fork() -> None:
    for guard in list(_every):
        guard.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)


_guard = Guard()  # a fast tokenizer keeps in itself where it cuts


class Batch(Protocol):
    """What a tokenizer makes of some texts; ``encodings`` is ``None`` from a tokenizer in Python."""

    @property
    def encodings(self) -> "list[Encoding] | None": ...
    def __getitem__(self, key: str, /) -> list[list[int]]: ...


class Tokenizes(Protocol):
    """What is needed of a tokenizer here, as those of ``transformers`` have it."""

    @property
    def is_fast(self) -> bool: ...
    @property
    def truncation_side(self) -> str: ...
    def __call__(
        self,
        text: str | list[str],
        /,
        *,
        truncation: bool = ...,
        max_length: int | None = ...,
        return_attention_mask: bool | None = ...,
    ) -> Batch: ...


def token_ids(
    tokenizer: Tokenizes,
    texts: Sequence[str],
    *,
    max_length: int,
    on_cut: Callable[[int], object] | None = None,
) -> list[list[int]]:
    """The ids of each text, special tokens included, cut to ``max_length``.

    A text of many megabytes costs what its beginning does: a tokenizer works word by word, so that what comes hundreds
    of tokens after the cut does not change what comes before it. ``on_cut`` is called with the number of each text
    that is cut.
    """
    if not texts:
        return []
    found: list[list[int]] = []
    width = WIDTH if tokenizer.is_fast and tokenizer.truncation_side == "right" else None
    batch = _cut(tokenizer, [text[:width] for text in texts], max_length)
    for row, text in enumerate(texts):
        ids, read = batch, width
        place = row
        while read is not None and read < min(len(text), MOST) and not _is_enough(ids, place):
            read, place = 2 * read, 0
            ids = _cut(tokenizer, [text[:read]], max_length)
        found.append(ids["input_ids"][place])
        if on_cut is not None:
            whole = read is None or read >= len(text)
            if not whole or (len(found[-1]) >= max_length and _loses(tokenizer, ids, place, text)):
                on_cut(row)
    return found


def _cut(tokenizer: Tokenizes, texts: list[str], max_length: int) -> Batch:
    with _guard:
        return tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)


def frame_of(tokenizer: "PreTrainedTokenizerBase", prefix: str) -> tuple[int, int]:
    """How many tokens come before a text, those of ``prefix`` included, and how many after it."""
    with _guard:
        marks = list(tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"])
        words = tokenizer(prefix.strip(), add_special_tokens=False)["input_ids"] if prefix.strip() else []
    kept = [place for place, mark in enumerate(marks) if not mark] or [len(marks)]
    return kept[0] + len(words), max(0, len(marks) - kept[-1] - 1)


def _loses(tokenizer: Tokenizes, batch: Batch, place: int, text: str) -> bool:
    """Whether a text that was read whole makes more tokens than were kept."""
    if batch.encodings is not None:
        return bool(batch.encodings[place].overflowing)
    with _guard:  # a tokenizer in Python keeps nothing of what it cut off
        return len(tokenizer(text)["input_ids"]) > len(batch["input_ids"][place])


def _is_enough(batch: Batch, place: int) -> bool:
    """Whether so many tokens were cut off that more text could not change those that were kept."""
    return batch.encodings is None or sum(len(part.ids) for part in batch.encodings[place].overflowing) >= BEYOND


class Reader(Protocol):
    """What an encoder needs to provide here: how much it reads, and to read."""

    @property
    def prefix(self) -> str: ...
    @property
    def max_length(self) -> int: ...
    @property
    def most_tokens(self) -> int | None: ...
    def tokenize(self, texts: Sequence[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Cut:
    """How many of some texts are longer than the encoder reads.

    Attributes:
        n_cut: how many are.
        n_texts: of how many.
        max_length: the tokens that are read of a text, special ones included.
        most: the tokens that could go through the encoder at once; ``None`` if it does not say.
    """

    n_cut: int
    n_texts: int
    max_length: int
    most: int | None

    @classmethod
    def of(cls, encoder: Reader, texts: Sequence[str], cut: Collection[str]) -> "Cut":
        """How many of ``texts`` are among those that were ``cut``."""
        return cls(sum(text in cut for text in texts), len(texts), encoder.max_length, encoder.most_tokens)

    def json(self) -> dict[str, int]:
        """For reports."""
        return {"texts": self.n_cut, "of": self.n_texts, "max_length": self.max_length}

    @property
    def are_many(self) -> bool:
        """Whether what was cut off may be why a model knows little: half of the texts or more."""
        return 2 * self.n_cut >= self.n_texts > 0

    def message(self, option: str) -> str:
        """One sentence for a person, and what to do; ``option`` is how its reader says how much is read."""
        many = f"{self.n_cut} of {self.n_texts} texts {'is' if self.n_cut == 1 else 'are'}"
        return (
            f"{many} longer than the {self.max_length} tokens that are read; the rest is cut off. {self.advice(option)}"
        )

    def advice(self, option: str) -> str:
        """What to do about it."""
        if self.max_length >= MOST_READ:
            return "No more is read of a text: shorten them, or put first what tells the classes apart."
        if self.most is None:
            return f"Read more with {option}."
        more = self.most if self.most > self.max_length else min(2 * self.max_length, MOST_READ)
        how = "" if self.most > self.max_length else ", in windows,"
        return f"Read more{how} with {option} {more}." if "--" in option else f"Read more{how} with {option}={more}."


@contextmanager
def cut_texts() -> Iterator[set[str]]:
    """The set of the texts that are cut within the block, by this thread; an outer block does not collect them."""
    found: set[str] = set()
    before = _cut_texts.set(found)
    try:
        yield found
    finally:
        _cut_texts.reset(before)


@contextmanager
def cut_texts_said(texts: Sequence[str], encoder: Reader) -> Iterator[None]:
    """Warn after the block of those of ``texts`` that were cut in it; where someone listens outside, it is theirs."""
    if _cut_texts.get() is not None:
        yield
        return
    with cut_texts() as found:
        yield
    if found:
        cut = Cut.of(encoder, texts, found)
        if cut.n_cut:
            warnings.warn(cut.message("max_length"), DataWarning, stacklevel=_outside())


def cut_of(encoder: Reader, texts: Sequence[str]) -> Cut:
    """How many of ``texts`` are cut; only those are tokenized that are long enough for it."""
    # A token is a byte at least but for a few signs that stand for a phrase.
    long = [text for text in dict.fromkeys(texts) if len((encoder.prefix + text).encode()) + 2 > encoder.max_length]
    with cut_texts() as found:
        encoder.tokenize(long)
    return Cut.of(encoder, texts, found)


def collected_cuts() -> set[str] | None:
    """The set that collects truncated texts; ``None`` outside of ``cut_texts``."""
    return _cut_texts.get()


def _outside() -> int:
    """How many calls up from the caller the first one stands that is not ours: there the warning is shown."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED:
        frame, level = frame.f_back, level + 1
    return level


def length_batches(
    lengths: Sequence[int], *, batch_tokens: int = BATCH_TOKENS, pass_cost: int = PASS_COST
) -> list[list[int]]:
    """Rows in groups of similar length, each of which is padded to its longest and goes through at once.

    Args:
        lengths: tokens of each text.
        batch_tokens: the most that a padded group holds; a text longer than that is a group of its own.
        pass_cost: a group ends where its padding would cost more than this, the cost of one more pass.

    Returns:
        Groups of row numbers, long texts last; every row is in one group.
    """
    groups, held = list[list[int]](), 0
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = (len(groups[-1]) + 1) * lengths[row] if groups else batch_tokens + 1
        held += lengths[row]
        if padded <= batch_tokens and padded - held <= pass_cost:
            groups[-1].append(row)
        else:
            groups.append([row])
            held = lengths[row]
    return groups
