"""Adapts on the starter corpus and compares every export with the model on unseen texts.

python benchmarks/export_parity.py [--lang sw] [--shots 5]: largest difference in probability, size, seconds.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from nlpmeta import FewShotClassifier, load_source
from nlpmeta.episodes.kshot import KShotSampler
from nlpmeta.export import export


def with_transformers(folder: Path, texts: list[str]) -> np.ndarray:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.softmax(1).numpy()


def with_sentences(folder: Path, texts: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    parts = [part for part in (folder, folder / "second") if part.exists()]
    encode = [SentenceTransformer(str(part)).encode(texts, show_progress_bar=False) for part in parts]
    head = load_file(folder / "head.safetensors")
    features = torch.from_numpy(np.concatenate(encode, axis=1))
    if "shares" not in head:
        return (features @ head["weight"].T + head["bias"]).softmax(1).numpy()
    each = torch.einsum("nd,hwd->hnw", features, head["weight"]) + head["bias"].unsqueeze(1)
    mean = (each.softmax(2) * head["shares"].view(-1, 1, 1)).sum(0)
    return (mean.log() / head["temperature"]).softmax(1).numpy()


def with_onnx(folder: Path, texts: list[str]) -> np.ndarray:
    from onnxruntime import InferenceSession
    from transformers import AutoTokenizer

    batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="np")
    session = InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(None, {name: batch[name].astype(np.int64) for name in ("input_ids", "attention_mask")})[0]


FORMS: dict[str, Callable[[Path, list[str]], np.ndarray]] = {
    "transformers": with_transformers,
    "sentence-transformers": with_sentences,
    "onnx": with_onnx,
    "onnx-int8": with_onnx,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lang", default="sw")
    parser.add_argument("--shots", type=int, default=5)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    episode = KShotSampler(load_source("starter").load(asked.lang), n_shot=asked.shots, seed=0).episode(0)
    classifier = FewShotClassifier().fit(list(episode.support.texts), episode.support.names())
    texts = list(episode.query.texts)[:200]
    texts += [" ".join(texts), f"  {texts[0]}  "]  # one that is cut, one with spaces around it
    ours, wrong = classifier.predict_proba(texts), 0
    for form, read in FORMS.items():
        with tempfile.TemporaryDirectory() as temporary:
            start = time.perf_counter()
            export(classifier, Path(temporary) / "out", form)
            seconds = time.perf_counter() - start
            size = sum(file.stat().st_size for file in Path(temporary).rglob("*") if file.is_file())
            theirs = read(Path(temporary) / "out", texts)
        apart = float(np.abs(theirs - ours).max())
        wrong += apart >= 1e-4 and form != "onnx-int8"  # whose weights are rounded
        facts = {"form": form, "head": classifier.fitted_.predictor.choice, "texts": len(texts)}
        facts |= {"same_label": int((theirs.argmax(1) == ours.argmax(1)).sum())}
        facts |= {"largest_difference": apart, "megabytes": round(size / 1e6), "seconds": round(seconds, 1)}
        print(json.dumps(facts))
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
