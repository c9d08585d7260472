import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nlpmeta import FewShotClassifier, OnlineClassifier, TextEncoder
from nlpmeta.errors import DataError, ModelFolderError, NLPMetaError, UnknownNameError
from nlpmeta.online.alarms import DriftAlarm
from nlpmeta.online.stream import Labelled, OnlineSettings, adapted, first_leader, followed

FAST = OnlineSettings(window=8, replay=4, meta_every=4, keep_every=10)


def begun(encoder, pool, settings=FAST, method="logistic"):
    return OnlineClassifier(
        FewShotClassifier(method, encoder=encoder).fit(pool.texts[::4], pool.names()[::4]), settings
    )


def run(online, texts, labels, late=2):
    """Feed a stream whose labels come ``late`` texts after their text."""
    answers = []
    for i, text in enumerate(texts):
        answers += online.receive([text])
        if i >= late:
            online.learn([answers[i - late].ticket], [labels[i - late]])
    return answers


def stream(pool, n, seed=0, names=None):
    rows = np.random.default_rng(seed).integers(len(pool), size=n)
    names = names or (lambda name: name)
    return [pool.texts[i] for i in rows], [names(pool.names()[i]) for i in rows]


@pytest.mark.parametrize("method", ["logistic", "prototypical", "auto", "anil"])
def test_a_stream_begins_with_the_scores_of_its_classifier(encoder, pool, method):
    online = begun(encoder, pool, method=method)
    expected = online.classifier.predict_proba(pool.texts)
    np.testing.assert_allclose(online.predict_proba(pool.texts), expected, atol=1e-6)
    assert online.predict(pool.texts).tolist() == online.classifier.predict(pool.texts).tolist()


@pytest.mark.slow
def test_a_class_that_changes_its_meaning_is_learned_and_the_classifier_stays(encoder, pool):
    online = begun(encoder, pool)
    before = online.classifier.predict_proba(pool.texts)
    swap = {"sport": "food", "food": "sport", "money": "money"}
    run(online, *stream(pool, 90, names=swap.get))
    # Without learning a third would be right. What is replayed still holds the support with the old meaning.
    assert (online.predict(pool.texts) == [swap[name] for name in pool.names()]).mean() > 0.8
    np.testing.assert_array_equal(online.classifier.predict_proba(pool.texts), before)


@pytest.mark.slow
def test_the_alarm_sounds_soon_after_a_change_and_not_before(encoder, pool):
    swap = {"sport": "food", "food": "sport", "money": "money"}
    texts, labels = stream(pool, 150)
    more, changed = stream(pool, 40, seed=1, names=swap.get)
    online = begun(encoder, pool)
    run(online, texts + more, labels + changed)
    assert online.alarms
    assert 150 <= online.alarms[0].n_texts <= 180
    assert online.alarms[0].seen_by == "labels"


@pytest.mark.slow
def test_texts_of_a_new_kind_raise_the_alarm_without_any_label(encoder, pool):
    online = begun(encoder, pool)
    for text in stream(pool, 150)[0]:
        online.receive([text])
    assert not online.alarms
    for i in range(40):
        online.receive(["ball soup rate nonesuch" + " salt nonesuch" * (i % 5)])
    assert online.alarms[0].seen_by == "texts"
    assert online.alarms[0].n_labels == 0


@pytest.mark.slow
def test_without_drift_false_alarms_are_as_rare_as_stated():
    one_in, n, fired = 200, 100, 0
    for seed in range(400):
        losses = np.random.default_rng([5, seed]).exponential(size=n)
        alarm = DriftAlarm(one_in, seed)
        for loss in losses.tolist():
            alarm = alarm.after(loss)
            if alarm.sounds:
                fired += 1
                break
    assert fired / 400 <= n / one_in  # Doob's bound: 0.5
    assert fired > 0  # it is a test that can fire


def test_the_alarm_statistic_is_what_its_definition_says():
    alarm = DriftAlarm(1000, seed=3)
    losses = [0.3, 0.1, 0.2, 0.2, 5.0, 4.0]
    expected = dict.fromkeys([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], 0.0)
    for n, loss in enumerate(losses):
        chance = np.random.default_rng([3, n]).uniform(1e-12, 1.0)
        seen = losses[: n + 1]
        p = (sum(x > loss for x in seen) + chance * sum(x == loss for x in seen)) / (n + 1)
        expected = {e: (1 + value) * e * p ** (e - 1) for e, value in expected.items()}
        alarm = alarm.after(loss)
    assert alarm.level == pytest.approx(np.mean(list(expected.values())))


