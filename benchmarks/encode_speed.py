"""Speed of ``nlpmeta predict`` and ``TextEncoder.encode`` compared with sentence-transformers on the same weights.

python benchmarks/encode_speed.py            # needs: pip install -e '.[offline,bench]'

Everything runs in one process on the same 10,000 short texts, one method after the other, each at its fastest settings;
the machine's matrix-product ceiling is measured in the same run. Prints one JSON object; times are the best of
``--repeats``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from nlpmeta import FewShotClassifier, TextEncoder, load_source

BATCH_SIZES = (16, 32, 64, 128)


def short_texts(count: int, seed: int = 0) -> list[str]:
    """Distinct short texts in ten languages: sentences of the starter corpus, some joined in pairs."""
    texts = load_source("starter").load().texts
    rng = np.random.default_rng(seed)
    made = dict.fromkeys(texts)
    while len(made) < count:
        one, two = rng.choice(len(texts), 2)
        words = (texts[one] + " " + texts[two]).split()
        start = int(rng.integers(0, max(1, len(words) - 8)))
        made[" ".join(words[start : start + int(rng.integers(3, 12))])] = None
    return list(made)[:count]


def best(repeats: int, work: "callable") -> float:
    """Seconds of the fastest of ``repeats`` runs."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def matrix_product_gflops() -> float:
    """The machine's float32 ceiling."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / best(8, lambda: a @ b) / 1e9


def encoder_gflop(tokens: int, dim: int = 384, inner: int = 1536, layers: int = 12) -> float:
    """Floating-point work of the linear layers for that many real tokens."""
    return tokens * layers * 2 * (4 * dim * dim + 2 * dim * inner) / 1e9


def sentence_transformer(folder: Path) -> "object":
    """The same weights in sentence-transformers: mean pooling, then unit length."""
    from sentence_transformers import SentenceTransformer, models

    words = models.Transformer(str(folder), max_seq_length=128)
    pooling = models.Pooling(words.get_embedding_dimension(), pooling_mode="mean")
    return SentenceTransformer(modules=[words, pooling, models.Normalize()], device="cpu")


def predict_seconds(classifier: FewShotClassifier, texts: list[str], repeats: int) -> float:
    """``nlpmeta predict`` on a file of these texts, start-up included, less what an almost empty file takes."""
    data = load_source("starter").load("sw")
    with tempfile.TemporaryDirectory() as folder:
        model, file, one = Path(folder) / "model", Path(folder) / "texts.txt", Path(folder) / "one.txt"
        classifier.fit(data.texts, data.names()).save_pretrained(model)
        file.write_text("\n".join(texts) + "\n", encoding="utf-8")
        one.write_text(texts[0] + "\n", encoding="utf-8")

        def run(source: Path) -> None:
            command = [sys.executable, "-m", "nlpmeta", "predict", str(model), "--quiet", "--file", str(source)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        return best(repeats, lambda: run(file)) - best(repeats, lambda: run(one))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    encoder = TextEncoder.from_pretrained()
    texts = short_texts(options.texts)
    tokens = sum(map(len, encoder.tokenize(texts)))
    peer = sentence_transformer(encoder.files.folder)
    prefixed = [encoder.prefix + text for text in texts]
    trial = prefixed[: len(prefixed) // 8]
    peer_trials = {size: best(1, lambda s=size: peer.encode(trial, batch_size=s)) for size in BATCH_SIZES}
    size = min(peer_trials, key=peer_trials.__getitem__)
    ours, theirs = [], []
    for _ in range(options.repeats):  # taken in turns: whatever else the machine does meets both
        theirs.append(best(1, lambda: peer.encode(prefixed, batch_size=size)))
        ours.append(best(1, lambda: encoder.encode(texts)))
    frozen = predict_seconds(FewShotClassifier("prototypical", encoder=encoder), texts, options.repeats)
    default = predict_seconds(FewShotClassifier(), texts, options.repeats)
    cosine = (encoder.encode(texts[:200]).numpy() * peer.encode(prefixed[:200], batch_size=size)).sum(1)
    peak = matrix_product_gflops()
    print(
        json.dumps(
            {
                "texts": len(texts),
                "tokens_per_text": tokens / len(texts),
                "threads": torch.get_num_threads(),
                "sentence_transformers_batch_size": size,
                "sentence_transformers_texts_per_second": len(texts) / min(theirs),
                "encode_texts_per_second": len(texts) / min(ours),
                "predict_frozen_texts_per_second": len(texts) / frozen,
                "predict_default_texts_per_second": len(texts) / default,
                "encode_over_peer": min(theirs) / min(ours),
                "predict_frozen_over_peer": min(theirs) / frozen,
                "predict_default_over_peer": min(theirs) / default,
                "matrix_product_gflops": peak,
                "encode_utilisation": encoder_gflop(tokens) / min(ours) / peak,
                "lowest_cosine_to_peer": float(cosine.min()),
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
