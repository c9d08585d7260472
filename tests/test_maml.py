import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from test_lora import adapted_encoder
from torch.func import functional_call

from nlpmeta.encoder.frozen_layers import frozen_layer_cache
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter, freeze_below
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.episodes.samplers import EpisodeSampler
from nlpmeta.errors import NLPMetaError, UnknownNameError
from nlpmeta.learners import inner_loop
from nlpmeta.learners.base import Support, Texts
from nlpmeta.learners.checkpoint import load_checkpoint, save_checkpoint
from nlpmeta.learners.maml import ANIL, MAML, MetaSGD, Reptile
from nlpmeta.learners.prototypical import PrototypicalNetwork
from nlpmeta.training.optimise import trainable


@pytest.fixture
def double_encoder():
    return adapted_encoder(modules=("query", "value")).double()


@pytest.fixture
def episode(sampler):
    return sampler.episode(0)


def sides(learner, episode):
    return learner.support(episode.support), Support.of(episode.query)


def test_no_inner_step_is_the_prototypical_network_exactly(episode):
    encoder = adapted_encoder()
    ours = MAML(encoder, inner_steps=0, temperature=0.07, names=True, name_weight=1.5)
    theirs = PrototypicalNetwork(encoder, metric="cosine", temperature=0.07, names=True, name_weight=1.5)
    queries = Texts(episode.query.texts)
    scores = [each.logits(each.adapt(each.support(episode.support)), queries) for each in (ours, theirs)]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


def by_hand(encoder, start, support, *, steps, adapter_rate, head_rate, temperature, graph):
    """Plain MAML on stored adapters ``start``, its graph kept or cut: what the paper's algorithm says."""
    labels, n_way = support.labels, support.n_way

    def scores(fast, weight, bias):
        features = functional_call(encoder, {f"backbone.{k}": v for k, v in fast.items()}, (support.texts,))
        return F.linear(F.normalize(features, dim=1), weight, bias)

    features = functional_call(encoder, {f"backbone.{k}": v for k, v in start.items()}, (support.texts,))
    means = torch.stack([features[labels == c].mean(0) for c in range(n_way)])
    fast, weight = {k: v.clone() for k, v in start.items()}, F.normalize(means, dim=1) / temperature
    bias = torch.zeros(n_way, dtype=weight.dtype, requires_grad=True)
    for _ in range(steps):
        loss = F.cross_entropy(scores(fast, weight, bias), labels)
        found = torch.autograd.grad(loss, [*fast.values(), weight, bias], create_graph=graph)
        found = found if graph else [g.detach() for g in found]
        fast = {k: v - adapter_rate * g for (k, v), g in zip(fast.items(), found, strict=False)}
        weight, bias = weight - head_rate * found[-2], bias - head_rate * found[-1]
    return fast, weight, bias


@pytest.mark.parametrize("first_order", [True, False])
def test_the_meta_gradient_is_that_of_the_algorithm_written_out(double_encoder, episode, first_order):
    options = {"adapter_rate": 0.3, "head_rate": 0.5, "temperature": 0.2}
    learner = MAML(double_encoder, inner_steps=2, first_order=first_order, **options).double()
    support, query = sides(learner, episode)
    learner.episode_loss(support, query).backward()
    ours = {name: weight.grad.clone() for name, weight in adapter_weights(double_encoder).items()}

    double_encoder.backbone.set_attn_implementation("eager")
    stored = dict(adapter_weights(double_encoder))
    fast, weight, bias = by_hand(double_encoder, stored, support, steps=2, graph=not first_order, **options)
    features = functional_call(double_encoder, {f"backbone.{k}": v for k, v in fast.items()}, (query.texts,))
    loss = F.cross_entropy(F.linear(F.normalize(features, dim=1), weight, bias), query.labels)
    expected = torch.autograd.grad(loss, list(stored.values()))
    for (name, ours_one), theirs in zip(ours.items(), expected, strict=True):
        torch.testing.assert_close(ours_one, theirs, rtol=1e-6, atol=1e-9, msg=name)


