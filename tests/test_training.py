import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from meta_task import noisy_learner, samplers
from torch.overrides import TorchFunctionMode

from nlpmeta.encoder import device as batches
from nlpmeta.encoder.lora import adapter_weights
from nlpmeta.errors import NLPMetaError
from nlpmeta.learners.base import Learner
from nlpmeta.learners.prototypical import NearestNeighbours, PrototypicalNetwork
from nlpmeta.settings import SettingsError
from nlpmeta.training import TrainSettings
from nlpmeta.training import passes as text_pass
from nlpmeta.training.engine import make_accelerator, meta_train
from nlpmeta.training.objective import anchor_loss, supervised_contrastive
from nlpmeta.training.optimise import MovingAverage, rate_factor
from nlpmeta.training.passes import TextPass, TokenCache, shuffled

FAST = {"learning_rate": 5e-3, "head_learning_rate": 1e-2, "warmup": 5, "ema": 0.9, "control_episodes": 0}


class Relabelled:
    """Episodes whose labels were dealt out anew on both sides: there is nothing to learn."""

    def __init__(self, sampler):
        self.sampler = sampler

    def episode(self, index):
        episode = shuffled(self.sampler.episode(index), 1, index)
        order = np.random.default_rng(index).permutation(len(episode.query))
        labels = tuple(episode.query.labels[i] for i in order)
        return replace(episode, query=replace(episode.query, labels=labels))


def trained(settings, *, learner=None, **kwargs):
    learner = learner or noisy_learner()
    result = meta_train(learner, samplers()[0], settings=settings, **kwargs)
    return learner, result


def weights(learner):
    return torch.cat([w.detach().flatten() for w in learner.parameters() if w.requires_grad])


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_accuracy_on_classes_never_trained_on_rises_by_thirty_points(seed):
    train, heldout = samplers(seed)
    settings = TrainSettings(steps=60, eval_every=60, eval_episodes=30, seed=seed, **FAST)
    result = meta_train(noisy_learner(seed), train, settings=settings, evaluate={"classes": heldout})
    assert result.best_accuracy > result.first_accuracy + 0.3


def test_training_on_shuffled_labels_teaches_nothing():
    train, heldout = samplers()
    settings = TrainSettings(steps=40, eval_every=40, eval_episodes=30, **FAST)
    result = meta_train(noisy_learner(), Relabelled(train), settings=settings, evaluate={"classes": heldout})
    assert result.best_accuracy < result.first_accuracy + 0.1


def test_one_line_a_step_with_gap_and_control_when_measured(tmp_path):
    train, heldout = samplers()
    settings = TrainSettings(steps=4, eval_every=2, eval_episodes=2, control_episodes=5)
    meta_train(noisy_learner(), train, settings=settings, evaluate={"classes": heldout}, out=tmp_path)
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [1, 2, 3, 4]
    usual = {"loss", "episodic", "accuracy", "rate", "grad_norm", "texts", "tokens", "seconds", "episodes_per_second"}
    assert all(usual <= set(line) for line in found)
    assert ["heldout" in line for line in found] == [False, True, False, True]
    assert found[1]["gap"] == pytest.approx(
        (found[0]["accuracy"] + found[1]["accuracy"]) / 2 - found[1]["heldout_mean"]
    )
    assert found[1]["chance"] == pytest.approx(0.2)
    assert found[1]["control"] < 0.5  # 75 texts at 0.2; the learner itself is not consulted about the right answer
    assert {"before_heldout", "before_heldout_mean", "before_control"} <= set(found[0])


def test_accumulated_gradients_equal_those_of_one_pass():
    one = TrainSettings(steps=3, episodes_per_step=4, **FAST)
    many = TrainSettings(steps=3, episodes_per_step=1, accumulate=4, **FAST)
    torch.testing.assert_close(weights(trained(many)[0]), weights(trained(one)[0]), rtol=1e-4, atol=1e-5)


def test_gradient_caching_gives_the_same_update():
    kept = TrainSettings(steps=3, episodes_per_step=4, contrastive_weight=0.5, **FAST)
    cached = TrainSettings(steps=3, episodes_per_step=4, contrastive_weight=0.5, chunk_tokens=64, **FAST)
    torch.testing.assert_close(weights(trained(cached)[0]), weights(trained(kept)[0]), rtol=1e-4, atol=1e-5)


