"""Files of ours whose content was changed and whose digests were all made anew: what a stranger would hand over.

Each kind is loaded and then used as its owner would use it (asked, taught, saved again), so that nothing which was let
in fails later. What is loaded has to keep its promises: finite probabilities that add up to one, over its own labels,
the same again after it was saved again; and nothing is written where it was loaded from.
"""

import copy
import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from conftest import TOPICS
from fuzzing import Ground, encoders_from, mutate_json
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import Tensor

from nlpmeta import AdapterStore, FewShotClassifier, OnlineClassifier
from nlpmeta.data import LabeledTexts
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.export.head import import_setfit
from nlpmeta.learners.base import learners
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.online.meta import OnlineMetaLearner
from nlpmeta.online.meta_files import OnlineTaskSettings
from nlpmeta.online.stream import OnlineSettings
from nlpmeta.storage.files import sha256
from nlpmeta.users.heads import Packed

METHODS = ("auto", "prototypical", "knn", "maml", "mann", "matching")
TEXTS = ("ball goal", "match team", "rice soup", "bread salt")
NAMES = ("sport", "sport", "food", "food")
ASKED = ["ball rice", "loan", "?", "goal " * 40]


class BrokenPromise(Exception):
    """Something was loaded, and what it answers is none."""


def prepare_signed(ground: Ground) -> None:
    """One folder of each kind below ``ground.folder``."""
    torch.manual_seed(0)
    for method in METHODS:
        made = FewShotClassifier(learners[method](_adapted(ground)).eval()).fit(TEXTS, NAMES)
        made.save_pretrained(ground.folder / f"method-{method}", include_support=True)
    save_checkpoint(learners["maml"](_adapted(ground)), ground.folder / "checkpoint", {"sets": ["a"], "steps": 3})
    plain = FewShotClassifier("logistic", encoder=ground.encoder).fit(TEXTS, NAMES)
    stream = OnlineClassifier(plain, OnlineSettings(window=4, replay=2, meta_every=2, keep_every=3))
    for text, name in zip(TEXTS * 2, NAMES * 2, strict=True):
        stream.learn([stream.receive([text])[0].ticket], [name])
    stream.receive(["rice"])
    stream.save(ground.folder / "stream")
    leader = OnlineMetaLearner(learners["prototypical"](_adapted(ground)), _few_steps())
    for seed in range(2):
        leader.meet(_pool(seed), name=f"task {seed}")
    leader.save(ground.folder / "tasks")
    with AdapterStore(ground.folder / "users.sqlite", learners["logistic"](ground.encoder).eval()) as store:
        store.adapt("amina", TEXTS, NAMES)


def signed_cases(ground: Ground) -> dict[str, Callable[[int, Path], None]]:
    """For each kind: change number ``i`` of it below a folder, sign it, load it and use it."""
    return {
        "signed model": lambda i, to: _model(ground, i, to),
        "signed checkpoint": lambda i, to: _checkpoint(ground, i, to),
        "signed stream": lambda i, to: _stream(ground, i, to),
        "signed tasks": lambda i, to: _tasks(ground, i, to),
        "signed head": lambda i, to: _head(ground, i, to),
        "signed user": lambda i, to: _user(ground, i, to),
    }


def sign(folder: Path) -> None:
    """Make every digest below ``folder`` that of what is there, the innermost first."""
    for facts in sorted(folder.rglob("state.json")):
        _sign_state(facts)
    for manifest in sorted(folder.rglob("nlpmeta.json"), key=lambda path: -len(path.parts)):
        facts = json.loads(manifest.read_text())
        if isinstance(facts, dict) and isinstance(facts.get("files"), dict):
            there = [name for name in facts["files"] if (manifest.parent / name).is_file()]
            facts["files"] |= {name: sha256(manifest.parent / name) for name in there}
            manifest.write_text(json.dumps(facts))


def _sign_state(path: Path) -> None:
    """A checkpoint of training: one file names the digest of the other and its own."""
    facts = json.loads(path.read_text())
    if isinstance(facts, dict):
        facts.pop("checksum", None)
        facts["sha256"] = sha256(path.parent / "state.safetensors")
        facts["checksum"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps(facts))


