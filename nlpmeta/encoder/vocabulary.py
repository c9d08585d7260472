"""A tokenizer beside a compiled encoder: read in a fraction of a second, without ``transformers``, the same ids.

What normalises and splits a text is the tokenizer's own code (the package ``tokenizers``), told everything but the
vocabulary, whose quarter of a million pieces take it seconds to index. A unigram vocabulary is kept as one string of
pieces and one array of scores instead, and a word is segmented here.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nlpmeta.encoder.tokenizing import BEYOND, MOST, WIDTH, Reader, token_ids
from nlpmeta.errors import ModelFolderError, WorkFailedError
from nlpmeta.storage.files import read_bytes, read_json, read_text, write_bytes, write_json, write_text

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

WHOLE, SPLITTER, PIECES, SCORES, FACTS = "tokenizer.json", "splitter.json", "pieces.txt", "scores.f64", "tokens.json"
"""What is written: the vocabulary apart only for a unigram tokenizer, the others as a whole."""
_UNKNOWN_PENALTY = 10.0  # what a character without a piece scores below the worst piece, as in SentencePiece
_MOST_WORDS = 1 << 16  # whose ids are kept
_ODD = ("", " ", "aaaaaaa", "-" * 40, "a  b\tc\nd", "👍🏽 ok 🎉", "<s> x </s>", "ﬁ Ⅷ ①", "é é", "x" * 300)
_LARGEST = 256 << 20  # bytes of a file


def write_vocabulary(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Write the tokenizer of an encoder into ``folder``, its vocabulary apart where it can be.

    Raises:
        ModelFolderError: if it is not a fast tokenizer that cuts at the right.
    """
    if not tokenizer.is_fast or tokenizer.truncation_side != "right":
        raise ModelFolderError("Only an encoder with a fast tokenizer (tokenizer.json) can be compiled.")
    text = str(tokenizer.backend_tokenizer.to_str())
    whole: dict[str, Any] = json.loads(text)
    marks = tokenizer("a", return_special_tokens_mask=True)
    kept = [place for place, mark in enumerate(marks["special_tokens_mask"]) if not mark]
    ids = list(marks["input_ids"])
    before, after = ids[: kept[0]] if kept else [], ids[kept[-1] + 1 :] if kept else []
    model, words = whole["model"], [str(each["content"]) for each in whole.get("added_tokens") or ()]
    facts = {"before": before, "after": after, "added": words, "unknown": model.get("unk_id")}
    is_unigram = model.get("type") == "Unigram" and not model.get("byte_fallback") and model.get("unk_id") is not None
    pieces = [str(piece) for piece, _ in model["vocab"]] if is_unigram else []
    write_text(folder / WHOLE, json.dumps({**whole, "truncation": None, "padding": None}, ensure_ascii=False))
    if is_unigram and not any("\0" in piece for piece in pieces) and len(set(pieces)) == len(pieces):
        scores = np.asarray([score for _, score in model["vocab"]], dtype="<f8")
        write_text(folder / PIECES, "\0".join(pieces))
        write_bytes(folder / SCORES, scores.tobytes())
        bare = {**whole, "truncation": None, "padding": None, "added_tokens": [], "post_processor": None}
        bare["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]], "byte_fallback": False}
        write_text(folder / SPLITTER, json.dumps(bare, ensure_ascii=False))
    write_json(folder / FACTS, facts)


def check_same_ids(vocabulary: "Vocabulary", encoder: Reader, texts: Sequence[str]) -> None:
    """Compare the ids of ``texts``, and of odd ones, with those of the tokenizer that a vocabulary was made from.

    Raises:
        WorkFailedError: if some differ.
    """
    every = [*texts, *_ODD]
    prefixed = [encoder.prefix + text.strip() for text in every]
    if vocabulary.ids(prefixed, max_length=encoder.max_length) != encoder.tokenize(every):
        raise WorkFailedError("The tokenizer of this encoder cannot be compiled: some ids differ. Nothing was written.")


def pieces_of(tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[tuple[str, bool]] | None:
    """What each token of texts stands for, and whether it is known; ``None`` if the tokenizer does not say."""
    if not tokenizer.is_fast:
        return None
    batch = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, return_attention_mask=False)
    each = zip(texts, batch["input_ids"], batch["offset_mapping"], strict=True)
    return [piece for text, ids, spans in each for piece in _spanned(text, ids, spans, tokenizer.unk_token_id)]


def _spanned(
    text: str, ids: Sequence[int], spans: Sequence[tuple[int, int]], unknown: int | None
) -> list[tuple[str, bool]]:
    ends = [min(end, following) for (_, end), (following, _) in pairwise([*spans, (len(text), 0)])]
    # The mark of a word claims the letter after it.
    return [(text[start:end], token != unknown) for token, (start, _), end in zip(ids, spans, ends, strict=True)]


class Vocabulary:
    """Texts to ids as the tokenizer in ``folder`` makes them; any number of threads may ask."""

    def __init__(self, folder: Path) -> None:
        """Read what ``write_vocabulary`` wrote; the file that is large is read when a text needs it.

        Raises:
            ModelFolderError: if a file is missing or damaged.
        """
        self._folder = folder
        self._whole: _Plain | None = None
        facts = read_json(folder / FACTS)
        if not isinstance(facts, Mapping):
            raise ModelFolderError(f"{folder / FACTS} is damaged.")
        try:
            self._before, self._after = [int(i) for i in facts["before"]], [int(i) for i in facts["after"]]
            self._added = tuple(str(each) for each in facts["added"])
            self._words = _Words.read(folder, int(facts["unknown"])) if (folder / PIECES).is_file() else None
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ModelFolderError(f"The vocabulary in {folder} is damaged ({error}).") from error

    def ids(
        self, texts: Sequence[str], *, max_length: int, on_cut: Callable[[int], object] | None = None
    ) -> list[list[int]]:
        """The ids of each text, special tokens included, cut to ``max_length``; as ``token_ids``."""
        if self._words is None:
            return token_ids(self._plain(), texts, max_length=max_length, on_cut=on_cut)
        found = []
        for row, text in enumerate(texts):
            note = None if on_cut is None else (lambda _, row=row: on_cut(row))
            found.append(self._of(self._words, text, max_length, note))
        return found

    def _of(self, words: "_Words", text: str, max_length: int, note: Callable[[int], object] | None) -> list[int]:
        room, width = max_length - len(self._before) - len(self._after), WIDTH
        while True:
            part = text[:width]
            normalised = words.normalised(part)
            if any(each in part or each in normalised for each in self._added):  # they are cut out before all else
                return token_ids(self._plain(), [text], max_length=max_length, on_cut=note)[0]
            ids = words.ids(normalised, most=room + BEYOND)
            if width >= min(len(text), MOST) or len(ids) >= room + BEYOND:
                break
            width *= 2
        if note is not None and (width < len(text) or len(ids) > room):
            note(0)
        return [*self._before, *ids[:room], *self._after]

    def pieces(self, texts: list[str]) -> list[tuple[str, bool]]:
        """What each token of texts stands for, and whether it is known."""
        if self._words is None:
            return self._plain().pieces(texts)
        return [piece for text in texts for piece in self._words.pieces(self._words.normalised(text))]

    def _plain(self) -> "_Plain":
        if self._whole is None:
            self._whole = _Plain(self._folder / WHOLE)
        return self._whole


class _Words:
    """Segments words into the pieces of a unigram vocabulary: the most probable way.

    Source: Kudo, ACL 2018, section 3.1 (arXiv:1804.10959), by Viterbi's algorithm. Of two ways that are equally
    probable the one that starts its last piece earlier is taken, and the sums run in the same order as in
    ``tokenizers``: both decide words such as "aaaa".
    """

    def __init__(self, splitter: "Tokenizer", pieces: Sequence[str], scores: Sequence[float], unknown: int) -> None:
        self._splitter, self._unknown = splitter, unknown
        self._pieces = dict(zip(pieces, range(len(pieces)), strict=True))
        self._scores = scores
        self._least = min(scores) - _UNKNOWN_PENALTY
        self._longest = max(map(len, pieces))
        self._known: dict[str, list[int]] = {}

    @classmethod
    def read(cls, folder: Path, unknown: int) -> "_Words":
        from tokenizers import Tokenizer

        pieces = read_text(folder / PIECES, most=_LARGEST).split("\0")
        scores = np.frombuffer(read_bytes(folder / SCORES, most=_LARGEST), dtype="<f8").tolist()
        if not 0 <= unknown < len(pieces):
            raise ValueError("it has no unknown piece")
        return cls(Tokenizer.from_str(read_text(folder / SPLITTER)), pieces, scores, unknown)

    def normalised(self, text: str) -> str:
        normaliser = self._splitter.normalizer
        return text if normaliser is None else str(normaliser.normalize_str(text))

    def ids(self, normalised: str, *, most: int) -> list[int]:
        """The ids of the words of a text that was normalised, until there are ``most``."""
        found: list[int] = []
        for word in self._split(normalised):
            known = self._known.get(word)
            if known is None:
                known = [self._pieces.get(piece, self._unknown) for piece in self._segmented(word)]
                if len(self._known) >= _MOST_WORDS:
                    self._known.clear()
                self._known[word] = known
            found += known
            if len(found) >= most:
                break
        return found

    def pieces(self, normalised: str) -> list[tuple[str, bool]]:
        """The pieces of a text that was normalised, and whether each is known."""
        found = (piece for word in self._split(normalised) for piece in self._segmented(word))
        return [(piece, piece in self._pieces) for piece in found]

    def _split(self, normalised: str) -> list[str]:
        splitter = self._splitter.pre_tokenizer
        return [normalised] if splitter is None else [word for word, _ in splitter.pre_tokenize_str(normalised)]

    def _segmented(self, word: str) -> list[str]:
        pieces, scores, size = self._pieces, self._scores, len(word)
        best, start, number = [0.0] * (size + 1), [-1] * (size + 1), [0] * (size + 1)
        for i in range(size):
            here, alone = best[i], False
            for j in range(i + 1, min(size, i + self._longest) + 1):
                piece = pieces.get(word[i:j])
                if piece is None:
                    continue
                score = scores[piece] + here
                if start[j] < 0 or score > best[j]:
                    best[j], start[j], number[j] = score, i, piece
                alone = alone or j == i + 1
            if not alone and (start[i + 1] < 0 or self._least + here > best[i + 1]):
                best[i + 1], start[i + 1], number[i + 1] = self._least + here, i, self._unknown
        return self._path(word, start, number)

    def _path(self, word: str, start: list[int], number: list[int]) -> list[str]:
        """The pieces of the best way, neighbouring unknown characters as one."""
        found: list[str] = []
        end, unknown_to = len(word), None
        while end > 0:
            begin = start[end]
            if number[end] == self._unknown:
                unknown_to = end if unknown_to is None else unknown_to
            else:
                if unknown_to is not None:
                    found.append(word[end:unknown_to])
                    unknown_to = None
                found.append(word[begin:end])
            end = begin
        if unknown_to is not None:
            found.append(word[:unknown_to])
        return found[::-1]


class _Plain:
    """A tokenizer as a whole, called as ``transformers`` calls it."""

    is_fast, truncation_side = True, "right"

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(read_text(path, most=_LARGEST))

    def __call__(self, text: str | list[str], /, *, max_length: int | None = None, **_: object) -> "_Batch":
        if max_length is None:
            self._tokenizer.no_truncation()
        else:
            self._tokenizer.enable_truncation(max_length)
        return _Batch(self._tokenizer.encode_batch([text] if isinstance(text, str) else text))

    def pieces(self, texts: list[str]) -> list[tuple[str, bool]]:
        self._tokenizer.no_truncation()
        found = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        unknown = self._tokenizer.token_to_id(getattr(self._tokenizer.model, "unk_token", None) or "")
        each = zip(texts, found, strict=True)
        return [piece for text, one in each for piece in _spanned(text, one.ids, one.offsets, unknown)]


class _Batch(dict[str, list[list[int]]]):
    def __init__(self, encodings: "list[Encoding]") -> None:
        super().__init__(input_ids=[list(each.ids) for each in encodings])
        self._encodings = encodings

    @property
    def encodings(self) -> "list[Encoding] | None":
        """All that is known of each text."""
        return self._encodings