def some_labels(seed, n=10):
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(n, width, generator=generator, dtype=torch.float64) for width in (5, 3, 3)]
    return Labelled(*draw, torch.randint(3, (n,), generator=generator))


def some_leader(seed):
    generator = torch.Generator().manual_seed(seed)
    shapes = first_leader(3, 5)
    return {k: 0.3 * torch.randn(v.shape, generator=generator, dtype=torch.float64) for k, v in shapes.items()}


def test_the_inner_steps_are_gradient_descent_by_autograd():
    leader, seen = some_leader(0), some_labels(1)
    ours = adapted(leader, seen, steps=4)
    ones = torch.cat([seen.rows, torch.ones(10, 1, dtype=torch.float64)], 1)
    rate = leader["share"].sigmoid() * 2 / (torch.linalg.eigvalsh(ones.T @ ones).max() / 2)
    weight, bias = leader["weight"].clone(), leader["bias"].clone()
    for _ in range(4):
        weight, bias = weight.detach().requires_grad_(), bias.detach().requires_grad_()
        scores = seen.base + leader["pull"] * seen.near + F.linear(seen.rows, weight, bias)
        gradient = torch.autograd.grad(F.cross_entropy(scores, seen.labels, reduction="sum"), [weight, bias])
        weight, bias = weight - rate * gradient[0], bias - rate * gradient[1]
    torch.testing.assert_close(ours.weight, weight)
    torch.testing.assert_close(ours.bias, bias)


def test_the_meta_step_follows_the_finite_differences_of_the_loss_after_adapting():
    leader, tasks = some_leader(2), [(some_labels(3), some_labels(4)), (some_labels(5), some_labels(6))]

    def loss(at):
        each = [F.cross_entropy(adapted(at, a, steps=3).scores(b.rows, b.base, b.near), b.labels) for a, b in tasks]
        return float(torch.stack(each).mean())

    momentum = {k: torch.zeros_like(v) for k, v in leader.items()}
    moved, running = followed(leader, momentum, tasks, steps=3, rate=0.5)
    for name, value in leader.items():
        expected = torch.zeros_like(value)
        for i in range(value.numel()):
            bump = torch.zeros(value.numel(), dtype=torch.float64)
            bump[i] = 1e-5
            bump = bump.view(value.shape)
            up, down = ({**leader, name: value + sign * bump} for sign in (1, -1))
            expected.view(-1)[i] = (loss(up) - loss(down)) / 2e-5
        torch.testing.assert_close(running[name], 0.1 * expected, rtol=1e-4, atol=1e-8)
        torch.testing.assert_close(moved[name], value - 0.5 * running[name])


def test_prototypes_are_the_mean_that_forgets(encoder, pool):
    online = begun(encoder, pool, OnlineSettings(half_life=1.0))
    start = online.stream.prototypes[0].clone()
    texts = [text for text, name in zip(pool.texts, pool.names(), strict=True) if name == "food"][:3]
    rows, _ = online._rows(tuple(texts))
    run(online, texts, ["food"] * 3, late=0)
    total, weight = start, 1.0  # the support counts as much as half_life labels
    for row in rows:
        total, weight = (total * weight * 0.5 + row) / (weight * 0.5 + 1), weight * 0.5 + 1
    torch.testing.assert_close(online.stream.prototypes[0], total, atol=1e-5, rtol=1e-5)


def test_prequential_accuracy_counts_predictions_made_before_their_label_came(encoder, pool):
    online = begun(encoder, pool)
    assert online.accuracy is None and online.recent_accuracy is None
    texts, labels = stream(pool, 30, names={"sport": "food", "food": "sport", "money": "money"}.get)
    answers = run(online, texts, labels, late=3)
    right = [answer.label == label for answer, label in zip(answers, labels, strict=True)][:27]
    assert online.accuracy == pytest.approx(np.mean(right))
    fading = [FAST.fading ** (26 - i) for i in range(27)]
    assert online.recent_accuracy == pytest.approx(np.average(right, weights=fading))


