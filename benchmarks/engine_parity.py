"""Labels of the compiled float32 encoder against PyTorch's on random texts of all scripts, emoji, empty and long ones.

    python benchmarks/engine_parity.py [--texts 10000] [--seed 0]      # compiles the default checkpoint if need be

Classes are known by their names, so that nothing but the engine differs. A label may differ only where the two most
probable labels are within 1e-5 of each other for PyTorch. Exits with 1 if another one does.
"""

import argparse
import sys
import time
import unicodedata

import numpy as np
import torch

from nlpmeta import FewShotClassifier
from nlpmeta.encoder.compiling import embedding_with, script_sentences
from nlpmeta.learners.base import Texts

TIE = 1e-5
CLASSES = ["sport", "food", "money", "music", "weather", "travel", "health", "technology"]
EMOJI = "😀 👍🏽 👩‍👩‍👧‍👦 🇰🇪 ❤️ 🏴󠁧󠁢󠁳󠁣󠁴󠁿 ☃ 🫠".split()
ODD = ["", " ", "\n\t", "\u200b", "\u200f\u202b", "\ufeff", "\x00", "\ufffd", "a\u0301" * 40, "<s></s><mask>", "▁▁ ▁"]
_LONGEST = 400  # words: several times what is read


def alphabets() -> list[str]:
    """The letters of every script of Unicode, by the first word of their names."""
    found: dict[str, list[str]] = {}
    for code in (*range(0x20, 0xD800), *range(0xF900, 0x20000), *range(0x20000, 0x20100)):
        letter = chr(code)
        name = unicodedata.name(letter, "").partition(" ")[0]
        if name and unicodedata.category(letter)[0] in "LMNPS":
            found.setdefault(name.partition("-")[0], []).append(letter)
    return ["".join(letters) for letters in found.values() if len(letters) >= 10]


def random_texts(n: int, draw: np.random.Generator) -> list[str]:
    """``n`` texts: words of one script or of several, with emoji and real sentences among them; few are long."""
    scripts, sentences = alphabets(), [each for row in script_sentences() for each in row]
    texts = list(ODD)
    while len(texts) < n:
        n_words = int(min(_LONGEST, 1 + draw.geometric(0.12))) if draw.random() > 0.01 else _LONGEST
        letters = scripts[draw.integers(len(scripts))]
        words = []
        for _ in range(n_words):
            kind = draw.random()
            if kind < 0.05:
                words.append(EMOJI[draw.integers(len(EMOJI))])
            elif kind < 0.15:
                words.append(sentences[draw.integers(len(sentences))])
            else:
                letters = scripts[draw.integers(len(scripts))] if kind > 0.95 else letters
                words.append("".join(letters[i] for i in draw.integers(len(letters), size=draw.integers(1, 9))))
        texts.append(("" if draw.random() < 0.1 else " ").join(words))
    return texts[:n]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    texts = random_texts(asked.texts, np.random.default_rng(asked.seed))
    predictor = FewShotClassifier.from_names(CLASSES, device="cpu").fitted_.predictor
    found, seconds = {}, {}
    for engine in ("torch", "onnx"):
        start, parts = time.process_time(), []
        with embedding_with(engine), torch.no_grad():
            for first in range(0, len(texts), 500):
                part = texts[first : first + 500]
                queries = predictor.queries(part)
                parts.append(predictor.logits(Texts(tuple(part), queries.features)).double().softmax(1).numpy())
        found[engine], seconds[engine] = np.concatenate(parts), time.process_time() - start
    plain, compiled = found["torch"], found["onnx"]
    differ = plain.argmax(1) != compiled.argmax(1)
    top = np.sort(plain, axis=1)
    wrong = differ & (top[:, -1] - top[:, -2] >= TIE)
    apart = np.abs(plain - compiled).max()
    print(f"{len(texts)} texts, seed {asked.seed}: {differ.sum()} labels differ, {wrong.sum()} of them are no ties")
    print(f"largest difference of a probability {apart:.2g}; CPU seconds torch {seconds['torch']:.0f}, onnx "
          f"{seconds['onnx']:.0f}, compiling included")  # fmt: skip
    return int(wrong.any())


if __name__ == "__main__":
    sys.exit(main())