def test_the_two_orders_differ(double_encoder, episode):
    found = []
    for first_order in (True, False):
        learner = MAML(double_encoder, inner_steps=2, adapter_rate=0.5, first_order=first_order).double()
        learner.zero_grad()
        learner.episode_loss(*sides(learner, episode)).backward()
        found.append(torch.cat([weight.grad.flatten() for weight in adapter_weights(double_encoder).values()]))
    assert float((found[0] - found[1]).norm() / found[0].norm()) > 1e-3


def test_second_order_agrees_with_finite_differences(double_encoder, episode):
    learner = MAML(double_encoder, inner_steps=2, adapter_rate=0.3, head_rate=0.5, temperature=0.2, first_order=False)
    learner = learner.double()
    support, query = sides(learner, episode)
    learner.episode_loss(support, query).backward()
    generator = torch.Generator().manual_seed(0)
    for weight in list(adapter_weights(double_encoder).values())[:3]:
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        losses = []
        for sign in (1, -1):
            with torch.no_grad():
                weight += sign * 1e-5 * direction
            losses.append(learner.episode_loss(support, query).item())
            with torch.no_grad():
                weight -= sign * 1e-5 * direction
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(float((weight.grad * direction).sum()), rel=1e-4)


@pytest.mark.parametrize(("first_order", "inner_steps"), [(True, 1), (False, 2)])
def test_the_gradient_of_a_rate_is_that_of_the_loss(double_encoder, episode, first_order, inner_steps):
    options = {"inner_steps": inner_steps, "first_order": first_order, "adapter_rate": 0.2, "temperature": 0.2}
    learner = MetaSGD(double_encoder, **options).double()
    support, query = sides(learner, episode)
    learner.episode_loss(support, query).backward()
    rates = learner.log_adapter_rates
    assert rates.shape == (inner_steps, 2)  # one for each of the two layers
    for layer in range(2):
        losses = []
        for shift in (1e-5, -1e-5):
            with torch.no_grad():
                rates[0, layer] += shift
            losses.append(learner.episode_loss(support, query).item())
            with torch.no_grad():
                rates[0, layer] -= shift
        assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(float(rates.grad[0, layer]), rel=1e-4, abs=1e-9)


def test_a_plain_step_on_reptile_is_its_closed_form(double_encoder, episode):
    learner = Reptile(double_encoder, inner_steps=2, adapter_rate=0.5).double()
    support, query = sides(learner, episode)
    both = Support(support.texts + query.texts, None, torch.cat([support.labels, query.labels]), support.n_way)
    adapted = {
        k.removeprefix("adapter/"): v.detach() for k, v in learner.adapt(both).items() if k.startswith("adapter/")
    }
    start = {name: weight.detach().clone() for name, weight in adapter_weights(double_encoder).items()}
    learner.episode_loss(support, query).backward()
    for name, weight in adapter_weights(double_encoder).items():
        torch.testing.assert_close(start[name] - 0.1 * weight.grad, start[name] + 0.1 * (adapted[name] - start[name]))
    assert max(float((adapted[name] - start[name]).abs().max()) for name in start) > 1e-4
    assert set(trainable(learner)[1]) == set()


def test_the_inner_loss_falls_and_only_what_should_is_adapted(episode):
    encoder = adapted_encoder()
    for kind, moves in ((MAML, True), (ANIL, False)):
        learner = kind(encoder, adapter_rate=0.005, head_rate=0.5, temperature=0.2).eval()
        support = learner.support(episode.support)
        losses = []
        for steps in (0, learner.inner_steps):
            few = copy.copy(learner)
            few.inner_steps = steps
            state = few.adapt(support)
            losses.append(F.cross_entropy(few.logits(state, support), support.labels).item())
        assert losses[1] < losses[0]
        assert any(name.startswith("adapter/") for name in state) == moves


def test_chunks_of_a_large_support_give_the_same_steps(double_encoder, pool, monkeypatch):
    learner = MAML(double_encoder, inner_steps=2, adapter_rate=0.3).double()
    support = learner.support(pool)
    whole = learner.adapt(support)
    monkeypatch.setattr("nlpmeta.learners.inner_loop.CHUNK_TOKENS", 16)
    torch.testing.assert_close(learner.adapt(support), whole, rtol=1e-9, atol=1e-10)


