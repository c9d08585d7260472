"""Texts that go through an encoder in parts: windows of one that is too long, and the two of a pair."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nlpmeta.encoder.tokenizing import MOST_READ, Reader, cut_texts, frame_of
from nlpmeta.errors import NLPMetaError
from nlpmeta.progress import Advance

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

WINDOW = 128
"""Tokens of a window where the length is chosen from the texts."""
MOST_CHOSEN = 512
"""Tokens that are read of a text at most where the length is chosen from the texts."""
MAY_BE_LONGER = 0.05
"""The share of the texts that may be longer than the length that is chosen."""
OVERLAP = 32
"""Tokens of a text that two neighbouring windows share at least, so that no sentence is cut in both."""


def checked_reading(max_length: int, window: int | None, limit: int | None) -> tuple[int, int]:
    """The tokens that are read of a text, and those of them that go through at once.

    Args:
        max_length: tokens that are to be read of a text.
        window: tokens that are to go through at once, if not as many as can.
        limit: tokens that the encoder takes at once, if it says so.

    Raises:
        NLPMetaError: if one of the two is out of range.
    """
    most = MOST_READ if limit is None else max(MOST_READ, limit)
    if not 4 <= max_length <= most:
        raise NLPMetaError(f"max_length is {max_length} tokens; 4 to {most} of a text can be read.")
    at_once = max_length if limit is None else min(max_length, limit)
    if window is not None and not 4 <= window <= (limit or most):
        raise NLPMetaError(f"window is {window} tokens; this encoder takes 4 to {limit or most} at once.")
    return max_length, at_once if window is None else min(window, at_once)


@dataclass(frozen=True)
class Windows:
    """How the tokens of a text are divided that are more than ``size``.

    Windows are of equal length, each starts and ends as a whole text does (special tokens, the prefix), and their
    embeddings count the same, so that a text is the mean of its windows, scaled to unit length where embeddings are.

    Attributes:
        size: tokens of a window at most, special ones included.
        before: tokens that each starts with.
        after: tokens that each ends with.
    """

    size: int
    before: int = 0
    after: int = 0

    def __post_init__(self) -> None:
        if self.size <= self.before + self.after:
            raise NLPMetaError(f"A window of {self.size} tokens has no room for a text; 128 is usual.")

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, prefix: str, size: int) -> Windows:
        """Windows of ``size`` tokens, each with the special tokens of ``tokenizer`` and with ``prefix``."""
        return cls(size, *frame_of(tokenizer, prefix))

    def starts(self, n_tokens: int) -> tuple[list[int], int]:
        """Where the windows of a text start in it, and how many tokens of it each has; all of it is read.

        Args:
            n_tokens: of the text, without those that every window has.
        """
        room = self.size - self.before - self.after
        overlap = min(OVERLAP, room // 4)
        if n_tokens <= room:
            return [0], n_tokens
        number = -(-(n_tokens - overlap) // (room - overlap))
        width = -(-(n_tokens + (number - 1) * overlap) // number)
        return [round(i * (n_tokens - width) / (number - 1)) for i in range(number)], width

    def split(self, tokens: Sequence[Sequence[int]]) -> Split | None:
        """The windows of some texts; ``None`` if each text is one."""
        if all(len(ids) <= self.size for ids in tokens):
            return None
        pieces, counts = list[list[int]](), list[int]()
        for ids in map(list, tokens):
            end = len(ids) - self.after
            head, body, tail = ids[: self.before], ids[self.before : end], ids[end:]
            starts, width = self.starts(len(body)) if len(ids) > self.size else ([0], len(body))
            pieces += [[*head, *body[start : start + width], *tail] for start in starts]
            counts.append(len(starts))
        return Split(pieces, counts)


@dataclass(frozen=True, eq=False)
class Split:
    """The windows of some texts, text after text.

    Attributes:
        tokens: of each window.
        counts: how many windows each text has.
    """

    tokens: list[list[int]]
    counts: list[int]

    @property
    def owners(self) -> list[int]:
        """The number of the text that each window is of."""
        return [row for row, count in enumerate(self.counts) for _ in range(count)]

    def advance(self, advance: Advance | None) -> Advance | None:
        """What to call with the number of windows that are done, where ``advance`` counts texts."""
        if advance is None:
            return None
        done, every, n_texts = 0, len(self.tokens), len(self.counts)

        def step(n: int) -> None:
            nonlocal done
            before, done = done * n_texts // every, done + n
            advance(done * n_texts // every - before)

        return step

    def pooled(self, vectors: Tensor, *, normalise: bool, n_views: int = 1) -> Tensor:
        """The embeddings ``(n_texts, n_views * dim)`` from those of the windows, each view by itself."""
        import torch
        import torch.nn.functional as F

        counts = torch.tensor(self.counts, device=vectors.device).unsqueeze(1)
        sums = vectors.new_zeros(len(self.counts), vectors.size(1))
        means = sums.index_add(0, torch.tensor(self.owners, device=vectors.device), vectors) / counts
        unit = F.normalize(means.view(len(means), n_views, -1), dim=2).flatten(1) if normalise else means
        return torch.where(counts > 1, unit, means)  # a text of one window keeps every bit

    def pooled_array(self, vectors: NDArray[np.float32], *, n_views: int, normalise: bool) -> NDArray[np.float32]:
        """``pooled`` for arrays ``(n_windows, n_views * dim)``, each view by itself."""
        counts = np.asarray(self.counts)[:, None]
        firsts = np.concatenate([[0], np.cumsum(self.counts)[:-1]])
        means: NDArray[np.float32] = (np.add.reduceat(vectors, firsts, axis=0) / counts).astype(np.float32)
        if normalise:
            views = means.reshape(len(means), n_views, -1)
            lengths = np.linalg.norm(views, axis=2, keepdims=True).clip(1e-12)
            means = np.where(counts > 1, (views / lengths).reshape(means.shape), means)
        return means


BREAK = -1
"""What stands between the tokens of the two texts of a pair; no tokenizer gives it."""
PAIR_FORM = 2
"""The form of the embeddings of pairs, to be raised when they change: what was learned of the old ones is lost."""
APART = 2.0
"""How much the difference of the texts of a pair is stretched."""
ALIKE = 5.0
"""How much the cosine of the texts of a pair is stretched."""


def view_width(width: int, pairs: bool) -> int:
    """The length of the embedding of a text, ``width``, or of a pair, as one view of an encoder has it."""
    return 4 * width + 1 if pairs else width


def halves_of(tokens: Sequence[Sequence[int]]) -> list[list[int]]:
    """The tokens of both texts of each pair, one after the other."""
    found = list[list[int]]()
    for ids in tokens:
        place = list(ids).index(BREAK)
        found += [list(ids[:place]), list(ids[place + 1 :])]
    return found


def paired(vectors: Tensor, *, n_views: int = 1) -> Tensor:
    """Embeddings of pairs ``(n, n_views * (4 * dim + 1))`` from those of their texts ``(2 n, n_views * dim)``.

    Texts take turns. For each view both embeddings, their absolute difference and their product side by side, after
    Conneau et al. (EMNLP 2017, section 3.1, arXiv:1705.02364), and their cosine. Where we differ: the difference, the
    product (by the root of ``dim``) and the cosine are scaled; the cosine alone decides many such tasks, and a few
    examples find one wide column more easily than a direction in ``4 * dim``.
    """
    import torch
    import torch.nn.functional as F

    parts: list[Tensor] = []
    for view in vectors.chunk(n_views, dim=1):
        first, second = view[0::2], view[1::2]
        root = float(view.size(1)) ** 0.5
        cosine = F.cosine_similarity(first, second, dim=1).unsqueeze(1)
        parts += [first, second, APART * (first - second).abs(), root * first * second, ALIKE * cosine]
    return torch.cat(parts, dim=1)


def weights_of(
    adapter: Mapping[str, Tensor] | None, adapter_of: Tensor | None, group: Sequence[int]
) -> Mapping[str, Tensor] | None:
    """The weights for the texts of a group: one set for all, or one for each."""
    if adapter is None or adapter_of is None:
        return adapter
    import torch

    which = adapter_of[torch.tensor(group, device=adapter_of.device)]
    return {name: weight.index_select(0, which) for name, weight in adapter.items()}


class ReadsMore(Reader, Protocol):
    """What an encoder needs to provide for a choice of how much it reads."""

    @property
    def window(self) -> int: ...
    def reading(self, max_length: int, window: int | None = None) -> ReadsMore:
        """The same encoder that reads so many tokens of a text."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of texts."""