def _model(ground: Ground, number: int, to: Path) -> None:
    random_ = random.Random(f"signed model {number}")
    folder = _changed(ground.folder / f"method-{random_.choice(METHODS)}", to / "model", random_)
    with encoders_from(ground), _Untouched(folder):
        classifier = FewShotClassifier.from_pretrained(folder)
        before = _asked(classifier)
        classifier.save_pretrained(to / "again", include_support=True)
        if not np.array_equal(_asked(FewShotClassifier.from_pretrained(to / "again")), before):
            raise BrokenPromise("saved again, it answers otherwise")
        classifier.partial_fit(["loan cash", "bank rate"], ["money", "money"])
        _asked(classifier)


def _checkpoint(ground: Ground, number: int, to: Path) -> None:
    random_ = random.Random(f"signed checkpoint {number}")
    folder = _changed(ground.folder / "checkpoint", to / "checkpoint", random_)
    with encoders_from(ground), _Untouched(folder):
        learner = load_checkpoint(folder)
        _asked(FewShotClassifier(learner).fit(TEXTS, NAMES))
        save_checkpoint(learner, to / "again", {"steps": 1})


def _stream(ground: Ground, number: int, to: Path) -> None:
    random_ = random.Random(f"signed stream {number}")
    folder = _changed(ground.folder / "stream", to / "stream", random_)
    with encoders_from(ground), _Untouched(folder):
        stream = OnlineClassifier.load(folder)
        _sound(stream.predict_proba(ASKED), len(stream.classes_))
        for text, name in zip(TEXTS, stream.classes_[[0, 1, 0, 1]], strict=True):
            stream.learn([stream.receive([text])[0].ticket], [name])
        _sound(stream.predict_proba(ASKED), len(stream.classes_))
        if stream.moments:
            stream.rollback(1)
        stream.save(to / "again")


def _tasks(ground: Ground, number: int, to: Path) -> None:
    random_ = random.Random(f"signed tasks {number}")
    folder = _changed(ground.folder / "tasks", to / "tasks", random_)
    with encoders_from(ground), _Untouched(folder):
        leader = OnlineMetaLearner.load(folder)
        leader.review()
        if leader._kept:
            leader.rollback(1)
        leader.save(to / "again")


def _head(ground: Ground, number: int, to: Path) -> None:
    """A folder as sentence-transformers and SetFit have it: no digests at all, and a head of ours."""
    random_ = random.Random(f"signed head {number}")
    folder = to / "head"
    shutil.copytree(ground.folder / "encoder", folder)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"idx": i, "path": path, "type": f"m.{kind}"} for i, (path, kind) in enumerate(parts)]
    (folder / "1_Pooling").mkdir()
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    (folder / "labels.json").write_text(json.dumps({"labels": ["food", "sport"]}))
    (folder / "head.safetensors").write_bytes(save({"weight": torch.ones(2, 16), "bias": torch.zeros(2)}))
    names = ("modules.json", "1_Pooling/config.json", "labels.json", "head.safetensors")
    _change(folder / random_.choice(names), random_)
    with _Untouched(folder):
        _asked(import_setfit(folder))


def _user(ground: Ground, number: int, to: Path) -> None:
    """A row of the store of users whose checksum is right."""
    random_ = random.Random(f"signed user {number}")
    path = to / "users.sqlite"
    shutil.copyfile(ground.folder / "users.sqlite", path)
    with AdapterStore(path, learners["logistic"](ground.encoder).eval()) as store:
        row = store._file.read(["amina"])["amina"]
        labels, state = _changed_row(row.labels, row.state, to / "labels.json", random_)
        store._file.write({"amina": Packed(state, labels, "float16", 0.0)})
        for scored in store.predict_proba(["amina"] * len(ASKED), ASKED):
            _sound(np.asarray([scored.probabilities]), len(scored.labels))
        _asked(store.classifier("amina"))


def _changed_row(labels: str, state: bytes, scratch: Path, random_: random.Random) -> tuple[str, bytes]:
    if random_.random() < 0.5:
        scratch.write_text(labels)
        mutate_json(scratch, random_)
        return scratch.read_text(), state
    scratch = scratch.with_suffix(".safetensors")
    scratch.write_bytes(state)
    _change(scratch, random_)
    return labels, scratch.read_bytes()


