"""Which texts are longer than the encoder reads: heard of while they are tokenized, at no further cost."""

import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nlpmeta.errors import DataWarning

if TYPE_CHECKING:
    from nlpmeta.encoder.text_encoder import TextEncoder

_PASSED = {"nlpmeta", "contextlib", "torch"}
_heard: ContextVar[set[str] | None] = ContextVar("cut_texts", default=None)


@dataclass(frozen=True)
class Cut:
    """How many of some texts are longer than the encoder reads.

    Attributes:
        n_cut: how many are.
        n_texts: of how many.
        max_length: the tokens that are read of a text, special ones included.
        most: the tokens that the encoder could read; ``None`` if it does not say.
    """

    n_cut: int
    n_texts: int
    max_length: int
    most: int | None

    @classmethod
    def of(cls, encoder: "TextEncoder", texts: Sequence[str], cut: Collection[str]) -> "Cut":
        """How many of ``texts`` are among those that were ``cut``."""
        return cls(sum(text in cut for text in texts), len(texts), encoder.max_length, most_tokens(encoder))

    def json(self) -> dict[str, int]:
        """For reports."""
        return {"texts": self.n_cut, "of": self.n_texts, "max_length": self.max_length}

    @property
    def are_many(self) -> bool:
        """Whether what was cut off may be why a model knows little: half of the texts or more."""
        return 2 * self.n_cut >= self.n_texts > 0

    def said(self, option: str) -> str:
        """One sentence for a person, and what to do; ``option`` is how its reader says how much is read."""
        many = f"{self.n_cut} of {self.n_texts} texts {'is' if self.n_cut == 1 else 'are'}"
        return (
            f"{many} longer than the {self.max_length} tokens that are read; the rest is cut off. {self.advice(option)}"
        )

    def advice(self, option: str) -> str:
        """What to do about it."""
        if self.most is not None and self.most <= self.max_length:
            return "This encoder reads no more: shorten the texts, or put first what tells the classes apart."
        more = f"{option} {self.most}" if "--" in option else f"{option}={self.most}"
        return f"Read more with {more if self.most is not None else option}."


@contextmanager
def cut_texts() -> Iterator[set[str]]:
    """The set of the texts that are cut within the block, by this thread; an outer block does not hear of them."""
    found: set[str] = set()
    before = _heard.set(found)
    try:
        yield found
    finally:
        _heard.reset(before)


@contextmanager
def cut_texts_said(texts: Sequence[str], encoder: "TextEncoder") -> Iterator[None]:
    """Warn after the block of those of ``texts`` that were cut in it; where someone listens outside, it is theirs."""
    if _heard.get() is not None:
        yield
        return
    with cut_texts() as found:
        yield
    if found:
        cut = Cut.of(encoder, texts, found)
        if cut.n_cut:
            warnings.warn(cut.said("max_length"), DataWarning, stacklevel=_outside())


def cut_of(encoder: "TextEncoder", texts: Sequence[str]) -> Cut:
    """How many of ``texts`` are cut; only those are tokenized that are long enough for it."""
    # A token is a byte at least but for a few signs that stand for a phrase.
    long = [text for text in dict.fromkeys(texts) if len((encoder.prefix + text).encode()) + 2 > encoder.max_length]
    with cut_texts() as found:
        encoder.tokenize(long)
    return Cut.of(encoder, texts, found)


def heard() -> set[str] | None:
    """Where whoever tokenizes puts the texts that are cut; ``None`` if nobody listens."""
    return _heard.get()


def most_tokens(encoder: "TextEncoder") -> int | None:
    """The longest text in tokens, special ones included, that the encoder can read; ``None`` if it does not say."""
    if encoder.files is not None and encoder.files.max_length is not None:
        return encoder.files.max_length
    most = getattr(encoder.backbone.config, "max_position_embeddings", None)
    return most if isinstance(most, int) else None


def _outside() -> int:
    """How many calls up from the caller the first one stands that is not ours: there the warning is shown."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED:
        frame, level = frame.f_back, level + 1
    return level
