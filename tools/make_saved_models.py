"""Writes ``tests/saved_models``: one of each kind of file this release saves, with its predictions.

python tools/make_saved_models.py FOLDER

``tests/test_saved_models.py`` loads what is checked in there: later releases must read it and predict the same.
It only creates a new folder (such as one for a later format) and never replaces what a release wrote.
"""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
from conftest import make_encoder
from saved_answers import ASK, CUT_OFF_AT, ENCODER, NAMES, TEXTS, USERS, answers, arithmetic, plain_encoder, trained

from nlpmeta import (
    AdapterStore,
    FewShotClassifier,
    LabeledTexts,
    LogisticHead,
    OnlineClassifier,
    OnlineMetaLearner,
    TextEncoder,
    __version__,
)
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.export import export
from nlpmeta.learners.base import learners
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.online.meta_files import OnlineTaskSettings
from nlpmeta.online.stream import OnlineSettings

WITH_EXAMPLES = ("auto", "prototypical")
SMALL: dict[str, dict[str, int]] = {  # what would take megabytes otherwise
    "mann": {"rows": 24, "rank": 8, "hidden": 8, "max_way": 6, "code_dim": 8, "training_rows": 8},
    "rnn": {"hidden": 8, "width": 4, "max_way": 6, "code_dim": 8, "context": 32},
    "snail": {"hidden": 8, "width": 4, "max_way": 6, "code_dim": 8, "context": 32},
}


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir()
    os.chdir(folder)
    small = make_encoder()
    small.backbone.save_pretrained(ENCODER)
    small.tokenizer.save_pretrained(ENCODER)
    save_all()
    told = {}
    for path in sorted(each for each in Path().iterdir() if each.name != "encoder"):
        copy = Path("copy")  # what is asked may write, as a stream that learns does
        copy.mkdir()
        shutil.copytree(ENCODER, copy / "encoder")
        for each in Path().iterdir():
            if each.name.partition("-")[0].partition(".")[0] in ASK or each == path:
                (shutil.copytree if each.is_dir() else shutil.copy)(each, copy / each.name)
        os.chdir(copy)
        told[path.name] = answers(Path(path.name))
        os.chdir(folder)
        shutil.rmtree(copy)
    facts = {"saved_by": f"nlpmeta {__version__}", "arithmetic": arithmetic(), "answers": told}
    Path("answers.json").write_text(json.dumps(facts, ensure_ascii=False) + "\n", encoding="utf-8")


def save_all() -> None:
    for number, name in enumerate(learners):
        learner = moved(name, number)
        model = FewShotClassifier(learner).fit(TEXTS, NAMES)
        model.save_pretrained(f"adapted-{name}", include_support=name in WITH_EXAMPLES, report={"data": "topics"})
    frozen = FewShotClassifier("auto", encoder=named(plain_encoder())).fit(TEXTS, NAMES)
    frozen.save_pretrained("adapted-auto-frozen")
    numbers = FewShotClassifier("ridge", encoder=named(plain_encoder())).fit(TEXTS, [len(name) for name in NAMES])
    numbers.save_pretrained("adapted-ridge-integers")
    linear = FewShotClassifier("logistic", encoder=named(plain_encoder())).fit(TEXTS, NAMES)
    export(linear, Path("export-transformers"), "transformers")
    save_stream(linear)
    for name in ("maml", "prototypical"):
        save_checkpoint(moved(name, 50), Path(f"checkpoint-{name}"), {"sets": ["topics"], "steps": 3})
    save_users("logistic", LogisticHead(named(plain_encoder())).eval())
    save_users("maml", load_checkpoint("checkpoint-maml"))
    leader = OnlineMetaLearner(moved("prototypical", 60), few_steps())
    for number in range(2):
        leader.meet(LabeledTexts.from_names(TEXTS[number:], NAMES[number:]), name=f"task {number}")
    leader.save("tasks")
    torch.manual_seed(3)
    trained(Path("run"), CUT_OFF_AT, resume=False)


def named(encoder: TextEncoder) -> TextEncoder:
    """Under a relative name, which a saved encoder has not: the folder of the models may lie anywhere."""
    encoder.files = replace(encoder.files, name=ENCODER)
    return encoder


def moved(name: str, seed: int) -> object:
    """A learner away from its start, with adapters that are away from theirs."""
    encoder = named(plain_encoder())
    add_adapter(encoder, AdapterSettings(rank=2, modules=("query", "value")), seed=seed)
    torch.manual_seed(seed)
    for weight in adapter_weights(encoder).values():
        weight.data += 0.1 * torch.randn(weight.shape)
    learner = learners[name](encoder, **SMALL.get(name, {}))
    for part, weight in learner.named_parameters():
        if not part.startswith("encoder."):
            weight.data += 0.05 * torch.randn(weight.shape)
    return learner.eval()


def save_stream(model: FewShotClassifier) -> None:
    stream = OnlineClassifier(model, OnlineSettings(window=4, replay=2, meta_every=2, keep_every=4))
    for text, name in zip(TEXTS[:6], NAMES[:6], strict=True):
        stream.learn([stream.receive([text])[0].ticket], [name])
    stream.receive(["rice salt"])
    stream.save("online")


def save_users(method: str, learner: object) -> None:
    with AdapterStore(f"users-{method}.sqlite", learner) as store:
        for user, kinds in USERS.items():
            chosen = [i for i, name in enumerate(NAMES) if name in kinds]
            store.adapt(user, [TEXTS[i] for i in chosen], [NAMES[i] for i in chosen])


def few_steps() -> OnlineTaskSettings:
    return OnlineTaskSettings(steps=2, n_shot=1, n_query=2, n_way=2, learning_rate=5e-3)


if __name__ == "__main__":
    main()
