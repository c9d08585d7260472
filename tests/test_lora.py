import shutil

import pytest
import torch
from conftest import make_encoder, scale_adapter
from peft import PeftModel

from nlpmeta.encoder.lora import (
    AdapterSettings,
    adapter_weights,
    add_adapter,
    freeze_below,
    frozen_adapters_digest,
    has_adapter,
    load_adapter,
    lowest_trained_layer,
    save_adapter,
)
from nlpmeta.encoder.text_encoder import TextEncoder
from nlpmeta.errors import ModelFolderError, NLPMetaError

TEXTS = ["ball goal", "rice soup bread", "bank", "loan cash rate team match"]


def adapted_encoder(**settings):
    """A small encoder with adapters away from their start, where B is zero and hides mistakes."""
    encoder = make_encoder()
    add_adapter(encoder, AdapterSettings(rank=4, **settings), seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in adapter_weights(encoder).values():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    return encoder


def test_fresh_adapters_change_no_embedding_and_no_random_state(encoder):
    before, state = encoder.encode(TEXTS), torch.get_rng_state()
    add_adapter(encoder, AdapterSettings(rank=4), seed=1)
    assert torch.equal(encoder.encode(TEXTS), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert has_adapter(encoder)


def test_only_adapters_are_trainable_and_get_gradients():
    encoder = adapted_encoder()
    trainable = {name for name, weight in encoder.backbone.named_parameters() if weight.requires_grad}
    assert trainable == set(adapter_weights(encoder))
    encoder.embed_tokens(encoder.tokenize(TEXTS)).square().sum(0)[0].backward()
    assert all(weight.grad.abs().max() > 0 for weight in adapter_weights(encoder).values())


def test_weights_given_by_name_replace_the_stored_ones():
    encoder = adapted_encoder()
    zero = {name: torch.zeros_like(weight) for name, weight in adapter_weights(encoder).items()}
    with torch.no_grad():
        torch.testing.assert_close(encoder(TEXTS, adapter=zero), make_encoder()(TEXTS))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21 asks for it
def test_peft_loads_the_saved_files_and_gives_the_same_embeddings(tmp_path):
    encoder = adapted_encoder(layers=1)
    save_adapter(encoder, tmp_path)
    base = make_encoder()
    theirs = TextEncoder(PeftModel.from_pretrained(base.backbone, tmp_path), base.tokenizer, max_length=32)
    torch.testing.assert_close(theirs.encode(TEXTS), encoder.encode(TEXTS))
    assert (theirs.encode(TEXTS) - make_encoder().encode(TEXTS)).abs().max() > 0.01


def test_loading_gives_the_same_embeddings_to_the_last_bit(tmp_path):
    encoder, loaded = adapted_encoder(dropout=0.3), make_encoder()
    save_adapter(encoder, tmp_path)
    load_adapter(loaded, tmp_path)
    assert torch.equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    assert all(weight.requires_grad for weight in adapter_weights(loaded).values())


def test_float16_halves_the_file_and_keeps_the_embeddings(tmp_path):
    encoder, loaded = adapted_encoder(), make_encoder()
    save_adapter(encoder, tmp_path / "full")
    save_adapter(encoder, tmp_path / "half", storage="float16")
    load_adapter(loaded, tmp_path / "half")
    tensors = sum(weight.numel() for weight in adapter_weights(encoder).values())
    sizes = [(tmp_path / kind / "adapter_model.safetensors").stat().st_size for kind in ("full", "half")]
    assert sizes[0] - sizes[1] == pytest.approx(2 * tensors, rel=0.01)
    torch.testing.assert_close(loaded.encode(TEXTS), encoder.encode(TEXTS), rtol=0, atol=2e-3)
    assert all(weight.dtype == torch.float32 for weight in adapter_weights(loaded).values())
    save_adapter(loaded, tmp_path / "again")  # what fits into float16 is kept there, without loss
    again = make_encoder()
    load_adapter(again, tmp_path / "again")
    assert (tmp_path / "again" / "adapter_model.safetensors").stat().st_size == sizes[1]
    assert torch.equal(again.encode(TEXTS), loaded.encode(TEXTS))


def test_scaling_mixes_between_frozen_and_trained():
    encoder, frozen = adapted_encoder(), make_encoder().encode(TEXTS)
    trained = encoder.encode(TEXTS)
    with torch.no_grad():
        assert torch.equal(encoder.merged(0.0)(TEXTS), frozen)
        assert torch.equal(encoder.merged(1.0)(TEXTS), trained)
    scale_adapter(encoder, 0.5)
    half = encoder.encode(TEXTS)
    assert 0 < (half - frozen).norm() < (trained - frozen).norm()
    scale_adapter(encoder, 1.0)
    torch.testing.assert_close(encoder.encode(TEXTS), trained)


def test_dropout_of_adapters_is_on_in_training_only_and_the_transformer_never_drops():
    encoder = adapted_encoder(dropout=0.5)
    encoder.train()
    assert not torch.equal(encoder(TEXTS), encoder(TEXTS))
    encoder.eval()
    assert torch.equal(encoder(TEXTS), encoder(TEXTS))
    plain = make_encoder(dropout=0.5).train()
    assert torch.equal(plain(TEXTS), plain(TEXTS))


def test_adapters_in_the_top_layer_leave_the_lower_one_alone():
    encoder = adapted_encoder(layers=1)
    assert {name.split(".")[2] for name in adapter_weights(encoder)} == {"1"}
    assert lowest_trained_layer(encoder) == 1
    assert lowest_trained_layer(adapted_encoder()) == 0


def test_the_start_depends_on_the_seed_alone():
    starts = []
    for seed in (1, 1, 2):
        encoder = make_encoder()
        add_adapter(encoder, AdapterSettings(rank=4), seed=seed)
        starts.append(torch.cat([weight.flatten() for weight in adapter_weights(encoder).values()]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modules": ("kwery",)}, "No linear layer of this encoder is named kwery; it has dense, key, query, value"),
        ({"layers": 5}, "top 5 layers were requested; this encoder has 2"),
    ],
)
def test_impossible_adapters_are_refused_with_what_there_is(encoder, settings, message):
    with pytest.raises(NLPMetaError, match=message):
        add_adapter(encoder, AdapterSettings(**settings), seed=0)


def test_a_second_adapter_is_refused(tmp_path):
    encoder = adapted_encoder()
    save_adapter(encoder, tmp_path)
    with pytest.raises(NLPMetaError, match="has an adapter already"):
        add_adapter(encoder, AdapterSettings(), seed=0)
    with pytest.raises(NLPMetaError, match="has an adapter already"):
        load_adapter(encoder, tmp_path)


def test_missing_cut_and_foreign_adapter_files_are_named(tmp_path):
    save_adapter(adapted_encoder(), tmp_path / "whole")
    for damage, message in (("missing", "has no adapter_model"), ("cut", "is damaged"), ("rank", "shape|damaged|fit")):
        folder = tmp_path / damage
        shutil.copytree(tmp_path / "whole", folder)
        weights = folder / "adapter_model.safetensors"
        if damage == "missing":
            weights.unlink()
        elif damage == "cut":
            weights.write_bytes(weights.read_bytes()[:-40])
        else:
            config = folder / "adapter_config.json"
            config.write_text(config.read_text().replace('"r": 4', '"r": 8'))
        with pytest.raises(ModelFolderError, match=message):
            load_adapter(make_encoder(), folder)


def test_merged_adapters_embed_alike_and_leave_the_encoder_as_it_was():
    encoder = adapted_encoder()
    apart = encoder(TEXTS).detach()
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    with torch.no_grad():
        merged = encoder.merged()(TEXTS)
    torch.testing.assert_close(merged, apart, atol=1e-5, rtol=1e-4)
    after = encoder.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert torch.equal(encoder(TEXTS).detach(), apart)


def test_merged_weights_are_those_that_peft_makes():
    encoder, theirs = adapted_encoder(), adapted_encoder()
    for module in theirs.backbone.modules():
        if hasattr(module, "lora_A"):
            module.merge(safe_merge=True)
    ours = dict(encoder.merged().backbone.named_parameters())
    merged = {n.replace(".base_layer.", "."): w for n, w in theirs.backbone.named_parameters() if ".lora_" not in n}
    assert ours.keys() == merged.keys()
    assert all(torch.equal(ours[name], weight) for name, weight in merged.items())


@pytest.mark.parametrize("batch_tokens", [8, 1024])
def test_each_text_is_embedded_with_the_adapter_that_is_its_own(batch_tokens):
    encoder = adapted_encoder()
    texts = [" ".join(["ball"] * length) for length in (5, 1, 3, 2, 4, 1)]
    owner = torch.tensor([2, 0, 1, 1, 0, 2])
    generator = torch.Generator().manual_seed(0)
    stacked = {
        name: weight.detach() + torch.randn(3, *weight.shape, generator=generator)
        for name, weight in adapter_weights(encoder).items()
    }
    together = encoder.embed_tokens(
        encoder.tokenize(texts), adapter=stacked, adapter_of=owner, batch_tokens=batch_tokens
    )
    for row, text in enumerate(texts):
        alone = encoder([text], adapter={name: weight[owner[row]] for name, weight in stacked.items()})
        torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-5)


def test_only_the_top_layers_of_a_start_train_on():
    encoder = adapted_encoder()
    freeze_below(encoder, 1)
    trained = {name for name, weight in adapter_weights(encoder).items() if weight.requires_grad}
    assert trained and all(".layer.1." in name for name in trained)
    assert any(".layer.0." in name for name in adapter_weights(encoder))
    assert lowest_trained_layer(encoder) == 1
    before = frozen_adapters_digest(encoder)
    with torch.no_grad():
        adapter_weights(encoder)[min(trained)].add_(1.0)
    assert frozen_adapters_digest(encoder) == before != ""
    with torch.no_grad():
        next(weight for weight in adapter_weights(encoder).values() if not weight.requires_grad).add_(1.0)
    assert frozen_adapters_digest(encoder) != before
    with pytest.raises(NLPMetaError, match="top 3 layers were requested; this encoder has 2"):
        freeze_below(encoder, 3)
