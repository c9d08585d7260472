"""Text replacements as the character map of SentencePiece, which ``tokenizers`` runs as ``Precompiled``."""

from collections import deque
from collections.abc import Mapping

import numpy as np

_Trie = dict[int, "_Trie | int"]
_LEAF = 1 << 8  # a key ends here
_VALUE = 1 << 31  # the unit holds a value, not a transition
_END = 0  # the label under which a node keeps its value; no key holds this byte


def charsmap(replacements: Mapping[str, str]) -> bytes:
    """Bytes of the map: the size of the trie (uint32), the trie as a double array, the replacements ended by NUL.

    An empty replacement deletes. ``Precompiled`` looks a grapheme of fewer than 6 bytes up as a whole and applies the
    shortest key that begins it, dropping the rest; then it looks up single code points. So keys should be single code
    points, and canonical composition belongs into an NFC step before it.

    Raises:
        ValueError: if a key is empty, or a key or replacement holds NUL.
    """
    trie: _Trie = {}
    texts = bytearray()
    starts: dict[str, int] = {}
    for key, text in sorted(replacements.items()):
        if not key or "\0" in key + text:
            raise ValueError(f"A character map cannot hold {key!r} -> {text!r}.")
        if text not in starts:
            starts[text] = len(texts)
            texts += text.encode() + b"\0"
        _insert(trie, key.encode(), starts[text])
    units = _double_array(trie)
    return len(units).to_bytes(4, "little") + units + bytes(texts)


def _insert(trie: _Trie, key: bytes, value: int) -> None:
    node = trie
    for byte in key:
        child = node.setdefault(byte, {})
        assert isinstance(child, dict)  # noqa: S101  # only _END leads to a number
        node = child
    node[_END] = value


def _double_array(trie: _Trie) -> bytes:
    """The trie in the layout of darts-clone: the child of a node at ``p`` for byte ``c`` is at ``p ^ offset ^ c``.

    A unit is ``offset << 10 | leaf << 8 | label``. Unused units have label 0, which no look-up asks for.
    """
    units = {0: 0}
    bases: set[int] = set()
    tried: dict[tuple[int, ...], int] = {}  # places fill up only, so what did not fit a set of labels never will
    queue = deque([(0, trie)])
    while queue:
        place, node = queue.popleft()
        labels = tuple(sorted(node))
        tried[labels] = first = _first_fit(labels, units, bases, tried.get(labels, 0) + 1)
        base = first ^ labels[0]
        bases.add(base)
        units[place] |= (place ^ base) << 10 | (_LEAF if _END in node else 0)
        for label, child in node.items():
            if isinstance(child, dict):
                units[base ^ label] = label
                queue.append((base ^ label, child))
            else:
                units[base] = child | _VALUE
    array = np.zeros((max(units) | 255) + 1, "<u4")  # a look-up may read anywhere in the last 256
    array[list(units)] = list(units.values())
    return array.tobytes()


def _first_fit(labels: tuple[int, ...], units: Mapping[int, int], bases: set[int], start: int) -> int:
    """The first place for the first label that leaves the other labels free places; two nodes never share a base."""
    place = start
    while (base := place ^ labels[0]) in bases or any(base ^ label in units for label in labels):
        place += 1
    return place