@dataclass(frozen=True)
class Longer:
    """That texts are read beyond the usual length, since many of those to learn from are longer.

    Attributes:
        n_long: how many of them are longer than ``usual``.
        n_texts: of how many.
        usual: the tokens that are read of a text otherwise.
        max_length: the tokens that are read instead.
        window: the tokens of them that go through at once.
        lengths: the tokens of each, up to ``max_length``, for a forecast.
    """

    n_long: int
    n_texts: int
    usual: int
    max_length: int
    window: int
    lengths: tuple[int, ...] = ()

    @classmethod
    def of(cls, encoder: ReadsMore, texts: Sequence[str]) -> Longer | None:
        """How much of texts such as ``texts`` is to be read; ``None`` for what ``encoder`` reads.

        The least of twice, four and eight times as much, at most ``MOST_CHOSEN`` tokens, that holds nearly all texts.
        """
        usual, most = encoder.max_length, max(encoder.max_length, MOST_CHOSEN)
        # A token is a byte at least but for a few signs that stand for a phrase.
        long = {text for text in texts if len((encoder.prefix + text).encode()) + 2 > usual}
        if usual >= most or not texts or not long:
            return None
        with cut_texts():
            ids = encoder.reading(most + 1).tokenize(list(long))
        counted = dict(zip(long, map(_length, ids), strict=True))
        lengths = [counted.get(text, 0) for text in texts]
        allowed = int(MAY_BE_LONGER * len(texts))
        n_long, max_length = sum(length > usual for length in lengths), usual
        while max_length < most and sum(length > max_length for length in lengths) > allowed:
            max_length = min(2 * max_length, most)
        if max_length == usual:
            return None
        window = min(max_length, WINDOW, encoder.most_tokens or WINDOW)
        return cls(n_long, len(texts), usual, max_length, window, tuple(min(n, max_length) for n in lengths))

    def seconds(self, encoder: ReadsMore, n_texts: int) -> float:
        """How much longer it takes to embed so many texts; ``encoder`` is tried on a text of the usual length."""
        words = " ".join(["a"] * self.usual)
        spent = min(_seconds(encoder, f"{number} {words}") for number in range(3))
        more = sum(max(0, length - self.usual) for length in self.lengths) / len(self.lengths)
        return n_texts * more * spent / self.usual

    def message(self, option: str, seconds: float | None = None) -> str:
        """One sentence for a person; ``option`` is how its reader says how much is read."""
        many = f"{self.n_long} of {self.n_texts} texts {'is' if self.n_long == 1 else 'are'} longer than {self.usual}"
        how = f", in windows of {self.window}" if self.window < self.max_length else ""
        price = "" if seconds is None else f", about {seconds:.0f} s more" if seconds >= 1 else ", under a second more"
        less = f"{option} {self.usual}" if "--" in option else f"{option}={self.usual}"
        return f"{many} tokens: up to {self.max_length} are read{how}{price} ({less} reads the beginning alone)"

    def json(self) -> dict[str, int]:
        """For reports."""
        facts = {"texts": self.n_long, "of": self.n_texts, "longer_than": self.usual}
        return {**facts, "max_length": self.max_length, "window": self.window}


def _length(ids: Sequence[int]) -> int:
    """The tokens of a text, or of the longer one of a pair."""
    return max(map(len, halves_of([ids]))) if BREAK in ids else len(ids)


def _seconds(encoder: ReadsMore, text: str) -> float:
    start = time.perf_counter()
    encoder.encode([text])
    return time.perf_counter() - start
