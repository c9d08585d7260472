"""What the saved files below ``tests/saved_models`` answer; ``tools/make_saved_models.py`` wrote them.

Each kind is loaded as its owner would load it, from a copy and with the folder of that copy as the working directory:
the models name their encoder as ``./encoder``.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conftest import TOPICS

from nlpmeta import (
    AdapterStore,
    EpisodeSampler,
    FewShotClassifier,
    LabeledTexts,
    LogisticHead,
    OnlineClassifier,
    OnlineMetaLearner,
    PrototypicalNetwork,
    TextEncoder,
    meta_train,
)
from nlpmeta.encoder.lora import AdapterSettings, add_adapter
from nlpmeta.learners.checkpoint import load_checkpoint
from nlpmeta.training import TrainSettings

ENCODER = "./encoder"
ASKED = ["ball rice", "loan goal", "bread", "match team goal ball bank", "nothing known", "rate", "salt soup rice"]
TEXTS = [
    "ball goal",
    "match team",
    "goal goal",
    "rice soup",
    "bread salt",
    "salt rice",
    "bank loan",
    "cash rate",
    "loan",
]
NAMES = ["sport"] * 3 + ["food"] * 3 + ["money"] * 3
USERS = {"amina": ("sport", "food"), "chinonso": ("food", "money"), "Ọláwálé": ("sport", "money")}
CUT_OFF_AT, STEPS = 4, 6
"""The training in ``run`` was stopped after step 4 of 6."""

Answers = dict[str, list[object]]


def arithmetic() -> str:
    """A digest of what this machine's libraries make of fixed products, exponentials and an attention.

    Where it is the one that the answers were made with, they have to be the same to the last bit.
    """
    draw = torch.Generator().manual_seed(0)
    left, right = torch.randn(7, 16, generator=draw), torch.randn(16, 48, generator=draw)
    query, key, value = (left @ right).reshape(1, 7, 3, 16).permute(2, 0, 1, 3)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value).softmax(-1)
    found = torch.nn.functional.layer_norm(torch.nn.functional.gelu(mixed @ right), (48,))
    return hashlib.sha256(found.numpy().tobytes() + torch.__version__.encode()).hexdigest()


def classified(model: FewShotClassifier) -> Answers:
    return {"labels": model.predict(ASKED).tolist(), "probabilities": model.predict_proba(ASKED).tolist()}


def adapted(folder: Path) -> Answers:
    """Of a model by itself; of ``auto`` also what it says beside its labels."""
    model = FewShotClassifier.from_pretrained(folder)
    if "-auto" not in folder.name:
        return classified(model)
    sets = [sorted(map(str, each.labels)) for each in model.predict(ASKED, abstain=0.9)]
    return {**classified(model), "label sets": sets, "out of scope": model.out_of_scope(ASKED).tolist()}


def online(folder: Path) -> Answers:
    """Of a stream, and what it says after it learned the text that waits and after a step back."""
    stream = OnlineClassifier.load(folder)
    before = stream.predict_proba(ASKED).tolist()
    stream.learn(list(stream.waiting), ["food"])
    after = stream.predict_proba(ASKED).tolist()
    stream.rollback(1)
    back = stream.predict_proba(ASKED).tolist()
    return {"before": before, "after": after, "back": back, "classes": stream.classes_.tolist()}


def users(path: Path) -> Answers:
    method = path.stem.partition("-")[2]
    learner = load_checkpoint(path.parent / "checkpoint-maml") if method == "maml" else LogisticHead(plain_encoder())
    with AdapterStore(path, learner) as store:
        owners = [user for user in USERS for _ in ASKED]
        scored = store.predict_proba(owners, ASKED * len(USERS))
        return {
            "labels": [list(each.labels) for each in scored],
            "probabilities": [list(each.probabilities) for each in scored],
        }


def checkpoint(folder: Path) -> Answers:
    """Of a classifier that starts from a meta-trained checkpoint."""
    return classified(FewShotClassifier(load_checkpoint(folder)).fit(TEXTS, NAMES))


def tasks(folder: Path) -> Answers:
    leader = OnlineMetaLearner.load(folder)
    return {
        "embeddings": leader.learner.encoder.encode(ASKED).tolist(),
        "accuracies": [[*each] for each in leader.review().accuracies.items()],
    }


def run(folder: Path) -> Answers:
    """Of the learner that a training which was stopped ends with."""
    return classified(FewShotClassifier(trained(folder, STEPS, resume=True)).fit(TEXTS, NAMES))


def export(folder: Path) -> Answers:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    import nlpmeta.export.modeling  # noqa: F401  # registers the architecture, so that no code of the folder is run

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        scores = model(**tokenizer(ASKED, padding=True, return_tensors="pt")).logits
    return {"probabilities": scores.softmax(1).tolist(), "labels": [*model.config.id2label.values()]}


def plain_encoder() -> TextEncoder:
    return TextEncoder.from_pretrained(ENCODER, max_length=32, device="cpu")


def trained(folder: Path, steps: int, *, resume: bool) -> PrototypicalNetwork:
    encoder = plain_encoder()
    add_adapter(encoder, AdapterSettings(rank=2, modules=("query", "value"), dropout=0.1), seed=0)
    pairs = [(f"{a} {b}", topic) for topic, words in TOPICS.items() for a in words.split() for b in words.split()]
    pool = LabeledTexts.from_names([text for text, _ in pairs], [topic for _, topic in pairs])
    sampler = EpisodeSampler([pool], n_way=3, n_shot=2, n_query=3, seed=0)
    settings = TrainSettings(
        steps=steps, eval_every=2, eval_episodes=2, checkpoint_every=2, keep_checkpoints=1, learning_rate=5e-3, warmup=2
    )
    learner = PrototypicalNetwork(encoder)
    meta_train(learner, sampler, settings=settings, evaluate={"same": sampler}, out=folder, resume=resume)
    return learner.eval()


ASK: dict[str, Callable[[Path], Answers]] = {
    "adapted": adapted,
    "online": online,
    "users": users,
    "checkpoint": checkpoint,
    "tasks": tasks,
    "run": run,
    "export": export,
}
"""By the kind of what was saved, the first word of its name."""


def answers(path: Path) -> Answers:
    """What a saved file or folder answers, by its kind."""
    kind = path.name.partition("-")[0].partition(".")[0]
    return ASK.get(kind, adapted)(path)


def furthest(one: object, other: object) -> float:
    """By how much two answers differ in a number; infinite where anything else differs."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((furthest(each, other[name]) for name, each in one.items()), default=0.0)
    if isinstance(one, list) and isinstance(other, list | tuple) and len(one) == len(other):
        return max((furthest(a, b) for a, b in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    return 0.0 if one == other else np.inf
