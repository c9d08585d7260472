"""What is said of memory and time before a run, against what its steps then take."""

import time

import pytest
import torch
from accelerate import Accelerator
from meta_task import noisy_encoder, noisy_learner, samplers

from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.learners.maml import MAML
from nlpmeta.training import TrainSettings
from nlpmeta.training.engine import make_accelerator, meta_train
from nlpmeta.training.forecast import ROUGHLY, TimeForecast, forecast_memory, forecast_time
from nlpmeta.training.run import Run
from nlpmeta.training.step import Peak


def run_of(learner, **settings):
    settings = TrainSettings(steps=2, control_episodes=0, **settings)
    accelerator: Accelerator = make_accelerator(settings, None)
    return Run(learner, samplers()[0], settings, None, {}, accelerator, None, False)


def maml(**options):
    encoder = noisy_encoder()
    add_adapter(encoder, AdapterSettings(rank=2, modules=("query", "value")), seed=0)
    return MAML(encoder, inner_steps=2, **options)


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
    forecast = forecast_memory(run.stepper, run.weights)
    known = [*run.learner.parameters(), *run.learner.buffers()]
    with Peak(known) as memory:
        run.stepper.take(0)
    assert 0.7 * memory.most < forecast.activations / forecast.held + forecast.weights < 1.8 * memory.most + 200_000


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
    forecast = forecast_time(run.stepper, run.weights, held_out_tokens=0)
    seconds = []
    for step in range(6):
        began = time.process_time()
        run.stepper.take(step)
        seconds.append(time.process_time() - began)
    taken = sorted(seconds)[2]
    assert taken / 3 < forecast.per_step < 3 * taken
    assert forecast.seconds == 2 * forecast.per_step


def test_measuring_held_out_tasks_is_part_of_the_forecast(monkeypatch):
    monkeypatch.setattr("time.perf_counter", time.process_time)
    train, heldout = samplers()
    settings = TrainSettings(steps=10, eval_every=4, eval_episodes=40, control_episodes=4)
    run = Run(noisy_learner(), train, settings, None, {"new": heldout}, make_accelerator(settings, None), None, False)
    run.heldout.measure(run.learner)
    began = time.process_time()
    run.heldout.measure(run.learner)
    each = time.process_time() - began
    forecast = run.forecasts()[1]
    assert 4 * each / 5 < forecast.held_out < 4 * each * 5  # before the first step, at 4, 8 and 10


def test_times_are_said_as_a_range_in_units_of_their_size():
    assert ROUGHLY == 2
    said = str(TimeForecast(steps=1200, per_step=2.0, held_out=600.0))
    assert said == "roughly 25 min to 1.7 h for 1,200 steps, of which 10 min for held-out tasks"
    assert str(TimeForecast(steps=3, per_step=0.2, held_out=0.0)) == "roughly 0.3 s to 1 s for 3 steps"