def test_only_so_many_tokens_keep_their_activations_and_dropout_repeats(monkeypatch):
    monkeypatch.setattr(text_pass, "BATCH_TOKENS", 64)
    learner = noisy_learner(dropout=0.4).train()
    with torch.no_grad():
        for weight in adapter_weights(learner.encoder).values():
            weight += 0.1
    texts = list(dict.fromkeys(text for i in range(8) for text in samplers()[0].episode(i).texts()))
    gradients = []
    for keep in (64, 100_000):
        torch.manual_seed(5)
        learner.zero_grad()
        tokens = TokenCache(learner.encoder)
        accelerator = make_accelerator(TrainSettings(), None)
        one = TextPass(learner.encoder, tokens, texts, accelerator=accelerator, keep_tokens=keep)
        held = sum(c.output is not None for c in one._chunks)
        assert held == (1 if keep == 64 else len(one._chunks)) and len(one._chunks) > 4
        one.features.cos().sum().backward()
        one.backward()
        gradients.append(torch.cat([w.grad.flatten() for w in adapter_weights(learner.encoder).values()]))
    torch.testing.assert_close(gradients[0], gradients[1])
    assert batches.BATCH_TOKENS > 64


def test_texts_are_tokenised_once():
    learner = noisy_learner()
    calls = []
    tokenize = learner.encoder.tokenize
    learner.encoder.tokenize = lambda texts: calls.extend(texts) or tokenize(texts)
    trained(TrainSettings(steps=10, **FAST), learner=learner)
    assert calls and len(calls) == len(set(calls))


def test_the_contrastive_loss_is_that_of_the_paper():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(5, 3))
    classes = ["a", "b", "a", "a", "c"]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    total = []
    for i in (0, 2, 3):  # b and c have no positive
        others = [j for j in range(5) if j != i]
        scale = sum(math.exp(unit[i] @ unit[j] / 0.1) for j in others)
        positive = [j for j in others if classes[j] == classes[i]]
        total.append(-sum(math.log(math.exp(unit[i] @ unit[j] / 0.1) / scale) for j in positive) / len(positive))
    ours = supervised_contrastive(torch.tensor(features, dtype=torch.float64), classes, 0.1)
    assert float(ours) == pytest.approx(np.mean(total), rel=1e-5)


def test_the_contrastive_loss_without_a_pair_is_zero_and_has_a_gradient():
    features = torch.ones(2, 3, requires_grad=True)
    loss = supervised_contrastive(features, ["a", "b"], 0.1)
    loss.backward()
    assert float(loss.detach()) == 0 and features.grad.abs().sum() == 0


@pytest.mark.slow
def test_the_anchor_keeps_embeddings_near_the_frozen_ones():
    texts = [text for i in range(4) for text in samplers()[1].episode(i).texts()]
    frozen = noisy_learner().encoder.encode(texts)
    moved = []
    for weight in (0.0, 20.0):
        learner, _ = trained(TrainSettings(steps=15, anchor_weight=weight, **FAST))
        moved.append(float(anchor_loss(learner.encoder.encode(texts), frozen)))
    assert 0 < moved[1] < moved[0] / 3


def test_bf16_autocast_trains_float32_weights():
    learner, _ = trained(TrainSettings(steps=3, mixed_precision="bf16", **FAST))
    assert all(weight.dtype == torch.float32 for weight in learner.parameters())
    full, _ = trained(TrainSettings(steps=3, **FAST))
    distance = (weights(learner) - weights(full)).abs().max()
    assert 0 < distance < 0.02  # not the same numbers, or autocast did nothing