def test_more_steps_than_were_trained_go_on_with_the_last_rate(double_encoder, episode):
    learner = MAML(double_encoder, inner_steps=1).double()
    learner.inner_steps = 3
    state = learner.adapt(learner.support(episode.support))
    assert all(bool(value.isfinite().all()) for value in state.values())


@pytest.mark.parametrize("options", [{"inner_steps": -1}, {"adapter_rate": 0.0}, {"head_rate": -1.0}])
def test_impossible_options_are_refused(encoder, options):
    with pytest.raises(NLPMetaError, match=f"{next(iter(options))} must be"):
        MAML(encoder, **options)


def ragged(learner, pool):
    """Three tasks of 2, 3 and 3 classes with 1, 3 and 2 shots."""
    tasks = []
    for n_way, n_shot in ((2, 1), (3, 3), (3, 2)):
        episode = EpisodeSampler([pool], n_way=n_way, n_shot=n_shot, n_query=2, seed=n_way).episode(0)
        tasks.append((learner.support(episode.support), Support.of(episode.query)))
    return tasks


def losses_and_gradients(learner, tasks, groups):
    learner.zero_grad()
    losses = []
    for group in groups:
        found = learner.losses_and_logits([tasks[i] for i in group])
        torch.stack([loss for loss, _ in found]).sum().backward()
        losses += [loss.detach() for loss, _ in found]
    return torch.stack(losses), {k: v.grad.clone() for k, v in learner.named_parameters() if v.grad is not None}


