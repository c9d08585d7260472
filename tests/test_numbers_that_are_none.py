"""Losses, gradients, weights and stored values that are no numbers: training stops, loading refuses."""

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from meta_task import noisy_learner, samplers
from safetensors.torch import load_file, save_file
from test_untrusted_input import refused, signed

from nlpmeta.classifier.classifier import FewShotClassifier
from nlpmeta.classifier.streaming import check_state
from nlpmeta.cli import main
from nlpmeta.encoder.lora import AdapterSettings, add_adapter, save_adapter
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import ModelFolderError, NLPMetaError, WorkFailedError
from nlpmeta.learners.base import Texts, learners
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.learners.logistic import LogisticHead
from nlpmeta.learners.maml import MAML
from nlpmeta.learners.mann import MemoryAugmentedNetwork
from nlpmeta.learners.prototypical import MatchingNetwork, PrototypicalNetwork, SiameseNetwork
from nlpmeta.learners.recurrent import RecurrentMetaLearner
from nlpmeta.learners.ridge import RidgeHead
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import build_learner, meta_train
from nlpmeta.training.optimise import MOST_SKIPPED, DivergedError, Guard
from nlpmeta.training.step import GroupWeights
from nlpmeta.users.heads import pack, unpack

FAST = {"warmup": 0, "eval_episodes": 2, "control_episodes": 0, "ema": 0.5}


def weights(learner):
    return {name: w.detach().clone() for name, w in learner.named_parameters() if w.requires_grad}


def spoiled(learner, step, how):
    """``learner`` with a loss that ``how`` changes from its ``step``-th on."""
    real, count = learner.batch_loss, [0]

    def batch_loss(tasks):
        count[0] += 1
        found = real(tasks)
        return found if count[0] < step else replace(found, loss=how(found.loss))

    learner.batch_loss = batch_loss
    return learner


