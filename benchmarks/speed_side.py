"""One side of ``speed_peers.py``, in a process and an interpreter of its own: loads, then answers requests by lines.

    PYTHON benchmarks/speed_side.py SIDE FOLDER

Imports nothing of this repository but for the sides that are ours, so that it runs where only the peers are installed.
A request is a JSON object: ``{"texts": FILE}`` says which texts, ``{"bulk": n}`` and ``{"one": n}`` predict the first
so many at once or one after the other, ``{"embed": FILE}`` writes the embeddings of all, ``{"memory": true}`` says
what this process took at most. Every side is used as its documentation says; the peers get the head in ``head.npz``.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

PREFIX, LONGEST, BATCH = "query: ", 128, 32
Array = np.ndarray


class Side(Protocol):
    """What embeds and predicts."""

    def embed(self, texts: Sequence[str]) -> Array: ...

    def predict(self, texts: Sequence[str]) -> Array: ...


class Peer:
    """Embeddings of a package under a logistic head in NumPy."""

    def __init__(self, embed: Callable[[list[str]], Array], folder: Path) -> None:
        head = np.load(folder / "head.npz")
        self.weight, self.bias, self._embed = head["weight"], head["bias"], embed

    def embed(self, texts: Sequence[str]) -> Array:
        return np.asarray(self._embed([PREFIX + text.strip() for text in texts]), dtype=np.float32)

    def predict(self, texts: Sequence[str]) -> Array:
        scores = self.embed(texts) @ self.weight.T + self.bias
        shares = np.exp(scores - scores.max(1, keepdims=True))
        return shares / shares.sum(1, keepdims=True)


class Compiled:
    """A compiled model of ours, without PyTorch."""

    def __init__(self, model: Path, engine: str) -> None:
        from nlpmeta.classifier.light import LightClassifier

        found = LightClassifier.of_folder(model, engine)  # type: ignore[arg-type]
        if found is None:
            raise SystemExit(f"{model} is not compiled for {engine}")
        self.model = found

    def embed(self, texts: Sequence[str]) -> Array:
        return self.model.encoder.embed(texts)

    def predict(self, texts: Sequence[str]) -> Array:
        return self.model.predict_proba(texts)


class Plain:
    """A model of ours with PyTorch."""

    def __init__(self, model: Path) -> None:
        from nlpmeta import FewShotClassifier

        self.model = FewShotClassifier.from_pretrained(model, device="cpu")

    def embed(self, texts: Sequence[str]) -> Array:
        return self.model.learner_.encoder.encode(list(texts)).numpy()

    def predict(self, texts: Sequence[str]) -> Array:
        return self.model.predict_proba(list(texts))


def transformers_side(folder: Path, file: str | None) -> Side:
    """sentence-transformers, with its ONNX backend where ``file`` names a graph."""
    from sentence_transformers import SentenceTransformer

    options = {"backend": "onnx", "model_kwargs": {"file_name": file, "session_options": session_options()}}
    model = SentenceTransformer(str(folder / "st"), device="cpu", **(options if file else {}))
    model.max_seq_length = LONGEST
    return Peer(
        lambda texts: model.encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False), folder
    )


def session_options() -> object:
    """ONNX Runtime's own, with as many threads as ``OMP_NUM_THREADS`` says: it would take all cores."""
    from onnxruntime import SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = int(os.environ["OMP_NUM_THREADS"])
    return options


def setfit_side(folder: Path) -> Side:
    """What ``setfit.exporters.onnx.export_onnx`` wrote, fed as in SetFit's notebook; long texts with long ones."""
    from onnxruntime import InferenceSession
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder / "st"))
    session = InferenceSession(
        str(folder / "setfit" / "model.onnx"), session_options(), providers=["CPUExecutionProvider"]
    )
    # The graph ends in the head, and probabilities are among its outputs; of embeddings it says nothing.
    outputs = [each.name for each in session.get_outputs()]
    probabilities = next(name for name in outputs if "prob" in name)

    class SetFit:
        def embed(self, texts: Sequence[str]) -> Array:
            raise SystemExit("SetFit's graph has no embeddings among its outputs.")

        def predict(self, texts: Sequence[str]) -> Array:
            order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
            found: list[Array] = []
            for start in range(0, len(order), BATCH):
                batch = [PREFIX + texts[row].strip() for row in order[start : start + BATCH]]
                inputs = tokenizer(
                    batch, padding=True, truncation=True, max_length=LONGEST, return_attention_mask=True,
                    return_token_type_ids=True, return_tensors="np",
                )  # fmt: skip
                found.append(session.run([probabilities], dict(inputs))[0])
            return np.concatenate(found)[np.argsort(order)]

    return SetFit()


