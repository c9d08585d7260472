"""What is said of memory and time before a run, against what its steps then take."""

import time

import pytest
import torch
from accelerate import Accelerator
from meta_task import KEYS, noisy_encoder, noisy_learner, noisy_pool, samplers

from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.learners.maml import MAML
from nlpmeta.training import TrainSettings, forecast
from nlpmeta.training.engine import make_accelerator, meta_train
from nlpmeta.training.forecast import HELD, ROUGHLY, TimeForecast, forecast_memory, forecast_time
from nlpmeta.training.run import Run
from nlpmeta.training.step import Peak


def run_of(learner, sampler=None, **settings):
    settings = TrainSettings(steps=2, control_episodes=0, **settings)
    accelerator: Accelerator = make_accelerator(settings, None)
    return Run(learner, sampler or samplers()[0], settings, None, {}, accelerator, None, False)


def maml(inner_steps=2, rank=2, **options):
    encoder = noisy_encoder()
    add_adapter(encoder, AdapterSettings(rank=rank, modules=("query", "value")), seed=0)
    return MAML(encoder, inner_steps=inner_steps, **options)


def test_the_peak_counts_what_lives_at_once_and_forgets_what_is_gone():
    known = torch.ones(1000)
    with Peak([known]) as memory:
        for _ in range(3):
            a = torch.ones(256)  # 1,024 bytes, replaced by the next
        b = a + 1
        known.view(10, 100)
        del a, b
        torch.ones(16)
    assert memory.most == 2 * 1024  # one and the one that replaces it, then one and the sum
    assert memory._now == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (noisy_learner, {"episodes_per_step": 4}),
        (noisy_learner, {"episodes_per_step": 4, "contrastive_weight": 0.5, "anchor_weight": 0.5}),
        (lambda: maml(task_batching="vectorised"), {"episodes_per_step": 4}),
        (lambda: maml(task_batching="loop"), {"episodes_per_step": 4}),
        (lambda: maml(first_order=False), {"episodes_per_step": 1}),
    ],
    ids=["prototypical", "with other losses", "maml, side by side", "maml, one by one", "maml, second order"],
)
def test_a_step_takes_about_what_was_forecast(make, settings):
    run = run_of(make(), **settings)
    said = forecast_memory(run.stepper, run.weights)
    known = [*run.learner.parameters(), *run.learner.buffers()]
    with Peak(known) as memory:
        run.stepper.take(0)
    assert 0.7 * memory.most < said.activations / said.held + said.weights < 1.8 * memory.most + 200_000


@pytest.mark.parametrize(
    ("first_order", "inner_steps", "task_batching", "n_shot", "n_query"),
    [
        (True, 1, "vectorised", 5, 2),
        (True, 1, "loop", 1, 6),
        (False, 1, "vectorised", 5, 2),
        (False, 1, "loop", 5, 2),
        (False, 5, "vectorised", 1, 6),
        (False, 5, "loop", 5, 2),
    ],
)
def test_tensors_of_maml_are_forecast_within_a_tenth(first_order, inner_steps, task_batching, n_shot, n_query):
    learner = maml(inner_steps, rank=8, first_order=first_order, task_batching=task_batching)
    sampler = EpisodeSampler([noisy_pool(KEYS[:16])], n_way=8, n_shot=n_shot, n_query=n_query, seed=0)
    run = run_of(learner, sampler, episodes_per_step=3)
    said = forecast_memory(run.stepper, run.weights)
    with Peak([*learner.parameters(), *learner.buffers()]) as memory:
        for group in run.stepper.groups_of(0):
            run.stepper.gradients(group, 1.0)
    taken = memory.most - sum(weight.nbytes for weight in run.weights.values())  # their gradients are counted apart
    assert 0.9 * taken < said.activations / said.held < 1.1 * memory.most


def test_what_the_process_holds_beside_its_tensors_is_measured_where_they_are_large_enough(monkeypatch):
    run, sizes = run_of(noisy_learner()), []
    assert forecast_memory(run.stepper, run.weights).held == HELD
    monkeypatch.setattr(forecast, "_LEAST", 0)
    monkeypatch.setattr(forecast, "start_watching", lambda trim: trim)
    monkeypatch.setattr(forecast, "peak_bytes", lambda: sizes.append(0) or (0 if len(sizes) % 2 else 2 * tensors))
    with Peak([*run.learner.parameters(), *run.learner.buffers()]) as memory:
        group = max(
            (each for step in range(20) for each in run.stepper.groups_of(step)), key=run.stepper.padded_at_once
        )
        run.stepper.gradients([forecast._part(each, forecast._PARTS[-1]) for each in group[:2]], 1.0)
    for weight in run.weights.values():
        weight.grad = None
    tensors = memory.most
    twice = forecast_memory(run.stepper, run.weights)
    assert twice.held == pytest.approx(2.0, rel=0.05)
    monkeypatch.setattr(forecast, "start_watching", lambda trim: False)  # as elsewhere than on Linux
    assert forecast_memory(run.stepper, run.weights).held == HELD