def test_attention_keeps_float32_where_a_cpu_trains_in_bf16():
    """Its gradient in bfloat16 takes several times as long there."""
    seen = []

    class Watching(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is torch.nn.functional.scaled_dot_product_attention:
                seen.append((args[0].dtype, torch.is_autocast_enabled("cpu")))
            return func(*args, **(kwargs or {}))

    with Watching():
        trained(TrainSettings(steps=1, mixed_precision="bf16", **FAST))
    assert set(seen) == {(torch.float32, False)}


def test_fp16_is_refused_where_gradients_are_taken_inside_adapt():
    class Inner(type(noisy_learner())):
        gradient_in_adapt = True

    learner = Inner(noisy_learner().encoder)
    with pytest.raises(NLPMetaError, match="fp16 is refused for Inner: its inner steps have no loss scaling"):
        trained(TrainSettings(mixed_precision="fp16"), learner=learner)


def test_a_learner_without_gradient_is_refused():
    with pytest.raises(NLPMetaError, match="cannot be meta-trained"):
        trained(TrainSettings(), learner=NearestNeighbours(noisy_learner().encoder))


def test_settings_say_all_that_is_wrong_at_once():
    with pytest.raises(SettingsError) as error:
        TrainSettings(steps=0, warmpu=3, ema=2)
    message = str(error.value)
    assert "3 settings are wrong" in message
    assert "warmpu is not a setting. Did you mean warmup" in message
    assert "steps: should be greater than or equal to 1 (got 0)" in message


def test_training_stops_when_held_out_accuracy_does_not_rise():
    class Worse:
        """The same tasks, with every query label wrong: the better the learner, the lower the accuracy."""

        def episode(self, index):
            episode = samplers()[1].episode(index)
            labels = tuple((label + 1) % 5 for label in episode.query.labels)
            return replace(episode, query=replace(episode.query, labels=labels))

    settings = TrainSettings(steps=60, eval_every=5, eval_episodes=20, patience=2, **FAST)
    learner, result = trained(settings, evaluate={"worse": Worse()})
    assert result.stopped_early
    assert result.steps < 60
    assert result.steps - result.best_step == 10


def test_the_best_weights_are_kept_and_announced():
    seen = {}
    learner = noisy_learner()
    settings = TrainSettings(steps=12, eval_every=4, eval_episodes=10, **FAST)
    _, result = trained(
        settings,
        learner=learner,
        evaluate={"classes": samplers()[1]},
        on_best=lambda step: seen.update({step: weights(learner).clone()}),
    )
    assert result.best_step == max(seen)
    assert torch.equal(weights(learner), seen[result.best_step])


def test_the_rate_rises_linearly_and_falls_as_half_a_cosine():
    settings = TrainSettings(steps=110, warmup=10, final_rate=0.1)
    factors = [rate_factor(step, settings) for step in range(110)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[9] == pytest.approx(10 / 11)
    assert factors[10] == 1
    assert factors[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert factors[109] == pytest.approx(0.1, abs=0.001)


def test_the_moving_average_is_that_of_hand():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    average = MovingAverage({"w": weight}, 0.5)
    expected = 1.0
    for step, value in enumerate((2.0, 5.0, 3.0)):
        weight.data.fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert float(average.average["w"]) == pytest.approx(expected)
    with average.applied():
        assert float(weight.detach()) == pytest.approx(expected)
    assert float(weight.detach()) == 3.0


def test_adapter_and_learner_have_rates_of_their_own():
    before = noisy_learner()
    settings = TrainSettings(steps=1, warmup=0, learning_rate=1e-4, head_learning_rate=1e-2, ema=0, weight_decay=0)
    learner, _ = trained(settings)
    own = abs(float(learner.log_temperature.detach()) - float(before.log_temperature.detach()))
    assert own == pytest.approx(1e-2, rel=0.01)  # Adam's first step is the rate itself
    old, new = (adapter_weights(each.encoder) for each in (before, learner))
    moved = max(float((new[name] - old[name]).detach().abs().max()) for name in old)
    assert moved == pytest.approx(1e-4, rel=0.01)


def test_a_tracker_that_is_not_installed_is_named_before_work_starts():
    with pytest.raises(NLPMetaError, match="The tracker 'nosuch' is not installed"):
        trained(TrainSettings(trackers=("nosuch",)))


def test_learners_that_embed_their_texts_themselves_are_trained_too():
    class OnTokens(type(noisy_learner())):
        inputs = "tokens"

    learner = OnTokens(noisy_learner().encoder, temperature=0.1)
    same, _ = trained(TrainSettings(steps=3, **FAST))
    trained(TrainSettings(steps=3, **FAST), learner=learner)
    assert isinstance(learner, Learner)
    torch.testing.assert_close(weights(learner), weights(same), rtol=1e-4, atol=1e-5)


def test_when_memory_runs_out_halves_of_the_tasks_give_the_same_update():
    asked = []

    class Greedy(type(noisy_learner())):
        inputs = "tokens"

        def together(self, n_texts):
            return [list(range(len(n_texts)))]

        def batch_loss(self, tasks):
            asked.append(len(tasks))
            found = super().batch_loss(tasks)
            if len(tasks) > 1:
                found.loss.backward(retain_graph=True)  # a gradient that must not stay
                torch.empty(1 << 55)
            return found

    learner = Greedy(noisy_learner().encoder, temperature=0.1)
    settings = TrainSettings(steps=2, episodes_per_step=3, **FAST)
    trained(settings, learner=learner)
    assert asked == [3, 1, 2, 1, 1] * 2
    torch.testing.assert_close(weights(learner), weights(trained(settings)[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_class_names_are_trained_on_and_are_no_clue_to_the_controls(tmp_path):
    train, heldout = samplers()
    learner = PrototypicalNetwork(noisy_learner().encoder, temperature=0.1, names=True)
    settings = TrainSettings(steps=30, eval_every=30, eval_episodes=40, **{**FAST, "control_episodes": 40})
    result = meta_train(learner, train, settings=settings, evaluate={"classes": heldout}, out=tmp_path)
    plain = TrainSettings(steps=1, eval_every=1, eval_episodes=40, **FAST)
    without = meta_train(noisy_learner(), train, settings=plain, evaluate={"classes": heldout})
    assert result.first_accuracy > without.first_accuracy + 0.1  # a name here is the word that tells the class
    assert learner.name_weight != pytest.approx(1.0, abs=1e-3)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert abs(last["control"] - last["chance"]) < 0.08
    episodes = [train.episode(i) for i in (58, 59)]
    assert last["texts"] == len({t for e in episodes for t in (*e.texts(), *e.support.label_names)})