class Overflowing(torch.autograd.Function):
    """One in the loss, infinite in its gradient."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf


FAULTS = {
    "the loss is": lambda loss: loss * math.nan,
    "the gradient is": Overflowing.apply,
    "an equation of the loss is": lambda loss: torch.linalg.inv(torch.zeros(2, 2)).sum() * loss,
}


@pytest.mark.parametrize("what", sorted(FAULTS))
@pytest.mark.parametrize("keep", ["best", "last"])
def test_training_stops_at_the_step_whose_numbers_are_none_and_leaves_good_weights(what, keep, tmp_path):
    train, heldout = samplers()
    settings = TrainSettings(steps=6, eval_every=1, checkpoint_every=1, keep=keep, **FAST)
    learner = spoiled(noisy_learner(), 4, FAULTS[what])
    with pytest.raises(DivergedError, match=f"stopped at step 4: {what} not a finite number") as caught:
        meta_train(learner, train, settings=settings, evaluate={"classes": heldout}, out=tmp_path)
    assert caught.value.exit_code == 1 and "learning_rate" in str(caught.value) and "\n" not in str(caught.value)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]
    good = noisy_learner()
    meta_train(good, train, settings=settings.model_copy(update={"steps": 3}), evaluate={"classes": heldout})
    if keep == "last":  # the rate's cosine is over more steps, so only nearly the same
        for name, weight in weights(good).items():
            torch.testing.assert_close(weights(learner)[name], weight, atol=1e-2, rtol=0)
    assert all(bool(weight.isfinite().all()) for weight in weights(learner).values())


def test_a_resumed_run_stops_at_the_same_step(tmp_path):
    train, _ = samplers()
    settings = TrainSettings(steps=6, checkpoint_every=1, **FAST)
    for resume, count in ((False, 4), (True, 1)):
        with pytest.raises(DivergedError, match="at step 4"):
            learner = spoiled(noisy_learner(), count, FAULTS["the loss is"])
            meta_train(learner, train, settings=settings, out=tmp_path, resume=resume)


def test_weights_that_overflow_are_not_kept():
    train, _ = samplers()
    learner = noisy_learner()
    guard = Guard(TrainSettings())
    guard.check_weights(0, dict(learner.named_parameters()))
    with torch.no_grad():
        next(iter(learner.parameters())).view(-1)[-1] = math.nan
    with pytest.raises(DivergedError, match="step 5: a weight is"):
        guard.check_weights(4, dict(learner.named_parameters()))


def test_loss_scaling_may_look_for_its_scale_but_not_for_ever():
    guard = Guard(TrainSettings())
    for _ in range(3):
        assert all(guard.check(i, 1.0, math.inf, scaled=True) for i in range(MOST_SKIPPED))
        assert not guard.check(MOST_SKIPPED, 1.0, 2.0, scaled=True)
    with pytest.raises(DivergedError, match="gradient"):
        for i in range(MOST_SKIPPED + 1):
            guard.check(i, 1.0, math.nan, scaled=True)


def test_the_weights_of_groups_neither_overflow_nor_take_what_is_no_loss():
    logs: dict[str, torch.Tensor] = {}
    groups = GroupWeights(100.0, logs)
    for i in range(50):
        groups.update([("sw", 90.0), ("en", 1.0), (f"new{i}", 1.0)])
    assert all(math.isfinite(groups.factor(name)) for name in logs)
    with pytest.raises(DivergedError):
        Guard(TrainSettings()).check_losses(0, [("sw", 1.0), ("en", math.inf)])


def test_a_recipe_that_diverges_ends_in_one_sentence_and_a_checkpoint_that_loads(
    encoder_folder, table, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(
        "nlpmeta.training.engine.build_learner",
        lambda recipe: spoiled(build_learner(recipe), 3, FAULTS["the loss is"]),
    )
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"steps: 5\nkeep: last\nencoder: {{name: '{encoder_folder}', max_length: 16}}\n"
        f"data: [{{source: '{table}', n_way: 3, n_shot: 2}}]\n"
    )
    assert main(["train", str(recipe), f"out={tmp_path / 'run'}", "-q"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "stopped at step 3" in said and "are in the folder of the run" in said
    assert json.loads((tmp_path / "run" / "nlpmeta.json").read_text())["training"]["diverged_at_step"] == 3
    assert isinstance(load_checkpoint(tmp_path / "run"), PrototypicalNetwork)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (PrototypicalNetwork, "temperature"),
        (PrototypicalNetwork, "name_weight"),
        (MatchingNetwork, "temperature"),
        (RidgeHead, "penalty"),
        (RidgeHead, "scale"),
        (SiameseNetwork, "scale"),
        (SiameseNetwork, "threshold"),
        (LogisticHead, "inverse_penalty"),
        (LogisticHead, "name_weight"),
        (MAML, "adapter_rate"),
        (MAML, "head_rate"),
        (MAML, "temperature"),
        (MemoryAugmentedNetwork, "decay"),
        (MemoryAugmentedNetwork, "dropout"),
        (RecurrentMetaLearner, "dropout"),
    ],
)
def test_the_numbers_of_a_method_are_finite_and_bounded(encoder, kind, option):
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    for value in (math.nan, math.inf, -math.inf, -1.0, 1e30):
        with pytest.raises(NLPMetaError, match=f"{option} (must be positive|is a share)"):
            kind(encoder, **{option: value})


# ---- loading ------------------------------------------------------------------------------------


@pytest.fixture
def folder(encoder_folder, pool, tmp_path):
    classifier = FewShotClassifier("logistic", encoder=str(encoder_folder)).fit(list(pool.texts), list(pool.names()))
    classifier.save_pretrained(tmp_path / "model", include_support=True)
    return tmp_path / "model"


@pytest.mark.parametrize("value", [3e38, -3e38, 1e13, math.nan, math.inf])
@pytest.mark.parametrize("file", ["task.safetensors", "support.safetensors"])
def test_weights_beyond_all_use_are_refused_although_their_checksum_is_right(folder, file, value):
    tensors = load_file(folder / file)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].flatten()[0] = value
    save_file(tensors, folder / file)
    signed(folder)
    refused(folder, "not finite|beyond 1e", ModelFolderError)


@pytest.mark.parametrize("method", sorted(learners))
def test_a_changed_number_of_any_state_is_refused_or_gives_probabilities(encoder, method):
    add_adapter(encoder.eval(), AdapterSettings(rank=2), seed=0)
    learner = learners[method](encoder).eval()
    texts, names = ["ball goal", "match team", "rice soup", "bread salt"], ["sport", "sport", "food", "food"]
    sound = FewShotClassifier(learner).fit(texts, names)
    by_tokens = learner.inputs == "tokens"
    features = None if by_tokens else torch.cat([-torch.eye(learner.encoder.dim), learner.encoder.encode(texts)])
    asked = Texts(tuple(texts)) if features is None else Texts(("",) * len(features), features)
    for name, tensor in sound.state_.items():
        usable = tensor.is_floating_point() and tensor.numel()
        places = ([-1] if by_tokens else [slice(None), 0, -1]) if usable else []
        for where, value in product(places, (-1.0, 0.0, -1e-38, 1e12)):
            changed = tensor.flatten().clone()
            changed[where] = value
            state = {**sound.state_, name: changed.view(tensor.shape)}
            try:
                check_state(learner, state, 2, Path("task.safetensors"))
            except ModelFolderError:
                continue
            with torch.no_grad():
                scores = learner.predictor(state).logits(asked).softmax(1)
            assert scores.isfinite().all() and torch.allclose(scores.sum(1), torch.ones(())), (name, where, value)
            if method == "auto":
                loaded = FewShotClassifier.from_state(learner, state, sound.classes_)
                assert np.isfinite(loaded.out_of_scope(texts)).all(), (name, where, value)


@pytest.mark.parametrize(
    ("method", "name", "change", "message"),
    [
        ("knn", "values", lambda votes: votes * torch.tensor([[-1.0, 1.0]]), "less than none|not finite"),
        ("knn", "values", lambda votes: torch.cat([torch.tensor([[3.0, -1.0]]), votes[1:]]), "less than none"),
        ("knn", "values", lambda votes: votes * (torch.arange(len(votes)) > 0).unsqueeze(1), "no vote"),
        ("auto", "prototypical/scores_over", lambda value: value * 1e-38, "scores_over is not a number from 1e-06"),
        ("auto", "ridge/scores_over", lambda value: -value, "scores_over is not a number from 1e-06"),
        ("auto", "mixture/temperature", lambda value: value * 0 - 1e-38, "temperature is not a number|not finite"),
        ("auto", "mixture/n_shot", lambda value: value * 0, "n_shot"),
        ("auto", "mixture/prototypes", lambda value: value[:, 1:], "prototypes"),
        ("auto", "mixture/usual_likeness", lambda value: value.repeat(2), "usual_likeness is not one number"),
        ("auto", "prototypical/share", lambda value: -value, "share of a head"),
    ],
)
def test_states_that_answer_one_text_and_fail_at_another_are_refused(
    encoder_folder, tmp_path, method, name, change, message
):
    texts, names = ["ball goal", "match team", "rice soup", "bread salt"], ["a", "a", "b", "b"]
    FewShotClassifier(method, encoder=str(encoder_folder)).fit(texts, names).save_pretrained(tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "task.safetensors")
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, tmp_path / "model" / "task.safetensors")
    refused(signed(tmp_path / "model"), message, ModelFolderError)


@pytest.mark.parametrize("labels", ["[1e400, 1.0, 2.0]", "[NaN, 1.0, 2.0]", "[-Infinity, 1.0, 2.0]"])
def test_labels_that_are_no_numbers_are_refused(folder, labels):
    (folder / "labels.json").write_text(f'{{"kind": "f", "labels": {labels}}}')
    signed(folder)
    refused(folder, "finite|damaged", ModelFolderError)


def checkpoint(encoder_folder, tmp_path, kind=PrototypicalNetwork, storage="exact"):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    save_checkpoint(kind(encoder), tmp_path / "checkpoint", {}, storage=storage)
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("value", [-1e30, 1e30, 90.0, -200.0, math.nan])
def test_a_temperature_of_zero_or_infinity_is_refused(encoder_folder, tmp_path, value):
    folder = checkpoint(encoder_folder, tmp_path)
    tensors = load_file(folder / "learner.safetensors")
    save_file({**tensors, "log_temperature": torch.tensor(value)}, folder / "learner.safetensors")
    with pytest.raises(ModelFolderError, match="beyond|not finite"):
        load_checkpoint(signed(folder))


@pytest.mark.parametrize("change", ["shape", "name", "missing", "more"])
def test_checkpoints_of_wrong_names_or_shapes_are_refused(encoder_folder, tmp_path, change):
    folder = checkpoint(encoder_folder, tmp_path, RidgeHead)
    for file in ("learner.safetensors", "adapter_model.safetensors"):
        path = folder / file
        tensors, first = load_file(path), sorted(load_file(path))[0]
        wrong = {
            "shape": {**tensors, first: torch.ones(3, 5)},
            "name": {**{k: v for k, v in tensors.items() if k != first}, first + "x": tensors[first]},
            "missing": {k: v for k, v in tensors.items() if k != first},
            "more": {**tensors, "more": torch.ones(1)},
        }[change]
        save_file(wrong, path)
        with pytest.raises(ModelFolderError):
            load_checkpoint(signed(folder))
        save_file(tensors, path)
    assert load_checkpoint(signed(folder)) is not None


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan])
def test_a_scale_of_zero_in_an_adapter_of_bytes_is_refused(encoder_folder, tmp_path, scale):
    folder = checkpoint(encoder_folder, tmp_path, storage="int8")
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name, value in tensors.items() if value.dtype == torch.float16)
    tensors[name].flatten()[0] = scale
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(ModelFolderError, match="scale|not finite"):
        load_checkpoint(signed(folder))


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_an_adapter_that_its_storage_cannot_hold_is_not_written(encoder, tmp_path, storage):
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    with torch.no_grad():
        next(w for n, w in encoder.backbone.named_parameters() if "lora_A" in n).fill_(1e9)
    with pytest.raises(WorkFailedError, match=f"{storage} cannot hold"):
        save_adapter(encoder, tmp_path, storage=storage)
    assert list(tmp_path.iterdir()) == []


def test_a_user_whose_numbers_are_none_is_refused(folder):
    classifier = FewShotClassifier.from_pretrained(folder)
    packed = pack("a", classifier.state_, classifier.classes_, "int8")
    from safetensors.torch import load, save

    for spoil in (0.0, math.inf, math.nan, -1.0):
        tensors = load(packed.state)
        name = next(name for name in tensors if name.startswith("scale:"))
        tensors[name] = torch.full_like(tensors[name], spoil)
        with pytest.raises(ModelFolderError, match="stored for a user is damaged"):
            unpack(save(tensors), packed.labels)


def test_a_checkpoint_of_a_run_is_judged_before_anything_is_taken_from_it(tmp_path):
    from nlpmeta.storage.files import sha256
    from nlpmeta.training.resume import _checksum

    train, _ = samplers()
    settings = TrainSettings(steps=2, checkpoint_every=1, **FAST)
    meta_train(noisy_learner(), train, settings=settings, out=tmp_path)
    folder = tmp_path / "checkpoints" / "step-00000002"
    sound, facts = load_file(folder / "state.safetensors"), json.loads((folder / "state.json").read_text())
    first = next(name for name in sound if name.startswith("weight/"))

    def resume(tensors, **progress):
        save_file(tensors, folder / "state.safetensors")
        now = {**facts, "sha256": sha256(folder / "state.safetensors"), "progress": {**facts["progress"], **progress}}
        del now["checksum"]
        (folder / "state.json").write_text(json.dumps({**now, "checksum": _checksum(now)}))
        return meta_train(noisy_learner(), train, settings=settings, out=tmp_path, resume=True)

    assert resume(sound).steps == 2
    for part in ("weight", "average", "exp_avg"):
        name = part + "/" + first.partition("/")[2]
        with pytest.raises(ModelFolderError, match="shape"):
            resume({**sound, name: torch.ones(1)})
    with pytest.raises(ModelFolderError, match="not finite"):
        resume({**sound, first: sound[first] * math.nan})
    with pytest.raises(ModelFolderError, match="lacks"):
        resume({name: value for name, value in sound.items() if not name.startswith("average/")})
    for wrong in ({"step": -1}, {"step": "2"}, {"best": math.inf}, {"waiting": 1.5}, {"training_sum": "x"}):
        with pytest.warns(UserWarning, match="is damaged"):
            assert resume(sound, **wrong).steps == 2  # the checkpoint before it is used


@pytest.mark.parametrize(
    "damage",
    [b"\x00" * 100, b"[" * 100_000, b"{}", b'{"step": "2"}', b'{"step": 1e400}', b'{"step": NaN}', b'{"step": -1}',
     b'{"step": true}', b"[1, 2]", b"\xff\xfe", b'{"step": 2', b"x" * (3 << 20), b'{"step": 9999999999999999999}', b""],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 1, 3])
def test_lines_of_metrics_with_any_damage_are_dropped_and_the_sound_ones_kept(tmp_path, damage, place):
    from nlpmeta.training.forecast import Journal

    lines = [json.dumps({"step": step, "loss": 1.0}).encode() for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([*lines[:place], damage, *lines[place:]]) + b"\n")

    class Main:
        is_main_process = True

    Journal(tmp_path, TrainSettings(), Main(), show_progress=False).cut_after(2)
    assert (tmp_path / "metrics.jsonl").read_bytes() == lines[0] + b"\n" + lines[1] + b"\n"
