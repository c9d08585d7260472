"""The copy with merged weights: what it shares, when it is made anew, and that nothing else sees it being made."""

import copy
import gc
import weakref

import pytest
import torch
from conftest import make_encoder, scale_adapter

from nlpmeta.data.inputs import BETWEEN, Pair
from nlpmeta.encoder.graphs import pooled
from nlpmeta.encoder.lora import AdapterSettings, adapter_weights, add_adapter
from nlpmeta.encoder.merged import INNER, _known, merged_backbone, with_weights
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.encoder.views import ADAPTED, FROZEN, VIEWS, ScaledEncoder
from nlpmeta.errors import ModelFolderError

TEXTS = ["ball goal match", "rice", "bank loan cash rate ball"]


def adapted(noise=0.1, **settings):
    """An encoder whose adapters do something."""
    encoder = make_encoder()
    add_adapter(encoder, AdapterSettings(rank=4, **settings), seed=0)
    with torch.no_grad():
        for i, weight in enumerate(adapter_weights(encoder).values()):
            weight.copy_(noise * torch.randn(weight.shape, generator=torch.Generator().manual_seed(i)))
    return encoder


def places(backbone):
    return {weight.data_ptr() for weight in backbone.parameters()}


def test_the_copy_shares_all_weights_but_those_that_adapters_change():
    encoder = adapted()
    merged, frozen = encoder.merged(), encoder.merged(FROZEN)
    words = encoder.backbone.get_input_embeddings().weight.data_ptr()
    assert merged.backbone.get_input_embeddings().weight.data_ptr() == words
    assert places(frozen.backbone) < places(encoder.backbone)
    own = places(merged.backbone) - places(encoder.backbone)
    assert len(own) == len(adapter_weights(encoder)) // 2  # one weight for each pair of thin matrices
    assert not any(weight.requires_grad for weight in merged.backbone.parameters())