def _changed(source: Path, folder: Path, random_: random.Random) -> Path:
    """A copy of ``source`` in which the content of one or two files is another, with digests that are right."""
    shutil.copytree(source, folder)
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors"))
    for victim in random_.sample(files, random_.choice([1, 1, 1, 2])):
        _change(victim, random_)
    sign(folder)
    return folder


def _change(path: Path, random_: random.Random) -> None:
    if path.suffix == ".json":
        mutate_json(path, random_)
        return
    tensors = load(path.read_bytes())
    for _ in range(random_.randint(1, 2)):
        if not tensors:
            return
        name = random_.choice(sorted(tensors))
        tensors = _with_another(tensors, name, random_)
    path.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def _with_another(tensors: dict[str, Tensor], name: str, random_: random.Random) -> dict[str, Tensor]:
    """The tensors with one of another shape, type, value or name, in a file that is whole."""
    found = dict(tensors)
    tensor = found[name]
    flat = tensor.flatten().clone()
    if flat.numel() and random_.random() < 0.4:
        odd = random_.choice([0.0, -1.0, 1e-38, 1e30, 3e38, -3e38, 2.0**31, float("nan"), float("inf")])
        try:
            flat[random_.randrange(flat.numel()) if random_.random() < 0.5 else slice(None)] = odd
        except (RuntimeError, OverflowError, ValueError):
            flat.zero_()
        return {**found, name: flat.view(tensor.shape)}
    kind = random_.choice([torch.float64, torch.float16, torch.int64, torch.int8, torch.bool])
    ways: list[Callable[[], dict[str, Tensor]]] = [
        lambda: {**found, name: flat},
        lambda: {**found, name: tensor.unsqueeze(0)},
        lambda: {**found, name: tensor[:0] if tensor.ndim else tensor.reshape(1)[:0]},
        lambda: {**found, name: tensor[:-1] if tensor.ndim else tensor.reshape(1)},
        lambda: {**found, name: torch.cat([tensor, tensor]) if tensor.ndim else tensor.repeat(3)},
        lambda: {**found, name: tensor.transpose(0, -1).contiguous() if tensor.ndim > 1 else flat.unsqueeze(1)},
        lambda: {**found, name: flat.nan_to_num().to(kind).view(tensor.shape)},
        lambda: {other: value for other, value in found.items() if other != name},
        lambda: {**found, "x" * random_.choice([1, 3000]): tensor.clone()},
        lambda: {**found, name: found[random_.choice(sorted(found))].clone()},
    ]
    return random_.choice(ways)()


class _Untouched:
    """Nothing in a folder, or beside it but ``again``, is made, changed or removed while it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.before = self._state()

    def __exit__(self, *_: object) -> None:
        if self._state() != self.before:
            raise BrokenPromise("something was written where it was only to be read")

    def _state(self) -> list[tuple[str, int, int]]:
        beside = {path for path in self.folder.parent.rglob("*") if "again" not in path.parts}
        return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in beside)


def _asked(classifier: FewShotClassifier) -> NDArray[np.float32]:
    scores = classifier.predict_proba(ASKED)
    _sound(scores, len(classifier.classes_))
    if not set(classifier.predict(ASKED).tolist()) <= set(classifier.classes_.tolist()):
        raise BrokenPromise("a label that is none of its classes")
    return scores


def _sound(scores: NDArray[np.float32], n_way: int) -> None:
    if scores.shape[1] != n_way or not np.isfinite(scores).all() or (scores < 0).any():
        raise BrokenPromise(f"no probabilities: {scores[:1].tolist()}")
    if not np.allclose(scores.sum(1), 1, atol=1e-3):
        raise BrokenPromise(f"probabilities that add up to {scores.sum(1).tolist()}")


def _adapted(ground: Ground) -> TextEncoder:
    encoder = copy.deepcopy(ground.encoder)
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    for weight in adapter_weights(encoder).values():
        weight.data += 0.01
    return encoder


def _pool(seed: int) -> LabeledTexts:
    pairs = [(f"{a} {b}", topic) for topic, words in TOPICS.items() for a in words.split() for b in words.split()]
    random.Random(seed).shuffle(pairs)
    return LabeledTexts.from_names([text for text, _ in pairs], [topic for _, topic in pairs])


def _few_steps() -> OnlineTaskSettings:
    return OnlineTaskSettings(steps=1, n_shot=1, n_query=4, buffer=2, versions=2)
