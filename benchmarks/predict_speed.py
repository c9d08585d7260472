"""The cost of ``predict`` beyond the encoder's own forward pass: ``make bench-predict``.

python benchmarks/predict_speed.py                      # one text, and many
python benchmarks/predict_speed.py --against SECONDS    # ... and the bulk figure of another release as a ratio

CPU seconds of this process, one thread, in paired runs: the two sides alternate, and the result is the median ratio
over the pairs. The forward pass is that of a transformer without adapters whose weights include the merged adapters,
for each view of the encoder that the model uses. Prints one JSON object; exits 1 if one text costs more than 1.1 times
its forward passes.
"""

import argparse
import json
import statistics
import sys
import time
import warnings

import torch

from nlpmeta import FewShotClassifier, load_source
from nlpmeta.encoder.merged import plain_backbone, scales_with

MOST = 1.1
TEXT = "nataka kulala mapema leo"


def fitted(method: str) -> FewShotClassifier:
    """Four examples each of five classes of the starter corpus."""
    data = load_source("starter").load()
    chosen = sorted(set(data.names()))[:5]
    rows = [row for name in chosen for row in [i for i, each in enumerate(data.names()) if each == name][:4]]
    return FewShotClassifier(method).fit([data.texts[row] for row in rows], [data.names()[row] for row in rows])


def seconds(work: "callable") -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def one_text(classifier: FewShotClassifier, pairs: int) -> dict[str, float]:
    """The median of ``predict`` over the forward pass, and both in milliseconds."""
    learner, encoder = classifier.learner_, classifier.learner_.encoder
    views = learner.predictor(classifier.state_).adapter_scales
    plain = [plain_backbone(encoder.backbone, scales_with(encoder.backbone, factor)) for factor in views]
    ids, _ = encoder.pad(encoder.tokenize([TEXT]))

    @torch.inference_mode()
    def forward() -> None:
        for each in plain:
            each(input_ids=ids, attention_mask=None)

    def predict() -> None:
        classifier.predict([TEXT])

    forward(), predict()
    found = [(seconds(predict), seconds(forward)) for _ in range(pairs)]
    return {
        "views": len(views),
        "ratio": round(statistics.median(one / other for one, other in found), 3),
        "predict_ms": round(1000 * statistics.median(one for one, _ in found), 1),
        "forward_ms": round(1000 * statistics.median(other for _, other in found), 1),
    }


def many_texts(classifier: FewShotClassifier, count: int) -> float:
    """CPU seconds for so many texts of the starter corpus, the best of three."""
    texts = list(load_source("starter").load().texts)[:count]
    return round(min(seconds(lambda: classifier.predict(texts)) for _ in range(3)), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=41)
    parser.add_argument("--texts", type=int, default=1000, help="for the bulk figure; 0 skips it")
    parser.add_argument("--methods", nargs="+", default=["auto", "prototypical"])
    parser.add_argument("--against", type=float, help="CPU seconds of the same bulk prediction by another release")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    result: dict[str, object] = {}
    for method in asked.methods:
        classifier = fitted(method)
        result[method] = facts = one_text(classifier, asked.pairs)
        if asked.texts:
            facts["bulk_cpu_s"] = many_texts(classifier, asked.texts)
    if asked.against:
        result["bulk over the other"] = round(result[asked.methods[0]]["bulk_cpu_s"] / asked.against, 3)
    print(json.dumps(result, indent=2))
    return int(any(result[method]["ratio"] > MOST for method in asked.methods))


if __name__ == "__main__":
    sys.exit(main())