def fastembed_side(folder: Path, file: str) -> Side:
    """fastembed, which does not list this encoder, with a model of one's own."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = f"local/{Path(file).stem}"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=384,
        model_file=f"onnx/{file}",
    )
    threads = int(os.environ["OMP_NUM_THREADS"])
    model = TextEmbedding(name, specific_model_path=str(folder / "st"), threads=threads)
    return Peer(lambda texts: np.stack(list(model.embed(texts, batch_size=BATCH))), folder)


QINT8 = "model_qint8_avx512_vnni.onnx"
SIDES: dict[str, Callable[[Path], Side]] = {
    "nlpmeta torch": lambda folder: Plain(folder / "logistic"),
    "nlpmeta onnx": lambda folder: Compiled(folder / "logistic", "onnx"),
    "nlpmeta onnx-int8": lambda folder: Compiled(folder / "logistic", "onnx-int8"),
    "nlpmeta auto torch": lambda folder: Plain(folder / "auto"),
    "nlpmeta auto onnx": lambda folder: Compiled(folder / "auto", "onnx"),
    "nlpmeta auto onnx-int8": lambda folder: Compiled(folder / "auto", "onnx-int8"),
    "sentence-transformers torch": lambda folder: transformers_side(folder, None),
    "sentence-transformers onnx": lambda folder: transformers_side(folder, "onnx/model.onnx"),
    "sentence-transformers onnx int8": lambda folder: transformers_side(folder, f"onnx/{QINT8}"),
    "setfit onnx": setfit_side,
    "fastembed onnx": lambda folder: fastembed_side(folder, "model.onnx"),
    "fastembed onnx int8": lambda folder: fastembed_side(folder, QINT8),
}


def export(encoder: Path, folder: Path) -> None:
    """The forms that the peers read, made from the same weights by themselves: below ``st`` and ``setfit``."""
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    plain = SentenceTransformer(str(encoder), device="cpu")
    plain.max_seq_length = LONGEST
    plain.save_pretrained(str(folder / "st"))
    model = SentenceTransformer(str(folder / "st"), backend="onnx", device="cpu", model_kwargs={"export": True})
    model.save_pretrained(str(folder / "st"))
    export_dynamic_quantized_onnx_model(model, "avx512_vnni", str(folder / "st"))
    try:
        export_setfit(folder)
    except ImportError as error:
        sys.stderr.write(f"{error}\n")


def export_setfit(folder: Path) -> None:
    """SetFit's own export of the body and a head of scikit-learn that has the weights in ``head.npz``."""
    from sentence_transformers import SentenceTransformer
    from setfit.exporters.onnx import export_onnx
    from sklearn.linear_model import LogisticRegression

    known = np.load(folder / "head.npz")
    weight, bias = known["weight"], known["bias"]
    head = LogisticRegression().fit(np.eye(len(weight), weight.shape[1]), np.arange(len(weight)))
    head.coef_, head.intercept_ = weight.astype(np.float64), bias.astype(np.float64)
    body = SentenceTransformer(str(folder / "st"), device="cpu")
    (folder / "setfit").mkdir(exist_ok=True)
    export_onnx(body, head, opset=17, output_path=str(folder / "setfit" / "model.onnx"))


def peak() -> float:
    """Megabytes that this process had in memory at most."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of the CPU."""
    wall, used = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - used


def main() -> int:
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes to stderr
    os.dup2(2, 1)
    name, folder = sys.argv[1], Path(sys.argv[2])
    if name == "export":
        export(Path(sys.argv[3]), folder)
        return 0
    side, texts = SIDES[name](folder), list[str]()
    answers.write("{}\n")
    answers.flush()
    for line in sys.stdin:
        asked, found = json.loads(line), dict[str, object]()
        if "texts" in asked:
            texts = json.loads(Path(asked["texts"]).read_text(encoding="utf-8"))
        if "bulk" in asked:
            found["bulk"] = timed(lambda: side.predict(texts[: asked["bulk"]]))  # noqa: B023  # called at once
        if "one" in asked:
            found["one"] = [timed(lambda: side.predict([each])) for each in texts[: asked["one"]]]  # noqa: B023
        if "predict" in asked:
            np.save(asked["predict"], side.predict(texts))
        if "embed" in asked:
            np.save(asked["embed"], side.embed(texts))
        if "memory" in asked:
            found["memory"] = peak()
        answers.write(json.dumps(found) + "\n")
        answers.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
