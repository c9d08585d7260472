"""Fine-tuning: what is held out, which number of steps is taken, and that the learner's own adapters stay."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import make_encoder

from nlpmeta import FewShotClassifier
from nlpmeta.cli import main
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.episodes import held_out_rows
from nlpmeta.errors import NLPMetaError
from nlpmeta.export.head import linear_heads
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.inner_loop import ADAPTER, BIAS, WEIGHT, batches, class_loss
from nlpmeta.learners.tuned import BATCH, LOOKS, TEMPERATURES, FineTuned, Rehearsal, _parted, _rate, _rows, in_order


@pytest.fixture
def learner():
    encoder = make_encoder(dropout=0.0)
    add_adapter(encoder, AdapterSettings(rank=2), seed=0)
    return FineTuned(encoder, inner_steps=10, adapter_rate=0.02).eval()


@pytest.fixture
def support(pool):
    return Support.of(pool)


def test_a_fifth_of_each_class_is_held_out_and_one_text_of_a_class_that_has_few(support):
    out = held_out_rows(support.texts, support.labels.tolist(), one_in=5, least=5)
    assert len(set(out)) == len(out) and set(out) < set(range(len(support)))
    counts = torch.bincount(support.labels).tolist()
    assert torch.bincount(support.labels[out]).tolist() == [count // 5 for count in counts]
    first = torch.nonzero(support.labels == 0).flatten()[:4].tolist()
    few = [row for row in range(len(support)) if support.labels[row]] + first
    small = Support(tuple(support.texts[row] for row in few), None, support.labels[few], 3)
    out = held_out_rows(small.texts, small.labels.tolist(), one_in=5, least=5)
    assert torch.bincount(small.labels[out], minlength=3).tolist() == [1, *(count // 5 for count in counts[1:])]
    alone = [row for row in few if row not in first[1:]]
    assert held_out_rows([support.texts[row] for row in alone], support.labels[alone].tolist(), one_in=5, least=5) == []


def test_more_steps_go_on_from_fewer(learner, support):
    """The rate stays and the weights are averaged, so that a look is what so many steps would have given."""
    start = learner._start(support)
    looks = learner.trained(support.texts, start, 10, class_loss(support), looks=LOOKS)
    for look, steps in enumerate((0, 2, 4, 6, 8, 10)):
        alone = learner.trained(support.texts, start, steps, class_loss(support))[-1]
        assert all(torch.equal(alone[name], looks[look][name]) for name in alone), steps


def test_a_rate_that_falls_rises_first_and_ends_at_nothing(learner, support):
    rates = [_rate(step, 40) for step in range(41)]
    assert rates[3] == max(rates) == 1 and rates[0] == 0.25 and rates[40] == 0
    np.testing.assert_allclose(np.diff(rates[3:]), -1 / 36, atol=0.03)
    assert _rate(0, 1) == 1
    assert [_rate(step) for step in (0, 4, 9, 500)] == [0.1, 0.5, 1, 1]  # one that stays
    start, met = learner._start(support), list[float]()
    plain = torch.optim.AdamW.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", lambda self: (met.append(self.param_groups[0]["lr"]), plain(self)))
        learner.trained(support.texts, start, 5, class_loss(support), falls=True)
    np.testing.assert_allclose(met, [0.02 * _rate(step, 5) for step in range(5)])


def test_weights_are_the_mean_over_the_last_pass_or_half(learner, support):
    """Found from the weights after each step, which a mean over one step is."""
    few = _rows(support, range(3 * BATCH))  # three steps are a pass
    start, loss_of = learner._start(few), class_loss(few)
    mean, weights, plain = start[WEIGHT], list[torch.Tensor](), torch.optim.AdamW.step

    def step_and_look(optimiser):
        plain(optimiser)
        weights.append(optimiser.param_groups[-1]["params"][0].detach().clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step_and_look)
        found = learner.trained(few.texts, start, 8, loss_of)[-1]
    assert len(weights) == 8
    for step, each in enumerate(weights, 1):
        mean = mean + (each - mean) / max(min(step / 2, 3), 1)
    torch.testing.assert_close(found[WEIGHT], mean)
    assert not torch.allclose(found[WEIGHT], weights[-1], atol=1e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step_and_look)
        last = learner.trained(few.texts, start, 8, loss_of, falls=True)[-1]
    assert torch.equal(last[WEIGHT], weights[-1])


def test_every_text_comes_once_before_any_comes_again():
    each = batches(40, 16)
    rows = [row for _ in range(5) for row in next(each)]
    assert sorted(rows[:40]) == sorted(rows[40:80]) == list(range(40))
    assert sorted(next(batches(5, 16))[:5]) == list(range(5))


@pytest.mark.parametrize(("rate", "steps"), [(0.005, 10), (0.05, 6), (0.3, 0)])
def test_the_steps_taken_are_those_after_which_held_out_texts_are_most_likely(learner, support, rate, steps):
    learner.adapter_rate = rate
    ordered = in_order(support)
    rows = held_out_rows(ordered.texts, ordered.labels.tolist(), one_in=5, least=5)
    rest, out = _rows(ordered, sorted(set(range(len(ordered))) - set(rows))), _rows(ordered, rows)
    assert _parted(ordered)[0] == rows and _parted(ordered)[1].texts == rest.texts
    states = learner.trained(rest.texts, learner._start(rest), 10, class_loss(rest), looks=LOOKS)
    assert len(states) == 1 + LOOKS
    scores = [learner.logits(state, out) for state in states]
    losses = [[float(F.cross_entropy(each / t, out.labels)) for t in TEMPERATURES] for each in scores]
    best, over = np.unravel_index(np.argmin(losses), np.shape(losses))
    tried = learner.rehearsed(ordered)
    assert (tried.steps, tried.over) == (2 * best, TEMPERATURES[over])
    assert tried.steps == steps
    torch.testing.assert_close(tried.scores, scores[best] / tried.over)
    found = learner.adapt(support)
    wanted = states[best] if steps else learner._start(ordered)  # without a step, what it starts from is of all texts
    again = learner.learned(ordered, Rehearsal(tried.steps, tried.over))  # as after more examples came
    for state in (found, again):
        torch.testing.assert_close(state[WEIGHT], wanted[WEIGHT] / tried.over)
        torch.testing.assert_close(state[BIAS], wanted[BIAS] / tried.over)
        name = next(name for name in state if name.startswith(ADAPTER))
        torch.testing.assert_close(state[name], wanted[name])


class Looked(FineTuned):
    """What three looks see: nothing, six of nine texts right and unsure, eight of nine right and far too sure."""

    def trained(self, *_, **__):
        return [{"look": torch.tensor(look)} for look in range(3)]

    def logits(self, state, queries):
        n_right, margin = ((0, 0.0), (6, 1.0), (8, 30.0))[int(state["look"])]
        said = torch.where(torch.arange(9) < n_right, self.truth, (self.truth + 1) % 3)
        return margin * F.one_hot(said, 3).float()


def test_looks_are_compared_at_the_temperature_that_suits_each(learner, support):
    looked, ordered = Looked(learner.encoder, inner_steps=10).eval(), in_order(support)
    rows, _ = _parted(ordered)
    assert len(rows) == 9
    looked.truth = ordered.labels[rows]
    tried = looked.rehearsed(ordered)
    assert tried.steps == 10 and tried.over == 10.0  # as they are, the scores of the second look are likelier


def test_adapters_are_learned_and_those_of_the_learner_stay(learner, support):
    before = {name: value.clone() for name, value in adapter_weights(learner.encoder).items()}
    state = learner.adapt(support)
    after = adapter_weights(learner.encoder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    moved = [name for name in before if not torch.equal(state[ADAPTER + name], before[name])]
    assert len(moved) == len(before)
    top = FineTuned(learner.encoder, inner_steps=10, layers=1).eval().adapt(support)
    assert set(top) < set(state) and len(top) == 2 + (len(state) - 2) // 2


def test_classes_weigh_the_same(learner, support):
    """A text of the smaller class learned twice changes nothing, from the same start and with all texts in a step."""
    a, b = (torch.nonzero(support.labels == label).flatten()[:4].tolist() for label in (0, 1))
    start = learner._start(
        Support(tuple(support.texts[row] for row in a + b), None, torch.tensor([0] * 4 + [1] * 4), 2)
    )
    found = []
    for rows, labels in ((a + b[:1], [0] * 4 + [1]), (a + b[:1] * 4, [0] * 4 + [1] * 4)):
        part = Support(tuple(support.texts[row] for row in rows), None, torch.tensor(labels), 2)
        found.append(learner.trained(part.texts, start, 3, class_loss(part))[-1])
    torch.testing.assert_close(found[0][WEIGHT], found[1][WEIGHT], rtol=1e-3, atol=1e-4)


def test_no_step_is_logistic_regression(learner, support):
    still = learner.stepping(0)
    state, start = still.adapt(support), still._start(in_order(support))
    ratio = state[WEIGHT] / start[WEIGHT]
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))
    assert still.inner_steps == 0 and learner.inner_steps == 10
    with pytest.raises(NLPMetaError, match="inner_steps"):
        learner.stepping(-1)
    with pytest.raises(NLPMetaError, match="layers"):
        FineTuned(learner.encoder, layers=9)


def test_many_owners_get_their_own_answers(learner, support, pool):
    states = [learner.adapt(support), learner.stepping(2).adapt(support)]
    texts = list(pool.texts[:4])
    together = learner.logits_of_owners(states, [0, 1, 1, 0], texts)
    for text, owner, found in zip(texts, (0, 1, 1, 0), together, strict=True):
        torch.testing.assert_close(found, learner.logits(states[owner], Texts((text,)))[0], rtol=1e-4, atol=1e-4)


def test_it_is_saved_exported_and_known_to_the_command(learner, pool, encoder_folder, tmp_path, capsys):
    classifier = FewShotClassifier(learner).fit(pool.texts, pool.names())
    heads = linear_heads(classifier.learner_, classifier.state_)
    assert heads.weight.shape[:2] == (1, 3)
    table = tmp_path / "t.csv"
    rows = [f"{text},{name}" for text, name in zip(pool.texts, pool.names(), strict=True)]
    table.write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    command = ["adapt", "--data", table, "--encoder", encoder_folder, "--method", "tuned", "--inner-steps", 3]
    made = main([*map(str, command), "--shots", "5", "--draws", "1", "--json", "--out", str(tmp_path / "m")])
    found = json.loads(capsys.readouterr().out)
    assert made == 0 and found["accuracy"]["mean"] > 1 / 3
    loaded = FewShotClassifier.from_pretrained(tmp_path / "m")
    assert loaded.predict(["ball goal"]).tolist() == ["sport"]