def test_the_view_of_lower_layers_is_what_two_thirds_of_them_give():
    encoder = adapted()
    depth = encoder.backbone.config.num_hidden_layers
    kept, lower = round(2 * depth / 3), encoder.merged(INNER)
    assert 0 < kept < depth and lower.backbone.config.num_hidden_layers == kept
    ids, mask = encoder.pad(encoder.tokenize(TEXTS))
    with torch.no_grad():
        every = encoder.merged(ADAPTED).backbone(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        expected = pooled(every[kept], mask, "mean", normalise=True)
        torch.testing.assert_close(lower.embed_tokens(encoder.tokenize(TEXTS)), expected)
    assert not torch.allclose(expected, encoder.encode(TEXTS), atol=1e-3)
    assert places(lower.backbone) < places(encoder.merged(ADAPTED).backbone)  # no weight is there twice
    assert encoder.merged(INNER).backbone is lower.backbone
    assert encoder.backbone.config.num_hidden_layers == depth == len(encoder.backbone.encoder.layer)


@pytest.mark.parametrize("texts", [TEXTS, [Pair.of("ball goal", "rice"), Pair.of("bank", "loan cash")]])
def test_lower_layers_are_read_in_the_pass_of_the_whole_encoder(texts, monkeypatch):
    encoder = adapted() if isinstance(texts[0], str) and BETWEEN not in texts[0] else adapted().of_pairs()
    views, passes = ScaledEncoder(encoder.reading(32, 4), VIEWS), []  # texts of several windows
    plain = TextEncoder.embed_batch

    def noted(self, *given):
        passes.append(self.backbone.config.num_hidden_layers)
        return plain(self, *given)

    monkeypatch.setattr(TextEncoder, "embed_batch", noted)
    together, depth = views.encode(texts), encoder.backbone.config.num_hidden_layers
    assert set(passes) == {depth} and len(passes) % 2 == 0
    torch.testing.assert_close(together, torch.cat([views.select([view]).encode(texts) for view in VIEWS], dim=1))
    passes.clear()
    monkeypatch.setattr("nlpmeta.encoder.views._layer_beside", lambda *_: None)  # a transformer with a norm at its end
    torch.testing.assert_close(views.encode(texts), together)
    assert set(passes) == {depth, round(2 * depth / 3)}


def test_an_encoder_without_adapters_is_its_own_copy(encoder):
    assert encoder.merged() is encoder
    assert encoder.merged(FROZEN) is encoder


def test_the_copy_is_made_once_and_for_no_more_than_two_scales():
    encoder = adapted()
    first = encoder.merged().backbone
    assert encoder.merged().backbone is first
    assert encoder.merged(ADAPTED).backbone is first  # the scale that it has
    for factor in (0.1, 0.2, 0.3, 0.4):
        encoder.merged(factor)
    assert len(_known[encoder.backbone].copies) == 2
    assert encoder.merged().backbone is not first


def test_the_copies_go_with_their_encoder():
    encoder = adapted()
    encoder.encode(TEXTS)
    gone = weakref.ref(encoder.backbone)
    del encoder
    gc.collect()
    assert gone() is None


def _step(encoder):
    weights = list(adapter_weights(encoder).values())
    optimiser = torch.optim.AdamW(weights, lr=0.1)
    encoder(TEXTS).square().sum(0)[0].backward()
    optimiser.step()
    optimiser.zero_grad()


def _behind_the_back_of_autograd(encoder):
    weight = list(adapter_weights(encoder).values())[-1]
    weight.data += torch.eye(*weight.shape)


def _a_frozen_bias(encoder):
    with torch.no_grad():
        encoder.backbone.embeddings.LayerNorm.bias += 1


def _another_tensor(encoder):
    weight = list(adapter_weights(encoder).values())[-1]
    weight.data = torch.eye(*weight.shape)


def _another_scale(encoder):
    scale_adapter(encoder, 0.5)


def _loaded(encoder):
    encoder.load_state_dict({name: weight * 1.5 for name, weight in encoder.state_dict().items()})


CHANGES = (_step, _behind_the_back_of_autograd, _a_frozen_bias, _another_tensor, _another_scale, _loaded)


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_no_stale_weight_is_ever_embedded_with(change, trains):
    encoder = adapted()
    for weight in adapter_weights(encoder).values():
        weight.requires_grad_(trains or change is _step)
    before = encoder.encode(TEXTS)
    change(encoder)
    after = encoder.encode(TEXTS)
    assert (after - before).abs().max() > 1e-4
    with torch.no_grad():
        torch.testing.assert_close(after, encoder(TEXTS), atol=1e-5, rtol=1e-4)


def test_the_frozen_view_outlives_a_training_step_and_both_views_are_right():
    encoder = adapted()
    for weight in adapter_weights(encoder).values():
        weight.requires_grad_(True)
    views, frozen = ScaledEncoder(encoder, VIEWS), encoder.merged(FROZEN).backbone
    views.encode(TEXTS)
    _step(encoder)
    assert encoder.merged(FROZEN).backbone is frozen
    seen = views.encode(TEXTS)
    assert torch.equal(seen[:, views.columns(FROZEN)], make_encoder().encode(TEXTS))
    assert torch.equal(seen[:, views.columns(ADAPTED)], encoder.encode(TEXTS))
    assert torch.equal(seen[:, views.columns(INNER)], ScaledEncoder(encoder, [INNER]).encode(TEXTS))


def test_nothing_that_computes_in_bfloat16_around_it_rounds_the_merged_weights():
    plain, inside = adapted(), adapted()
    expected = plain.merged().backbone.state_dict()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        found = inside.merged().backbone.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert not any(weight.is_inference() for weight in found.values())


def test_adapters_that_are_not_finite_are_refused():
    encoder = adapted()
    next(iter(adapter_weights(encoder).values())).data.fill_(float("inf"))
    with pytest.raises(ModelFolderError, match="not finite"):
        encoder.encode(TEXTS)


def test_a_copy_of_the_encoder_has_merged_weights_of_its_own():
    encoder = adapted()
    before = encoder.encode(TEXTS)
    other = copy.deepcopy(encoder)
    _behind_the_back_of_autograd(other)
    assert torch.equal(encoder.encode(TEXTS), before)
    assert not torch.equal(other.encode(TEXTS), before)


def test_training_does_not_switch_on_the_dropout_of_the_copy():
    encoder = adapted(dropout=0.5)
    before = encoder.encode(TEXTS)
    encoder.train()
    assert torch.equal(encoder.encode(TEXTS), before)
    assert not any(module.training for module in encoder.merged().backbone.modules())


def test_weights_put_in_place_are_seen_by_the_copy_alone_and_carry_gradients():
    encoder = adapted()
    name, stored = next(iter(adapter_weights(encoder).items()))
    mine = torch.ones_like(stored, requires_grad=True)
    before = encoder(TEXTS).detach()
    twin = with_weights(encoder.backbone, {name: mine})
    ids, mask = encoder.pad(encoder.tokenize(TEXTS))
    twin(input_ids=ids, attention_mask=mask).last_hidden_state.square().sum().backward()
    assert mine.grad.abs().max() > 0
    assert stored.grad is None
    assert torch.equal(encoder(TEXTS).detach(), before)
    assert merged_backbone(encoder.backbone) is encoder.merged().backbone