def test_a_part_of_an_episode_has_as_many_support_texts_for_a_query_text():
    episode = EpisodeSampler([noisy_pool(KEYS[:16])], n_way=8, n_shot=4, n_query=8, seed=0).episode(0)
    half = forecast._part(episode, 0.5)
    assert (half.support.n_way, len(half.support), len(half.query)) == (4, 16, 32)
    few = forecast._part(forecast._part(episode, 0.25), 0.25)  # two classes stay two
    assert (few.support.n_way, len(few.support), len(few.query)) == (2, 2, 4)
    assert set(few.support.label_names) == set(few.query.label_names)


def test_a_forecast_changes_neither_weights_nor_gradients_nor_random_numbers():
    run = run_of(noisy_learner(dropout=0.2).train())
    before = [weight.detach().clone() for weight in run.weights.values()]
    state = torch.get_rng_state()
    run.forecasts()
    assert torch.equal(state, torch.get_rng_state())
    assert all(weight.grad is None for weight in run.weights.values())
    assert all(torch.equal(a, b) for a, b in zip(before, run.weights.values(), strict=True))


def test_it_is_said_before_the_first_step_and_not_of_an_encoder_that_is_fixed():
    said = []
    meta_train(noisy_learner(), samplers()[0], settings=TrainSettings(steps=1), say=said.append)
    assert len(said) == 2
    assert said[0].startswith("Memory: about ") and said[1].startswith("Time: roughly ")
    learner = noisy_learner()
    for weight in adapter_weights(learner.encoder).values():
        weight.requires_grad_(False)
    meta_train(learner, samplers()[0], settings=TrainSettings(steps=1), say=said.append)
    assert len(said) == 2


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (noisy_learner, {"episodes_per_step": 8}),
        (noisy_learner, {"accumulate": 8}),
        (noisy_learner, {"episodes_per_step": 8, "chunk_tokens": 64}),
        (lambda: maml(task_batching="loop"), {"episodes_per_step": 8}),
    ],
    ids=["eight at once", "eight turns", "what does not fit is computed twice", "maml"],
)
def test_steps_take_the_forecast_time_within_a_factor_of_three(make, settings, monkeypatch):
    monkeypatch.setattr("time.perf_counter", time.process_time)  # whatever else the machine does
    run = run_of(make(), **settings)
    forecast_memory(run.stepper, run.weights)
    said = forecast_time(run.stepper, run.weights, held_out_tokens=0)
    seconds = []
    for step in range(6):
        began = time.process_time()
        run.stepper.take(step)
        seconds.append(time.process_time() - began)
    taken = sorted(seconds)[2]
    assert taken / 3 < said.per_step < 3 * taken
    assert said.seconds == 2 * said.per_step


def test_measuring_held_out_tasks_is_part_of_the_forecast(monkeypatch):
    monkeypatch.setattr("time.perf_counter", time.process_time)
    train, heldout = samplers()
    settings = TrainSettings(steps=10, eval_every=4, eval_episodes=40, control_episodes=4)
    run = Run(noisy_learner(), train, settings, None, {"new": heldout}, make_accelerator(settings, None), None, False)
    run.heldout.measure(run.learner)
    began = time.process_time()
    run.heldout.measure(run.learner)
    each = time.process_time() - began
    said = run.forecasts()[1]
    assert 4 * each / 5 < said.held_out < 4 * each * 5  # before the first step, at 4, 8 and 10


def test_times_are_said_as_a_range_in_units_of_their_size():
    assert ROUGHLY == 2
    said = str(TimeForecast(steps=1200, per_step=2.0, held_out=600.0))
    assert said == "roughly 25 min to 1.7 h for 1,200 steps, of which 10 min for held-out tasks"
    assert str(TimeForecast(steps=3, per_step=0.2, held_out=0.0)) == "roughly 0.3 s to 1 s for 3 steps"