@pytest.mark.parametrize("first_order", [True, False])
@pytest.mark.parametrize("early_weight", [0.0, 0.4])
def test_tasks_side_by_side_are_tasks_one_by_one(pool, first_order, early_weight):
    encoder = adapted_encoder(modules=("query", "value", "dense"))
    options = {"inner_steps": 2, "adapter_rate": 0.03, "names": True, "early_weight": early_weight}
    learner = MAML(encoder, first_order=first_order, rates="layer", head_rate=0.5, temperature=0.2, **options)
    tasks = ragged(learner, pool)
    apart, side_by_side = (losses_and_gradients(learner, tasks, groups) for groups in ([[0], [1], [2]], [[0, 1, 2]]))
    torch.testing.assert_close(side_by_side[0], apart[0], rtol=1e-5, atol=1e-5)
    assert set(side_by_side[1]) == set(apart[1]) == {k for k, v in learner.named_parameters() if v.requires_grad}
    for name, gradient in apart[1].items():
        torch.testing.assert_close(side_by_side[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


def test_early_steps_have_their_share_of_the_loss(double_encoder, episode):
    learner = MAML(double_encoder, inner_steps=2, adapter_rate=0.3, temperature=0.2, early_weight=0.4).double()
    support, query = sides(learner, episode)
    after = []
    for steps in range(3):
        learner.inner_steps = steps
        scores = learner.logits(learner.adapt(support), query)
        after.append(F.cross_entropy(scores, query.labels))
    ((loss, _),) = learner.losses_and_logits([(support, query)])
    torch.testing.assert_close(loss, 0.2 * after[0] + 0.2 * after[1] + 0.6 * after[2])


class Kept:
    """A tensor that the graph holds on to."""

    def __init__(self, tensor):
        self.tensor = tensor


def kept_bytes(learner, support, steps):
    """Bytes that are kept for going back through the inner loop."""
    learner.inner_steps, alive = steps, weakref.WeakSet()

    def keep(tensor):
        alive.add(kept := Kept(tensor.detach()))  # with its graph it would keep the graph itself
        return kept

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
        state = learner.adapt(support)
    assert state["head/weight"].requires_grad
    storages = {kept.tensor.untyped_storage().data_ptr(): kept.tensor.untyped_storage().nbytes() for kept in alive}
    return sum(storages.values())


@pytest.mark.parametrize("first_order", [True, False])
def test_a_step_keeps_no_more_than_its_adapters_and_head(pool, first_order):
    learner = MAML(adapted_encoder(modules=("query",)), first_order=first_order)
    support = learner.support(pool)
    start, one, three = (kept_bytes(learner, support, steps) for steps in (0, 1, 3))
    state_bytes = sum(4 * value.numel() for value in learner.adapt(support).values())
    assert one - start <= 4 * state_bytes < start
    assert three - one <= 4 * 2 * state_bytes


@pytest.mark.parametrize(
    ("asked", "n_texts", "groups"),
    [
        ("auto", [10, 12], [[0, 1]]),
        ("auto", [100, 12], [[0], [1]]),
        ("loop", [10, 12], [[0], [1]]),
        ("vectorised", [100, 120], [[0, 1]]),
    ],
)
def test_small_tasks_go_side_by_side(encoder, asked, n_texts, groups):
    assert MAML(encoder, task_batching=asked).together(n_texts) == groups


def test_an_unknown_task_batching_is_refused(encoder):
    with pytest.raises(UnknownNameError, match="no task_batching named 'all'"):
        MAML(encoder, task_batching="all")


def test_second_order_leaves_the_attention_of_the_shared_encoder_as_it_is(double_encoder, episode, monkeypatch):
    """Others may embed with it meanwhile: theirs is the fused attention, whose last bits are other ones."""
    shared, seen, scores = double_encoder.backbone.config, [], inner_loop.task_scores

    def watched(encoder, *given):
        seen.append((shared._attn_implementation, encoder.backbone.config._attn_implementation))
        return scores(encoder, *given)

    monkeypatch.setattr(inner_loop, "task_scores", watched)
    before = shared._attn_implementation
    learner = MAML(double_encoder, inner_steps=1, adapter_rate=0.3, first_order=False).double()
    learner.episode_loss(*sides(learner, episode)).backward()
    assert before != "eager"
    assert {kind for kind, _ in seen} == {before}
    assert {kind for _, kind in seen} == {before, "eager"}


def upper_layers_learner(**options):
    """MAML on an encoder whose lower adapters are frozen, as by a recipe with ``start`` and ``adapter.layers``."""
    encoder = adapted_encoder(modules=("query", "dense"))
    freeze_below(encoder, 1)
    return MAML(encoder, inner_steps=2, adapter_rate=0.3, **options)


def test_adapters_that_are_frozen_below_are_not_adapted(pool):
    learner = upper_layers_learner()
    lower = learner.encoder.backbone.config.num_hidden_layers - 1
    adapted = {name for name in learner.adapt(learner.support(pool)) if name.startswith("adapter/")}
    assert learner.layers == learner.config()["layers"] == 1
    assert adapted == {f"adapter/{name}" for name in adapter_weights(learner.encoder, 1)}
    assert adapted
    assert all(f".{lower}." in name for name in adapted)


@pytest.mark.parametrize("first_order", [True, False])
def test_states_of_frozen_layers_with_adapters_give_the_same_result(tmp_path, pool, first_order):
    learner = upper_layers_learner(first_order=first_order)
    support, queries = learner.support(pool), pool.texts[:4]
    plain = learner.logits(learner.adapt(support), Texts(queries))
    with frozen_layer_cache(learner.encoder, "float32", folder=tmp_path / "states"):
        cached = learner.logits(learner.adapt(support), Texts(queries))
    torch.testing.assert_close(cached, plain, rtol=1e-4, atol=1e-5)


def test_a_saved_learner_adapts_the_layers_that_it_was_trained_to_adapt(encoder_folder, tmp_path, pool):
    encoder = TextEncoder.from_pretrained(str(encoder_folder))
    add_adapter(encoder, AdapterSettings(rank=4), seed=0)
    freeze_below(encoder, 1)
    learner = MAML(encoder).eval()
    save_checkpoint(learner, tmp_path / "checkpoint", {})
    loaded = load_checkpoint(tmp_path / "checkpoint")
    assert loaded.layers == 1
    adapted, whole = loaded.adapt(loaded.support(pool)), MAML(loaded.encoder).adapt(loaded.support(pool))
    assert set(adapted) == set(learner.adapt(learner.support(pool))) < set(whole)


def test_more_layers_than_there_are_is_refused():
    encoder = adapted_encoder()
    depth = encoder.backbone.config.num_hidden_layers
    with pytest.raises(NLPMetaError, match=f"layers must be from 1 to {depth}"):
        MAML(encoder, layers=depth + 1)
    assert MAML(encoder, layers=depth).layers is None


def counting(encoder, monkeypatch):
    """How many texts go through the encoder, added up in a list."""
    counts, embed = [], TextEncoder.embed_batch
    monkeypatch.setattr(
        TextEncoder, "embed_batch", lambda self, tokens, *rest: counts.append(len(tokens)) or embed(self, tokens, *rest)
    )
    return counts


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize(
    ("make", "passes"),
    [
        (lambda encoder: MAML(encoder, inner_steps=1), 1),
        (lambda encoder: MAML(encoder, inner_steps=3), 3),
        (lambda encoder: MAML(encoder, inner_steps=0), 1),
        (lambda encoder: ANIL(encoder, inner_steps=10), 1),
    ],
    ids=["1 step", "3 steps", "none", "head only"],
)
def test_prototypes_and_the_first_inner_step_share_a_pass(episode, monkeypatch, make, passes, trains):
    learner = make(adapted_encoder())
    support, _ = sides(learner, episode)
    counts = counting(learner.encoder, monkeypatch)
    with torch.set_grad_enabled(trains):
        learner.adapt(support)
    assert sum(counts) == passes * len(support)


@pytest.mark.parametrize("kind", [MAML, ANIL])
@pytest.mark.parametrize("frozen", [True, False])
def test_the_shared_pass_gives_what_two_passes_give(double_encoder, episode, monkeypatch, kind, frozen):
    learner = kind(double_encoder, inner_steps=2, names=True, adapter_rate=0.3).double()
    double_encoder.requires_grad_(not frozen)
    supports = [learner.support(each) for each in (episode.support, episode.query)]
    monkeypatch.setattr(
        "nlpmeta.learners.maml.step_from", lambda _, *rest, keep, seen: first_order(double_encoder, *rest, seen=seen)
    )
    first_order = inner_loop.first_order_step
    with torch.no_grad():
        apart = learner._steps(supports)
        monkeypatch.undo()
        together = learner._steps(supports)
    for mine, theirs in zip(together, apart, strict=True):
        assert not any(value.requires_grad for value in mine.values())
        for name, value in mine.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-9, atol=1e-10)
    monkeypatch.setattr("nlpmeta.learners.maml.CHUNK_TOKENS", 1)  # too many to be kept: the first step goes by chunks
    with torch.no_grad():
        by_chunks = learner._steps(supports)[-1]
    for name, value in by_chunks.items():
        torch.testing.assert_close(value, together[-1][name], rtol=1e-9, atol=1e-10)


def support_loss(learner, state, support):
    scores = learner.logits(state, Texts(support.texts))
    weights = inner_loop.balanced_weights(support.labels, support.n_way)
    return float((weights * F.cross_entropy(scores, support.labels, reduction="none")).mean())


@pytest.mark.parametrize("head_rate", [0.5, 500.0])
@pytest.mark.parametrize("head_only", [False, True])
def test_in_use_a_step_that_raises_the_loss_on_the_support_is_not_kept(double_encoder, pool, head_rate, head_only):
    learner = MAML(double_encoder, inner_steps=3, adapter_rate=0.3, head_rate=head_rate, head_only=head_only).double()
    support = learner.support(pool)
    with torch.no_grad():
        last = support_loss(learner, learner.train().adapt(support), support)
        losses = [support_loss(learner, learner.stepping(steps).adapt(support), support) for steps in range(4)]
        kept = support_loss(learner.eval(), learner.adapt(support), support)
    assert kept == pytest.approx(min(losses), rel=1e-6)
    assert (last > min(losses)) == (head_rate > 1)  # the large rate does overshoot


def test_the_losses_that_steps_report_are_those_of_their_texts_in_chunks_too(double_encoder, pool, monkeypatch):
    learner = MAML(double_encoder, inner_steps=2, adapter_rate=0.3).double().eval()
    support, whole, parts = learner.support(pool), [], []
    with torch.no_grad():
        learner._steps([support], whole)
        monkeypatch.setattr(inner_loop, "CHUNK_TOKENS", 8)
        monkeypatch.setattr("nlpmeta.learners.maml.CHUNK_TOKENS", 8)
        learner._steps([support], parts)
    assert len(whole) == len(parts) == 3
    torch.testing.assert_close(torch.stack(parts), torch.stack(whole), rtol=1e-5, atol=1e-6)