def test_a_saved_stream_continues_identically(encoder_folder, pool, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    texts, labels = stream(pool, 60, names={"sport": "food", "food": "sport", "money": "money"}.get)
    online = begun(encoder, pool)
    run(online, texts[:40], labels[:40])
    online.save(tmp_path / "stream")
    loaded = OnlineClassifier.load(tmp_path / "stream")
    results = []
    for each in (online, loaded):
        each.learn([38, 39], labels[38:40])  # what was awaited when it was saved
        answers = [each.receive([text])[0] for text in texts[40:]]
        for answer, label in zip(answers, labels[40:], strict=True):
            each.learn([answer.ticket], [label])
        alarms = (each.alarms, each.stream.loss_alarm, each.stream.text_alarm, each.stream.burst.alarm)
        results.append((answers, each.predict_proba(pool.texts).tolist(), alarms, each.record))
    assert results[0] == results[1]
    assert [m.n_labels for m in online.moments] == [m.n_labels for m in loaded.moments]
    online.rollback(20)
    loaded.rollback(20)
    np.testing.assert_array_equal(online.predict_proba(pool.texts), loaded.predict_proba(pool.texts))


def test_rolling_back_unlearns_what_came_later(encoder, pool):
    online = begun(encoder, pool)
    run(online, *stream(pool, 22))
    assert online.record.n_labels == 20
    before = online.predict_proba(pool.texts)
    poisoned = stream(pool, 30, seed=2, names={"sport": "money", "food": "sport", "money": "food"}.get)
    run(online, *poisoned)
    assert np.abs(online.predict_proba(pool.texts) - before).max() > 0.3
    assert online.rollback(25).n_labels == 20
    np.testing.assert_array_equal(online.predict_proba(pool.texts), before)
    assert online.record.n_labels == 48  # what happened stays on record
    with pytest.raises(NLPMetaError, match=r"there are states with 0, 10, 20"):
        online.rollback(-1)


def test_what_is_replayed_stays_within_the_capacity(encoder, pool):
    online = begun(encoder, pool, FAST.model_copy(update={"capacity": 64}))
    run(online, *stream(pool, 120))
    assert 64 <= len(online.stream.rows) <= 64 + 8
    assert len(online.stream.rows) == len(online.stream.labels) == len(online.stream.base)


def test_impossible_labels_are_refused_and_nothing_is_learned(encoder, pool):
    online = begun(encoder, pool)
    first, second = online.receive(["ball goal", "rice soup"])
    with pytest.raises(UnknownNameError, match="nonesuch"):
        online.learn([first.ticket, second.ticket], ["sport", "nonesuch"])
    with pytest.raises(DataError, match="Ticket 7 is unknown"):
        online.learn([first.ticket, 7], ["sport", "food"])
    with pytest.raises(DataError, match="is unknown"):
        online.learn([first.ticket] * 2, ["sport", "sport"])
    with pytest.raises(DataError, match="1 tickets came with 2 labels"):
        online.learn([first.ticket], ["sport", "sport"])
    assert online.stream.n_labels == 0
    online.learn([first.ticket], ["sport"])
    with pytest.raises(DataError, match="already has its label"):
        online.learn([first.ticket], ["sport"])


def test_a_folder_that_is_no_stream_or_damaged_is_refused(encoder_folder, pool, tmp_path):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    classifier = FewShotClassifier("logistic", encoder=encoder).fit(pool.texts[::4], pool.names()[::4])
    classifier.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelFolderError, match="contains no stream"):
        OnlineClassifier.load(tmp_path / "model")
    with pytest.raises(NLPMetaError, match="saved without its examples"):
        OnlineClassifier(FewShotClassifier.from_pretrained(tmp_path / "model"))
    OnlineClassifier(classifier, FAST).save(tmp_path / "stream")
    facts = json.loads((tmp_path / "stream" / "stream.json").read_text("utf-8"))
    (tmp_path / "stream" / "stream.json").write_text(json.dumps({**facts, "streams": []}), "utf-8")
    with pytest.raises(ModelFolderError, match="damaged"):
        OnlineClassifier.load(tmp_path / "stream")


def test_an_alarm_level_below_one_is_refused():
    with pytest.raises(NLPMetaError, match="at least 1"):
        DriftAlarm(0)
    assert math.isclose(DriftAlarm(5).level, 0.0)


def test_a_burst_of_texts_that_are_alike_raises_the_alarm_once_without_any_label(encoder, pool):
    online = begun(encoder, pool)
    quiet, mixed_in = stream(pool, 150)[0], stream(pool, 40, seed=1)[0]
    for text in quiet:
        online.receive([text])
    assert not online.alarms
    for text in mixed_in:
        online.receive([text])
        online.receive(["ball goal ball goal"])
    bursts = [alarm for alarm in online.alarms if alarm.seen_by == "burst"]
    assert 1 <= len(bursts) <= 2  # it begins anew after it sounded
    assert bursts[0].n_texts <= 190
    assert bursts[0].n_labels == 0
