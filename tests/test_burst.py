"""Texts that come soon after one another and are alike: what is measured, what is remembered, when the alarm sounds."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nlpmeta.online import alarms as burst
from nlpmeta.online.alarms import WINDOW, Burst, DriftAlarm, likeness
from nlpmeta.online.files import _burst


def directions(n, seed, *, centre=None, spread=1.0, dim=24):
    rng = np.random.default_rng(seed)
    rows = torch.from_numpy(rng.normal(size=(n, dim))).float() * spread
    return F.normalize(rows if centre is None else rows + centre, dim=1)


def test_likeness_is_the_mean_logarithm_of_the_share_above():
    earlier, recent = torch.tensor([0.1, 0.4, 0.2, 0.3]), torch.tensor([0.35, 0.0, 0.9])
    shares = (2 / 5, 5 / 5, 1 / 5)  # above or at, one more on both sides
    assert likeness(earlier, recent) == pytest.approx(np.mean([-math.log(share) for share in shares]))


def test_likeness_is_about_one_while_the_order_of_texts_means_nothing():
    found = []
    for seed in range(200):
        cosines = torch.from_numpy(np.random.default_rng(seed).normal(size=400 + WINDOW)).float()
        found.append(likeness(cosines[WINDOW:], cosines[:WINDOW]))
    assert np.mean(found) == pytest.approx(1.0, abs=0.05)


def test_a_text_is_first_new_then_recent_then_earlier():
    known, texts = directions(5, 0), directions(WINDOW + 3, 1)
    state = Burst.begin(known, DriftAlarm(1000))
    for number, text in enumerate(texts):
        before = state
        state = state.after(text)
        assert state.alarm.n_seen == max(0, number + 1 - WINDOW)
        assert len(before.recent) == min(number, WINDOW)  # the state before is as it was
    assert torch.equal(state.recent, texts[-WINDOW:])
    assert torch.equal(state.earlier, torch.cat([known, texts[:3]]))
    assert state.n_earlier == 8


def test_what_is_remembered_is_bounded_and_every_text_as_likely_to_be_kept(monkeypatch):
    monkeypatch.setattr(burst, "_MOST", 20)
    kept = np.zeros(60)
    for seed in range(150):
        state = Burst.begin(torch.zeros(0, 60), DriftAlarm(1_000_000, seed))
        for number in range(60):
            state = state._with_earlier(torch.eye(60)[number])
        assert len(state.earlier) == 20
        kept += state.earlier.sum(0).numpy()
    assert kept.sum() == 150 * 20
    first, last = kept[:30].mean() / 150, kept[30:].mean() / 150
    assert first == pytest.approx(1 / 3, abs=0.04)
    assert last == pytest.approx(1 / 3, abs=0.04)


def test_false_alarms_are_few_though_windows_overlap():
    """Of 4,000 texts in no order, at a level that allows one in 10,000 were windows apart."""
    sounded = 0
    for seed in range(8):
        state = Burst.begin(directions(60, 1000 + seed), DriftAlarm(10_000, seed))
        for text in directions(500, 2000 + seed):
            state = state.after(text)
            if state.alarm.sounds:
                sounded, state = sounded + 1, state.again()
    assert sounded <= 2


@pytest.mark.parametrize("seed", range(3))
def test_a_campaign_in_every_second_text_sounds_the_alarm_soon(seed):
    state = Burst.begin(directions(60, 100 + seed), DriftAlarm(10_000, seed))
    for text in directions(300, 200 + seed):
        state = state.after(text)
        state = state.again() if state.alarm.sounds else state
    tactic = 2.5 * directions(1, 300 + seed)[0]
    campaign, others = directions(15, 400 + seed, centre=tactic, spread=0.4), directions(15, 500 + seed)
    for one, other in zip(campaign, others, strict=True):
        state = state.after(one).after(other)
        if state.alarm.sounds:
            break
    assert state.alarm.sounds
    assert not state.again().alarm.sounds
    assert torch.equal(state.again().earlier, state.earlier)


def test_a_stream_saved_before_there_were_bursts_begins_with_what_it_knew():
    known = directions(5, 0)
    facts = {"text_alarm": {"one_in": 4000, "seed": 7, "losses": [0.5], "statistics": [0.0] * 9, "n_seen": 1}}
    state = _burst(facts, {"frozen/texts": known})
    assert torch.equal(state.earlier, known)
    assert (state.alarm.one_in, state.alarm.n_seen, len(state.recent)) == (4000, 0, 0)
